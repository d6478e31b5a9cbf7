//! How a room key is replaced: rules 2, 3, 5, 6 and 7 of the contract, and every line of its table.

use serde_json::{Value, json};

use crate::support::*;

async fn group(node: &Node) -> ([Client; 3], String) {
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    ([a, b, c], sid)
}

/// Speaks in a marked session and is asked for that epoch, after the reply.
async fn speaks_and_is_asked(client: &mut Client, sid: &str, epoch: u64) {
    let id = client.send("send_msg", text(sid, "a word")).await;
    client.answer(id).await.expect("sent");
    let ask = client.expect_where("UpdateRoomKeyNotification", |ask| ask["session_id"] == sid).await;
    assert_eq!(ask, json!({"session_id": sid, "key_epoch": epoch}));
    let reply = client.place(|frame| frame["reply_to"] == id);
    let asked = client.log.iter().rposition(|frame| frame["type"] == "UpdateRoomKeyNotification").expect("asked");
    assert!(reply < asked, "the ask comes after the reply");
}

async fn speaks_and_is_not_asked(client: &mut Client, sid: &str) {
    mark(sid, client, &mut []).await;
    client.none_where("UpdateRoomKeyNotification", |ask| ask["session_id"] == sid).await;
}

fn epochs_of(page: &Value) -> Vec<u64> {
    page["room_keys"].as_array().expect("keys").iter().filter_map(|key| key["key_epoch"].as_u64()).collect()
}

async fn rotated(client: &mut Client, epoch: u64) {
    client.expect_where("RoomKeyRotated", |body| body["key_epoch"] == epoch).await;
}

// Rule 2: what marks.

#[tokio::test]
async fn rule_2_leaving_kicking_banning_and_closing_the_account_mark() {
    let node = Node::shared().await;
    for cause in ["leave", "kick", "ban", "close"] {
        let carol = node.user("carol").await;
        let (mut a, mut b, mut c) = (node.client("alice").await, node.client("bob").await, carol.connect().await);
        let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
        match cause {
            "leave" => drop(c.ok("leave_session", of(&sid)).await),
            "kick" => drop(a.ok("kick_user", about(&sid, &carol.id)).await),
            "ban" => drop(a.ok("ban_user", about(&sid, &carol.id)).await),
            _ => assert_eq!(carol.call("DELETE", "/v1/me", Some(json!({"password": PASSWORD}))).await.status, 204),
        }
        b.expect("MemberLeft").await;
        speaks_and_is_asked(&mut b, &sid, 2).await;
        let ask = b.expect("SendRoomKeyNotification").await;
        let expected = json!({"session_id": sid, "user_id": a.user_id, "public_key": keys::SPKI, "key_epoch": 2});
        assert_eq!(ask, expected, "{cause}");
        b.none("SendRoomKeyNotification").await;
        speaks_and_is_not_asked(&mut a, &sid).await;
        b.ok("send_room_keys", keys_for(&sid, &[&a.user_id], 2)).await;
        rotated(&mut a, 2).await;
        // A finished rotation clears the mark.
        speaks_and_is_not_asked(&mut a, &sid).await;
        speaks_and_is_not_asked(&mut b, &sid).await;
    }
}

#[tokio::test]
async fn rule_2_joining_marks_where_the_session_says_so() {
    let node = Node::shared().await;
    for rotate_on_join in [true, false] {
        let [mut a, mut b, mut c] = node.three().await;
        let sid = encrypted(&mut a, &mut [&mut b]).await;
        a.ok("set_session_info", json!({"session_id": sid, "rotate_on_join": rotate_on_join})).await;
        admit(&mut a, &mut c, &sid).await;
        match rotate_on_join {
            true => speaks_and_is_asked(&mut b, &sid, 2).await,
            false => speaks_and_is_not_asked(&mut b, &sid).await,
        }
    }
}

