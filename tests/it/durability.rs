//! What is acknowledged is stored: across a stop, and across a kill -9 at any moment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn every_acknowledged_message_is_there_after_a_kill_and_none_twice() {
    let mut node = Node::start(&[]).await;
    let mut users = Vec::new();
    for _ in 0..10 {
        users.push(node.user("sender").await);
    }
    let mut owner = users[0].connect().await;
    let sid = plain(&mut owner, &mut []).await;
    owner.ok("set_session_info", json!({"session_id": sid, "join_policy": "open"})).await;
    for user in &users[1..] {
        user.connect().await.ok("join_session", of(&sid)).await;
    }
    let sent = Arc::new(AtomicU64::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for (who, user) in users.iter().enumerate() {
        let (user, sid, sent) = (user.clone(), sid.clone(), Arc::clone(&sent));
        senders.spawn(async move {
            let mut client = user.connect().await;
            let mut acknowledged = Vec::new();
            // Eight under way at a time, until the node dies under them.
            'sending: for round in 0.. {
                let mut ids = Vec::new();
                for number in 0..8 {
                    let mut body = text(&sid, "x");
                    let name = format!("{who}-{round}-{number}");
                    body["client_msg_id"] = json!(name);
                    ids.push((client.send("send_msg", body).await, name));
                }
                for (id, name) in ids {
                    match client.try_answer(id).await {
                        Some(Ok(reply)) => acknowledged.push((name, reply["seq"].as_u64().expect("a seq"))),
                        Some(Err(error)) => panic!("{error}"),
                        None => break 'sending,
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            acknowledged
        });
    }
    within("a thousand sends", async {
        while sent.load(Ordering::Relaxed) < 1000 {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
    node.kill_and_restart().await;
    let mut acknowledged = HashMap::new();
    while let Some(sender) = senders.join_next().await {
        acknowledged.extend(sender.expect("no panic"));
    }
    assert!(acknowledged.len() >= 1000);

    let mut owner = User { address: node.address, ..users[0].clone() }.connect().await;
    let mut stored = HashMap::new();
    let mut after = 0;
    loop {
        let body = json!({"session_id": sid, "after_seq": after, "limit": 1000});
        let page = owner.ok("fetch_msgs", body).await;
        for event in page["events"].as_array().expect("events") {
            let seq = event["body"]["seq"].as_u64().expect("a seq");
            assert_eq!(seq, after + 1, "dense and ascending");
            after = seq;
            if let Some(name) = event["body"]["client_msg_id"].as_str() {
                assert_eq!(stored.insert(name.to_owned(), seq), None, "{name} twice");
            }
        }
        if page["more"] == false {
            break;
        }
    }
    for (name, seq) in &acknowledged {
        assert_eq!(stored.get(name), Some(seq), "{name} was acknowledged");
    }
    // A retry of one that was stored, by the same sender, is answered with the same place.
    let (name, seq) = acknowledged.iter().find(|(name, _)| name.starts_with("0-")).expect("one of the owner's");
    let mut body = text(&sid, "x");
    body["client_msg_id"] = json!(name);
    assert_eq!(owner.ok("send_msg", body).await["seq"], *seq);
    assert_eq!(owner.ok("send_msg", text(&sid, "on")).await["seq"], after + 1);
}

#[tokio::test]
async fn a_restart_keeps_accounts_sessions_roles_keys_and_the_inbox() {
    for killed in [true, false] {
        let mut node = Node::start(&[]).await;
        let (alice, bob, carol) = (node.user("alice").await, node.user("bob").await, node.user("carol").await);
        let (mut a, mut b) = (alice.connect().await, bob.connect().await);
        let body = json!({"e2ee_on": true, "key_check": check(1), "client_session_id": "once"});
        let made = a.ok("new_session", body.clone()).await;
        let sid = made["session_id"].as_str().expect("an id").to_owned();
        admit(&mut a, &mut b, &sid).await;
        a.ok("send_room_key", key_for(&sid, &bob.id, 1)).await;
        a.ok("set_role", json!({"session_id": sid, "user_id": bob.id, "role": "admin"})).await;
        a.ok("mute_user", about(&sid, &bob.id)).await;
        a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": carol.id})).await;
        a.ok("send_msg", cipher(&sid, 1)).await;
        let seen = info(&mut a, &sid).await;
        let log = alice.authenticated().await.started["sessions"][0]["log"].clone();
        if killed {
            node.kill_and_restart().await;
        } else {
            // Who does not hang up is waited for.
            drop((a, b));
            node.terminate();
            assert!(node.terminated().await.success());
            node.restart().await;
        }
        let at = |user: &User| User { address: node.address, ..user.clone() };
        let mut a = at(&alice).connect().await;
        assert_eq!(info(&mut a, &sid).await, seen);
        assert_eq!(a.started["sessions"][0]["log"], log, "the same history");
        assert_eq!(a.ok("new_session", body).await, made);
        let mut b = at(&bob).connect().await;
        assert_eq!(b.expect("ReceiveRoomKeyNotification").await["key_epoch"], 1);
        b.refused("send_msg", text(&sid, "x"), "muted").await;
        at(&carol).connect().await.expect("InviteUserToSession").await;
        a.ok("send_msg", cipher(&sid, 1)).await;
    }
}

#[tokio::test]
async fn a_rotation_under_way_goes_on_after_a_kill() {
    let mut node = Node::start(&[]).await;
    let (alice, bob, carol) = (node.user("alice").await, node.user("bob").await, node.user("carol").await);
    let (mut a, mut b, mut c) = (alice.connect().await, bob.connect().await, carol.connect().await);
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&bob.id], 2)).await;
    node.kill_and_restart().await;
    let at = |user: &User| User { address: node.address, ..user.clone() };
    let mut a = at(&alice).connect().await;
    // The key is made, as the first `send_room_keys` showed: what is still asked for is who lacks it.
    let ask = a.expect("SendRoomKeyNotification").await;
    assert_eq!((&ask["user_id"], &ask["key_epoch"]), (&json!(carol.id), &json!(2)));
    a.none("SendRoomKeyNotification").await;
    let mut other = keys_for(&sid, &[&carol.id], 2);
    other["key_check"] = json!(base64("another key"));
    a.refused("send_room_keys", other, "key_mismatch").await;
    a.ok("send_room_keys", keys_for(&sid, &[&carol.id], 2)).await;
    at(&bob).connect().await.expect_where("RoomKeyRotated", |body| body["key_epoch"] == 2).await;
}

#[tokio::test]
async fn a_recalled_text_is_gone_from_the_files() {
    let node = Node::start(&[("store.kind", "sqlite")]).await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let secret = format!("{}zQxJk7", "a slip of the tongue ".repeat(20));
    let seq = a.ok("send_msg", text(&sid, &secret)).await["seq"].take();
    assert!(holds(&node.data(), b"zQxJk7"), "it was there before");
    a.ok("recall_msg", json!({"session_id": sid, "seq": seq})).await;
    within("the text to be gone", async {
        while holds(&node.data(), b"zQxJk7") {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Whether any file of the data directory has these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        // A file may go away between the two calls.
        std::fs::read(&path).is_ok_and(|file| file.windows(bytes.len()).any(|window| window == bytes))
    })
}

#[tokio::test]
async fn passwords_and_tokens_are_in_no_file_as_they_are() {
    let node = Node::start(&[("store.kind", "sqlite")]).await;
    let user = node.user("alice").await;
    let mut a = user.connect().await;
    a.ok("ping", json!({})).await;
    assert!(!holds(&node.data(), PASSWORD.as_bytes()));
    assert!(!holds(&node.data(), user.token.as_bytes()));
    assert!(holds(&node.data(), user.name.as_bytes()), "the search would find what is there");
}

#[tokio::test]
async fn a_second_process_on_the_same_data_does_not_start() {
    let node = Node::start(&[("store.kind", "sqlite")]).await;
    let data = node.data();
    let status = tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_conclave"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .output()
            .expect("the server's binary")
            .status
    });
    assert!(!within("the second process to give up", status).await.expect("no panic").success());
    node.client("alice").await.ok("ping", Value::Null).await;
}
