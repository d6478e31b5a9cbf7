//! How the system that this design comes from failed. Each has a test that would catch it: here, or where it belongs.
//!
//! | failure | test |
//! | --- | --- |
//! | switching encryption on that never sets the flag | `switching_encryption_on_sets_the_flag` |
//! | kick, ban and account deletion that do not mark | `rotation::rule_2_leaving_kicking_banning_and_closing_the_account_mark` |
//! | a mark cleared when the rotation is asked for | `a_mark_is_there_until_the_rotation_is_finished` |
//! | two speakers at once starting two rotations | `rotation::rule_3_two_who_speak_at_once_are_one_rotation` |
//! | a leaver during a rotation who still gets the new key | `a_leaver_during_a_rotation_gets_no_key` |
//! | an outsider who sends a room key or an invitation | `an_outsider_sends_neither_key_nor_invitation` |
//! | a recall that trusts the caller's `session_id` | `a_recall_reaches_only_into_the_session_it_names` |
//! | approvals that reach only the applicant | `an_approval_reaches_every_member` |
//! | key notifications shown to every member in history | `keys_are_shown_to_nobody_else` |
//! | history read before the live subscription starts | `catching_up::events_come_once_and_in_order_while_others_keep_sending` |
//! | members of an encrypted session who never get a key | `rotation::rule_7_a_holder_is_asked_whoever_let_the_member_in_and_whenever_they_connect` |
//! | removed members who keep their role or cannot rejoin | `moderation::a_kicked_member_is_out_and_may_come_back_as_a_member` |
//! | an epoch's number that comes to mean two keys | `encryption::rule_8_*`, `encryption::no_number_is_used_again_after_off_and_on`, `rotation::the_rotator_leaves_void`, `durability::a_rotation_under_way_goes_on_after_a_kill` |
//! | ciphertext of an epoch that some members have no key for | `encryption::rule_4_one_epoch_is_accepted_at_a_time` |
//! | a rotation that never ends | `rotation::rule_5_a_withheld_member_is_not_waited_for_and_stays_without`, `rotation::the_deadline_passes_*` |
//! | a newcomer let in with the key of an epoch just replaced | `a_newcomer_is_not_let_in_with_a_replaced_key` |

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn switching_encryption_on_sets_the_flag() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let (mut a, mut b) = (alice.connect().await, node.client("bob").await);
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    for client in [&mut a, &mut b] {
        assert_eq!(info(client, &sid).await["e2ee_on"], true);
    }
    assert_eq!(alice.authenticated().await.started["sessions"][0]["e2ee_on"], true);
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 1)).await;
    b.expect("RoomKeyRotated").await;
    b.ok("send_msg", cipher(&sid, 1)).await;
}

#[tokio::test]
async fn a_mark_is_there_until_the_rotation_is_finished() {
    let node = Node::start(&[("e2ee.rotation_deadline_s", "1"), ("e2ee.rotation_deadline_per_member_ms", "1")]).await;
    let bob = node.user("bob").await;
    let (mut a, mut b, mut c) = (node.client("alice").await, bob.connect().await, node.client("carol").await);
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("kick_user", about(&sid, &c.user_id)).await;
    mark(&sid, &mut b, &mut []).await;
    b.expect("UpdateRoomKeyNotification").await;
    // The rotator dies before doing anything.
    drop(b);
    within("another to be asked", async {
        while !a.has("UpdateRoomKeyNotification") {
            mark(&sid, &mut a, &mut []).await;
            a.barrier().await;
        }
    })
    .await;
    a.ok("send_room_keys", keys_for(&sid, &[&bob.id], 3)).await;
    a.expect_where("RoomKeyRotated", |body| body["key_epoch"] == 3).await;
}

#[tokio::test]
async fn a_leaver_during_a_rotation_gets_no_key() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.expect_where("SendRoomKeyNotification", |ask| ask["user_id"] == *c.user_id).await;
    c.ok("leave_session", of(&sid)).await;
    c.expect("MemberLeft").await;
    // The rotator had them on its list already.
    let reply = a.ok("send_room_keys", keys_for(&sid, &[&c.user_id, &b.user_id], 2)).await;
    assert_eq!(reply["failed_members"].as_array().map(Vec::len), Some(1), "{reply}");
    assert_eq!(reply["failed_members"][0]["user_id"], *c.user_id);
    b.expect("RoomKeyRotated").await;
    c.none("ReceiveRoomKeyNotification").await;
    admit(&mut a, &mut c, &sid).await;
    assert_eq!(c.ok("fetch_room_keys", of(&sid)).await["room_keys"], json!([]));
}