#[tokio::test]
async fn rule_2_so_many_messages_mark() {
    let node = Node::start(&[("e2ee.room_key_messages", "3")]).await;
    let mut a = node.client("alice").await;
    let mut b = node.client("bob").await;
    let sid = a.ok("new_session", json!({"e2ee_on": true, "key_check": check(1)})).await["session_id"].take();
    let sid = sid.as_str().expect("an id").to_owned();
    admit(&mut a, &mut b, &sid).await;
    a.ok("send_room_key", key_for(&sid, &b.user_id, 1)).await;
    for _ in 0..3 {
        b.ok("send_msg", cipher(&sid, 1)).await;
    }
    // The one after the last that the key covers, at the latest.
    b.ok("send_msg", cipher(&sid, 1)).await;
    assert_eq!(b.expect("UpdateRoomKeyNotification").await["key_epoch"], 2);
    b.ok("send_room_keys", keys_for(&sid, &[&a.user_id], 2)).await;
    rotated(&mut a, 2).await;
    a.ok("send_msg", cipher(&sid, 2)).await;
    a.none("UpdateRoomKeyNotification").await;
}

#[tokio::test]
async fn rule_2_age_marks() {
    let node = Node::start(&[("e2ee.room_key_lifetime_s", "1")]).await;
    let mut a = node.client("alice").await;
    let sid = a.ok("new_session", json!({"e2ee_on": true, "key_check": check(1)})).await["session_id"].take();
    let sid = sid.as_str().expect("an id").to_owned();
    // The session's timer fires, or the next command finds the key too old.
    within("the key to grow too old", async {
        while !a.has("UpdateRoomKeyNotification") {
            mark(&sid, &mut a, &mut []).await;
            a.barrier().await;
        }
    })
    .await;
    assert_eq!(a.expect("UpdateRoomKeyNotification").await["key_epoch"], 2);
}

// Rule 3: who makes the new key.

#[tokio::test]
async fn rule_3_two_who_speak_at_once_are_one_rotation() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = group(node).await;
    let mut d = node.client("dave").await;
    admit(&mut a, &mut d, &sid).await;
    a.ok("send_room_key", key_for(&sid, &d.user_id, 1)).await;
    a.ok("kick_user", about(&sid, &d.user_id)).await;
    let ids = [a.send("send_msg", text(&sid, "at once")).await, b.send("send_msg", text(&sid, "at once")).await];
    let last = c.send("send_msg", text(&sid, "at once")).await;
    a.answer(ids[0]).await.expect("sent");
    b.answer(ids[1]).await.expect("sent");
    c.answer(last).await.expect("sent");
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    let mut asks = 0;
    for client in [&mut a, &mut b, &mut c] {
        client.barrier().await;
        asks += client.all("UpdateRoomKeyNotification").len();
    }
    assert_eq!(asks, 1);
}

#[tokio::test]
async fn rule_3_e2eeize_replaces_the_key_at_once_by_its_caller() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = group(node).await;
    let id = a.send("e2eeize_session", of(&sid)).await;
    assert_eq!(a.answer(id).await, Ok(json!({"key_epoch": 2})));
    assert_eq!(a.expect("UpdateRoomKeyNotification").await, json!({"session_id": sid, "key_epoch": 2}));
    let mut asked = Vec::new();
    for _ in 0..2 {
        let ask = a.expect("SendRoomKeyNotification").await;
        assert_eq!((&ask["key_epoch"], &ask["public_key"]), (&json!(2), &json!(keys::SPKI)));
        asked.push(ask["user_id"].as_str().expect("an id").to_owned());
    }
    asked.sort_unstable();
    let mut expected = vec![b.user_id.clone(), c.user_id.clone()];
    expected.sort_unstable();
    assert_eq!(asked, expected);
    assert!(a.place(|frame| frame["reply_to"] == id) < a.place(|frame| frame["type"] == "UpdateRoomKeyNotification"));
    for client in [&mut b, &mut c] {
        client.none("UpdateRoomKeyNotification").await;
        client.none("SendRoomKeyNotification").await;
    }
    mark(&sid, &mut b, &mut []).await;
    b.none("SessionE2eeChanged").await;
}

