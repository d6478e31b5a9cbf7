//! `fetch_msgs`, `recall_msg`, `ack`.

use serde_json::{Value, json};

use crate::support::*;

fn seqs(page: &Value) -> Vec<u64> {
    page["events"].as_array().expect("events").iter().filter_map(|event| event["body"]["seq"].as_u64()).collect()
}

async fn five_messages() -> (Client, Client, String, u64) {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut last = 0;
    for _ in 0..5 {
        last = mark(&sid, &mut a, &mut [&mut b]).await;
    }
    (a, b, sid, last)
}

#[tokio::test]
async fn history_is_read_forwards_and_backwards_ascending() {
    let (mut a, _b, sid, last) = five_messages().await;
    let all = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0})).await;
    assert_eq!((seqs(&all), &all["more"]), ((1..=last).collect(), &json!(false)));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 1, "limit": 2})).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![2, 3], &json!(true)));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "before_seq": last, "limit": 2})).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![last - 2, last - 1], &json!(true)));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": last - 2, "limit": 2})).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![last - 1, last], &json!(false)));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "before_seq": 3, "limit": 2})).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![1, 2], &json!(false)));
    let none = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": last})).await;
    assert_eq!(none, json!({"events": [], "more": false}));
}

#[tokio::test]
async fn events_of_history_are_the_frames_that_came_live() {
    let (mut a, mut b, sid, last) = five_messages().await;
    let live = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": last - 1})).await["events"][0].take();
    let came = b.log.iter().find(|frame| frame["type"] == "Msg" && frame["body"]["seq"] == last).expect("live").clone();
    assert_eq!(live, came);
    b.barrier().await;
}

#[tokio::test]
async fn a_member_reads_from_their_own_joining_on() {
    let (mut a, mut b, sid, last) = five_messages().await;
    let page = b.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0})).await;
    assert_eq!(seqs(&page), (2..=last).collect::<Vec<_>>(), "bob's own joining was 2");
    let page = b.ok("fetch_msgs", json!({"session_id": sid, "before_seq": 2})).await;
    assert_eq!(page, json!({"events": [], "more": false}));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "before_seq": 2})).await;
    assert_eq!(seqs(&page), [1]);
}

#[tokio::test]
async fn wrong_pages_are_refused() {
    let (mut a, _b, sid, _) = five_messages().await;
    for more in [
        json!({"after_seq": 1, "before_seq": 3}),
        json!({"after_seq": -1}),
        json!({"after_seq": "1"}),
        json!({"before_seq": 0}),
        json!({"after_seq": 0, "limit": 0}),
        json!({"after_seq": 0, "limit": -5}),
        json!({"after_seq": 0, "limit": 1.5}),
    ] {
        let mut body = more;
        body["session_id"] = json!(sid);
        a.refused("fetch_msgs", body, "invalid_argument").await;
    }
    // Far beyond the end, and as large as can be said.
    let none = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": u64::MAX, "limit": u64::MAX})).await;
    assert_eq!(none["events"], json!([]));
    a.ok("fetch_msgs", json!({"session_id": sid, "before_seq": u64::MAX})).await;
}

#[tokio::test]
async fn a_limit_above_the_servers_maximum_means_the_maximum() {
    let node = Node::start(&[("limits.page", "3")]).await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    for _ in 0..5 {
        mark(&sid, &mut a, &mut []).await;
    }
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0, "limit": 1000})).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![1, 2, 3], &json!(true)));
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0})).await;
    assert_eq!(seqs(&page).len(), 3);
}

