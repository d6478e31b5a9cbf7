//! How connections begin, catch up, keep order and end.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Got, Raw, TestNode, TestUser, frame, hash_of, plain_session};
use crate::cluster::UserSignal;
use crate::protocol::CloseCode;

fn msg(session: &Value, text: &str) -> Value {
    json!({"session_id": session, "markdown_text": text, "is_encrypted": false})
}

/// The `seq`s of the next events of a session, up to `last`.
async fn seqs(raw: &mut Raw, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.last() != Some(&last) {
        let frame = raw.text().await.expect("the connection ended before the last event");
        if let Some(seq) = frame["body"]["seq"].as_u64().filter(|_| frame["reply_to"].is_null()) {
            seqs.push(seq);
        }
    }
    seqs
}

#[actix_web::test]
async fn authenticate_comes_first_and_once() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let mut raw = Raw::open(node.addr).await;
    raw.call("ping", json!({})).await;
    assert_eq!(raw.refused("ack_inbox", json!({"inbox_ids": []})).await, "unauthenticated");
    assert_eq!(raw.refused("resume", json!({})).await, "unauthenticated");
    let reply = raw.call("authenticate", json!({"token": user.token})).await;
    assert_eq!(reply["user_id"], user.id.to_string());
    assert_eq!(reply["limits"]["frame_bytes"], 1_048_576);
    assert_eq!(reply["sessions"], json!([]));
    assert_eq!(raw.refused("authenticate", json!({"token": user.token})).await, "invalid_argument");
    assert_eq!(raw.call("resume", json!({})).await, json!({"sessions": [], "gone": []}));
    assert_eq!(raw.refused("resume", json!({})).await, "invalid_argument");
    let mut raw = Raw::open(node.addr).await;
    assert_eq!(raw.refused("authenticate", json!({"token": "wrong"})).await, "unauthenticated");
    assert_eq!(raw.close_code().await, Some(4001));
    let mut raw = Raw::open(node.addr).await;
    assert_eq!(raw.refused("authenticate", json!({})).await, "unauthenticated");
    assert_eq!(raw.close_code().await, Some(4001));
    node.stop().await;
}

#[actix_web::test]
async fn requests_behind_authenticate_need_not_wait_for_its_reply() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let mut raw = Raw::open(node.addr).await;
    let first = raw.ask("authenticate", json!({"token": user.token})).await;
    let second = raw.ask("resume", json!({})).await;
    let third = raw.ask("new_session", json!({"e2ee_on": false})).await;
    assert_eq!(raw.answer(first).await["type"], "authenticate");
    assert_eq!(raw.answer(second).await["type"], "resume");
    assert_eq!(raw.answer(third).await["type"], "new_session");
    node.stop().await;
}

#[actix_web::test]
async fn who_does_not_authenticate_in_time_is_closed_with_4002() {
    let node = TestNode::with(|config| config.connections.authenticate_within_s = 1).await;
    let mut raw = Raw::open(node.addr).await;
    assert_eq!(raw.close_code().await, Some(4002));
    node.stop().await;
}

