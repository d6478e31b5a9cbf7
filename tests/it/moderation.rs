//! Kicking, banning, muting, roles.

use serde_json::json;

use crate::support::*;

/// Owner, two admins and two members.
async fn five() -> ([Client; 5], String) {
    let node = Node::shared().await;
    let mut owner = node.client("owner").await;
    let [mut admin, mut other_admin, mut member] = node.three().await;
    let mut other = node.client("other").await;
    let sid = plain(&mut owner, &mut [&mut admin, &mut other_admin, &mut member, &mut other]).await;
    for id in [&admin.user_id, &other_admin.user_id] {
        owner.ok("set_role", json!({"session_id": sid, "user_id": id, "role": "admin"})).await;
    }
    settle(&sid, &mut owner, &mut [&mut admin, &mut other_admin, &mut member, &mut other]).await;
    ([owner, admin, other_admin, member, other], sid)
}

const OVER: &[&str] = &["kick_user", "ban_user", "unban_user", "mute_user", "unmute_user"];

#[tokio::test]
async fn only_higher_roles_have_power_over_lower_ones() {
    let ([mut owner, mut admin, other_admin, mut member, other], sid) = five().await;
    let before = info(&mut owner, &sid).await;
    for name in OVER {
        let lower = ["kick_user", "ban_user", "mute_user"].contains(name);
        for target in [&owner.user_id, &other_admin.user_id] {
            if lower {
                admin.refused(name, about(&sid, target), "permission_denied").await;
            }
            member.refused(name, about(&sid, target), "permission_denied").await;
        }
        member.refused(name, about(&sid, &other.user_id), "permission_denied").await;
    }
    for caller in [&mut admin, &mut member] {
        let body = json!({"session_id": sid, "user_id": other.user_id, "role": "admin"});
        caller.refused("set_role", body, "permission_denied").await;
    }
    assert_eq!(info(&mut owner, &sid).await, before);
    // And an admin over a member, the owner over an admin.
    admin.ok("kick_user", about(&sid, &other.user_id)).await;
    owner.ok("kick_user", about(&sid, &other_admin.user_id)).await;
}

#[tokio::test]
async fn a_kicked_member_is_out_and_may_come_back_as_a_member() {
    let ([mut owner, mut admin, ..], sid) = five().await;
    assert_eq!(owner.ok("kick_user", about(&sid, &admin.user_id)).await, json!({}));
    for client in [&mut owner, &mut admin] {
        let left = client.expect("MemberLeft").await;
        assert_eq!((&left["reason"], left["by"].is_string()), (&json!("kicked"), true));
    }
    admin.refused("send_msg", text(&sid, "x"), "not_a_member").await;
    admit(&mut owner, &mut admin, &sid).await;
    let seen = info(&mut owner, &sid).await;
    assert_eq!(member(&seen, &admin.user_id)["role"], "member", "the role was not kept");
}

#[tokio::test]
async fn a_banned_member_is_removed_and_kept_out_until_unbanned() {
    let ([mut owner, _, _, mut member, mut other], sid) = five().await;
    assert_eq!(owner.ok("ban_user", about(&sid, &member.user_id)).await, json!({}));
    let left = other.expect("MemberLeft").await;
    assert_eq!((&left["user_id"], &left["reason"]), (&json!(member.user_id), &json!("banned")));
    member.expect("MemberLeft").await;
    for (name, body) in [
        ("join_session", of(&sid)),
        ("get_session_info", of(&sid)),
        ("send_msg", text(&sid, "x")),
        ("leave_session", of(&sid)),
        ("fetch_msgs", json!({"session_id": sid, "after_seq": 0})),
        ("typing", of(&sid)),
        ("ack", json!({"session_id": sid, "seq": 1})),
        ("list_members", of(&sid)),
        ("fetch_room_keys", of(&sid)),
    ] {
        member.refused(name, body, "banned").await;
    }
    owner.ok("unban_user", about(&sid, &member.user_id)).await;
    assert_eq!(member.ok("join_session", of(&sid)).await, json!({"status": "pending"}));
}

#[tokio::test]
async fn a_ban_may_name_a_user_who_is_no_member() {
    let node = Node::shared().await;
    let ([mut owner, _, _, mut member, _], sid) = five().await;
    let mut stranger = node.client("stranger").await;
    owner.ok("ban_user", about(&sid, &stranger.user_id)).await;
    let changed = member.expect("MemberRestricted").await;
    assert_eq!((&changed["user_id"], &changed["banned"]), (&json!(stranger.user_id), &json!(true)));
    assert!(changed.get("banned_until").is_none(), "without end: {changed}");
    stranger.refused("join_session", of(&sid), "banned").await;
    owner.refused("ban_user", about(&sid, NOBODY), "not_found").await;
}

