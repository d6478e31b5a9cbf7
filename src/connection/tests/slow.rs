//! Clients that do not read, that vanish, and that stay silent.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpSocket;

use super::support::{Got, Raw, TestNode, frame, plain_session};

#[actix_web::test]
async fn a_client_that_does_not_read_is_cut_off_and_nobody_else_notices() {
    let node = TestNode::with(|config| {
        config.connections.stall_s = 1;
        config.connections.outbox_bytes = 256 * 1024;
        config.connections.send_buffer_bytes = 16 * 1024;
        config.limits.frame_bytes = 100 * 1024;
    })
    .await;
    let (owner, reader, stuck) = (node.user().await, node.user().await, node.user().await);
    let (mut owner, mut reader) = (node.resume(&owner).await, node.resume(&reader).await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(node.addr).await.unwrap();
    let (mut slow, _) = Raw::handshake_over(stream, "").await;
    slow.call("authenticate", json!({"token": stuck.token})).await;
    slow.call("resume", json!({})).await;
    let session = plain_session(&mut owner, &mut [&mut reader, &mut slow]).await;
    let text = "x".repeat(20_000);
    let began = Instant::now();
    for number in 0..40 {
        let sent =
            owner.call("send_msg", json!({"session_id": session, "markdown_text": text, "is_encrypted": false})).await;
        let event = reader.event("Msg").await;
        assert_eq!(event["seq"], sent["seq"], "message {number}");
    }
    // 800 kB do not fit into buffers and outbox: it is over at once or when it has stalled, and freed either way.
    while node.metrics.slow_clients.get() == 0 {
        assert!(began.elapsed() < Duration::from_secs(15), "still not cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while node.metrics.connections.get() > 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "its memory is still held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What it reads now ends, sooner or later.
    while !matches!(slow.next().await, Got::Close(_) | Got::End) {}
    owner.call("ping", json!({})).await;
    node.stop().await;
}

#[actix_web::test]
async fn a_stalled_client_is_ended_below_its_limit_too() {
    let node = TestNode::with(|config| {
        config.connections.stall_s = 1;
        config.connections.send_buffer_bytes = 4096;
    })
    .await;
    let (owner, stuck) = (node.user().await, node.user().await);
    let mut owner = node.resume(&owner).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let (mut slow, _) = Raw::handshake_over(socket.connect(node.addr).await.unwrap(), "").await;
    slow.call("authenticate", json!({"token": stuck.token})).await;
    slow.call("resume", json!({})).await;
    let session = plain_session(&mut owner, &mut [&mut slow]).await;
    let text = "x".repeat(50_000);
    for _ in 0..10 {
        owner.call("send_msg", json!({"session_id": session, "markdown_text": text, "is_encrypted": false})).await;
    }
    let began = Instant::now();
    while node.metrics.connections.get() > 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
}

#[actix_web::test]
async fn a_client_that_answers_no_ping_is_closed_with_4006() {
    let node = TestNode::with(|config| config.connections.heartbeat_s = 1).await;
    let (quiet, lively) = (node.user().await, node.user().await);
    let (mut quiet, mut lively) = (node.enter(&quiet).await, node.enter(&lively).await);
    let silent = async {
        let mut pings = 0;
        loop {
            match quiet.next().await {
                Got::Ping => pings += 1,
                Got::Close(code) => return (pings, code),
                other => panic!("{other:?}"),
            }
        }
    };
    let answering = async {
        for _ in 0..4 {
            assert_eq!(lively.next().await, Got::Ping);
            lively.send(&frame(0x8A, b"")).await;
        }
    };
    let ((pings, code), ()) = tokio::join!(silent, answering);
    assert!(pings >= 1);
    assert_eq!(code, Some(4006));
    lively.call("ping", json!({})).await;
    node.stop().await;
}