#[actix_web::test]
async fn twenty_unreadable_frames_in_a_row_close_with_4003() {
    let node = TestNode::start().await;
    let mut raw = Raw::open(node.addr).await;
    for _ in 0..19 {
        raw.send(&frame(0x81, b"[]")).await;
    }
    raw.call("ping", json!({})).await;
    for _ in 0..20 {
        raw.send(&frame(0x81, b"nonsense")).await;
    }
    let mut refusals = 0;
    let code = loop {
        match raw.next().await {
            Got::Text(value) => {
                assert_eq!((&value["reply_to"], &value["type"]), (&Value::Null, &json!("error")));
                refusals += 1;
            }
            Got::Close(code) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((refusals, code), (20, Some(4003)));
    node.stop().await;
}

#[actix_web::test]
async fn a_dead_token_closes_its_connections_and_no_others() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let until = node.store.now().await.unwrap().plus_secs(3600);
    node.token(user.id, "second", until).await;
    let mut first = node.enter(&user).await;
    let mut second = node.enter(&TestUser { token: "second".into(), ..user.clone() }).await;
    node.subscriptions.signal(user.id, UserSignal::TokenDead(hash_of(&user.token).unwrap())).await;
    assert_eq!(first.close_code().await, Some(4001));
    second.call("ping", json!({})).await;
    node.token(user.id, "third", node.store.now().await.unwrap().plus_millis(600)).await;
    let mut third = node.enter(&TestUser { token: "third".into(), ..user.clone() }).await;
    assert_eq!(third.close_code().await, Some(4001), "its time is over");
    node.stop().await;
}

#[actix_web::test]
async fn a_member_catches_up_without_gap_or_repetition_while_others_keep_sending() {
    const MESSAGES: u64 = 600;
    let node = TestNode::with(|config| config.connections.catch_up_bytes = 4096).await;
    let (owner, member) = (node.user().await, node.user().await);
    let mut owner = node.resume(&owner).await;
    let mut first = node.resume(&member).await;
    let session = plain_session(&mut owner, &mut [&mut first]).await;
    let joined = first.event("MemberJoined").await;
    assert_eq!(joined["user_id"], member.id.to_string(), "a session joined later begins with that");
    let start = joined["seq"].as_u64().unwrap();
    let last = start + MESSAGES;
    drop(first);
    let sending = async {
        let mut asked = Vec::new();
        for number in 0..MESSAGES {
            asked.push(owner.ask("send_msg", msg(&session, &format!("message {number}"))).await);
            if asked.len() == 16 {
                for id in asked.drain(..) {
                    assert_eq!(owner.answer(id).await["type"], "send_msg");
                }
            }
        }
        for id in asked {
            owner.answer(id).await;
        }
    };
    let reading = async {
        let mut have = start;
        let mut rounds = 0;
        while have < last {
            let mut raw = node.enter(&member).await;
            let cursors = json!({"cursors": {session.as_str().unwrap(): {"seq": have}}});
            let reply = raw.call("resume", cursors).await;
            assert_eq!(reply["sessions"][0]["from_seq"], have + 1);
            rounds += 1;
            // A while on each connection, some of it caught up and some of it live; then away in mid-stream.
            for seq in seqs(&mut raw, last.min(have + 70)).await {
                assert_eq!(seq, have + 1);
                have = seq;
            }
        }
        rounds
    };
    let ((), rounds) = tokio::join!(sending, reading);
    assert!(rounds >= 9);
    node.stop().await;
}

#[actix_web::test]
async fn resume_starts_after_the_acked_event_and_resets_what_is_not_of_this_history() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let mut raw = node.resume(&user).await;
    let session = plain_session(&mut raw, &mut []).await;
    for _ in 0..5 {
        raw.call("send_msg", msg(&session, "hello")).await;
    }
    let last = raw.call("send_msg", msg(&session, "last")).await["seq"].as_u64().unwrap();
    assert_eq!(raw.refused("ack", json!({"session_id": session, "seq": last + 1})).await, "invalid_argument");
    raw.call("ack", json!({"session_id": session, "seq": last - 2})).await;
    raw.call("ack", json!({"session_id": session, "seq": 1})).await;
    let mut again = Raw::open(node.addr).await;
    let reply = again.call("authenticate", json!({"token": user.token})).await;
    assert_eq!(reply["sessions"][0]["acked_seq"], last - 2, "not yet written, and seen all the same");
    let reply = again.call("resume", json!({})).await;
    assert_eq!(reply["sessions"][0]["from_seq"], last - 1);
    assert_eq!(seqs(&mut again, last).await, [last - 1, last]);
    let id = session.as_str().unwrap();
    for cursor in [json!({"seq": last + 1}), json!({"seq": 3, "log": "another"})] {
        let mut raw = node.enter(&user).await;
        let reply = raw.call("resume", json!({"cursors": {id: cursor}})).await;
        assert_eq!(reply["sessions"][0], json!({"session_id": session, "from_seq": 1, "reset": true}));
        assert_eq!(seqs(&mut raw, last).await, (1..=last).collect::<Vec<_>>());
    }
    node.stop().await;
}

