//! RFC 6455, as its well-known conformance suite asks, with raw bytes.

use actix_web::rt::time::timeout;
use serde_json::{Value, json};

use super::support::{Got, Raw, SOON, TestNode, frame};

const PING: &str = r#"{"id":1,"type":"ping"}"#;

fn pinged(got: &Got) -> bool {
    matches!(got, Got::Text(value) if value["type"] == "ping" && value["reply_to"] == 1)
}

/// What comes back for these bytes, up to the end or so many frames.
async fn exchange(node: &TestNode, bytes: &[u8], frames: usize) -> Vec<Got> {
    let mut raw = Raw::open(node.addr).await;
    raw.send(bytes).await;
    let mut all = Vec::new();
    while all.len() < frames {
        all.push(raw.next().await);
        if all.last() == Some(&Got::End) {
            break;
        }
    }
    all
}

#[actix_web::test]
async fn text_comes_in_one_frame_or_in_many() {
    let node = TestNode::start().await;
    let (a, b) = PING.split_at(9);
    let padded = |len: usize| format!("{PING}{}", " ".repeat(len - PING.len()));
    let cases = [
        ("whole", frame(0x81, PING.as_bytes())),
        ("126 bytes", frame(0x81, padded(126).as_bytes())),
        ("8 KiB", frame(0x81, padded(8192).as_bytes())),
        ("two fragments", [frame(0x01, a.as_bytes()), frame(0x80, b.as_bytes())].concat()),
        (
            "with empty fragments",
            [frame(0x01, b""), frame(0x00, a.as_bytes()), frame(0x00, b""), frame(0x80, b.as_bytes())].concat(),
        ),
    ];
    for (name, bytes) in cases {
        let got = exchange(&node, &bytes, 1).await;
        assert!(pinged(&got[0]), "{name}: {got:?}");
    }
    node.stop().await;
}

#[actix_web::test]
async fn a_frame_may_come_byte_by_byte() {
    let node = TestNode::start().await;
    let mut raw = Raw::open(node.addr).await;
    for byte in frame(0x81, PING.as_bytes()) {
        raw.send(&[byte]).await;
    }
    assert!(pinged(&raw.next().await));
    node.stop().await;
}

#[actix_web::test]
async fn pings_are_answered_between_fragments_and_in_order() {
    let node = TestNode::start().await;
    let (a, b) = PING.split_at(9);
    let bytes = [frame(0x01, a.as_bytes()), frame(0x89, b"one"), frame(0x8A, b"unasked"), frame(0x80, b.as_bytes())];
    let got = exchange(&node, &bytes.concat(), 2).await;
    assert_eq!(got.iter().filter(|got| **got == Got::Pong(b"one".to_vec())).count(), 1);
    assert!(got.iter().any(pinged));
    let many: Vec<u8> = (0..10u8).flat_map(|number| frame(0x89, &[number; 125])).collect();
    let expected: Vec<Got> = (0..10u8).map(|number| Got::Pong(vec![number; 125])).collect();
    assert_eq!(exchange(&node, &many, 10).await, expected);
    assert_eq!(exchange(&node, &frame(0x89, b""), 1).await, [Got::Pong(Vec::new())]);
    node.stop().await;
}

