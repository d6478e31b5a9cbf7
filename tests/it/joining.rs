//! Coming in: new sessions, join requests, invitations.

use serde_json::{Value, json};

use crate::support::*;

fn set(sid: &str, field: &str, value: Value) -> Value {
    json!({"session_id": sid, field: value})
}

#[tokio::test]
async fn a_new_session_invites_its_members_and_tells_who_could_not_be() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let members = json!([b.user_id, NOBODY, c.user_id]);
    let body = json!({"name": "Tea", "members": members, "e2ee_on": false, "leave_message": "come in"});
    let made = a.ok("new_session", body).await;
    assert_eq!(made["failed_members"], json!([{"user_id": NOBODY, "reason": "not_found"}]));
    assert!(made.get("key_epoch").is_none(), "{made}");
    let sid = made["session_id"].as_str().expect("an id").to_owned();
    for client in [&mut b, &mut c] {
        let frame = client.expect_frame("InviteUserToSession", |_| true).await;
        assert!(frame["inbox_id"].is_string(), "{frame}");
        let body = &frame["body"];
        assert_eq!((&body["session_id"], &body["inviter_id"]), (&json!(sid), &json!(a.user_id)));
        assert_eq!(body["leave_message"], "come in");
        assert!(body["expire_timestamp"].as_str() > client.ok("ping", json!({})).await["time"].as_str());
    }
    let seen = info(&mut a, &sid).await;
    assert_eq!((&seen["member_count"], &seen["name"]), (&json!(1), &json!("Tea")));
    assert_eq!(seen["invitations"].as_array().map(Vec::len), Some(2), "{seen}");
}

#[tokio::test]
async fn a_wrong_new_session_is_refused_and_makes_none() {
    let node = Node::shared().await;
    let user = node.user("alice").await;
    let mut a = user.connect().await;
    for body in [
        json!({}),
        json!({"e2ee_on": "yes"}),
        json!({"e2ee_on": false, "name": 7}),
        json!({"e2ee_on": false, "members": "all"}),
        json!({"e2ee_on": false, "members": ["bob"]}),
        json!({"e2ee_on": true, "room_key": "no base64!"}),
        json!({"e2ee_on": true, "key_check": ""}),
        json!({"e2ee_on": false, "client_session_id": ""}),
        json!({"e2ee_on": false, "client_session_id": "x".repeat(65)}),
    ] {
        a.refused("new_session", body, "invalid_argument").await;
    }
    assert_eq!(user.authenticated().await.started["sessions"], json!([]));
}

#[tokio::test]
async fn a_creators_room_key_is_there_for_their_other_devices() {
    let node = Node::shared().await;
    let user = node.user("alice").await;
    let mut a = user.connect().await;
    let made = a.ok("new_session", json!({"e2ee_on": true, "room_key": "a2V5", "key_check": check(1)})).await;
    let mut other = user.connect().await;
    let page = other.ok("fetch_room_keys", json!({"session_id": made["session_id"]})).await;
    let expected = json!({"key_epoch": 1, "user_id": user.id, "room_key": "a2V5", "key_check": check(1)});
    assert_eq!(page, json!({"room_keys": [expected], "more": false}));
}

#[tokio::test]
async fn a_join_request_waits_for_those_who_may_approve() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    let join = json!({"session_id": sid, "leave_message": "let me in"});
    assert_eq!(d.ok("join_session", join.clone()).await, json!({"status": "pending"}));
    for client in [&mut a, &mut b] {
        let asked = client.expect("JoinSessionApproval").await;
        let expected = json!({"session_id": sid, "user_id": d.user_id, "leave_message": "let me in"});
        assert_eq!(asked, expected, "no public key in a plain session");
    }
    let requests = info(&mut b, &sid).await["join_requests"].take();
    assert_eq!((&requests[0]["user_id"], &requests[0]["leave_message"]), (&json!(d.user_id), &json!("let me in")));
    assert!(requests[0]["time"].is_string());

    // Asked again, it is the same request, and nobody is told twice.
    assert_eq!(d.ok("join_session", join).await, json!({"status": "pending"}));
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    for client in [&mut a, &mut b, &mut c] {
        client.none("JoinSessionApproval").await;
    }

    let allow = json!({"session_id": sid, "user_id": d.user_id, "accepted": true});
    assert_eq!(b.ok("allow_user_join_session", allow.clone()).await, json!({}));
    let told = d.expect("AllowUserJoinSessionNotification").await;
    assert_eq!(told, json!({"session_id": sid, "user_id": b.user_id, "accepted": true}));
    for client in [&mut a, &mut b, &mut c, &mut d] {
        let joined = client.expect("MemberJoined").await;
        assert_eq!((&joined["user_id"], &joined["role"]), (&json!(allow["user_id"]), &json!("member")));
    }
    // Decided already: answered as if just done.
    assert_eq!(b.ok("allow_user_join_session", allow).await, json!({}));
    mark(&sid, &mut a, &mut [&mut d]).await;
    d.none("AllowUserJoinSessionNotification").await;
    assert_eq!(info(&mut a, &sid).await["join_requests"], json!([]));
}