#[actix_web::test]
async fn nothing_of_a_session_comes_before_resume_or_after_ones_own_leaving() {
    let node = TestNode::start().await;
    let (owner, member) = (node.user().await, node.user().await);
    let mut owner = node.resume(&owner).await;
    let mut live = node.resume(&member).await;
    let mut held = node.enter(&member).await;
    let session = plain_session(&mut owner, &mut [&mut live]).await;
    owner.call("send_msg", msg(&session, "one")).await;
    live.event("Msg").await;
    let cursor = live.call("send_msg", msg(&session, "two")).await["seq"].as_u64().unwrap();
    owner.call("kick_user", json!({"session_id": session, "user_id": member.id.to_string()})).await;
    let left = live.event("MemberLeft").await;
    assert_eq!(left["seq"], cursor + 1);
    owner.call("send_msg", msg(&session, "behind their back")).await;
    // The typing of the owner and the answer to a ping: nothing else may be between.
    assert_eq!(live.refused("typing", json!({"session_id": session})).await, "not_a_member");
    live.call("ping", json!({})).await;
    assert_eq!(held.call("ping", json!({})).await["time"].as_str().map(str::len), Some(24));
    assert!(held.text_now().await.is_none(), "held until resume");
    let reply = held.call("resume", json!({"cursors": {session.as_str().unwrap(): {"seq": cursor}}})).await;
    assert_eq!(reply, json!({"sessions": [], "gone": [{"session_id": session, "reason": "kicked"}]}));
    assert!(live.text_now().await.is_none());
    node.stop().await;
}

#[actix_web::test]
async fn requests_to_a_session_take_effect_in_the_order_sent() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let mut raw = node.resume(&user).await;
    let session = plain_session(&mut raw, &mut []).await;
    let mut asked = Vec::new();
    for round in 0..10 {
        asked.push((raw.ask("send_msg", msg(&session, &format!("round {round}"))).await, "send_msg"));
        asked.push((raw.ask("fetch_msgs", json!({"session_id": session, "limit": 1})).await, "fetch_msgs"));
    }
    asked.push((raw.ask("leave_session", json!({"session_id": session})).await, "leave_session"));
    asked.push((raw.ask("send_msg", msg(&session, "too late")).await, "error"));
    asked.push((raw.ask("list_members", json!({"session_id": session})).await, "error"));
    let mut sent = 0;
    for (id, name) in asked {
        let answer = raw.answer(id).await;
        assert_eq!(answer["type"], name, "{answer}");
        match name {
            "send_msg" => sent = answer["body"]["seq"].as_u64().unwrap(),
            "fetch_msgs" => assert_eq!(answer["body"]["events"][0]["body"]["seq"], sent),
            _ => {}
        }
    }
    node.stop().await;
}

#[actix_web::test]
async fn more_requests_than_may_be_in_flight_are_all_answered() {
    let node = TestNode::with(|config| config.limits.requests_in_flight = 2).await;
    let user = node.user().await;
    let mut raw = node.resume(&user).await;
    let session = plain_session(&mut raw, &mut []).await;
    let mut asked = Vec::new();
    for _ in 0..200 {
        asked.push(raw.ask("send_msg", msg(&session, "hello")).await);
    }
    let mut seqs = Vec::new();
    for id in asked {
        seqs.push(raw.answer(id).await["body"]["seq"].as_u64().unwrap());
    }
    assert!(seqs.is_sorted());
    node.stop().await;
}

