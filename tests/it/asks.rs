//! Asks: to which connection they go, and that they go again while they hold.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_ask_goes_to_the_connection_that_spoke_and_again_to_the_next_one() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let [mut b, mut c, _] = node.three().await;
    let mut one = alice.connect().await;
    let sid = encrypted(&mut one, &mut [&mut b, &mut c]).await;
    let mut two = alice.connect().await;
    b.ok("leave_session", of(&sid)).await;
    mark(&sid, &mut two, &mut [&mut one]).await;
    two.expect("UpdateRoomKeyNotification").await;
    two.expect("SendRoomKeyNotification").await;
    one.none("UpdateRoomKeyNotification").await;
    two.close().await;

    let mut three = alice.connect().await;
    assert_eq!(three.expect("UpdateRoomKeyNotification").await, json!({"session_id": sid, "key_epoch": 2}));
    let ask = three.expect("SendRoomKeyNotification").await;
    assert_eq!((&ask["user_id"], &ask["key_epoch"]), (&json!(c.user_id), &json!(2)));
    three.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    c.expect("RoomKeyRotated").await;
    let mut four = alice.connect().await;
    four.none("UpdateRoomKeyNotification").await;
    four.none("SendRoomKeyNotification").await;
}

#[tokio::test]
async fn asks_have_no_inbox_id_and_no_seq() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    for name in ["UpdateRoomKeyNotification", "SendRoomKeyNotification"] {
        let frame = a.expect_frame(name, |_| true).await;
        assert!(frame.get("inbox_id").is_none() && frame["body"].get("seq").is_none(), "{frame}");
    }
}

#[tokio::test]
async fn a_holder_with_many_connections_is_asked_on_one() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let [mut b, _, _] = node.three().await;
    let mut connections = [alice.connect().await, alice.connect().await, alice.connect().await];
    let sid = encrypted(&mut connections[0], &mut []).await;
    let [one, ..] = &mut connections;
    admit(one, &mut b, &sid).await;
    mark(&sid, &mut b, &mut connections.iter_mut().collect::<Vec<_>>()).await;
    let mut asks = 0;
    for client in &mut connections {
        client.barrier().await;
        asks += client.all("SendRoomKeyNotification").len();
    }
    assert_eq!(asks, 1);
}

#[tokio::test]
async fn who_rotated_on_a_connection_that_is_gone_is_asked_on_the_one_that_they_have() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let mut one = alice.connect().await;
    let sid = encrypted(&mut one, &mut []).await;
    one.ok("e2eeize_session", of(&sid)).await;
    one.ok("send_room_keys", keys_for(&sid, &[], 2)).await;
    one.expect("RoomKeyRotated").await;
    one.close().await;
    // Nobody lacks a key, so the session has no reason to hear of this connection.
    let mut two = alice.connect().await;
    let mut b = node.client("bob").await;
    admit(&mut two, &mut b, &sid).await;
    let ask = two.expect("SendRoomKeyNotification").await;
    assert_eq!((&ask["user_id"], &ask["key_epoch"]), (&json!(b.user_id), &json!(2)));
}

#[tokio::test]
async fn at_most_256_asks_of_a_session_are_open_at_once() {
    const MEMBERS: usize = 260;
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("set_session_info", json!({"session_id": sid, "join_policy": "open"})).await;
    let mut joining = tokio::task::JoinSet::new();
    for joined in 0..MEMBERS {
        // A few at a time: passwords are hashed slowly, and a node takes only so many at once.
        if joined >= 4 {
            joining.join_next().await.expect("a task").expect("no panic");
        }
        let sid = sid.clone();
        joining.spawn(async move {
            assert_eq!(node.client("many").await.ok("join_session", of(&sid)).await["status"], "joined");
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined.expect("no panic");
    }
    a.ok("e2eeize_session", of(&sid)).await;
    let mut asked = Vec::new();
    for _ in 0..256 {
        asked.push(a.expect("SendRoomKeyNotification").await["user_id"].as_str().expect("an id").to_owned());
    }
    mark(&sid, &mut a, &mut []).await;
    a.none("SendRoomKeyNotification").await;
    let first: Vec<&str> = asked[..3].iter().map(String::as_str).collect();
    a.ok("send_room_keys", keys_for(&sid, &first, 1)).await;
    for _ in 0..3 {
        asked.push(a.expect("SendRoomKeyNotification").await["user_id"].as_str().expect("an id").to_owned());
    }
    mark(&sid, &mut a, &mut []).await;
    a.none("SendRoomKeyNotification").await;
    let rest: Vec<&str> = asked[3..].iter().map(String::as_str).collect();
    a.ok("send_room_keys", keys_for(&sid, &rest, 1)).await;
    let last = a.expect("SendRoomKeyNotification").await["user_id"].as_str().expect("an id").to_owned();
    a.none("RoomKeyRotated").await;
    a.ok("send_room_keys", keys_for(&sid, &[&last], 1)).await;
    a.expect("RoomKeyRotated").await;
    asked.push(last);
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), MEMBERS, "each was asked for once");
}
