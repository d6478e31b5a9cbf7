//! Frames: the envelope, what is no frame of the contract, and RFC 6455.

use serde_json::{Value, json};

use crate::support::ws::{self, Ws};
use crate::support::*;

async fn connected(name: &str) -> Client {
    Node::shared().await.client(name).await
}

#[tokio::test]
async fn a_reply_has_the_requests_id_and_type() {
    let mut client = connected("alice").await;
    for id in [0_u64, 7, 7, 9_007_199_254_740_991] {
        client.text(&json!({"id": id, "type": "ping"}).to_string()).await;
        let reply = client.reply_where(|reply| reply["reply_to"] == id).await;
        assert_eq!(reply["type"], "ping");
        assert!(reply["body"]["time"].is_string());
        assert_eq!(reply.as_object().map(serde_json::Map::len), Some(3), "{reply}");
    }
}

#[tokio::test]
async fn a_frame_may_have_unknown_fields_and_a_body_null_or_left_out() {
    let mut client = connected("alice").await;
    for text in [
        r#"{"type":"ping","id":5}"#,
        r#"{"id":5,"type":"ping","body":null}"#,
        r#"{"id":5,"type":"ping","body":{"later":[1,2,{}]},"trace":"x"}"#,
        " \n{ \"id\" : 5 , \"type\" : \"p\\u0069ng\" }\t",
    ] {
        client.text(text).await;
        let reply = client.reply_where(|reply| reply["reply_to"] == 5).await;
        assert_eq!(reply["type"], "ping", "{text}");
    }
}

#[tokio::test]
async fn a_null_counts_as_left_out_wherever_a_field_may_be() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let [mut b, mut c, _] = node.three().await;
    let mut a = alice.authenticated().await;
    a.ok("resume", json!({"cursors": null})).await;
    let nothing = json!({
        "e2ee_on": false, "name": null, "members": null, "room_key": null, "key_check": null, "leave_message": null,
        "client_session_id": null,
    });
    a.ok("new_session", nothing).await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    let rows = [
        (
            "send_msg",
            json!({"markdown_text": "x", "is_encrypted": true, "key_epoch": null, "client_msg_id": null, "content_type": null}),
        ),
        (
            "send_room_key",
            json!({"user_id": a.user_id, "room_key": "a2V5", "key_epoch": null, "key_check": null, "signature": null}),
        ),
        (
            "send_room_keys",
            json!({"room_keys": [], "key_epoch": null, "key_check": null, "signature": null, "withheld": null}),
        ),
        ("fetch_room_keys", json!({"after_epoch": null, "limit": null})),
        ("fetch_msgs", json!({"after_seq": 0, "before_seq": null, "limit": null})),
        ("list_members", json!({"after": null, "limit": null})),
        ("invite_user_to_session", json!({"invitee": c.user_id, "leave_message": null})),
        ("mute_user", json!({"user_id": b.user_id, "duration_s": null})),
        (
            "set_session_info",
            json!({"name": null, "description": null, "require_encryption": null, "rotate_on_join": null, "join_policy": null}),
        ),
    ];
    for (name, mut body) in rows {
        body["session_id"] = json!(sid);
        a.ok(name, body).await;
    }
    a.none("SessionInfoChanged").await;
    assert!(c.expect("InviteUserToSession").await.get("leave_message").is_none());
    assert!(b.expect("MemberRestricted").await.get("muted_until").is_none());
    c.ok("join_session", json!({"session_id": sid, "leave_message": null})).await;
    b.ok("leave_session", json!({"session_id": sid, "force": null})).await;
    let mut second = Client::open(node.address).await;
    second.refused("authenticate", json!({"token": null}), "unauthenticated").await;
}

#[tokio::test]
async fn an_unknown_type_is_refused_with_its_id() {
    let mut client = connected("alice").await;
    for name in ["marry_user", "Ping", "", "error"] {
        let error = client.refused(name, json!({}), "unknown_type").await;
        assert!(!error.to_string().contains("marry"), "{error}");
    }
}

#[tokio::test]
async fn a_frame_that_is_no_request_object_is_answered_to_null() {
    let mut client = connected("alice").await;
    let unreadable = [
        "nonsense zQxJk7",
        "",
        "[]",
        r#"[7,"ping",{}]"#,
        "null",
        r#"{"id":1}"#,
        r#"{"type":"ping"}"#,
        r#"{"id":-1,"type":"ping"}"#,
        r#"{"id":1.5,"type":"ping"}"#,
        r#"{"id":9007199254740992,"type":"ping"}"#,
        r#"{"id":"zQxJk7","type":"ping"}"#,
        r#"{"id":1,"type":["zQxJk7"]}"#,
        r#"{"id":1,"type":"ping"}{"id":2,"type":"ping"}"#,
    ];
    for text in unreadable {
        client.text(text).await;
        let reply = client.reply_where(|reply| reply["reply_to"].is_null()).await;
        assert_eq!((&reply["type"], &reply["body"]["code"]), (&json!("error"), &json!("invalid_argument")), "{text}");
        assert_refusal(&reply["body"]);
        assert!(!reply.to_string().contains("zQxJk7"), "{reply}");
    }
    client.ok("ping", json!({})).await;
}

