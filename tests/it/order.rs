//! Order of effects, which refusal comes first, and repeats.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn requests_to_one_session_take_effect_in_the_order_sent() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut ids = Vec::new();
    for number in 0..60 {
        ids.push(a.send("send_msg", text(&sid, &number.to_string())).await);
    }
    let mut seqs = Vec::new();
    for id in ids {
        seqs.push(a.answer(id).await.expect("sent")["seq"].as_u64().expect("a seq"));
    }
    assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "{seqs:?}");
    for (number, seq) in seqs.iter().enumerate() {
        let msg = b.expect("Msg").await;
        assert_eq!((&msg["seq"], &msg["markdown_text"]), (&json!(seq), &json!(number.to_string())));
    }
}

#[tokio::test]
async fn a_refused_request_does_not_stop_the_next() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let first = a.send("send_msg", text(&sid, "one")).await;
    let wrong = a.send("set_role", json!({"session_id": sid, "user_id": a.user_id, "role": "member"})).await;
    let unreadable = a.send("send_msg", json!({"session_id": sid})).await;
    let last = a.send("send_msg", text(&sid, "two")).await;
    let one = a.answer(first).await.expect("done")["seq"].as_u64().expect("a seq");
    assert_eq!(a.answer(wrong).await.expect_err("oneself")["code"], "invalid_argument");
    assert_eq!(a.answer(unreadable).await.expect_err("no text")["code"], "invalid_argument");
    assert_eq!(a.answer(last).await.expect("done")["seq"], one + 1);
}

#[tokio::test]
async fn time_never_goes_back_within_a_session() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    for _ in 0..20 {
        mark(&sid, &mut a, &mut []).await;
    }
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0})).await;
    let events = page["events"].as_array().expect("events");
    assert!(events.len() > 20);
    let times: Vec<&str> = events.iter().filter_map(|event| event["body"]["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.iter().all(|time| time.len() == 24 && time.ends_with('Z')), "{times:?}");
}

/// Arguments, session, banned, not a member, role, target, state: each row fits two of them, and the first is said.
#[tokio::test]
async fn which_refusal_is_said_where_several_fit() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut d = node.client("dave").await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    a.ok("ban_user", about(&sid, &c.user_id)).await;
    a.ok("mute_user", about(&sid, &b.user_id)).await;

    // Arguments before the session.
    b.refused("send_msg", json!({"session_id": NOBODY, "markdown_text": 7, "is_encrypted": false}), "invalid_argument")
        .await;
    d.refused("ban_user", json!({"session_id": sid, "user_id": NOBODY, "duration_s": 0}), "invalid_argument").await;
    // The session before all that is in it.
    c.refused("kick_user", about(NOBODY, NOBODY), "not_found").await;
    // Banned before not a member, and both before role and target.
    c.refused("get_session_info", of(&sid), "banned").await;
    c.refused("kick_user", about(&sid, NOBODY), "banned").await;
    c.refused("join_session", of(&sid), "banned").await;
    d.refused("kick_user", about(&sid, NOBODY), "not_a_member").await;
    d.refused("send_msg", cipher(&sid, 1), "not_a_member").await;
    // The role before the target and the state.
    b.refused("kick_user", about(&sid, NOBODY), "permission_denied").await;
    b.refused("e2eeize_session", of(&sid), "permission_denied").await;
    b.refused("set_role", json!({"session_id": sid, "user_id": NOBODY, "role": "admin"}), "permission_denied").await;
    // The target before the state.
    a.refused("send_room_key", key_for(&sid, NOBODY, 1), "not_found").await;
}

#[tokio::test]
async fn oneself_as_the_target_is_an_invalid_argument() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let me = a.user_id.clone();
    for name in ["kick_user", "ban_user", "mute_user"] {
        let before = info(&mut a, &sid).await;
        a.refused(name, about(&sid, &me), "invalid_argument").await;
        assert_eq!(info(&mut a, &sid).await, before);
    }
    a.refused("set_role", json!({"session_id": sid, "user_id": me, "role": "admin"}), "invalid_argument").await;
}

