//! The settings that clients feel: each default can be overridden by the environment, and holds.

use serde_json::{Value, json};

use crate::support::ws::Ws;
use crate::support::*;

#[tokio::test]
async fn what_the_node_takes_is_told_at_the_start() {
    let settings =
        [("limits.frame_bytes", "100000"), ("limits.requests_in_flight", "3"), ("limits.requests_per_s", "200")];
    let node = Node::start(&settings).await;
    let client = node.client("alice").await;
    let expected = json!({"frame_bytes": 100_000, "requests_in_flight": 3, "requests_per_s": 200});
    assert_eq!(client.started["limits"], expected);
}

#[tokio::test]
async fn more_requests_at_once_than_are_taken_wait_and_are_all_answered() {
    let node = Node::start(&[("limits.requests_in_flight", "2")]).await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let mut ids = Vec::new();
    for number in 0..100 {
        ids.push(a.send("send_msg", text(&sid, &number.to_string())).await);
    }
    let mut last = 0;
    for id in ids {
        let seq = a.answer(id).await.expect("sent")["seq"].as_u64().expect("a seq");
        assert!(seq > last);
        last = seq;
    }
}

#[tokio::test]
async fn too_many_requests_in_a_second_are_refused_with_the_time_to_wait() {
    let node = Node::start(&[("limits.requests_per_s", "20")]).await;
    let mut a = node.client("alice").await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(a.send("ack_inbox", json!({"inbox_ids": []})).await);
        // Wrong ones count too.
        ids.push(a.send("ack_inbox", json!({"inbox_ids": "all"})).await);
    }
    let (mut refused, mut wrong) = (Vec::new(), 0);
    for id in ids {
        match a.answer(id).await {
            Err(error) if error["code"] == "invalid_argument" => wrong += 1,
            Err(error) => {
                assert_refusal(&error);
                assert_eq!(error["code"], "rate_limited");
                refused.push(error["details"]["retry_after_ms"].as_u64().expect("a time"));
            }
            Ok(_) => {}
        }
    }
    assert!(!refused.is_empty(), "two hundred at once were taken");
    assert!(wrong < 100, "as many wrong ones as one likes");
    assert!(refused.iter().all(|wait| (1..=60_000).contains(wait)), "{refused:?}");
    // It is for that user alone, and it passes.
    node.client("bob").await;
    within("the limit to pass", async {
        while a.request("ack_inbox", json!({"inbox_ids": []})).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_has_no_more_connections_than_allowed() {
    let node = Node::start(&[("limits.connections_per_user", "2")]).await;
    let user = node.user("alice").await;
    let (mut one, mut two) = (user.connect().await, user.connect().await);
    let mut three = user.unauthenticated().await;
    let codes = ["rate_limited", "overloaded"];
    three.refused_any("authenticate", json!({"token": user.token}), &codes).await;
    one.ok("ping", json!({})).await;
    two.ok("ping", json!({})).await;
    // Another user is not meant, and a place that was given up is free.
    node.client("bob").await;
    one.close().await;
    within("a place", async {
        loop {
            let mut next = user.unauthenticated().await;
            if next.request("authenticate", json!({"token": user.token})).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_allowed() {
    let node = Node::start(&[("limits.connections_per_address", "2")]).await;
    let one = Ws::open(node.address, &[]).await;
    let two = Ws::open(node.address, &[]).await;
    assert!(one.is_ok() && two.is_ok());
    let Err(answer) = Ws::open(node.address, &[]).await else { panic!("a third was upgraded") };
    assert!([429, 503].contains(&answer.status), "{} {}", answer.status, answer.text);
    let code = answer.json()["error"]["code"].take();
    assert!(code == "rate_limited" || code == "overloaded", "{code}");
}

#[tokio::test]
async fn failed_logins_are_limited_by_name_and_only_failures_count() {
    let node = Node::start(&[("limits.failed_logins_per_minute", "3")]).await;
    let user = node.user("alice").await;
    let right = json!({"name": user.name, "password": PASSWORD});
    for _ in 0..8 {
        node.post("/v1/login", &right).await.expect(200);
    }
    let wrong = json!({"name": user.name, "password": "not the password"});
    for _ in 0..3 {
        node.post("/v1/login", &wrong).await.refused(401, "unauthenticated");
    }
    let answer = node.post("/v1/login", &wrong).await;
    let error = answer.refused(429, "rate_limited");
    assert!(error["details"]["retry_after_ms"].is_u64(), "{error}");
    let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{wait:?}");
    // Another name is not meant: the address has ten times as many.
    let other = node.user("bob").await;
    node.post("/v1/login", &json!({"name": other.name, "password": PASSWORD})).await.expect(200);
}

#[tokio::test]
async fn failed_logins_are_limited_by_address_tenfold() {
    let node = Node::start(&[("limits.failed_logins_per_minute", "1")]).await;
    let mut refused = 0;
    for number in 0..12 {
        let wrong = json!({"name": format!("nobody-{number}"), "password": "not the password"});
        let answer = node.post("/v1/login", &wrong).await;
        if number < 10 {
            answer.refused(401, "unauthenticated");
        } else {
            answer.refused(429, "rate_limited");
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
}

/// In an order, not in a time: all of the chat is over before the last of the logins is.
#[tokio::test]
async fn a_flood_of_logins_slows_logins_and_not_chat() {
    const LOGINS: usize = 24;
    let settings = [
        ("limits.password_hashes_at_once", "1"),
        ("limits.password_hashes_waiting", "15"),
        ("limits.failed_logins_per_minute", "1000"),
        ("accounts.argon2_passes", "4"),
    ];
    let node = Node::start(&settings).await;
    let (mut a, mut b) = (node.client("alice").await, node.client("bob").await);
    let sid = plain(&mut a, &mut [&mut b]).await;

    let mut logins = tokio::task::JoinSet::new();
    for number in 0..LOGINS {
        let body = json!({"name": format!("nobody-{number}"), "password": PASSWORD}).to_string();
        let address = node.address;
        logins.spawn(async move { http::call(address, "POST", "/v1/login", &[], Some(body.as_bytes())).await.status });
    }
    within("the flood to arrive", async {
        while node.metric("conclave_password_hashes_waiting").await < 12 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..10 {
        mark(&sid, &mut a, &mut [&mut b]).await;
    }
    assert!(node.metric("conclave_password_hashes_waiting").await > 0, "the flood was still there behind the chat");
    let mut by_status = std::collections::BTreeMap::new();
    while let Some(status) = logins.join_next().await {
        *by_status.entry(status.expect("no panic")).or_insert(0) += 1;
    }
    // Sixteen have a place in line; of the rest those who come before one is free are refused at once.
    let refused = by_status.get(&503).copied().unwrap_or_default();
    assert!((1..=8).contains(&refused), "{by_status:?}");
    assert_eq!(by_status.get(&401), Some(&(LOGINS - refused)), "{by_status:?}");
}

#[tokio::test]
async fn registrations_are_limited_where_the_setting_says_so() {
    let node = Node::start(&[("limits.registrations_per_minute", "2")]).await;
    let register = |name: &str| json!({"name": unique(name), "password": PASSWORD, "public_key": keys::SPKI});
    node.post("/v1/register", &register("one")).await.expect(201);
    node.post("/v1/register", &register("two")).await.expect(201);
    let answer = node.post("/v1/register", &register("three")).await;
    answer.refused(429, "rate_limited");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_page_without_a_limit_has_a_hundred_and_never_more_than_a_thousand() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let mut ids = Vec::new();
    for _ in 0..1_100 {
        ids.push(a.send("send_msg", text(&sid, "x")).await);
        if ids.len() == 50 {
            for id in ids.drain(..) {
                a.answer(id).await.expect("sent");
            }
        }
    }
    for (limit, len) in [(Value::Null, 100), (json!(1000), 1000), (json!(1001), 1000), (json!(7), 7)] {
        let page = a.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0, "limit": limit})).await;
        assert_eq!((page["events"].as_array().map(Vec::len), &page["more"]), (Some(len), &json!(true)), "{limit}");
    }
}

/// A node that has to refuse its settings: its exit, and what it says.
fn refused_start(settings: &[(&str, &str)]) -> String {
    let data = tempfile::TempDir::new().expect("a directory");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .current_dir(data.path())
        .envs(settings.iter().copied())
        .output()
        .expect("the server's binary");
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn settings_that_are_wrong_are_all_said_at_once() {
    let said = tokio::task::spawn_blocking(|| {
        refused_start(&[
            ("CONCLAVE__LIMITS__PAGE", "many"),
            ("CONCLAVE__E2EE__ROOM_KEY_LIFETIME_S", "-1"),
            ("CONCLAVE__LIMITS__NO_SUCH_LIMIT", "1"),
        ])
    })
    .await
    .expect("no panic");
    for key in ["page", "room_key_lifetime_s", "no_such_limit"] {
        assert!(said.to_lowercase().contains(key), "{key}: {said}");
    }
}
