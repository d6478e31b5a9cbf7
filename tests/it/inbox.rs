//! Notifications that are kept until they are acknowledged.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_inbox_event_comes_on_every_new_connection_until_it_is_acknowledged() {
    let node = Node::shared().await;
    let (mut a, bob) = (node.client("alice").await, node.user("bob").await);
    let sid = plain(&mut a, &mut []).await;
    // Bob is away when it happens.
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": bob.id})).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut b = bob.authenticated().await;
        // It comes after `authenticate`, and needs no `resume`.
        let frame = b.expect_frame("InviteUserToSession", |_| true).await;
        assert!(b.place(|frame| frame["type"] == "authenticate") < b.place(|frame| frame["inbox_id"].is_string()));
        assert_eq!(frame["body"]["session_id"], *sid);
        ids.push(frame["inbox_id"].clone());
        b.none("InviteUserToSession").await;
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let mut b = bob.connect().await;
    b.ok("ack_inbox", json!({"inbox_ids": [ids[0]]})).await;
    b.ok("ack_inbox", json!({"inbox_ids": [ids[0]]})).await;
    bob.connect().await.none("InviteUserToSession").await;
    // Acknowledged is not decided.
    let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
    b.ok("accept_join_session_approval", accept).await;
}

#[tokio::test]
async fn all_five_are_kept() {
    let node = Node::shared().await;
    let (alice, bob, carol) = (node.user("alice").await, node.user("bob").await, node.user("carol").await);
    let mut a = alice.connect().await;
    let sid = encrypted(&mut a, &mut []).await;
    // Each of them away while the others act.
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": bob.id})).await;
    a.close().await;
    let mut b = bob.authenticated().await;
    b.expect("InviteUserToSession").await;
    let accept = json!({"session_id": sid, "inviter_id": alice.id, "accepted": true});
    b.ok("accept_join_session_approval", accept).await;
    b.close().await;
    let mut c = carol.connect().await;
    c.ok("join_session", of(&sid)).await;
    c.close().await;
    for _ in 0..2 {
        let mut a = alice.authenticated().await;
        a.expect("AcceptSessionNotification").await;
        a.expect("JoinSessionApproval").await;
    }
    let mut a = alice.connect().await;
    a.ok("send_room_key", key_for(&sid, &bob.id, 1)).await;
    let mut allow = key_for(&sid, &carol.id, 1);
    allow["accepted"] = json!(true);
    a.ok("allow_user_join_session", allow).await;
    for _ in 0..2 {
        assert_eq!(bob.authenticated().await.expect("ReceiveRoomKeyNotification").await["key_epoch"], 1);
        let told = carol.authenticated().await.expect("AllowUserJoinSessionNotification").await;
        assert_eq!((&told["accepted"], &told["key_epoch"]), (&json!(true), &json!(1)));
    }
}

#[tokio::test]
async fn what_was_decided_elsewhere_is_taken_back() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    c.ok("join_session", of(&sid)).await;
    let asked = a.expect_frame("JoinSessionApproval", |_| true).await;
    b.expect("JoinSessionApproval").await;
    b.ok("allow_user_join_session", json!({"session_id": sid, "user_id": c.user_id, "accepted": false})).await;
    assert_eq!(a.expect("InboxWithdrawn").await, json!({"inbox_ids": [asked["inbox_id"]]}));
}

#[tokio::test]
async fn what_was_taken_back_does_not_come_again() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let [mut b, mut c, _] = node.three().await;
    let mut a = alice.connect().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    c.ok("join_session", of(&sid)).await;
    a.expect("JoinSessionApproval").await;
    b.ok("allow_user_join_session", json!({"session_id": sid, "user_id": c.user_id, "accepted": true})).await;
    a.expect("InboxWithdrawn").await;
    alice.connect().await.none("JoinSessionApproval").await;
}

#[tokio::test]
async fn an_admin_made_later_sees_the_requests_that_are_open() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    c.ok("join_session", of(&sid)).await;
    b.none("JoinSessionApproval").await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    assert_eq!(info(&mut b, &sid).await["join_requests"][0]["user_id"], *c.user_id);
}

#[tokio::test]
async fn room_keys_not_yet_delivered_to_one_who_left_are_taken_back() {
    let node = Node::shared().await;
    let (mut a, bob) = (node.client("alice").await, node.user("bob").await);
    let mut b = bob.connect().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    b.close().await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&bob.id], 2)).await;
    a.expect("RoomKeyRotated").await;
    a.ok("kick_user", about(&sid, &bob.id)).await;
    bob.connect().await.none("ReceiveRoomKeyNotification").await;
}

#[tokio::test]
async fn one_cannot_acknowledge_anothers() {
    let node = Node::shared().await;
    let (mut a, bob, mut c) = (node.client("alice").await, node.user("bob").await, node.client("carol").await);
    let mut b = bob.connect().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": bob.id})).await;
    let id = b.expect_frame("InviteUserToSession", |_| true).await["inbox_id"].take();
    c.ok("ack_inbox", json!({"inbox_ids": [id]})).await;
    bob.connect().await.expect("InviteUserToSession").await;
}
