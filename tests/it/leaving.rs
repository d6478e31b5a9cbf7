//! Going: leaving, handing over, ending a session.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_member_leaves_and_all_see_it() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    assert_eq!(b.ok("leave_session", of(&sid)).await, json!({}));
    for client in [&mut a, &mut b] {
        let left = client.expect("MemberLeft").await;
        assert_eq!(left["reason"], "left");
    }
    assert_eq!(info(&mut a, &sid).await["member_count"], 1);
    b.refused("leave_session", of(&sid), "not_a_member").await;
    b.refused("send_msg", text(&sid, "x"), "not_a_member").await;
}

#[tokio::test]
async fn an_owner_who_leaves_hands_over_to_the_oldest_admin() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = plain(&mut a, &mut [&mut b, &mut c, &mut d]).await;
    for admin in [&d.user_id, &c.user_id] {
        a.ok("set_role", json!({"session_id": sid, "user_id": admin, "role": "admin"})).await;
    }
    settle(&sid, &mut a, &mut [&mut b, &mut c, &mut d]).await;
    a.ok("leave_session", of(&sid)).await;
    // Carol has been in longer than dave, and bob is no admin.
    let carol = c.user_id.clone();
    for client in [&mut b, &mut c, &mut d] {
        let changed = client.expect("RoleChanged").await;
        assert_eq!((&changed["user_id"], &changed["role"]), (&json!(carol), &json!("owner")));
    }
    let seen = info(&mut c, &sid).await;
    assert_eq!(member(&seen, &carol)["role"], "owner");
    assert_eq!(member(&seen, &d.user_id)["role"], "admin");
}

#[tokio::test]
async fn an_owner_who_leaves_without_admins_hands_over_to_the_oldest_member() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("leave_session", of(&sid)).await;
    assert_eq!(c.expect("RoleChanged").await["user_id"], *b.user_id);
    assert_eq!(member(&info(&mut b, &sid).await, &b.user_id)["role"], "owner");
}

#[tokio::test]
async fn the_last_one_out_ends_the_session() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    for sid in [plain(&mut a, &mut [&mut b]).await, encrypted(&mut a, &mut [&mut b]).await] {
        b.ok("leave_session", of(&sid)).await;
        a.ok("leave_session", of(&sid)).await;
        for client in [&mut a, &mut b] {
            client.refused("get_session_info", of(&sid), "not_found").await;
            client.refused("join_session", of(&sid), "not_found").await;
        }
    }
}

#[tokio::test]
async fn the_last_holder_of_the_key_does_not_leave_others_without_it_unless_forced() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    b.ok("request_room_key", json!({"session_id": sid, "reason": "lost"})).await;
    settle(&sid, &mut a, &mut [&mut b]).await;
    let before = info(&mut a, &sid).await;
    a.refused("leave_session", of(&sid), "last_key_holder").await;
    a.refused("leave_session", json!({"session_id": sid, "force": false}), "last_key_holder").await;
    assert_eq!(info(&mut a, &sid).await, before);
    // Who is no holder may go.
    a.ok("leave_session", json!({"session_id": sid, "force": true})).await;
    assert_eq!(b.expect("MemberLeft").await["user_id"], *a.user_id);
}

#[tokio::test]
async fn who_holds_no_key_or_is_not_the_last_leaves_unforced() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    c.ok("request_room_key", json!({"session_id": sid, "reason": "lost"})).await;
    c.ok("leave_session", of(&sid)).await;
    a.ok("leave_session", of(&sid)).await;
    b.ok("leave_session", of(&sid)).await;
}

#[tokio::test]
async fn the_owner_deletes_the_session_and_nobody_else() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    refused_and_unchanged(&mut b, &mut a, &sid, "delete_session", of(&sid), "permission_denied").await;
    refused_and_unchanged(&mut c, &mut a, &sid, "delete_session", of(&sid), "not_a_member").await;
    assert_eq!(a.ok("delete_session", of(&sid)).await, json!({}));
    for client in [&mut a, &mut b] {
        assert_eq!(client.expect("SessionDeleted").await["session_id"], *sid);
        client.refused("get_session_info", of(&sid), "not_found").await;
    }
    a.refused("delete_session", of(&sid), "not_found").await;
    c.refused("join_session", of(&sid), "not_found").await;
}

#[tokio::test]
async fn an_invitation_to_a_session_that_ended_is_taken_back() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": b.user_id})).await;
    let invited = b.expect_frame("InviteUserToSession", |_| true).await;
    a.ok("delete_session", of(&sid)).await;
    assert_eq!(b.expect("InboxWithdrawn").await["inbox_ids"], json!([invited["inbox_id"]]));
    let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
    b.refused("accept_join_session_approval", accept, "not_found").await;
}
