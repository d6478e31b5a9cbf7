//! Encryption on and off, and which messages it lets through: rules 1, 4, 8 and 9 of the contract's room key epochs.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn rule_1_a_session_made_encrypted_starts_at_epoch_1_held_by_its_creator() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    let seen = info(&mut a, &sid).await;
    assert_eq!((&seen["e2ee_on"], &seen["key_epoch"]), (&json!(true), &json!(1)));
    assert_eq!(member(&seen, &a.user_id)["has_key"], true);
    a.ok("send_msg", cipher(&sid, 1)).await;
    assert_eq!(a.expect("Msg").await["key_epoch"], 1);
    a.none("UpdateRoomKeyNotification").await;
}

#[tokio::test]
async fn rule_1_before_the_first_key_is_rotated_in_there_is_no_epoch_and_no_ciphertext() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let reply = a.ok("e2eeize_session", of(&sid)).await;
    assert_eq!(reply, json!({"key_epoch": 1}));
    for client in [&mut a, &mut b] {
        assert_eq!(client.expect("SessionE2eeChanged").await["e2ee_on"], true);
    }
    let seen = info(&mut a, &sid).await;
    assert_eq!((&seen["e2ee_on"], seen.get("key_epoch")), (&json!(true), None), "{seen}");
    let mut unnumbered = cipher(&sid, 1);
    unnumbered.as_object_mut().expect("an object").remove("key_epoch");
    for body in [cipher(&sid, 1), unnumbered] {
        for client in [&mut a, &mut b] {
            client.refused("send_msg", body.clone(), "room_key_pending").await;
        }
    }
    // Plain text goes on.
    mark(&sid, &mut b, &mut [&mut a]).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 1)).await;
    let rotated = b.expect("RoomKeyRotated").await;
    assert_eq!((&rotated["key_epoch"], &rotated["key_check"]), (&json!(1), &json!(check(1))));
    assert_eq!(info(&mut a, &sid).await["key_epoch"], 1);
    b.ok("send_msg", cipher(&sid, 1)).await;
}

#[tokio::test]
async fn switching_on_closes_an_open_session() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("set_session_info", json!({"session_id": sid, "join_policy": "open"})).await;
    a.ok("e2eeize_session", of(&sid)).await;
    assert_eq!(info(&mut a, &sid).await["join_policy"], "approval");
    let mut b = node.client("bob").await;
    assert_eq!(b.ok("join_session", of(&sid)).await["status"], "pending");
}

#[tokio::test]
async fn rule_4_one_epoch_is_accepted_at_a_time() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    let stale = |error: &serde_json::Value, current: u64| assert_eq!(error["details"], json!({"key_epoch": current}));
    // The old one up to `RoomKeyRotated`, the next one not yet.
    for client in [&mut a, &mut b] {
        client.ok("send_msg", cipher(&sid, 1)).await;
        for epoch in [2, 3, u64::MAX] {
            stale(&client.refused("send_msg", cipher(&sid, epoch), "stale_room_key").await, 1);
        }
    }
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 2)).await;
    b.expect("RoomKeyRotated").await;
    let before = info(&mut a, &sid).await;
    for client in [&mut a, &mut b] {
        for epoch in [1, 3] {
            stale(&client.refused("send_msg", cipher(&sid, epoch), "stale_room_key").await, 2);
        }
    }
    assert_eq!(info(&mut a, &sid).await, before);
    // Without a number the current one is meant, and stamped on the message.
    let mut body = cipher(&sid, 2);
    body.as_object_mut().expect("an object").remove("key_epoch");
    a.clear().await;
    b.ok("send_msg", body).await;
    assert_eq!(a.expect("Msg").await["key_epoch"], 2);
    // A plain one has no epoch.
    mark(&sid, &mut b, &mut []).await;
    assert!(a.expect_where("Msg", |msg| msg["is_encrypted"] == false).await.get("key_epoch").is_none());
}