// Rule 5: when it is finished.

#[tokio::test]
async fn rule_5_it_is_finished_when_every_member_has_been_sent_the_key() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = group(node).await;
    a.ok("e2eeize_session", of(&sid)).await;
    assert_eq!(a.ok("send_room_key", key_for(&sid, &b.user_id, 2)).await, json!({}));
    b.expect("ReceiveRoomKeyNotification").await;
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    for client in [&mut a, &mut b, &mut c] {
        client.none("RoomKeyRotated").await;
    }
    assert_eq!(info(&mut a, &sid).await["key_epoch"], 1);
    // Left out, the epoch that they are asked for is meant.
    let mut last = key_for(&sid, &c.user_id, 2);
    last.as_object_mut().expect("an object").remove("key_epoch");
    a.ok("send_room_key", last).await;
    assert_eq!(c.expect("ReceiveRoomKeyNotification").await["key_epoch"], 2);
    for client in [&mut a, &mut b, &mut c] {
        let event = client.expect("RoomKeyRotated").await;
        assert_eq!((&event["key_epoch"], &event["key_check"]), (&json!(2), &json!(check(2))));
    }
    let seen = info(&mut a, &sid).await;
    assert_eq!(seen["key_epoch"], 2);
    for client in [&a, &b, &c] {
        assert_eq!(member(&seen, &client.user_id)["has_key"], true, "the rotator too");
    }
}

#[tokio::test]
async fn rule_5_a_withheld_member_is_not_waited_for_and_stays_without() {
    let node = Node::shared().await;
    let ([mut a, b, mut c], sid) = group(node).await;
    a.ok("e2eeize_session", of(&sid)).await;
    let mut body = keys_for(&sid, &[&b.user_id], 2);
    body["withheld"] = json!([{"user_id": c.user_id, "reason": "fingerprint_changed"}]);
    assert_eq!(a.ok("send_room_keys", body).await, json!({"failed_members": []}));
    rotated(&mut c, 2).await;
    let seen = info(&mut a, &sid).await;
    assert_eq!(member(&seen, &c.user_id)["has_key"], false);
    assert_eq!(member(&seen, &b.user_id)["has_key"], true);
    c.none("ReceiveRoomKeyNotification").await;
    assert_eq!(epochs_of(&c.ok("fetch_room_keys", of(&sid)).await), [1]);
    // Their user agrees: the key can still be given.
    a.ok("send_room_key", key_for(&sid, &c.user_id, 2)).await;
    assert_eq!(c.expect("ReceiveRoomKeyNotification").await["key_epoch"], 2);
}

#[tokio::test]
async fn rule_5_one_who_is_alone_sends_an_empty_list() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    a.ok("e2eeize_session", of(&sid)).await;
    mark(&sid, &mut a, &mut []).await;
    a.none("RoomKeyRotated").await;
    assert_eq!(a.ok("send_room_keys", keys_for(&sid, &[], 2)).await, json!({"failed_members": []}));
    rotated(&mut a, 2).await;
    a.ok("send_msg", cipher(&sid, 2)).await;
}

// Rules 6 and 7: the key before the text, and for everybody.

#[tokio::test]
async fn rule_6_the_key_comes_before_the_rotation_and_any_message_of_it() {
    let node = Node::shared().await;
    let bob = node.user("bob").await;
    let (mut a, mut b, mut c) = (node.client("alice").await, bob.connect().await, node.client("carol").await);
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    b.close().await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&bob.id, &c.user_id], 2)).await;
    rotated(&mut a, 2).await;
    a.ok("send_msg", cipher(&sid, 2)).await;
    // One who is there, and one who comes back.
    let mut back = bob.connect().await;
    for client in [&mut c, &mut back] {
        client.expect_where("Msg", |msg| msg["key_epoch"] == 2).await;
        let key =
            client.place(|frame| frame["type"] == "ReceiveRoomKeyNotification" && frame["body"]["key_epoch"] == 2);
        let event = client.place(|frame| frame["type"] == "RoomKeyRotated" && frame["body"]["key_epoch"] == 2);
        let msg = client.place(|frame| frame["type"] == "Msg" && frame["body"]["key_epoch"] == 2);
        assert!(key < event && event < msg, "{key} {event} {msg}");
    }
}

