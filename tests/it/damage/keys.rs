//! Room keys whose replacement is broken off: the node of whoever hands them out is killed in the middle of it.

use std::io::Write;

use serde_json::{Value, json};

use super::Damaged;
use crate::support::cluster::{Cluster, at};
use crate::support::*;

/// A message under the new key.
const NEW: &str = "under the new key";

/// Gives keys to everybody whom holders are asked for, until the session's key is another one; its epoch. Nobody speaks
/// meanwhile, unless the rotation is void: a session that was without a node until the deadline is without a rotator.
async fn until_rotated(cluster: &Cluster, holders: &mut [&mut Client], others: &mut [&mut Client], sid: &str) -> u64 {
    let epoch = within("the rotation to be finished", async {
        loop {
            for holder in holders.iter_mut() {
                holder.barrier().await;
                for ask in holder.take("SendRoomKeyNotification") {
                    let (user_id, epoch) = (ask["user_id"].as_str().expect("an id"), ask["key_epoch"].as_u64());
                    let keys = keys_for(sid, &[user_id], epoch.expect("an epoch"));
                    while holder.request("send_room_keys", keys.clone()).await.is_err_and(|no| no["retryable"] == true)
                    {
                    }
                }
            }
            let key = cluster.admin(&["session", sid]).await["room_key"].take();
            match (key["phase"]["is"].as_str(), key["epoch"].as_u64()) {
                (Some("steady"), Some(epoch)) if epoch > 1 => return epoch,
                (Some("marked"), _) => drop(holders[0].request("send_msg", text(sid, "a word")).await),
                _ => {}
            }
        }
    })
    .await;
    let is_it = |body: &Value| body["key_epoch"] == epoch;
    for client in holders.iter_mut() {
        client.expect_where("RoomKeyRotated", is_it).await;
    }
    for client in others.iter_mut() {
        client.expect_where("RoomKeyRotated", is_it).await;
    }
    epoch
}

/// Says something under the new key until it is taken, which all see, behind their key.
async fn goes_on(speaker: &mut Client, others: &mut [&mut Client], sid: &str, epoch: u64) {
    let mut message = cipher(sid, epoch);
    message["client_msg_id"] = json!(NEW);
    within("a message under the new key", async {
        while let Err(refusal) = speaker.request("send_msg", message.clone()).await {
            assert_eq!(refusal["retryable"], true, "{refusal}");
        }
    })
    .await;
    for client in others.iter_mut() {
        client.expect_where("Msg", |body| body["client_msg_id"] == NEW).await;
        let msg = client.place(|frame| frame["type"] == "Msg" && frame["body"]["client_msg_id"] == NEW);
        let of_epoch = |frame: &Value, name: &str| frame["type"] == name && frame["body"]["key_epoch"] == epoch;
        assert!(client.place(|frame| of_epoch(frame, "RoomKeyRotated")) < msg);
        assert!(client.place(|frame| of_epoch(frame, "ReceiveRoomKeyNotification")) < msg, "its key came before");
    }
    let seen = info(speaker, sid).await;
    assert_eq!(seen["key_epoch"], epoch);
    assert!(seen["members"].as_array().expect("members").iter().all(|member| member["has_key"] == true), "{seen}");
}

/// Alice, who rotates, and Dave are on a node that is killed when Bob alone has the new key; Bob and Carol are on the
/// other two. The session lives on Alice's node, or on Bob's.
async fn broken_off(cluster: &mut Cluster, node: usize, lives_there: bool, comes_back_at_once: bool) {
    let (next, last) = ((node + 1) % 3, (node + 2) % 3);
    let (mut bob, _) = cluster.client(next, "bob").await;
    let (mut carol, _) = cluster.client(last, "carol").await;
    let (mut dave, dave_user) = cluster.client(node, "dave").await;
    let alice_user = cluster.nodes[node].user("alice").await;
    let first = if lives_there { node } else { next };
    let mut alice = at(&alice_user, &cluster.nodes[first]).connect().await;
    let sid = encrypted(&mut alice, &mut [&mut bob, &mut carol, &mut dave]).await;
    if !lives_there {
        alice.close().await;
        alice = alice_user.connect().await;
    }
    alice.ok("e2eeize_session", of(&sid)).await;
    for _ in 0..3 {
        alice.expect("SendRoomKeyNotification").await;
    }
    alice.ok("send_room_keys", keys_for(&sid, &[&bob.user_id], 2)).await;
    bob.expect_where("ReceiveRoomKeyNotification", |body| body["key_epoch"] == 2).await;
    cluster.nodes[node].signal("KILL");
    cluster.nodes[node].terminated().await;
    let elsewhere = at(&alice_user, &cluster.nodes[last]);
    let (mut alice, epoch) = if comes_back_at_once {
        let mut alice = elsewhere.connect().await;
        let epoch = until_rotated(cluster, &mut [&mut alice, &mut bob], &mut [&mut carol], &sid).await;
        (alice, epoch)
    } else {
        // Nobody who rotates: when the deadline has passed, Bob goes on.
        let epoch = until_rotated(cluster, &mut [&mut bob], &mut [&mut carol], &sid).await;
        (elsewhere.connect().await, epoch)
    };
    let mut dave = at(&dave_user, &cluster.nodes[next]).connect().await;
    goes_on(&mut bob, &mut [&mut carol, &mut dave], &sid, epoch).await;
    alice.expect_where("Msg", |body| body["client_msg_id"] == NEW).await;
    cluster.restart(node).await;
    let where_it_lived = if lives_there { "lived there" } else { "lived elsewhere" };
    let who = if comes_back_at_once { "came back at once" } else { "stayed away" };
    writeln!(
        std::io::stderr(),
        "damage: node {node} was killed in the middle of a handover: the session {where_it_lived}, the rotator {who}, \
         everybody has the key of epoch {epoch}"
    )
    .expect("standard error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_that_a_nodes_death_broke_off_is_finished_and_everybody_has_the_key() {
    let deadline = [("e2ee.rotation_deadline_s", "7"), ("e2ee.rotation_deadline_per_member_ms", "1")];
    let mut cluster = Cluster::start_with(&deadline).await;
    broken_off(&mut cluster, 0, true, false).await;
    broken_off(&mut cluster, 1, true, true).await;
    broken_off(&mut cluster, 2, false, false).await;
    broken_off(&mut cluster, 0, false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_replaced_all_the_time_outlive_nodes() {
    let settings = [("e2ee.rotation_deadline_s", "5"), ("e2ee.rotation_deadline_per_member_ms", "1")];
    let scenario = "rotation --sessions 3 --members 4 --rate 30 --rotate-every 1s --change-every 2s".to_owned();
    let mut damaged = Damaged::during(Cluster::start_with(&settings).await, scenario, 3);
    for node in 0..2 {
        damaged
            .node_suffers(node, "was killed and started again while keys were replaced", 8, async |cluster, _| {
                cluster.nodes[node].signal("KILL");
                cluster.nodes[node].terminated().await;
                cluster.restart(node).await;
            })
            .await;
    }
}
