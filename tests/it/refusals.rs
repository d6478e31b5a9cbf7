//! Every request about a session, against who may not make it and what is wrong in it. Each refusal leaves the
//! session as it was and the connection open.

use serde_json::{Value, json};

use crate::support::*;

/// Every request about a session, with a body that is right, and what of it is required besides `session_id`.
fn requests(sid: &str, user: &str) -> Vec<(&'static str, Value, &'static [&'static str])> {
    let with = |more: Value| {
        let mut body = more;
        body["session_id"] = json!(sid);
        body
    };
    vec![
        ("join_session", with(json!({"leave_message": "x"})), &[]),
        ("allow_user_join_session", with(json!({"user_id": user, "accepted": true})), &["user_id", "accepted"]),
        ("invite_user_to_session", with(json!({"invitee": user})), &["invitee"]),
        (
            "accept_join_session_approval",
            with(json!({"inviter_id": user, "accepted": true})),
            &["inviter_id", "accepted"],
        ),
        ("send_room_key", key_for(sid, user, 1), &["user_id", "room_key"]),
        ("send_room_keys", keys_for(sid, &[user], 1), &["room_keys"]),
        ("fetch_room_keys", with(json!({"after_epoch": 0, "limit": 1})), &[]),
        ("request_room_key", with(json!({"reason": "lost"})), &["reason"]),
        ("send_msg", text(sid, "x"), &["markdown_text", "is_encrypted"]),
        ("e2eeize_session", of(sid), &[]),
        ("dee2eeize_session", of(sid), &[]),
        ("leave_session", with(json!({"force": true})), &[]),
        ("delete_session", of(sid), &[]),
        ("kick_user", about(sid, user), &["user_id"]),
        ("ban_user", with(json!({"user_id": user, "duration_s": 5})), &["user_id"]),
        ("unban_user", about(sid, user), &["user_id"]),
        ("mute_user", with(json!({"user_id": user, "duration_s": 5})), &["user_id"]),
        ("unmute_user", about(sid, user), &["user_id"]),
        ("set_role", with(json!({"user_id": user, "role": "admin"})), &["user_id", "role"]),
        ("get_session_info", of(sid), &[]),
        ("list_members", with(json!({"after": user, "limit": 5})), &[]),
        ("set_session_info", with(json!({"name": "x"})), &[]),
        ("fetch_msgs", with(json!({"after_seq": 0, "limit": 5})), &[]),
        ("recall_msg", with(json!({"seq": 1})), &["seq"]),
        ("ack", with(json!({"seq": 1})), &["seq"]),
        ("typing", of(sid), &[]),
    ]
}

#[tokio::test]
async fn a_missing_or_wrong_field_is_an_invalid_argument_that_names_it() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    let before = info(&mut a, &sid).await;
    for (name, body, required) in requests(&sid, &b.user_id) {
        for field in required.iter().chain(&["session_id"]) {
            let mut missing = body.clone();
            missing.as_object_mut().expect("an object").remove(*field);
            let error = a.refused(name, missing, "invalid_argument").await;
            assert!(error["message"].as_str().expect("a message").starts_with(field), "{name}: {error}");
        }
        for field in body.as_object().expect("an object").keys() {
            // No field of any request is an object with such a key.
            let mut wrong = body.clone();
            wrong[field] = json!({"zQxJk7": "zQxJk7"});
            let error = a.refused(name, wrong, "invalid_argument").await;
            assert!(error["message"].as_str().expect("a message").starts_with(field), "{name}: {error}");
            assert!(!error.to_string().contains("zQxJk7"), "{error}");
        }
        for not_an_object in [json!([]), json!([sid]), json!("x"), json!(7), json!(true)] {
            a.refused(name, not_an_object, "invalid_argument").await;
        }
    }
    assert_eq!(info(&mut a, &sid).await, before);
    b.quiet().await;
}