#[tokio::test]
async fn an_outsider_sends_neither_key_nor_invitation() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut outsider = node.client("mallory").await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    let before = info(&mut a, &sid).await;
    for epoch in [1, 2] {
        outsider.refused("send_room_key", key_for(&sid, &b.user_id, epoch), "not_a_member").await;
        outsider.refused("send_room_keys", keys_for(&sid, &[&b.user_id], epoch), "not_a_member").await;
    }
    let invite = json!({"session_id": sid, "invitee": c.user_id});
    outsider.refused("invite_user_to_session", invite, "not_a_member").await;
    assert_eq!(info(&mut a, &sid).await, before);
    b.quiet().await;
    c.quiet().await;
}

#[tokio::test]
async fn a_recall_reaches_only_into_the_session_it_names() {
    let node = Node::shared().await;
    let [mut a, mut b, mut mallory] = node.three().await;
    let theirs = plain(&mut a, &mut [&mut b]).await;
    let own = plain(&mut mallory, &mut []).await;
    let mut seq = 0;
    while seq < 20 {
        seq = mark(&theirs, &mut a, &mut [&mut b]).await;
    }
    // Owner of one session, with a place that only the other one has.
    mallory.refused("recall_msg", json!({"session_id": own, "seq": seq}), "not_found").await;
    mallory.refused("recall_msg", json!({"session_id": theirs, "seq": seq}), "not_a_member").await;
    let page = b.ok("fetch_msgs", json!({"session_id": theirs, "after_seq": seq - 1})).await;
    assert_eq!(page["events"][0]["body"]["markdown_text"], "a mark");
    b.none("MsgRecalled").await;
}

#[tokio::test]
async fn an_approval_reaches_every_member() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    c.ok("join_session", of(&sid)).await;
    a.ok("allow_user_join_session", json!({"session_id": sid, "user_id": c.user_id, "accepted": true})).await;
    c.expect("AllowUserJoinSessionNotification").await;
    let carol = c.user_id.clone();
    for client in [&mut a, &mut b, &mut c] {
        assert_eq!(client.expect("MemberJoined").await["user_id"], *carol);
    }
    b.none("AllowUserJoinSessionNotification").await;
}

#[tokio::test]
async fn keys_are_shown_to_nobody_else() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("e2eeize_session", of(&sid)).await;
    let mut key = key_for(&sid, &b.user_id, 2);
    key["room_key"] = json!("elF4Sms3");
    a.ok("send_room_key", key).await;
    a.ok("send_room_key", key_for(&sid, &c.user_id, 2)).await;
    b.expect("RoomKeyRotated").await;
    c.expect("RoomKeyRotated").await;
    for client in [&mut a, &mut c] {
        let page = client.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0, "limit": 1000})).await;
        assert!(!page.to_string().contains("elF4Sms3"), "{page}");
        let keys = client.ok("fetch_room_keys", of(&sid)).await;
        assert!(!keys.to_string().contains("elF4Sms3"), "{keys}");
        assert!(!client.log.iter().any(|frame| frame.to_string().contains("elF4Sms3")));
        let kinds = page["events"].as_array().expect("events").iter().map(|event| event["type"].as_str());
        assert!(kinds.flatten().all(|kind| !kind.ends_with("Notification")), "{page}");
    }
}

#[tokio::test]
async fn a_newcomer_is_not_let_in_with_a_replaced_key() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    c.ok("join_session", of(&sid)).await;
    a.ok("e2eeize_session", of(&sid)).await;
    a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], 2)).await;
    b.expect("RoomKeyRotated").await;
    let mut allow = key_for(&sid, &c.user_id, 1);
    allow["accepted"] = json!(true);
    let before = info(&mut a, &sid).await;
    a.refused("allow_user_join_session", allow, "stale_room_key").await;
    assert_eq!(info(&mut a, &sid).await, before);
    c.quiet().await;
    let mut allow = key_for(&sid, &c.user_id, 2);
    allow["accepted"] = json!(true);
    a.ok("allow_user_join_session", allow).await;
    assert_eq!(c.expect("AllowUserJoinSessionNotification").await["key_epoch"], 2);
}