#[tokio::test]
async fn rule_7_a_holder_is_asked_whoever_let_the_member_in_and_whenever_they_connect() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let [mut b, mut c, _] = node.three().await;
    let mut a = alice.connect().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    b.ok("request_room_key", json!({"session_id": sid, "reason": "lost"})).await;
    a.clear().await;
    a.close().await;
    // No holder is connected now; bob, who has no key, lets carol in.
    admit(&mut b, &mut c, &sid).await;
    b.none("SendRoomKeyNotification").await;
    let mut a = alice.connect().await;
    let mut asked = Vec::new();
    for _ in 0..2 {
        let ask = a.expect("SendRoomKeyNotification").await;
        assert_eq!(ask["key_epoch"], 1);
        asked.push(ask["user_id"].as_str().expect("an id").to_owned());
    }
    assert!(asked.contains(&b.user_id) && asked.contains(&c.user_id), "{asked:?}");
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id], 1)).await;
    for client in [&mut b, &mut c] {
        client.expect("ReceiveRoomKeyNotification").await;
    }
    let mut again = alice.connect().await;
    again.none("SendRoomKeyNotification").await;
}

// The table: what happens while a rotation is under way.

/// Bob rotates to epoch 2: kicked dave marked it, and bob spoke first.
async fn rotating(node: &Node) -> ([Client; 3], String) {
    let ([mut a, mut b, mut c], sid) = group(node).await;
    let mut d = node.client("dave").await;
    admit(&mut a, &mut d, &sid).await;
    a.ok("send_room_key", key_for(&sid, &d.user_id, 1)).await;
    a.ok("kick_user", about(&sid, &d.user_id)).await;
    b.expect_where("MemberLeft", |body| body["user_id"] == *d.user_id).await;
    speaks_and_is_asked(&mut b, &sid, 2).await;
    for _ in 0..2 {
        b.expect("SendRoomKeyNotification").await;
    }
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    for client in [&mut a, &mut b, &mut c] {
        client.ack_inbox().await;
        client.clear().await;
    }
    ([a, b, c], sid)
}

/// The number is spent, its keys and asks are gone, and the next to speak is asked for the next number.
async fn assert_void(next: &mut Client, had_key: Option<&mut Client>, sid: &str) {
    assert_eq!(info(next, sid).await["key_epoch"], 1, "the old epoch stands");
    if let Some(had_key) = had_key {
        assert_eq!(epochs_of(&had_key.ok("fetch_room_keys", of(sid)).await).iter().max(), Some(&1));
    }
    speaks_and_is_asked(next, sid, 3).await;
    next.ok("send_msg", cipher(sid, 1)).await;
    next.refused("send_msg", cipher(sid, 2), "stale_room_key").await;
}

#[tokio::test]
async fn someone_joins_and_is_waited_for_too() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = rotating(node).await;
    let mut d = node.client("dave").await;
    admit(&mut a, &mut d, &sid).await;
    let dave = d.user_id.clone();
    b.expect_where("SendRoomKeyNotification", |ask| ask["user_id"] == *dave && ask["key_epoch"] == 2).await;
    b.ok("send_room_keys", keys_for(&sid, &[&a.user_id, &c.user_id], 2)).await;
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    b.none("RoomKeyRotated").await;
    b.ok("send_room_key", key_for(&sid, &dave, 2)).await;
    for client in [&mut a, &mut b, &mut c, &mut d] {
        rotated(client, 2).await;
    }
}

