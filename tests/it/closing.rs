//! How connections end: each close code that one node can reach.

use serde_json::json;

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

#[tokio::test]
async fn sigterm_closes_with_1012_after_a_hint_and_ends_with_0() {
    let mut node = Node::start(&[]).await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    mark(&sid, &mut a, &mut []).await;
    node.terminate();
    let mut hints = Vec::new();
    for client in [&mut a, &mut b, &mut c] {
        let hint = client.expect("GoingAway").await["reconnect_after_ms"].as_u64();
        hints.push(hint.expect("milliseconds"));
        assert_eq!(client.closed().await, 1012);
    }
    assert!(hints.iter().all(|hint| *hint <= 60_000), "{hints:?}");
    assert!(node.terminated().await.success());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_others_notice_nothing() {
    const MESSAGES: u64 = 600;
    let node = Node::start(&[("connections.stall_s", "1")]).await;
    let [mut a, mut b, mut slow] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut slow]).await;
    let long = "x".repeat(60_000);
    let mut last = 0;
    // Some 36 MB: more than the kernel's buffers take. `slow` reads nothing of it.
    for _ in 0..MESSAGES {
        last = a.ok("send_msg", text(&sid, &long)).await["seq"].as_u64().expect("a seq");
        b.expect_where("Msg", |msg| msg["seq"] == last).await;
        a.log.clear();
        b.log.clear();
        a.expect_where("Msg", |msg| msg["seq"] == last).await;
    }
    let code = slow.closed().await;
    assert!([4004, 1006].contains(&code), "{code}");
    let got = slow.all("Msg").last().map(|msg| msg["seq"].clone());
    assert!(got != Some(json!(last)), "it was given everything, and never cut off");
    mark(&sid, &mut a, &mut [&mut b]).await;
}