#[tokio::test]
async fn a_sender_takes_a_message_back() {
    let (mut a, mut b, sid, last) = five_messages().await;
    let sent = b.ok("send_msg", text(&sid, "a slip zQxJk7")).await["seq"].clone();
    assert_eq!(b.ok("recall_msg", json!({"session_id": sid, "seq": sent})).await, json!({}));
    let recalled = a.expect("MsgRecalled").await;
    assert_eq!((&recalled["recalled_seq"], &recalled["by"]), (&sent, &json!(b.user_id)));
    assert_eq!(recalled["seq"], last + 2);
    let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": last})).await;
    let msg = &page["events"][0];
    assert_eq!((&msg["type"], &msg["body"]["seq"]), (&json!("Msg"), &sent));
    assert_eq!((&msg["body"]["recalled"], &msg["body"]["markdown_text"]), (&json!(true), &json!("")));
    assert!(!page.to_string().contains("zQxJk7"));
    assert_eq!(seqs(&page), [last + 1, last + 2]);
}

#[tokio::test]
async fn owner_and_admins_take_back_what_lower_roles_said() {
    let (mut a, mut b, sid, last) = five_messages().await;
    let mine = a.ok("send_msg", text(&sid, "the owner's")).await["seq"].clone();
    let theirs = b.ok("send_msg", text(&sid, "a member's")).await["seq"].clone();
    let recall = |seq: &Value| json!({"session_id": sid, "seq": seq});
    refused_and_unchanged(&mut b, &mut a, &sid, "recall_msg", recall(&mine), "permission_denied").await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    refused_and_unchanged(&mut b, &mut a, &sid, "recall_msg", recall(&mine), "permission_denied").await;
    a.ok("recall_msg", recall(&theirs)).await;
    b.expect_where("MsgRecalled", |body| body["recalled_seq"] == theirs).await;
    // What is no message, or not there.
    a.refused("recall_msg", json!({"session_id": sid, "seq": 1}), "not_found").await;
    a.refused("recall_msg", json!({"session_id": sid, "seq": last + 1000}), "not_found").await;
    a.refused("recall_msg", json!({"session_id": sid, "seq": 0}), "invalid_argument").await;
    let mut c = Node::shared().await.client("carol").await;
    refused_and_unchanged(&mut c, &mut a, &sid, "recall_msg", recall(&mine), "not_a_member").await;
}

#[tokio::test]
async fn a_sender_has_a_window_and_the_owner_has_none() {
    let node = Node::start(&[("sessions.recall_window_s", "1")]).await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let sent = b.ok("send_msg", text(&sid, "too late")).await;
    // A second after, by the server's own clock.
    let mut later = sent["time"].as_str().expect("a time").to_owned();
    later = later_by_two_seconds(&later);
    b.until_past(&later).await;
    let before = info(&mut a, &sid).await;
    let recall = json!({"session_id": sid, "seq": sent["seq"]});
    b.refused_any("recall_msg", recall.clone(), &["expired", "permission_denied"]).await;
    assert_eq!(info(&mut a, &sid).await, before);
    a.ok("recall_msg", recall).await;
}

/// Two seconds later, as text of the wire.
fn later_by_two_seconds(time: &str) -> String {
    let time: jiff::Timestamp = time.parse().expect("RFC 3339");
    let later = time + jiff::SignedDuration::from_secs(2);
    format!("{later:.3}")
}

#[tokio::test]
async fn ack_moves_forward_only_and_not_beyond_the_end() {
    let (_a, mut b, sid, last) = five_messages().await;
    let ack = |seq: u64| json!({"session_id": sid, "seq": seq});
    assert_eq!(b.ok("ack", ack(last)).await, json!({}));
    assert_eq!(b.ok("ack", ack(2)).await, json!({}), "never moves back, and is no error");
    b.refused("ack", ack(last + 1), "invalid_argument").await;
    b.refused("ack", ack(u64::MAX), "invalid_argument").await;
    b.refused("ack", json!({"session_id": sid}), "invalid_argument").await;
    b.refused("ack", json!({"session_id": sid, "seq": -1}), "invalid_argument").await;
    b.refused("ack", json!({"session_id": NOBODY, "seq": 1}), "not_found").await;
    let mut c = Node::shared().await.client("carol").await;
    c.refused("ack", ack(1), "not_a_member").await;
}