#[tokio::test]
async fn a_session_that_is_not_there_is_not_found() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let user = a.user_id.clone();
    let other = node.user("bob").await.id;
    for (name, body, _) in requests(NOBODY, &other) {
        a.refused(name, body, "not_found").await;
    }
    for (name, body, _) in requests("0198C0DE-0000-7000-8000-00000000DEAD", &user) {
        a.refused(name, body, "invalid_argument").await;
    }
}

/// Requests that one makes who is no member, with good reason.
const FOR_OUTSIDERS: &[&str] = &["join_session", "accept_join_session_approval"];

#[tokio::test]
async fn who_is_no_member_gets_not_a_member_and_learns_nothing() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    for sid in [plain(&mut a, &mut [&mut b, &mut c]).await, encrypted(&mut a, &mut [&mut b, &mut c]).await] {
        c.ok("leave_session", of(&sid)).await;
        settle_away(&mut c).await;
        let before = info(&mut a, &sid).await;
        let mut stranger = node.client("stranger").await;
        for client in [&mut c, &mut stranger] {
            for (name, body, _) in requests(&sid, &b.user_id) {
                if !FOR_OUTSIDERS.contains(&name) {
                    let error = client.refused(name, body, "not_a_member").await;
                    assert!(error.get("details").is_none(), "{name}: {error}");
                }
            }
            client.quiet().await;
        }
        assert_eq!(info(&mut a, &sid).await, before);
    }
}

/// Forgets what came of leaving.
async fn settle_away(client: &mut Client) {
    client.expect("MemberLeft").await;
    client.clear().await;
}

#[tokio::test]
async fn who_is_banned_gets_banned() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("ban_user", about(&sid, &c.user_id)).await;
    let before = info(&mut a, &sid).await;
    for (name, body, _) in requests(&sid, &b.user_id) {
        c.refused(name, body, "banned").await;
    }
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn too_low_a_role_is_permission_denied() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c, &mut d]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    let before = info(&mut a, &sid).await;
    let for_owner = ["e2eeize_session", "dee2eeize_session", "delete_session", "set_role"];
    let for_admins = [
        "allow_user_join_session",
        "kick_user",
        "ban_user",
        "unban_user",
        "mute_user",
        "unmute_user",
        "set_session_info",
    ];
    for (name, body, _) in requests(&sid, &d.user_id) {
        if for_owner.contains(&name) {
            b.refused(name, body.clone(), "permission_denied").await;
        }
        if for_owner.contains(&name) || for_admins.contains(&name) {
            c.refused(name, body, "permission_denied").await;
        }
    }
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn what_needs_encryption_is_refused_where_it_is_off() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let before = info(&mut a, &sid).await;
    a.refused("send_room_key", key_for(&sid, &b.user_id, 1), "e2ee_not_on").await;
    a.refused("send_room_keys", keys_for(&sid, &[&b.user_id], 1), "e2ee_not_on").await;
    a.refused("request_room_key", json!({"session_id": sid, "reason": "lost"}), "e2ee_not_on").await;
    a.refused("send_msg", cipher(&sid, 1), "e2ee_not_on").await;
    assert_eq!(info(&mut a, &sid).await, before);
    b.quiet().await;
    // Keys of before are still read.
    assert_eq!(a.ok("fetch_room_keys", of(&sid)).await, json!({"room_keys": [], "more": false}));
}

#[tokio::test]
async fn inbox_ids_that_are_unknown_are_ignored_and_wrong_ones_refused() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    assert_eq!(a.ok("ack_inbox", json!({"inbox_ids": []})).await, json!({}));
    assert_eq!(a.ok("ack_inbox", json!({"inbox_ids": ["", "nonsense", "é", NOBODY]})).await, json!({}));
    for wrong in [json!({}), json!({"inbox_ids": "x"}), json!({"inbox_ids": [7]}), json!({"inbox_ids": null})] {
        a.refused("ack_inbox", wrong, "invalid_argument").await;
    }
}
