//! `send_msg` and `typing`.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_message_reaches_every_member_with_what_was_sent() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    let body = json!({
        "session_id": sid, "markdown_text": "# é 🔑 \"quoted\" \\ \u{0}\n", "is_encrypted": false,
        "client_msg_id": "m-1", "content_type": "text/plain",
    });
    let sent = b.ok("send_msg", body).await;
    for client in [&mut a, &mut b, &mut c] {
        let msg = client.expect("Msg").await;
        let expected = json!({
            "session_id": sid, "seq": sent["seq"], "time": sent["time"], "sender_id": msg["sender_id"],
            "markdown_text": "# é 🔑 \"quoted\" \\ \u{0}\n", "is_encrypted": false, "client_msg_id": "m-1",
            "content_type": "text/plain",
        });
        let mut without_by = msg.clone();
        without_by.as_object_mut().expect("an object").remove("by");
        assert_eq!(without_by, expected);
    }
    assert_eq!(sent.as_object().map(serde_json::Map::len), Some(2), "{sent}");
}

#[tokio::test]
async fn what_a_message_does_not_have_is_left_out() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("send_msg", text(&sid, "")).await;
    let msg = a.expect("Msg").await;
    for field in ["key_epoch", "content_type", "recalled"] {
        assert!(msg.get(field).is_none(), "{msg}");
    }
    assert_eq!(msg["sender_id"], *a.user_id);
}

#[tokio::test]
async fn wrong_messages_are_refused_and_take_no_seq() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let good = text(&sid, "x");
    let rows: &[(&str, Value)] = &[
        ("session_id", json!("no uuid")),
        ("session_id", Value::Null),
        ("markdown_text", json!(7)),
        ("markdown_text", Value::Null),
        ("is_encrypted", json!("no")),
        ("is_encrypted", Value::Null),
        ("key_epoch", json!(0)),
        ("key_epoch", json!(-1)),
        ("client_msg_id", json!("")),
        ("client_msg_id", json!("é".repeat(33))),
        ("client_msg_id", json!(7)),
        ("content_type", json!(7)),
    ];
    let before = info(&mut a, &sid).await;
    for (field, value) in rows {
        let mut body = good.clone();
        body[field] = value.clone();
        let error = a.refused("send_msg", body, "invalid_argument").await;
        assert!(error["message"].as_str().expect("a message").starts_with(field), "{error}");
    }
    assert_eq!(info(&mut a, &sid).await, before);
    a.ok(
        "send_msg",
        json!({"session_id": sid, "markdown_text": "x", "is_encrypted": false, "client_msg_id": "é".repeat(32)}),
    )
    .await;
}

#[tokio::test]
async fn a_text_over_the_limit_is_too_large() {
    let node = Node::start(&[("limits.text_bytes", "100")]).await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("send_msg", text(&sid, &"é".repeat(50))).await;
    let before = info(&mut a, &sid).await;
    let long = "zQxJk7".repeat(20);
    let error = a.refused("send_msg", text(&sid, &long), "too_large").await;
    assert!(!error.to_string().contains("zQxJk7"), "{error}");
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn encrypted_messages_are_for_encrypted_sessions() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let before = info(&mut a, &sid).await;
    a.refused("send_msg", cipher(&sid, 1), "e2ee_not_on").await;
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn typing_is_heard_by_the_others_who_are_connected_and_never_stored() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    let before = info(&mut a, &sid).await;
    assert_eq!(b.ok("typing", of(&sid)).await, json!({}));
    let expected = json!({"type": "Typing", "body": {"session_id": sid, "user_id": b.user_id}});
    for client in [&mut a, &mut c] {
        assert_eq!(client.expect_frame("Typing", |_| true).await, expected);
    }
    mark(&sid, &mut a, &mut [&mut b, &mut c]).await;
    b.none("Typing").await;
    let mut after = info(&mut a, &sid).await;
    after["last_seq"] = before["last_seq"].clone();
    assert_eq!(after, before);
    c.ok("leave_session", of(&sid)).await;
    c.refused("typing", of(&sid), "not_a_member").await;
    c.refused("typing", of(NOBODY), "not_found").await;
}

#[tokio::test]
async fn other_sessions_are_untouched() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let one = plain(&mut a, &mut [&mut b]).await;
    let two = encrypted(&mut a, &mut [&mut c]).await;
    let other = info(&mut a, &two).await;
    b.refused("kick_user", about(&one, &a.user_id), "permission_denied").await;
    b.refused("send_msg", text(&two, "x"), "not_a_member").await;
    mark(&one, &mut b, &mut [&mut a]).await;
    a.ok("kick_user", about(&one, &b.user_id)).await;
    a.ok("mute_user", about(&two, &c.user_id)).await;
    a.ok("unmute_user", about(&two, &c.user_id)).await;
    let mut after = info(&mut a, &two).await;
    after["last_seq"] = other["last_seq"].clone();
    assert_eq!(after, other);
    c.none_where("Msg", |msg| msg["session_id"] == *one).await;
}