#[tokio::test]
async fn a_member_leaves_who_was_not_sent_it_and_is_no_longer_waited_for() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = rotating(node).await;
    b.ok("send_room_keys", keys_for(&sid, &[&a.user_id], 2)).await;
    c.ok("leave_session", of(&sid)).await;
    for client in [&mut a, &mut b] {
        rotated(client, 2).await;
    }
    assert_eq!(info(&mut a, &sid).await["key_epoch"], 2);
}

#[tokio::test]
async fn a_member_leaves_who_was_sent_it_void() {
    let node = Node::shared().await;
    for kicked in [false, true] {
        let ([mut a, mut b, mut c], sid) = rotating(node).await;
        b.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
        c.expect("ReceiveRoomKeyNotification").await;
        match kicked {
            true => a.ok("kick_user", about(&sid, &c.user_id)).await,
            false => c.ok("leave_session", of(&sid)).await,
        };
        a.expect_where("MemberLeft", |body| body["user_id"] == *c.user_id).await;
        // The rotator's keys for the spent number are not taken any more.
        let late = keys_for(&sid, &[&a.user_id], 2);
        b.refused_any("send_room_keys", late, &["stale_room_key", "permission_denied"]).await;
        assert_void(&mut a, None, &sid).await;
        a.none("RoomKeyRotated").await;
    }
}

#[tokio::test]
async fn the_rotator_leaves_void() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = rotating(node).await;
    b.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    let key = c.expect_frame("ReceiveRoomKeyNotification", |_| true).await;
    b.ok("leave_session", of(&sid)).await;
    assert_eq!(c.expect("InboxWithdrawn").await["inbox_ids"], json!([key["inbox_id"]]));
    assert_void(&mut a, Some(&mut c), &sid).await;
}

#[tokio::test]
async fn a_members_public_key_changes_and_they_are_waited_for_again() {
    let node = Node::shared().await;
    let carol = node.user("carol").await;
    let (mut a, mut b, mut c) = (node.client("alice").await, node.client("bob").await, carol.connect().await);
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&carol.id], 2)).await;
    let change = json!({"public_key": keys::OTHER_SPKI, "password": PASSWORD});
    a.clear().await;
    assert_eq!(carol.call("PUT", "/v1/me/public_key", Some(change)).await.status, 204);
    b.expect("PublicKeyChanged").await;
    a.expect_where("SendRoomKeyNotification", |ask| {
        ask["user_id"] == *carol.id && ask["key_epoch"] == 2 && ask["public_key"] == keys::OTHER_SPKI
    })
    .await;
    assert!(!epochs_of(&c.ok("fetch_room_keys", of(&sid)).await).contains(&2));
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 2)).await;
    mark(&sid, &mut a, &mut [&mut b]).await;
    a.none("RoomKeyRotated").await;
    a.ok("send_room_keys", keys_for(&sid, &[&carol.id], 2)).await;
    rotated(&mut b, 2).await;
}

#[tokio::test]
async fn e2eeize_by_the_rotator_goes_on_with_the_same_epoch() {
    let node = Node::shared().await;
    let ([mut a, b, mut c], sid) = group(node).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 2)).await;
    assert_eq!(a.ok("e2eeize_session", of(&sid)).await, json!({"key_epoch": 2}));
    a.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    rotated(&mut c, 2).await;
}

#[tokio::test]
async fn e2eeize_by_another_owner_voids_and_starts_anew() {
    let node = Node::shared().await;
    let ([mut a, mut b, mut c], sid) = rotating(node).await;
    b.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    assert_eq!(a.ok("e2eeize_session", of(&sid)).await, json!({"key_epoch": 3}));
    assert_eq!(a.expect("UpdateRoomKeyNotification").await["key_epoch"], 3);
    let late = keys_for(&sid, &[&a.user_id], 2);
    b.refused_any("send_room_keys", late, &["stale_room_key", "permission_denied"]).await;
    assert_eq!(epochs_of(&c.ok("fetch_room_keys", of(&sid)).await), [1]);
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id], 3)).await;
    rotated(&mut b, 3).await;
    b.none("RoomKeyRotated").await;
}

