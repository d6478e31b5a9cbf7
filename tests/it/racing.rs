//! Two at once: whoever is first, what holds afterwards is one of the two orders and nothing in between.

use serde_json::{Value, json};

use crate::support::*;

/// Both requests on their way before either is answered.
async fn at_once(
    (one, name, body): (&mut Client, &str, Value),
    (two, other_name, other_body): (&mut Client, &str, Value),
) -> [Result<Value, Value>; 2] {
    let first = one.send(name, body).await;
    let second = two.send(other_name, other_body).await;
    [one.answer(first).await, two.answer(second).await]
}

#[tokio::test]
async fn a_message_that_is_retried_on_another_connection_meanwhile_is_stored_once() {
    let node = Node::shared().await;
    let (alice, mut b) = (node.user("alice").await, node.client("bob").await);
    let (mut one, mut two) = (alice.connect().await, alice.connect().await);
    let sid = plain(&mut one, &mut [&mut b]).await;
    for round in 0..20 {
        let mut body = text(&sid, "again");
        body["client_msg_id"] = json!(format!("m-{round}"));
        let [first, second] = at_once((&mut one, "send_msg", body.clone()), (&mut two, "send_msg", body)).await;
        assert_eq!(first.expect("sent"), second.expect("sent"));
    }
    mark(&sid, &mut one, &mut [&mut b]).await;
    assert_eq!(b.all("Msg").len(), 20);
}

#[tokio::test]
async fn a_session_that_is_made_on_two_connections_at_once_is_one() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let (mut one, mut two) = (alice.connect().await, alice.connect().await);
    for round in 0..10 {
        let body = json!({"e2ee_on": true, "client_session_id": format!("s-{round}")});
        let [first, second] = at_once((&mut one, "new_session", body.clone()), (&mut two, "new_session", body)).await;
        assert_eq!(first.expect("made"), second.expect("made"));
    }
    assert_eq!(alice.authenticated().await.started["sessions"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn who_accepts_while_they_are_allowed_joins_once() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    for _ in 0..5 {
        let mut b = node.client("bob").await;
        a.ok("invite_user_to_session", json!({"session_id": sid, "invitee": b.user_id})).await;
        b.ok("join_session", of(&sid)).await;
        let accept = json!({"session_id": sid, "inviter_id": a.user_id, "accepted": true});
        let mut allow = key_for(&sid, &b.user_id, 1);
        allow["accepted"] = json!(true);
        let answers =
            at_once((&mut b, "accept_join_session_approval", accept), (&mut a, "allow_user_join_session", allow)).await;
        for answer in answers {
            assert_eq!(answer.expect("it holds either way"), json!({}));
        }
        mark(&sid, &mut a, &mut [&mut b]).await;
        let theirs = |body: &&Value| body["user_id"] == *b.user_id;
        assert_eq!(a.all("MemberJoined").iter().filter(theirs).count(), 1);
        assert_eq!(member(&info(&mut a, &sid).await, &b.user_id)["role"], "member");
    }
}

#[tokio::test]
async fn of_the_last_two_holders_who_leave_at_once_one_has_to_stay() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    // Carol is in, and without the key.
    admit(&mut a, &mut c, &sid).await;
    let answers = at_once((&mut a, "leave_session", of(&sid)), (&mut b, "leave_session", of(&sid))).await;
    let refused: Vec<&Value> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{answers:?}");
    assert_eq!(refused[0]["code"], "last_key_holder");
    assert_eq!(info(&mut c, &sid).await["member_count"], 2);
}

#[tokio::test]
async fn ownership_given_to_two_goes_to_the_first() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    let give = |to: &str| json!({"session_id": sid, "user_id": to, "role": "owner"});
    let (to_b, to_c) = (give(&b.user_id), give(&c.user_id));
    let first = a.send("set_role", to_b).await;
    let second = a.send("set_role", to_c).await;
    a.answer(first).await.expect("given");
    assert_eq!(a.answer(second).await.expect_err("no longer theirs to give")["code"], "permission_denied");
    let seen = info(&mut c, &sid).await;
    let owners = seen["members"].as_array().expect("members").iter().filter(|member| member["role"] == "owner");
    assert_eq!(owners.count(), 1, "{seen}");
}
