//! `resume`: every event once, in order, without a gap.

use serde_json::{Value, json};

use crate::support::*;

fn seqs(client: &Client, sid: &str) -> Vec<u64> {
    let of = client.log.iter().filter(|frame| frame["body"]["session_id"] == sid && frame.get("reply_to").is_none());
    of.filter_map(|frame| frame["body"]["seq"].as_u64()).collect()
}

fn log_of(client: &Client, sid: &str) -> Value {
    let sessions = client.started["sessions"].as_array().expect("sessions");
    sessions.iter().find(|session| session["session_id"] == sid).expect("the session")["log"].clone()
}

/// Alice's session with bob, both connected, with five messages after the setting up; and its last `seq`.
async fn chat() -> (User, Client, User, Client, String, u64) {
    let node = Node::shared().await;
    let (alice, bob) = (node.user("alice").await, node.user("bob").await);
    let (mut a, mut b) = (alice.connect().await, bob.connect().await);
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut last = 0;
    for _ in 0..5 {
        last = mark(&sid, &mut a, &mut [&mut b]).await;
    }
    (alice, a, bob, b, sid, last)
}

#[tokio::test]
async fn what_was_missed_follows_the_cursor_without_a_gap() {
    let (_, mut a, bob, b, sid, last) = chat().await;
    b.close().await;
    let next = mark(&sid, &mut a, &mut []).await;
    let mut back = bob.authenticated().await;
    let cursor = json!({"seq": last - 2, "log": log_of(&back, &sid)});
    let resumed = back.ok("resume", json!({"cursors": {&sid: cursor}})).await;
    assert_eq!(resumed, json!({"sessions": [{"session_id": sid, "from_seq": last - 1}], "gone": []}));
    let live = mark(&sid, &mut a, &mut [&mut back]).await;
    assert_eq!(seqs(&back, &sid), (last - 1..=live).collect::<Vec<_>>());
    assert_eq!(next, live - 1);
    // Only after the reply.
    let reply = back.place(|frame| frame["type"] == "resume");
    assert!(reply < back.place(|frame| frame["type"] == "Msg"));
}

#[tokio::test]
async fn a_cursor_needs_no_log() {
    let (_, _a, bob, _b, sid, last) = chat().await;
    let mut back = bob.authenticated().await;
    let resumed = back.ok("resume", json!({"cursors": {&sid: {"seq": last, "log": null}}})).await;
    assert_eq!(resumed, json!({"sessions": [{"session_id": sid, "from_seq": last + 1}], "gone": []}));
    back.quiet().await;
}

