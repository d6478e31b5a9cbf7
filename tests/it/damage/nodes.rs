//! Nodes that are killed, stopped, drained, put to sleep, and robbed.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Damaged, scale};
use crate::support::cluster::{Cluster, LEASE};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_followed_as_soon_as_its_lease_is_over() {
    let mut damaged = Damaged::new(Cluster::start().await);
    for node in 0..3 {
        let felt = damaged
            .node_suffers(node, "was killed and started again", 7, async |cluster, _| {
                cluster.nodes[node].signal("KILL");
                cluster.nodes[node].terminated().await;
                cluster.restart(node).await;
            })
            .await;
        assert!(felt.its < LEASE + Duration::from_secs(1) + scale().slack, "{felt}");
        assert!(felt.others < scale().slack, "{felt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_replaced_one_after_another_and_nobody_waits_for_a_lease() {
    let mut damaged = Damaged::new(Cluster::start().await);
    let felt = damaged
        .suffers("each node in turn was stopped by SIGTERM and started again", 10, async |cluster| {
            for node in 0..3 {
                cluster.nodes[node].terminate();
                assert!(cluster.nodes[node].terminated().await.success());
                cluster.restart(node).await;
            }
        })
        .await;
    assert!(felt.others < Duration::from_millis(200) + scale().slack, "{felt}");
    let felt = damaged
        .node_suffers(1, "was drained by an operator", 6, async |cluster, id| {
            let drain = async {
                cluster.admin(&["drain", id]).await;
                within("the node to be empty", async {
                    let node = &cluster.nodes[1];
                    while node.metric("conclave_sessions_live").await + node.metric("conclave_connections").await > 0 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
                .await;
            };
            let waited = longest_wait_from_elsewhere(cluster, 1, drain).await;
            assert!(waited < Duration::from_millis(200) + scale().slack, "{waited:?}");
            cluster.nodes[1].terminate();
            assert!(cluster.nodes[1].terminated().await.success());
            cluster.restart(1).await;
        })
        .await;
    assert!(felt.its.max(felt.others) < Duration::from_millis(200) + scale().slack, "{felt}");
}

/// Speaks in a session that lives on a node, as a member who is connected to another one, message by message until
/// something is done: how long the longest took to be acknowledged.
async fn longest_wait_from_elsewhere(cluster: &Cluster, node: usize, done: impl Future<Output = ()>) -> Duration {
    let (mut owner, _) = cluster.client(node, "owner").await;
    let (mut member, _) = cluster.client((node + 1) % 3, "member").await;
    let sid = plain(&mut owner, &mut [&mut member]).await;
    owner.close().await;
    assert_eq!(cluster.sessions().await[&sid]["owner"], cluster.id_of(node).await.as_str());
    let mut longest = Duration::ZERO;
    tokio::pin!(done);
    loop {
        let asked = Instant::now();
        // What was asked is answered before the end.
        let speaking = async {
            member.ok("send_msg", text(&sid, "still here")).await;
            longest = longest.max(asked.elapsed());
        };
        let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_millis(5), &mut done), speaking);
        if ended.is_ok() {
            writeln!(std::io::stderr(), "damage: a member elsewhere waited for at most {} ms", longest.as_millis())
                .expect("standard error");
            return longest;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_wakes_behind_its_lease_with_commits_in_hand_harms_nobody() {
    let mut damaged = Damaged::new(Cluster::start().await);
    let felt = damaged
        .node_suffers(0, "slept through its lease", 10, async |cluster, id| {
            cluster.nodes[0].signal("STOP");
            cluster.until_owns_nothing(id).await;
            cluster.nodes[0].signal("CONT");
            cluster.until_ready().await;
        })
        .await;
    // Its own clients, who are in others' sessions too, had no word from it until it woke.
    assert!(felt.its.max(felt.others) < 2 * (LEASE + Duration::from_secs(1)) + scale().slack, "{felt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_both_think_they_own_a_session_one_writes() {
    const ROB: &str = "UPDATE sessions SET fence = fence + 1, owner_node =
        (SELECT node_id FROM nodes WHERE expires_at > conclave_now() AND node_id <> sessions.owner_node
         ORDER BY random() LIMIT 1) WHERE owner_node IS NOT NULL AND ended_at IS NULL";
    let mut damaged = Damaged::new(Cluster::start().await);
    let felt = damaged
        .suffers("all sessions were given to other nodes, ten times, and their owners not told", 8, async |cluster| {
            for _ in 0..10 {
                Postgres::execute_at(&cluster.database(), ROB).await;
                cluster.until_all_are_spoken_in().await;
            }
        })
        .await;
    assert!(felt.others < Duration::from_secs(1) + scale().slack, "{felt}");
}