#[tokio::test]
async fn a_refused_applicant_is_told_and_is_no_member() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    b.ok("join_session", of(&sid)).await;
    a.ok("allow_user_join_session", json!({"session_id": sid, "user_id": b.user_id, "accepted": false})).await;
    let told = b.expect("AllowUserJoinSessionNotification").await;
    assert_eq!(told, json!({"session_id": sid, "user_id": a.user_id, "accepted": false}));
    b.refused("get_session_info", of(&sid), "not_a_member").await;
    // They may ask again, and those who approve are told again.
    a.expect("JoinSessionApproval").await;
    assert_eq!(b.ok("join_session", of(&sid)).await, json!({"status": "pending"}));
    a.expect("JoinSessionApproval").await;
}

#[tokio::test]
async fn only_owner_and_admins_decide_and_only_on_requests_that_are_open() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    c.ok("join_session", of(&sid)).await;
    let allow = |user: &str| json!({"session_id": sid, "user_id": user, "accepted": true});
    let carol = c.user_id.clone();
    refused_and_unchanged(&mut b, &mut a, &sid, "allow_user_join_session", allow(&carol), "permission_denied").await;
    refused_and_unchanged(&mut c, &mut a, &sid, "allow_user_join_session", allow(&carol), "not_a_member").await;
    let dave = d.user_id.clone();
    let before = info(&mut a, &sid).await;
    a.refused("allow_user_join_session", allow(&dave), "not_found").await;
    a.refused("allow_user_join_session", allow(NOBODY), "not_found").await;
    assert_eq!(info(&mut a, &sid).await, before);
    d.quiet().await;
    c.quiet().await;
}

#[tokio::test]
async fn an_open_session_lets_in_at_once() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("set_session_info", set(&sid, "join_policy", json!("open"))).await;
    assert_eq!(b.ok("join_session", of(&sid)).await, json!({"status": "joined"}));
    for client in [&mut a, &mut b] {
        assert_eq!(client.expect("MemberJoined").await["role"], "member");
    }
    mark(&sid, &mut b, &mut [&mut a]).await;
    a.none("JoinSessionApproval").await;
}

#[tokio::test]
async fn a_closed_session_is_entered_by_invitation_of_an_owner_or_admin_only() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("set_session_info", set(&sid, "join_policy", json!("closed"))).await;
    refused_and_unchanged(&mut c, &mut a, &sid, "join_session", of(&sid), "permission_denied").await;
    let invite = json!({"session_id": sid, "invitee": c.user_id});
    refused_and_unchanged(&mut b, &mut a, &sid, "invite_user_to_session", invite.clone(), "permission_denied").await;
    admit(&mut a, &mut c, &sid).await;
    mark(&sid, &mut c, &mut [&mut a, &mut b]).await;
}

