//! How connections end: each close code that one node can reach.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::ws::{self, Ws};
use crate::support::*;

#[tokio::test]
async fn who_does_not_authenticate_in_time_is_closed_with_4002() {
    let node = Node::start(&[("connections.authenticate_within_s", "1")]).await;
    let user = node.user("late").await;
    let mut late = user.unauthenticated().await;
    let mut pinging = user.unauthenticated().await;
    pinging.ok("ping", json!({})).await;
    let mut known = user.authenticated().await;
    assert_eq!(late.closed().await, 4002);
    assert_eq!(pinging.closed().await, 4002, "a ping is no authentication");
    known.ok("ping", json!({})).await;
}

#[tokio::test]
async fn a_token_dies_with_its_time_everywhere() {
    let node = Node::start(&[("accounts.token_lifetime_s", "3")]).await;
    let user = node.user("mortal").await;
    let path = format!("/v1/users/{}", user.id);
    let mut client = user.connect().await;
    user.call("GET", &path, None).await.expect(200);
    assert_eq!(client.closed().await, 4001);
    user.call("GET", &path, None).await.refused(401, "unauthenticated");
    let mut late = user.unauthenticated().await;
    late.refused("authenticate", json!({"token": user.token}), "unauthenticated").await;
}

#[tokio::test]
async fn who_answers_no_ping_is_closed_with_4006_and_who_does_is_not() {
    let node = Node::start(&[("connections.heartbeat_s", "1")]).await;
    let (mut dead, mut alive) = (node.client("dead").await, node.client("alive").await);
    dead.mute_pongs = true;
    // Waiting for a frame that never comes answers the pings meanwhile.
    let ended = tokio::select! {
        code = dead.closed() => code,
        code = alive.closed() => panic!("the one who answers was closed with {code}"),
    };
    assert_eq!(ended, 4006);
    alive.ok("ping", json!({})).await;
}

/// Many a client tells of a close only when the TCP connection has ended, and the server is to end it (RFC 6455, 7.1.1).
#[tokio::test]
async fn after_the_close_frames_the_node_hangs_up_first_and_does_not_wait() {
    let node = Node::start(&[("connections.authenticate_within_s", "1")]).await;
    for (what, answers) in [("answered", true), ("not answered", false)] {
        let mut late = open(&node).await;
        assert_eq!(close_code(&mut late).await, 4002);
        if answers {
            late.send(ws::CLOSE, &4002_u16.to_be_bytes()).await;
        }
        hangs_up(what, &mut late).await;
    }
    let mut binary = open(&node).await;
    binary.send(ws::BINARY, b"x").await;
    assert_eq!(close_code(&mut binary).await, 1003);
    binary.send(ws::CLOSE, &1003_u16.to_be_bytes()).await;
    hangs_up("after a violation", &mut binary).await;
}

async fn open(node: &Node) -> Ws {
    Ws::open(node.address, &[]).await.unwrap_or_else(|answer| panic!("{}", answer.status))
}

async fn close_code(ws: &mut Ws) -> u16 {
    let frame = within("a close frame", ws.next()).await.expect("a frame");
    assert_eq!(frame.opcode, ws::CLOSE);
    frame.close_code()
}

async fn hangs_up(what: &str, ws: &mut Ws) {
    let end = tokio::time::timeout(Duration::from_secs(4), ws.next()).await;
    assert!(
        end.unwrap_or_else(|_| panic!("{what}: the connection stays")).is_none(),
        "{what}: a frame after the close"
    );
}

#[tokio::test]
async fn sigterm_closes_with_1012_after_a_hint_and_ends_with_0() {
    let mut node = Node::start(&[]).await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    mark(&sid, &mut a, &mut []).await;
    let mut stranger = node.user("stranger").await.unauthenticated().await;
    node.terminate();
    let mut hints = Vec::new();
    for client in [&mut a, &mut b, &mut c, &mut stranger] {
        let hint = client.expect("GoingAway").await["reconnect_after_ms"].as_u64();
        hints.push(hint.expect("milliseconds"));
        assert_eq!(client.closed().await, 1012);
    }
    assert!(hints.iter().all(|hint| *hint <= 60_000), "{hints:?}");
    assert!(node.terminated().await.success());
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_lets_nobody_in_while_a_client_keeps_silent() {
    let mut node = Node::start(&[]).await;
    let mut silent = open(&node).await;
    within("readiness", async { while status(&node, "/readyz").await != Some(200) {} }).await;
    node.terminate();
    assert_eq!(within("the hint", silent.next()).await.map(|frame| frame.opcode), Some(ws::TEXT));
    assert_eq!(close_code(&mut silent).await, 1012);
    // It never answers: until the node gives it up, everybody else hears where things stand.
    let mut readiness = Vec::new();
    let mut upgrades = Vec::new();
    while let Some(ready) = status(&node, "/readyz").await {
        readiness.push(ready);
        upgrades.extend(status(&node, "/v1/ws").await);
    }
    assert!(!readiness.is_empty() && readiness.iter().all(|status| *status == 503), "{readiness:?}");
    assert!(!upgrades.is_empty() && upgrades.iter().all(|status| *status == 503), "{upgrades:?}");
    assert!(node.terminated().await.success());
}

/// The status of an answer; none where the door is shut.
async fn status(node: &Node, path: &str) -> Option<u16> {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(node.address).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.ok()?;
        std::str::from_utf8(&start[9..]).ok()?.parse().ok()
    };
    within("an answer or none", exchange).await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_others_notice_nothing() {
    const MESSAGES: u64 = 300;
    let node = Node::start(&[("connections.stall_s", "1")]).await;
    let [mut a, mut b, mut slow] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut slow]).await;
    let long = "x".repeat(60_000);
    let mut last = 0;
    // Some 18 MB: more than the kernel's buffers take. `slow` reads nothing of it.
    for _ in 0..MESSAGES {
        last = mark_with(&sid, &long, &mut a, &mut b).await;
    }
    let code = slow.closed().await;
    assert!([4004, 1006].contains(&code), "{code}");
    let got = slow.all("Msg").last().map(|msg| msg["seq"].clone());
    assert!(got != Some(json!(last)), "it was given everything, and never cut off");
    mark(&sid, &mut a, &mut [&mut b]).await;
}

/// One long message, which both see; neither keeps it.
async fn mark_with(sid: &str, long: &str, speaker: &mut Client, other: &mut Client) -> u64 {
    let seq = speaker.ok("send_msg", text(sid, long)).await["seq"].as_u64().expect("a seq");
    for client in [speaker, other] {
        client.expect_where("Msg", |msg| msg["seq"] == seq).await;
        client.log.clear();
    }
    seq
}
