//! The commands against a real store.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::protocol::Timestamp;
use crate::store::conformance::{NODE, OTHER, Session, account, report, user};
use crate::store::{SqliteOptions, SqliteStore, StoreClock, TokenHash, TokenOwner};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Program::try_parse_from(["admin"].into_iter().chain(line.split_whitespace())).map(|program| program.arguments)
}

struct Cluster {
    store: Arc<SqliteStore>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let clock = StoreClock::Manual(Arc::new(AtomicI64::new(90_000)));
        let store = SqliteStore::open(&SqliteOptions { clock, ..SqliteOptions::new(dir.path()) }).await.unwrap();
        store.renew_lease(NODE, 60_000, &report()).await.unwrap();
        store.create_user(&account(1)).await.unwrap();
        Self { store: Arc::new(store), _dir: dir }
    }

    async fn says(&self, line: &str) -> Result<Report, AdminError> {
        run(&*self.store, &parse(line).unwrap().command).await
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(line).await.unwrap().json()).unwrap()
    }
}

#[tokio::test]
async fn nodes_tell_what_they_told_of_themselves() {
    let cluster = Cluster::new().await;
    let nodes = cluster.json("nodes").await;
    assert_eq!(nodes.as_array().map(Vec::len), Some(1));
    assert_eq!(nodes[0]["node"], NODE.to_string());
    for (fact, value) in [("version", json!("1.2.3")), ("connections", json!(7)), ("sessions", json!(3))] {
        assert_eq!(nodes[0][fact], value);
    }
    let text = cluster.says("nodes").await.unwrap().text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("NODE ") && lines[1].starts_with(&NODE.to_string()), "{text}");
    assert!(lines[1].ends_with("serving"), "{text}");
}

#[tokio::test]
async fn a_node_is_asked_to_drain_and_a_stranger_is_not() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.json(&format!("drain {NODE}")).await, json!({"node": NODE.to_string()}));
    assert_eq!(cluster.json("nodes").await[0]["draining"], true);
    let error = cluster.says(&format!("drain {OTHER}")).await.unwrap_err();
    assert!(error.to_string().contains(&OTHER.to_string()), "{error}");
}

#[tokio::test]
async fn sessions_are_shown_page_by_page_and_one_alone() {
    let cluster = Cluster::new().await;
    let one = Session::new(1, user(1)).made(&*cluster.store).await;
    let other = Session::new(2, user(1)).made(&*cluster.store).await;
    let page = cluster.json("sessions --limit 1").await;
    assert_eq!((&page["sessions"][0]["session_id"], &page["more"]), (&json!(one.id()), &json!(true)));
    let text = cluster.says("sessions --limit 1").await.unwrap().text();
    assert!(text.ends_with(&format!("--after {}\n", one.id())), "{text}");
    let rest = cluster.json(&format!("sessions --after {}", one.id())).await;
    assert_eq!((&rest["sessions"][0]["session_id"], &rest["more"]), (&json!(other.id()), &json!(false)));

    let session = cluster.json(&format!("session {}", one.id())).await;
    let expected = [
        ("name", json!("session 1")),
        ("owner", json!(NODE)),
        ("members", json!(1)),
        ("last_seq", json!(1)),
        ("room_key", Value::Null),
    ];
    for (fact, value) in expected {
        assert_eq!(session[fact], value, "{fact}");
    }
    let text = cluster.says(&format!("session {}", one.id())).await.unwrap().text();
    assert!(text.contains("encryption  off\n"), "{text}");
    assert!(matches!(
        cluster.says("session 00000000-0000-7000-8000-000000000000").await,
        Err(AdminError::NoSession(_))
    ));
}

#[tokio::test]
async fn an_account_is_disabled_and_enabled_again_and_logged_out() {
    let cluster = Cluster::new().await;
    let token = |n: u8| TokenHash([n; 32]);
    let owner = TokenOwner { user_id: user(1), expires_at: Timestamp::from_millis(4_000_000_000_000) };
    for n in 1..=2 {
        cluster.store.add_token(token(n), &owner, 10).await.unwrap();
    }
    let seen = cluster.json("user user-1").await;
    assert_eq!((&seen["standing"], &seen["tokens"], seen.get("tokens_ended")), (&json!("live"), &json!(2), None));

    let revoked = cluster.json("user user-1 --revoke-tokens").await;
    assert_eq!((&revoked["tokens"], &revoked["tokens_ended"]), (&json!(0), &json!(2)));
    let disabled = cluster.json("user user-1 --disable").await;
    assert_eq!((&disabled["standing"], &disabled["since"]), (&json!("disabled"), &json!("1970-01-01T00:01:30.000Z")));
    assert!(matches!(cluster.says("user user-1 --disable").await, Err(AdminError::NotLive)));
    let enabled = cluster.json("user user-1 --enable").await;
    assert_eq!((&enabled["standing"], &enabled["since"]), (&json!("live"), &Value::Null));
    assert!(matches!(cluster.says("user user-1 --enable").await, Err(AdminError::NotDisabled)));
    assert!(matches!(cluster.says("user nobody").await, Err(AdminError::NoUser)));
}

#[tokio::test]
async fn what_it_shows_of_an_account_has_no_secrets() {
    let cluster = Cluster::new().await;
    let report = cluster.says("user user-1").await.unwrap();
    for shown in [report.json(), report.text()] {
        assert!(!shown.contains("a hash") && !shown.contains("key of 1"), "{shown}");
    }
}

#[test]
fn one_thing_is_done_to_an_account_at_a_time() {
    assert!(parse("user ann --disable --enable").is_err());
    assert!(parse("user ann --revoke-tokens --json").unwrap().json);
    assert!(parse("drain not-an-id").is_err());
    assert!(parse("sessions --limit 0").is_err());
}