#[actix_web::test]
async fn limits_on_requests_and_connections() {
    let node = TestNode::with(|config| {
        config.limits.requests_per_s = 5;
        config.limits.connections_per_user = 2;
        config.limits.connections_per_address = 3;
    })
    .await;
    let user = node.user().await;
    let mut one = node.enter(&user).await;
    let _two = node.enter(&user).await;
    let mut three = Raw::open(node.addr).await;
    assert_eq!(three.refused("authenticate", json!({"token": user.token})).await, "rate_limited");
    let (_, head) = Raw::handshake(node.addr, "").await;
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    let mut limited = None;
    for _ in 0..50 {
        let id = one.ask("ping", json!({})).await;
        let answer = one.answer(id).await;
        if answer["type"] == "error" {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("no limit was met");
    assert_eq!((&limited["body"]["code"], &limited["body"]["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert!(limited["body"]["details"]["retry_after_ms"].as_u64().unwrap() >= 1);
    node.stop().await;
}

#[actix_web::test]
async fn inbox_events_come_on_each_connection_until_they_are_acknowledged() {
    let node = TestNode::with(|config| config.connections.inbox_window = 2).await;
    let (owner, invitee) = (node.user().await, node.user().await);
    let mut owner = node.resume(&owner).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let body = json!({"e2ee_on": false, "members": [invitee.id.to_string()]});
        let reply = owner.call("new_session", body).await;
        assert_eq!(reply["failed_members"], json!([]));
        sessions.push(reply["session_id"].clone());
    }
    let mut first = node.enter(&invitee).await;
    let mut second = node.enter(&invitee).await;
    let mut got = Vec::new();
    for _ in 0..2 {
        let (one, other) = (first.text().await.unwrap(), second.text().await.unwrap());
        assert_eq!(one, other);
        got.push(one);
    }
    second.call("ping", json!({})).await;
    assert!(second.text_now().await.is_none(), "the window holds");
    while got.len() < 5 {
        let ids: Vec<_> = got.iter().map(|frame| frame["inbox_id"].clone()).collect();
        first.call("ack_inbox", json!({"inbox_ids": ids})).await;
        let next = first.text().await.unwrap();
        assert!(got.iter().all(|frame| frame["inbox_id"] != next["inbox_id"]));
        assert_eq!(second.text().await.unwrap(), next, "an ack makes room on the other connection too");
        got.push(next);
    }
    let invited: Vec<_> = got.iter().map(|frame| frame["body"]["session_id"].clone()).collect();
    assert_eq!(invited, sessions);
    assert!(got.iter().all(|frame| frame["type"] == "InviteUserToSession"));
    node.stop().await;
}

#[actix_web::test]
async fn typing_is_heard_by_others_and_not_by_oneself() {
    let node = TestNode::start().await;
    let (owner, member) = (node.user().await, node.user().await);
    let (mut a, mut b, mut b2) = (node.resume(&owner).await, node.resume(&member).await, node.resume(&member).await);
    let session = plain_session(&mut a, &mut [&mut b]).await;
    b2.event("MemberJoined").await;
    b.call("typing", json!({"session_id": session})).await;
    let typing = a.event("Typing").await;
    assert_eq!(typing, json!({"session_id": session, "user_id": member.id.to_string()}));
    a.call("send_msg", msg(&session, "hello")).await;
    assert_eq!(b2.text().await.unwrap()["type"], "Msg");
    node.stop().await;
}

#[actix_web::test]
async fn strangers_learn_nothing() {
    let node = TestNode::start().await;
    let (owner, stranger) = (node.user().await, node.user().await);
    let (mut owner, mut raw) = (node.resume(&owner).await, node.resume(&stranger).await);
    let session = plain_session(&mut owner, &mut []).await;
    let nowhere = "018f0000-0000-7000-8000-000000000000";
    for name in ["fetch_msgs", "list_members", "get_session_info", "fetch_room_keys", "typing"] {
        assert_eq!(raw.refused(name, json!({"session_id": session})).await, "not_a_member", "{name}");
        assert_eq!(raw.refused(name, json!({"session_id": nowhere})).await, "not_found", "{name}");
    }
    assert_eq!(raw.refused("ack", json!({"session_id": session, "seq": 1})).await, "not_a_member");
    let ban = json!({"session_id": session, "user_id": stranger.id.to_string()});
    owner.call("ban_user", ban).await;
    assert_eq!(raw.refused("fetch_msgs", json!({"session_id": session})).await, "banned");
    node.stop().await;
}

#[actix_web::test]
async fn a_node_that_stops_says_when_to_come_back() {
    let node = TestNode::start().await;
    let user = node.user().await;
    let mut raw = node.resume(&user).await;
    node.connections.close_all(CloseCode::Restart, 3000);
    let going = raw.event("GoingAway").await;
    assert!(going["reconnect_after_ms"].as_u64().unwrap() <= 3000);
    assert_eq!(raw.close_code().await, Some(1012));
    let began = std::time::Instant::now();
    while node.metrics.connections.get() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

#[actix_web::test]
async fn who_has_more_sessions_than_an_outbox_takes_comes_in_all_the_same() {
    let node = TestNode::with(|config| config.connections.outbox_bytes = 8 * 1024).await;
    let user = node.user().await;
    let mut first = node.resume(&user).await;
    for _ in 0..40 {
        first.call("new_session", json!({"name": "n".repeat(250), "e2ee_on": false})).await;
    }
    let mut second = Raw::open(node.addr).await;
    let reply = second.call("authenticate", json!({"token": user.token})).await;
    assert_eq!(reply["sessions"].as_array().unwrap().len(), 40);
    assert!(reply.to_string().len() > 8 * 1024);
    let resumed = second.call("resume", json!({})).await;
    assert_eq!(resumed["sessions"].as_array().unwrap().len(), 40);
    node.stop().await;
}