#[tokio::test]
async fn twenty_unreadable_frames_in_a_row_end_the_connection() {
    let mut client = connected("alice").await;
    // Nineteen, and one that can be read: the count starts again. A refused request is a readable frame.
    for _ in 0..2 {
        for _ in 0..19 {
            client.text("nonsense").await;
        }
        client.refused("unknown", json!({}), "unknown_type").await;
    }
    for _ in 0..20 {
        client.text("nonsense").await;
    }
    assert_eq!(client.closed().await, 4003);
    let answers = client.log.iter().filter(|frame| frame.get("reply_to") == Some(&Value::Null)).count();
    assert!(answers >= 38, "each of the first ones was answered: {answers}");
}

#[tokio::test]
async fn a_binary_frame_is_closed_with_1003() {
    let mut client = connected("alice").await;
    client.ws.send(ws::BINARY, br#"{"id":1,"type":"ping"}"#).await;
    assert_eq!(client.closed().await, 1003);
}

#[tokio::test]
async fn text_that_is_no_utf_8_is_closed_with_1007() {
    let whole: &[&[u8]] = &[b"\xff", b"{\"id\":1,\"type\":\"\xc3\x28\"}", b"\xed\xa0\x80", b"\xf0\x9f\x98"];
    for payload in whole {
        let mut client = connected("alice").await;
        client.ws.send(ws::TEXT, payload).await;
        assert_eq!(client.closed().await, 1007, "{payload:?}");
    }
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_control_frames_between() {
    let mut client = connected("alice").await;
    // The é of the second fragment is cut in two: only the whole has to be UTF-8.
    let text = r#"{"id":9,"type":"ping","body":{"x":"é"}}"#.as_bytes();
    let cut = text.iter().position(|byte| *byte == 0xc3).expect("the é") + 1;
    client.ws.send_raw(&ws::frame(ws::TEXT, &text[..5])).await;
    client.ws.send(ws::PING, b"between").await;
    client.ws.send_raw(&ws::frame(0, &text[5..cut])).await;
    client.ws.send_raw(&ws::frame(0x80, &text[cut..])).await;
    assert_eq!(client.reply_where(|reply| reply["reply_to"] == 9).await["type"], "ping");
}

#[tokio::test]
async fn a_ping_frame_is_answered_with_its_payload() {
    let node = Node::shared().await;
    let mut ws = Ws::open(node.address, &[]).await.unwrap_or_else(|answer| panic!("{}", answer.status));
    ws.send(ws::PING, b"payload").await;
    let pong = within("a pong", ws.next()).await.expect("a frame");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (ws::PONG, &b"payload"[..]));
}

#[tokio::test]
async fn frames_against_rfc_6455_are_closed_with_1002() {
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    let rows: &[(&str, Vec<u8>)] = &[
        ("not masked", unmasked),
        ("a reserved bit", ws::frame(0x80 | 0x40 | ws::TEXT, b"{}")),
        ("a reserved opcode", ws::frame(0x83, b"{}")),
        ("a reserved control opcode", ws::frame(0x8b, b"")),
        ("a fragmented ping", ws::frame(ws::PING, b"x")),
        ("a ping of more than 125 bytes", ws::frame(0x80 | ws::PING, &[b'x'; 126])),
        ("a continuation of nothing", ws::frame(0x80, b"x")),
        ("a new message inside another", [ws::frame(ws::TEXT, b"{"), ws::frame(0x80 | ws::TEXT, b"{}")].concat()),
        ("a close frame with one byte", ws::frame(0x80 | ws::CLOSE, b"x")),
        ("a close code that must not be sent", ws::frame(0x80 | ws::CLOSE, &1005_u16.to_be_bytes())),
    ];
    for (what, bytes) in rows {
        let mut client = connected("alice").await;
        client.ws.send_raw(bytes).await;
        assert_eq!(client.closed().await, 1002, "{what}");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    for (payload, code) in [(&1000_u16.to_be_bytes()[..], 1000), (&4999_u16.to_be_bytes(), 4999), (b"", 1005)] {
        let mut client = connected("alice").await;
        client.ws.send(ws::CLOSE, payload).await;
        assert_eq!(client.closed().await, code);
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_closed_with_1009_before_it_has_come() {
    let node = Node::start(&[("limits.frame_bytes", "8192"), ("limits.text_bytes", "4096")]).await;
    let mut client = node.client("alice").await;
    assert_eq!(client.started["limits"]["frame_bytes"], 8192);
    // At the limit it is taken.
    let padding = "x".repeat(8192 - r#"{"id":3,"type":"ping","body":{"x":""}}"#.len());
    client.text(&format!(r#"{{"id":3,"type":"ping","body":{{"x":"{padding}"}}}}"#)).await;
    assert_eq!(client.reply_where(|reply| reply["reply_to"] == 3).await["type"], "ping");
    // A header alone, for more than that: nothing of the payload is waited for.
    client.ws.send_raw(&[0x81, 0x80 | 126, 0x20, 0x01, 1, 2, 3, 4]).await;
    assert_eq!(client.closed().await, 1009);

    let mut client = node.client("bob").await;
    client.ws.send_raw(&[0x81, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await;
    assert_eq!(client.closed().await, 1009, "a frame that says to have a TiB");

    // Fragments count together.
    let mut client = node.client("carol").await;
    client.ws.send_raw(&ws::frame(ws::TEXT, &[b' '; 8000])).await;
    client.ws.send_raw(&ws::frame(0, &[b' '; 8000])).await;
    assert_eq!(client.closed().await, 1009);
}