#[tokio::test]
async fn a_member_invites_and_is_told_of_the_answer() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let invite = json!({"session_id": sid, "invitee": c.user_id, "leave_message": "come in"});
    assert_eq!(b.ok("invite_user_to_session", invite).await, json!({}));
    let invited = c.expect("InviteUserToSession").await;
    assert_eq!((&invited["inviter_id"], &invited["leave_message"]), (&json!(b.user_id), &json!("come in")));
    let mut seen = info(&mut a, &sid).await["invitations"].take();
    let expires = seen[0]["expire_timestamp"].take();
    assert_eq!(expires, invited["expire_timestamp"]);
    assert_eq!(seen, json!([{"user_id": c.user_id, "inviter_id": b.user_id, "expire_timestamp": null}]));

    let accept = json!({"session_id": sid, "inviter_id": b.user_id, "accepted": true});
    assert_eq!(c.ok("accept_join_session_approval", accept.clone()).await, json!({}));
    let told = b.expect("AcceptSessionNotification").await;
    assert_eq!(told, json!({"session_id": sid, "invitee_id": c.user_id, "accepted": true}));
    a.expect_where("MemberJoined", |body| body["role"] == "member").await;
    assert_eq!(c.ok("accept_join_session_approval", accept).await, json!({}), "a repeat");
    mark(&sid, &mut c, &mut [&mut a, &mut b]).await;
    b.none("AcceptSessionNotification").await;
    a.none("AcceptSessionNotification").await;

    // Declined.
    b.ok("invite_user_to_session", json!({"session_id": sid, "invitee": d.user_id})).await;
    d.expect("InviteUserToSession").await;
    let decline = json!({"session_id": sid, "inviter_id": b.user_id, "accepted": false});
    d.ok("accept_join_session_approval", decline).await;
    assert_eq!(b.expect("AcceptSessionNotification").await["accepted"], false);
    d.refused("get_session_info", of(&sid), "not_a_member").await;
    assert_eq!(info(&mut a, &sid).await["invitations"], json!([]));
}

#[tokio::test]
async fn the_wrong_answer_to_an_invitation_is_refused() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let accept = |inviter: &str| json!({"session_id": sid, "inviter_id": inviter, "accepted": true});
    let (alice, bob) = (a.user_id.clone(), b.user_id.clone());
    let none = ["not_found", "not_a_member"];
    // Not invited at all, and not by this member.
    c.refused_any("accept_join_session_approval", accept(&alice), &none).await;
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": c.user_id})).await;
    let before = info(&mut a, &sid).await;
    c.refused_any("accept_join_session_approval", accept(&bob), &none).await;
    c.refused_any("accept_join_session_approval", accept(NOBODY), &none).await;
    c.refused("accept_join_session_approval", json!({"session_id": sid, "accepted": true}), "invalid_argument").await;
    assert_eq!(info(&mut a, &sid).await, before);
    c.ok("accept_join_session_approval", accept(&alice)).await;
}

#[tokio::test]
async fn users_that_are_not_there_cannot_be_invited() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let before = info(&mut a, &sid).await;
    a.refused("invite_user_to_session", json!({"session_id": sid, "invitee": NOBODY}), "not_found").await;
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn an_invitation_expires_with_its_time() {
    let node = Node::start(&[("sessions.invitation_lifetime_s", "1"), ("cluster.sweep_s", "1")]).await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": b.user_id})).await;
    let invited = b.expect_frame("InviteUserToSession", |_| true).await;
    b.until_past(invited["body"]["expire_timestamp"].as_str().expect("a time")).await;
    let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
    refused_and_unchanged(&mut b, &mut a, &sid, "accept_join_session_approval", accept, "expired").await;
    assert_eq!(info(&mut a, &sid).await["invitations"], json!([]), "a lapsed one is not listed");
    assert_eq!(b.expect("InboxWithdrawn").await, json!({"inbox_ids": [invited["inbox_id"]]}));
}

#[tokio::test]
async fn an_invitation_lapses_with_its_inviters_membership() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    b.ok("invite_user_to_session", json!({"session_id": sid, "invitee": c.user_id})).await;
    let invited = c.expect_frame("InviteUserToSession", |_| true).await;
    a.ok("kick_user", about(&sid, &b.user_id)).await;
    let withdrawn = c.expect("InboxWithdrawn").await;
    assert_eq!(withdrawn, json!({"inbox_ids": [invited["inbox_id"]]}));
    let accept = json!({"session_id": sid, "inviter_id": b.user_id, "accepted": true});
    refused_and_unchanged(&mut c, &mut a, &sid, "accept_join_session_approval", accept, "expired").await;
}

#[tokio::test]
async fn an_invitation_lapses_with_a_ban() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": b.user_id})).await;
    let invited = b.expect_frame("InviteUserToSession", |_| true).await;
    a.ok("ban_user", about(&sid, &b.user_id)).await;
    assert_eq!(b.expect("InboxWithdrawn").await["inbox_ids"], json!([invited["inbox_id"]]));
    let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
    b.refused("accept_join_session_approval", accept.clone(), "banned").await;
    a.ok("unban_user", about(&sid, &b.user_id)).await;
    refused_and_unchanged(&mut b, &mut a, &sid, "accept_join_session_approval", accept, "expired").await;
}

