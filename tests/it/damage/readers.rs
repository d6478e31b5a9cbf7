//! Clients that read nothing more: on each node the outbox of one fills up, it is cut off, and it catches up later.

use serde_json::json;

use super::{Damaged, scale};
use crate::support::cluster::{Cluster, at};
use crate::support::*;

/// More than a node and the kernel hold for one connection.
const MESSAGES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_each_node_that_stops_reading_is_cut_off_catches_up_and_nobody_else_notices() {
    let mut damaged = Damaged::new(Cluster::start_with(&[("connections.stall_s", "2")]).await);
    let felt = damaged
        .suffers("one member of each node read nothing more", 12, async |cluster| {
            let (mut speaker, _) = cluster.client(0, "speaker").await;
            let (mut slow, mut users) = (Vec::new(), Vec::new());
            for node in 0..3 {
                let (client, user) = cluster.client(node, "slow").await;
                slow.push(client);
                users.push(user);
            }
            let [a, b, c] = &mut slow[..] else { unreachable!("three nodes") };
            let sid = plain(&mut speaker, &mut [a, b, c]).await;
            let long = "x".repeat(60_000);
            let mut said = Vec::new();
            for _ in 0..MESSAGES {
                said.push(speaker.ok("send_msg", text(&sid, &long)).await["seq"].clone());
                speaker.log.clear();
            }
            for (node, (mut client, user)) in slow.into_iter().zip(users).enumerate() {
                let code = client.closed().await;
                assert!([4004, 1006].contains(&code), "{code}");
                assert!(cluster.nodes[node].metric("conclave_slow_client_cuts_total").await >= 1);
                let got: Vec<_> = client.all("Msg").iter().map(|msg| msg["seq"].clone()).collect();
                assert!(said.starts_with(&got) && got.len() < said.len(), "a part, and nothing twice");
                let mut back = at(&user, &cluster.nodes[(node + 1) % 3]).authenticated().await;
                let after = got.last().unwrap_or(&said[0]).as_u64().expect("a seq") - u64::from(got.is_empty());
                back.ok("resume", json!({"cursors": {sid.as_str(): {"seq": after}}})).await;
                for seq in &said[got.len()..] {
                    assert_eq!(back.expect("Msg").await["seq"], *seq);
                }
            }
        })
        .await;
    assert!(felt.others < scale().slack, "{felt}");
}