#[tokio::test]
async fn dee2eeize_voids_and_is_off() {
    let node = Node::shared().await;
    let ([mut a, mut b, c], sid) = rotating(node).await;
    b.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    a.ok("dee2eeize_session", of(&sid)).await;
    b.expect("SessionE2eeChanged").await;
    b.refused("send_room_keys", keys_for(&sid, &[&a.user_id], 2), "e2ee_not_on").await;
    assert_eq!(info(&mut a, &sid).await["e2ee_on"], false);
    let next = a.ok("e2eeize_session", of(&sid)).await["key_epoch"].as_u64().expect("an epoch");
    assert!(next >= 3, "2 is spent: {next}");
}

#[tokio::test]
async fn the_keys_time_or_count_runs_out_and_nothing_happens() {
    let node = Node::start(&[("e2ee.room_key_messages", "6"), ("e2ee.room_key_lifetime_s", "2")]).await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id], 1)).await;
    rotated(&mut b, 1).await;
    let reply = a.ok("e2eeize_session", of(&sid)).await;
    assert_eq!(reply["key_epoch"], 2);
    let mut last = json!("");
    for _ in 0..10 {
        last = b.ok("send_msg", cipher(&sid, 1)).await["time"].take();
    }
    let later: jiff::Timestamp = last.as_str().expect("a time").parse().expect("RFC 3339");
    b.until_past(&format!("{:.3}", later + jiff::SignedDuration::from_secs(3))).await;
    mark(&sid, &mut c, &mut [&mut b]).await;
    for client in [&mut b, &mut c] {
        client.none("UpdateRoomKeyNotification").await;
    }
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id], 2)).await;
    rotated(&mut c, 2).await;
}

#[tokio::test]
async fn the_deadline_passes_and_one_who_was_sent_the_key_is_asked_for_the_rest() {
    let node = Node::start(&[("e2ee.rotation_deadline_s", "1"), ("e2ee.rotation_deadline_per_member_ms", "1")]).await;
    let ([mut a, mut b, mut c], sid) = rotating(&node).await;
    b.ok("send_room_keys", keys_for(&sid, &[&c.user_id], 2)).await;
    // Bob goes on no further: carol has the key, and is asked for alice.
    let ask = c.expect_where("SendRoomKeyNotification", |ask| ask["key_epoch"] == 2).await;
    assert_eq!(ask["user_id"], *a.user_id);
    c.ok("send_room_key", key_for(&sid, &a.user_id, 2)).await;
    assert_eq!(a.expect("ReceiveRoomKeyNotification").await["key_epoch"], 2);
    rotated(&mut a, 2).await;
}

#[tokio::test]
async fn the_deadline_passes_with_no_key_sent_void_and_who_let_it_lapse_is_passed_over() {
    let node = Node::start(&[("e2ee.rotation_deadline_s", "1"), ("e2ee.rotation_deadline_per_member_ms", "1")]).await;
    let ([mut a, mut b, mut c], sid) = rotating(&node).await;
    // Until it is void, whoever else speaks is asked for nothing. Bob, who let it lapse, is passed over.
    within("the deadline to pass", async {
        while !a.has("UpdateRoomKeyNotification") {
            mark(&sid, &mut b, &mut []).await;
            mark(&sid, &mut a, &mut []).await;
            a.barrier().await;
        }
    })
    .await;
    assert_eq!(a.expect("UpdateRoomKeyNotification").await["key_epoch"], 3);
    b.none("UpdateRoomKeyNotification").await;
    let late = keys_for(&sid, &[&a.user_id, &c.user_id], 2);
    b.refused_any("send_room_keys", late, &["stale_room_key", "permission_denied"]).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id], 3)).await;
    for client in [&mut b, &mut c] {
        rotated(client, 3).await;
    }
}