#[tokio::test]
async fn a_banned_user_is_neither_invited_nor_let_in() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    // A request that is open when the ban comes is no way in either.
    b.ok("join_session", of(&sid)).await;
    a.ok("ban_user", about(&sid, &b.user_id)).await;
    refused_and_unchanged(&mut b, &mut a, &sid, "join_session", of(&sid), "banned").await;
    let before = info(&mut a, &sid).await;
    let allow = json!({"session_id": sid, "user_id": b.user_id, "accepted": true});
    a.refused_any("allow_user_join_session", allow, &["not_found", "banned"]).await;
    let invite = json!({"session_id": sid, "invitee": b.user_id});
    a.refused("invite_user_to_session", invite, "banned").await;
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn with_encryption_on_those_who_let_in_learn_the_newcomers_public_key() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut []).await;
    b.ok("join_session", of(&sid)).await;
    let asked = a.expect("JoinSessionApproval").await;
    assert_eq!(asked, json!({"session_id": sid, "user_id": b.user_id, "public_key": keys::SPKI}));
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": c.user_id})).await;
    c.expect("InviteUserToSession").await;
    let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
    c.ok("accept_join_session_approval", accept).await;
    let told = a.expect("AcceptSessionNotification").await;
    let expected = json!({
        "session_id": sid, "invitee_id": c.user_id, "accepted": true, "public_key": keys::SPKI, "key_epoch": 1,
    });
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_approver_who_holds_the_key_gives_it() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut []).await;
    b.ok("join_session", of(&sid)).await;
    let mut allow = json!({"session_id": sid, "user_id": b.user_id, "accepted": true});
    let before = info(&mut a, &sid).await;
    a.refused("allow_user_join_session", allow.clone(), "room_key_required").await;
    allow["room_key"] = json!("a2V5");
    allow["key_check"] = json!(check(2));
    a.refused("allow_user_join_session", allow.clone(), "key_mismatch").await;
    allow["key_check"] = json!(check(1));
    allow["key_epoch"] = json!(2);
    a.refused("allow_user_join_session", allow.clone(), "stale_room_key").await;
    assert_eq!(info(&mut a, &sid).await, before);
    b.quiet().await;

    allow["key_epoch"] = json!(1);
    allow["signature"] = json!("c2ln");
    a.ok("allow_user_join_session", allow).await;
    let told = b.expect("AllowUserJoinSessionNotification").await;
    let expected = json!({
        "session_id": sid, "user_id": a.user_id, "accepted": true, "room_key": "a2V5", "key_epoch": 1,
        "key_check": check(1), "signature": "c2ln",
    });
    assert_eq!(told, expected);
    assert_eq!(member(&info(&mut a, &sid).await, &b.user_id)["has_key"], true);
    let page = b.ok("fetch_room_keys", of(&sid)).await;
    assert_eq!((&page["room_keys"][0]["key_epoch"], &page["room_keys"][0]["room_key"]), (&json!(1), &json!("a2V5")));
}

#[tokio::test]
async fn an_approver_without_the_key_admits_without_it() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    b.ok("request_room_key", json!({"session_id": sid, "reason": "lost"})).await;
    c.ok("join_session", of(&sid)).await;
    b.ok("allow_user_join_session", json!({"session_id": sid, "user_id": c.user_id, "accepted": true})).await;
    let told = c.expect("AllowUserJoinSessionNotification").await;
    assert_eq!(told, json!({"session_id": sid, "user_id": b.user_id, "accepted": true}));
    // And a holder is asked, whoever admitted them.
    let carol = c.user_id.clone();
    a.expect_where("SendRoomKeyNotification", |ask| ask["user_id"] == *carol).await;
    assert_eq!(member(&info(&mut a, &sid).await, &carol)["has_key"], false);
}

#[tokio::test]
async fn an_open_session_is_a_plain_one() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    let before = info(&mut a, &sid).await;
    let open = set(&sid, "join_policy", json!("open"));
    a.refused_any("set_session_info", open, &["invalid_argument", "permission_denied"]).await;
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn a_session_takes_no_more_than_its_members() {
    let node = Node::start(&[("sessions.max_members", "2")]).await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("set_session_info", set(&sid, "join_policy", json!("open"))).await;
    let before = info(&mut a, &sid).await;
    c.refused_any("join_session", of(&sid), &["too_large", "overloaded", "permission_denied", "rate_limited"]).await;
    assert_eq!(info(&mut a, &sid).await, before);
    b.ok("leave_session", of(&sid)).await;
    assert_eq!(c.ok("join_session", of(&sid)).await["status"], "joined");
}