#[actix_web::test]
async fn what_is_forbidden_closes_with_its_code_and_then_the_socket() {
    let node = TestNode::start().await;
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("reserved bit", frame(0xC1, b"x"), 1002),
        ("reserved bits on a ping", frame(0xF9, b""), 1002),
        ("opcode 3", frame(0x83, b""), 1002),
        ("opcode 7", frame(0x87, b"x"), 1002),
        ("opcode 11", frame(0x8B, b""), 1002),
        ("opcode 15", frame(0x8F, b"x"), 1002),
        ("not masked", vec![0x81, 2, b'{', b'}'], 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a ping in fragments", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a message within a message", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("1 TiB declared", vec![0x81, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
        ("the highest bit of a length", vec![0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002),
        ("binary", frame(0x82, b"x"), 1003),
        ("invalid UTF-8", frame(0x81, b"\xCE\xBA\xED\xA0\x80"), 1007),
        ("invalid UTF-8 in a fragment", [frame(0x01, b"{\xED"), frame(0x80, b"\xA0\x80}")].concat(), 1007),
        ("a character cut short", frame(0x81, b"\xCE\xBA\xE1\xBD"), 1007),
        ("a close of one byte", frame(0x88, &[3]), 1002),
        ("close code 1005", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("close code 999", frame(0x88, &999u16.to_be_bytes()), 1002),
        ("an invalid reason", frame(0x88, b"\x03\xE8\xED\xA0\x80"), 1007),
    ];
    for (name, bytes, code) in cases {
        // A good message before it is still answered.
        let bytes = [frame(0x81, PING.as_bytes()), bytes].concat();
        let got = exchange(&node, &bytes, 9).await;
        assert!(pinged(&got[0]), "{name}: {got:?}");
        assert_eq!(got[1..], [Got::Close(Some(code)), Got::End], "{name}");
    }
    node.stop().await;
}

#[actix_web::test]
async fn a_character_may_be_split_across_fragments() {
    let node = TestNode::start().await;
    let text = "{\"id\":1,\"type\":\"ping\",\"body\":{\"x\":\"\u{1F511}\"}}".as_bytes();
    let at = text.iter().position(|byte| *byte == 0xF0).unwrap() + 2;
    let bytes = [frame(0x01, &text[..at]), frame(0x89, b""), frame(0x80, &text[at..])].concat();
    let got = exchange(&node, &bytes, 2).await;
    assert!(got.iter().any(pinged), "{got:?}");
    node.stop().await;
}

#[actix_web::test]
async fn a_close_is_answered_in_kind_and_nothing_after_it() {
    let node = TestNode::start().await;
    let cases: Vec<(Vec<u8>, Option<u16>)> = vec![
        (frame(0x88, b""), None),
        (frame(0x88, &1000u16.to_be_bytes()), Some(1000)),
        (frame(0x88, b"\x03\xE9going"), Some(1001)),
        (frame(0x88, &3999u16.to_be_bytes()), Some(3999)),
        (frame(0x88, &4999u16.to_be_bytes()), Some(4999)),
        (frame(0x88, &[&1000u16.to_be_bytes()[..], &[b'x'; 123]].concat()), Some(1000)),
    ];
    for (close, code) in cases {
        let bytes = [close, frame(0x81, PING.as_bytes()), frame(0x89, b"late"), vec![0xFF; 8]].concat();
        let got = timeout(SOON, exchange(&node, &bytes, 9)).await.unwrap();
        assert_eq!(got, [Got::Close(code), Got::End]);
    }
    node.stop().await;
}

#[actix_web::test]
async fn sub_protocols_compression_and_tokens_of_the_upgrade() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let (_, head) = Raw::handshake(node.addr, "").await;
    assert!(head.starts_with("HTTP/1.1 101") && !head.to_lowercase().contains("sec-websocket-protocol"));
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let offer = "Sec-WebSocket-Protocol: other, conclave.v1.json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let (_, head) = Raw::handshake(node.addr, offer).await;
    assert!(head.to_lowercase().contains("sec-websocket-protocol: conclave.v1.json"), "{head}");
    assert!(!head.to_lowercase().contains("sec-websocket-extensions"), "no compression: {head}");
    let (_, head) = Raw::handshake(node.addr, "Sec-WebSocket-Protocol: other\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let (_, head) = Raw::handshake(node.addr, "Authorization: Bearer wrong\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (_, head) = Raw::handshake(node.addr, "Authorization: Basic eDp5\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (mut raw, head) = Raw::handshake(node.addr, &format!("Authorization: Bearer {}\r\n", user.token)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let reply: Value = raw.call("authenticate", json!({})).await;
    assert_eq!(reply["user_id"], user.id.to_string());
    node.stop().await;
}