#[tokio::test]
async fn rule_8_the_first_check_value_of_an_epoch_stands() {
    let node = Node::shared().await;
    let (alice, mut b, mut c) = (node.user("alice").await, node.client("bob").await, node.client("carol").await);
    let mut a = alice.connect().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    let mut device = alice.connect().await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 2)).await;
    // Another device of the rotator made a key of its own for the same number.
    let mut other = keys_for(&sid, &[&c.user_id], 2);
    other["key_check"] = json!(base64("another key"));
    let before = info(&mut a, &sid).await;
    device.refused("send_room_keys", other, "key_mismatch").await;
    let mut other = key_for(&sid, &c.user_id, 2);
    other["key_check"] = json!(base64("another key"));
    device.refused("send_room_key", other, "key_mismatch").await;
    assert_eq!(info(&mut a, &sid).await, before);
    c.none("ReceiveRoomKeyNotification").await;
    device.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    assert_eq!(c.expect("ReceiveRoomKeyNotification").await["key_check"], check(2));
    assert_eq!(c.expect("RoomKeyRotated").await["key_check"], check(2));
}

#[tokio::test]
async fn rule_9_each_message_chooses_unless_the_session_requires_encryption() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    b.ok("send_msg", text(&sid, "plain")).await;
    b.ok("send_msg", cipher(&sid, 1)).await;
    a.ok("set_session_info", json!({"session_id": sid, "require_encryption": true})).await;
    refused_and_unchanged(&mut b, &mut a, &sid, "send_msg", text(&sid, "plain"), "encryption_required").await;
    b.none("UpdateRoomKeyNotification").await;
    b.ok("send_msg", cipher(&sid, 1)).await;
    // Where encryption is off, nothing is required.
    a.ok("dee2eeize_session", of(&sid)).await;
    b.ok("send_msg", text(&sid, "plain")).await;
    b.refused("send_msg", cipher(&sid, 1), "e2ee_not_on").await;
}

#[tokio::test]
async fn rule_3_who_is_refused_for_want_of_a_key_that_nobody_has_makes_one() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    a.ok("set_session_info", json!({"session_id": sid, "require_encryption": true})).await;
    for client in [&mut a, &mut b] {
        client.ok("request_room_key", json!({"session_id": sid, "reason": "lost"})).await;
    }
    b.refused("send_msg", text(&sid, "plain"), "encryption_required").await;
    assert_eq!(b.expect("UpdateRoomKeyNotification").await, json!({"session_id": sid, "key_epoch": 2}));
    // For epoch 1 bob was asked while he still had that key.
    let ask = b.expect_where("SendRoomKeyNotification", |ask| ask["key_epoch"] == 2).await;
    assert_eq!(ask["user_id"], *a.user_id);
    b.ok("send_room_keys", keys_for(&sid, &[&a.user_id], 2)).await;
    a.expect("RoomKeyRotated").await;
    a.ok("send_msg", cipher(&sid, 2)).await;
}

#[tokio::test]
async fn off_is_off_for_all_and_said_once() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    assert_eq!(a.ok("dee2eeize_session", of(&sid)).await, json!({}));
    for client in [&mut a, &mut b] {
        assert_eq!(client.expect("SessionE2eeChanged").await["e2ee_on"], false);
    }
    let seen = info(&mut a, &sid).await;
    assert_eq!((&seen["e2ee_on"], seen.get("key_epoch")), (&json!(false), None));
    assert_eq!(member(&seen, &b.user_id)["has_key"], false);
    assert_eq!(a.ok("dee2eeize_session", of(&sid)).await, json!({}));
    assert_eq!(info(&mut a, &sid).await, seen);
    b.none("SessionE2eeChanged").await;
}

#[tokio::test]
async fn no_number_is_used_again_after_off_and_on() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    let mut used = vec![1];
    for _ in 0..3 {
        a.ok("dee2eeize_session", of(&sid)).await;
        let epoch = a.ok("e2eeize_session", of(&sid)).await["key_epoch"].as_u64().expect("an epoch");
        assert!(used.iter().all(|before| *before < epoch), "{used:?} {epoch}");
        used.push(epoch);
        // A key of before is not taken for it.
        let old = key_for(&sid, &b.user_id, 1);
        a.refused_any("send_room_key", old, &["stale_room_key", "permission_denied"]).await;
        a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], epoch)).await;
        b.expect_where("RoomKeyRotated", |body| body["key_epoch"] == epoch).await;
    }
}