#[tokio::test]
async fn a_session_left_out_starts_after_what_was_acknowledged() {
    let (_, mut a, bob, mut b, sid, last) = chat().await;
    b.ok("ack", json!({"session_id": sid, "seq": last - 1})).await;
    // Acknowledgements are written in bulk, within seconds.
    let mut back = within("the acknowledgement to be written", async {
        loop {
            let back = bob.authenticated().await;
            if back.started["sessions"][0]["acked_seq"] == last - 1 {
                break back;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    let resumed = back.ok("resume", json!({})).await;
    assert_eq!(resumed["sessions"], json!([{"session_id": sid, "from_seq": last}]));
    let live = mark(&sid, &mut a, &mut [&mut back]).await;
    assert_eq!(seqs(&back, &sid), [last, live]);
}

#[tokio::test]
async fn a_cursor_before_ones_own_joining_is_raised_to_it() {
    let (_, mut a, bob, _b, sid, last) = chat().await;
    let mut back = bob.authenticated().await;
    let first = back.started["sessions"][0]["first_seq"].as_u64().expect("a seq");
    assert!(first > 1);
    let resumed = back.ok("resume", json!({"cursors": {&sid: {"seq": 0}}})).await;
    assert_eq!(resumed["sessions"], json!([{"session_id": sid, "from_seq": first}]));
    let live = mark(&sid, &mut a, &mut [&mut back]).await;
    assert_eq!(seqs(&back, &sid), (first..=live).collect::<Vec<_>>());
    assert_eq!(live, last + 1);
}

#[tokio::test]
async fn a_cursor_ahead_or_of_another_log_is_reset() {
    let (_, _a, bob, _b, sid, last) = chat().await;
    let rows = [
        json!({"seq": last + 1}),
        json!({"seq": 9_007_199_254_740_991_u64}),
        json!({"seq": u64::MAX}),
        json!({"seq": last, "log": "another history"}),
    ];
    for cursor in rows {
        let mut back = bob.authenticated().await;
        let first = back.started["sessions"][0]["first_seq"].as_u64().expect("a seq");
        let resumed = back.ok("resume", json!({"cursors": {&sid: cursor}})).await;
        let expected = json!([{"session_id": sid, "from_seq": first, "reset": true}]);
        assert_eq!(resumed["sessions"], expected, "{cursor}");
        back.expect_where("Msg", |body| body["seq"] == last).await;
        assert_eq!(seqs(&back, &sid), (first..=last).collect::<Vec<_>>(), "{cursor}");
    }
}

#[tokio::test]
async fn sessions_that_one_is_no_longer_in_are_gone_with_the_reason() {
    let node = Node::shared().await;
    let (mut a, bob) = (node.client("alice").await, node.user("bob").await);
    let mut b = bob.connect().await;
    let mut cursors = serde_json::Map::new();
    let mut expected = Vec::new();
    for reason in ["left", "kicked", "banned", "deleted"] {
        let sid = plain(&mut a, &mut [&mut b]).await;
        match reason {
            "left" => b.ok("leave_session", of(&sid)).await,
            "kicked" => a.ok("kick_user", about(&sid, &bob.id)).await,
            "banned" => a.ok("ban_user", about(&sid, &bob.id)).await,
            _ => a.ok("delete_session", of(&sid)).await,
        };
        cursors.insert(sid.clone(), json!({"seq": 1}));
        expected.push((sid, reason));
    }
    let mut back = bob.authenticated().await;
    assert_eq!(back.started["sessions"], json!([]));
    let resumed = back.ok("resume", json!({"cursors": cursors})).await;
    assert_eq!(resumed["sessions"], json!([]));
    let gone = resumed["gone"].as_array().expect("a list");
    assert_eq!(gone.len(), expected.len(), "{resumed}");
    for (sid, reason) in expected {
        assert!(gone.contains(&json!({"session_id": sid, "reason": reason})), "{reason}: {resumed}");
    }
    back.quiet().await;
}

#[tokio::test]
async fn a_session_joined_later_starts_with_ones_own_member_joined() {
    let (_, mut a, _, _b, sid, _) = chat().await;
    let mut c = Node::shared().await.client("carol").await;
    admit(&mut a, &mut c, &sid).await;
    let seq = mark(&sid, &mut a, &mut [&mut c]).await;
    let first = c.log.iter().find(|frame| frame["body"]["seq"].is_u64() && frame.get("reply_to").is_none());
    let first = first.expect("an event");
    assert_eq!((&first["type"], &first["body"]["user_id"]), (&json!("MemberJoined"), &json!(c.user_id)));
    assert_eq!(seqs(&c, &sid), [seq - 1, seq]);
}

#[tokio::test]
async fn ones_own_leaving_or_the_sessions_end_is_the_last_event() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("kick_user", about(&sid, &b.user_id)).await;
    let left = b.expect("MemberLeft").await;
    assert_eq!((&left["user_id"], &left["by"]), (&json!(b.user_id), &json!(a.user_id)));
    mark(&sid, &mut a, &mut [&mut c]).await;
    b.quiet().await;

    a.ok("delete_session", of(&sid)).await;
    for client in [&mut a, &mut c] {
        client.expect("SessionDeleted").await;
        client.none("Msg").await;
    }
    a.refused("send_msg", text(&sid, "x"), "not_found").await;
    c.refused("get_session_info", of(&sid), "not_found").await;
}

#[tokio::test]
async fn who_comes_back_is_a_new_member_who_sees_nothing_of_before() {
    let (_, mut a, bob, mut b, sid, last) = chat().await;
    b.ok("leave_session", of(&sid)).await;
    mark(&sid, &mut a, &mut []).await;
    admit(&mut a, &mut b, &sid).await;
    let back = bob.authenticated().await;
    let first = back.started["sessions"][0]["first_seq"].as_u64().expect("a seq");
    assert!(first > last + 1);
    let mut back = bob.authenticated().await;
    let resumed = back.ok("resume", json!({"cursors": {&sid: {"seq": last}}})).await;
    assert_eq!(resumed["sessions"], json!([{"session_id": sid, "from_seq": first}]));
    b.refused_any("fetch_msgs", json!({"session_id": sid, "after_seq": 0, "limit": 0}), &["invalid_argument"]).await;
    let page = b.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0})).await;
    assert_eq!(page["events"][0]["body"]["seq"], first, "{page}");
}

#[tokio::test]
async fn events_come_once_and_in_order_while_others_keep_sending() {
    let node = Node::shared().await;
    let (alice, bob) = (node.user("alice").await, node.user("bob").await);
    let (mut a, b) = (alice.connect().await, &mut bob.connect().await);
    let sid = plain(&mut a, &mut [b]).await;
    let last = info(&mut a, &sid).await["last_seq"].as_u64().expect("a seq");
    let sender = tokio::spawn({
        let sid = sid.clone();
        async move {
            let mut seq = 0;
            for _ in 0..300 {
                seq = a.ok("send_msg", text(&sid, "stream")).await["seq"].as_u64().expect("a seq");
            }
            (a, seq)
        }
    });
    // Three connections come in the middle of it, at different cursors.
    let mut backs = Vec::new();
    for behind in [0, 2, 5] {
        b.expect_where("Msg", |body| body["markdown_text"] == "stream").await;
        let mut back = bob.authenticated().await;
        let from = back.ok("resume", json!({"cursors": {&sid: {"seq": last.saturating_sub(behind).max(1)}}})).await;
        let from = from["sessions"][0]["from_seq"].as_u64().expect("a seq");
        backs.push((back, from));
    }
    let (_a, end) = sender.await.expect("no panic");
    for (back, from) in &mut backs {
        back.expect_where("Msg", |body| body["seq"] == end).await;
        assert_eq!(seqs(back, &sid), (*from..=end).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_wrong_cursor_is_an_invalid_argument_and_resume_can_be_said_again() {
    let node = Node::shared().await;
    let mut client = node.user("alice").await.authenticated().await;
    for cursors in [
        json!([]),
        json!({"no-uuid": {"seq": 1}}),
        json!({NOBODY: 7}),
        json!({NOBODY: {}}),
        json!({NOBODY: {"seq": -1}}),
        json!({NOBODY: {"seq": "1"}}),
        json!({NOBODY: {"seq": 1, "log": 7}}),
    ] {
        client.refused("resume", json!({"cursors": cursors}), "invalid_argument").await;
    }
    // A session that never was, or of which one never was a member, tells nothing.
    let resumed = client.ok("resume", json!({"cursors": {NOBODY: {"seq": 1}}})).await;
    assert_eq!(resumed["sessions"], json!([]));
}