/// What happens to a session whose state already is what is asked for: `{}`, no event, nothing changed.
#[tokio::test]
async fn a_request_whose_effect_already_holds_is_answered_as_if_just_done() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    let (bob, carol) = (b.user_id.clone(), c.user_id.clone());
    let rows: Vec<(&str, Value)> = vec![
        ("mute_user", about(&sid, &bob)),
        ("unmute_user", about(&sid, &bob)),
        ("set_role", json!({"session_id": sid, "user_id": bob, "role": "admin"})),
        (
            "set_session_info",
            json!({"session_id": sid, "name": "Tea", "rotate_on_join": true, "join_policy": "closed"}),
        ),
        ("kick_user", about(&sid, &carol)),
        ("ban_user", about(&sid, &carol)),
        ("unban_user", about(&sid, &carol)),
        ("dee2eeize_session", of(&sid)),
    ];
    for (name, body) in rows {
        assert_eq!(a.ok(name, body.clone()).await, json!({}), "{name}");
        let once = info(&mut a, &sid).await;
        assert_eq!(a.ok(name, body.clone()).await, json!({}), "{name} again");
        assert_eq!(info(&mut a, &sid).await, once, "{name} again changed something");
    }
}

#[tokio::test]
async fn a_repeated_client_session_id_is_one_session() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let body = json!({"e2ee_on": true, "client_session_id": "mine", "members": [b.user_id], "key_check": check(1)});
    let first = a.ok("new_session", body.clone()).await;
    assert_eq!(a.ok("new_session", body.clone()).await, first);
    b.expect("InviteUserToSession").await;
    b.none("InviteUserToSession").await;
    // Another creator's is another session.
    let theirs = b.ok("new_session", json!({"e2ee_on": false, "client_session_id": "mine"})).await;
    assert_ne!(theirs["session_id"], first["session_id"]);
    // And another id of the same creator.
    let other = a.ok("new_session", json!({"e2ee_on": false, "client_session_id": "yours"})).await;
    assert_ne!(other["session_id"], first["session_id"]);
    let sessions = node.user("watcher").await.authenticated().await;
    assert_eq!(sessions.started["sessions"], json!([]));
}

#[tokio::test]
async fn a_repeated_client_msg_id_is_one_message() {
    let node = Node::shared().await;
    let (alice, mut b) = (node.user("alice").await, node.client("bob").await);
    let (mut a, mut again) = (alice.connect().await, alice.connect().await);
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut body = text(&sid, "once");
    body["client_msg_id"] = json!("m-1");
    // Two in flight at once, and one from another connection.
    let (one, two) = (a.send("send_msg", body.clone()).await, a.send("send_msg", body.clone()).await);
    let first = a.answer(one).await.expect("sent");
    assert_eq!(a.answer(two).await.expect("sent"), first);
    assert_eq!(again.ok("send_msg", body.clone()).await, first);
    let msg = b.expect_where("Msg", |msg| msg["markdown_text"] == "once").await;
    assert_eq!((&msg["seq"], &msg["time"], &msg["client_msg_id"]), (&first["seq"], &first["time"], &json!("m-1")));
    // Whatever else would be refused now: it was done, and is answered alike.
    b.ok("send_msg", body.clone()).await;
    let bob = b.user_id.clone();
    b.expect_where("Msg", |msg| msg["sender_id"] == *bob).await;
    let mut larger = body.clone();
    larger["markdown_text"] = json!("another text");
    assert_eq!(a.ok("send_msg", larger).await, first);
    mark(&sid, &mut a, &mut [&mut b]).await;
    b.none_where("Msg", |msg| msg["client_msg_id"] == "m-1").await;
}

#[tokio::test]
async fn a_repeat_is_answered_alike_even_by_one_who_is_muted_since() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut body = text(&sid, "once");
    body["client_msg_id"] = json!("m-1");
    let first = b.ok("send_msg", body.clone()).await;
    a.ok("mute_user", about(&sid, &b.user_id)).await;
    assert_eq!(b.ok("send_msg", body.clone()).await, first);
    body["client_msg_id"] = json!("m-2");
    b.refused("send_msg", body.clone(), "muted").await;
    // A former member gets nothing.
    a.ok("kick_user", about(&sid, &b.user_id)).await;
    body["client_msg_id"] = json!("m-1");
    b.refused("send_msg", body, "not_a_member").await;
}