#[tokio::test]
async fn a_ban_and_a_mute_end_with_their_time() {
    let ([mut owner, _, _, mut member, mut other], sid) = five().await;
    let for_a_second = |user: &str| json!({"session_id": sid, "user_id": user, "duration_s": 1});
    owner.ok("mute_user", for_a_second(&member.user_id)).await;
    let muted = other.expect("MemberRestricted").await;
    let expected = json!({
        "session_id": sid, "seq": muted["seq"], "time": muted["time"], "by": owner.user_id, "user_id": member.user_id,
        "muted": true, "muted_until": muted["muted_until"], "banned": false,
    });
    assert_eq!(muted, expected);
    member.refused("send_msg", text(&sid, "x"), "muted").await;
    member.until_past(muted["muted_until"].as_str().expect("a time")).await;
    member.ok("send_msg", text(&sid, "x")).await;
    assert_eq!(self::member(&info(&mut owner, &sid).await, &member.user_id)["muted"], false);

    owner.ok("ban_user", for_a_second(&member.user_id)).await;
    let banned = other.expect_where("MemberRestricted", |body| body["banned"] == true).await;
    member.refused("join_session", of(&sid), "banned").await;
    member.until_past(banned["banned_until"].as_str().expect("a time")).await;
    member.ok("join_session", of(&sid)).await;
}

#[tokio::test]
async fn a_muted_member_reads_and_does_not_speak() {
    let ([mut owner, _, _, mut member, _], sid) = five().await;
    owner.ok("mute_user", about(&sid, &member.user_id)).await;
    refused_and_unchanged(&mut member, &mut owner, &sid, "send_msg", text(&sid, "x"), "muted").await;
    let seq = mark(&sid, &mut owner, &mut [&mut member]).await;
    member.ok("fetch_msgs", json!({"session_id": sid, "after_seq": seq - 1})).await;
    let shown = self::member(&info(&mut member, &sid).await, &member.user_id).clone();
    assert_eq!((&shown["muted"], shown.get("muted_until")), (&json!(true), None));
    owner.ok("unmute_user", about(&sid, &member.user_id)).await;
    member.expect_where("MemberRestricted", |body| body["muted"] == false).await;
    member.ok("send_msg", text(&sid, "x")).await;
}

#[tokio::test]
async fn a_second_mute_replaces_the_first() {
    let ([mut owner, _, _, mut member, _], sid) = five().await;
    let body = json!({"session_id": sid, "user_id": member.user_id, "duration_s": 3600});
    owner.ok("mute_user", body.clone()).await;
    let mut shorter = body;
    shorter["duration_s"] = json!(1800);
    let first = owner.expect_where("MemberRestricted", |body| body["muted"] == true).await;
    owner.ok("mute_user", shorter).await;
    let second = owner.expect_where("MemberRestricted", |body| body["muted"] == true).await;
    assert!(second["muted_until"].as_str() < first["muted_until"].as_str(), "the last word counts");
    member.refused("send_msg", text(&sid, "x"), "muted").await;
}

#[tokio::test]
async fn wrong_lengths_of_time_are_refused() {
    let ([mut owner, _, _, member, _], sid) = five().await;
    let before = info(&mut owner, &sid).await;
    for duration in [json!(0), json!(-1), json!(1.5), json!("60")] {
        for name in ["ban_user", "mute_user"] {
            let body = json!({"session_id": sid, "user_id": member.user_id, "duration_s": duration});
            owner.refused(name, body, "invalid_argument").await;
        }
    }
    assert_eq!(info(&mut owner, &sid).await, before);
    // The longest that can be said is no overflow.
    let body = json!({"session_id": sid, "user_id": member.user_id, "duration_s": u64::MAX});
    owner.ok("mute_user", body).await;
    assert_eq!(self::member(&info(&mut owner, &sid).await, &member.user_id)["muted"], true);
}

#[tokio::test]
async fn the_owner_gives_roles() {
    let ([mut owner, _, _, mut member, mut other], sid) = five().await;
    let body = json!({"session_id": sid, "user_id": member.user_id, "role": "admin"});
    assert_eq!(owner.ok("set_role", body).await, json!({}));
    let changed = other.expect("RoleChanged").await;
    assert_eq!((&changed["user_id"], &changed["role"]), (&json!(member.user_id), &json!("admin")));
    assert_eq!(changed["by"], *owner.user_id);
    member.ok("mute_user", about(&sid, &other.user_id)).await;
    let body = json!({"session_id": sid, "user_id": member.user_id, "role": "member"});
    owner.ok("set_role", body).await;
    member.refused("unmute_user", about(&sid, &other.user_id), "permission_denied").await;
    let body = json!({"session_id": sid, "user_id": NOBODY, "role": "admin"});
    owner.refused("set_role", body, "not_found").await;
}

#[tokio::test]
async fn ownership_is_handed_over() {
    let ([mut owner, _, _, mut member, mut other], sid) = five().await;
    let body = json!({"session_id": sid, "user_id": member.user_id, "role": "owner"});
    owner.ok("set_role", body).await;
    let (old, new) = (owner.user_id.clone(), member.user_id.clone());
    other.expect_where("RoleChanged", |body| body["user_id"] == *new && body["role"] == "owner").await;
    other.expect_where("RoleChanged", |body| body["user_id"] == *old && body["role"] == "admin").await;
    let seen = info(&mut member, &sid).await;
    let owners = seen["members"].as_array().expect("members").iter().filter(|member| member["role"] == "owner");
    assert_eq!(owners.count(), 1);
    owner.refused("delete_session", of(&sid), "permission_denied").await;
    member.ok("delete_session", of(&sid)).await;
}
