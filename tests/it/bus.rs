//! A node and its bus through Redis: there, not there yet, not for this user, and gone.

use std::process::{Command, Output};

use serde_json::json;

use crate::support::redis::RedisServer;
use crate::support::*;

const SECRET: &str = "what only the nodes of the tests know";

/// Settings of a node of a cluster, with a database of its own.
async fn cluster(url: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let database = Postgres::shared().database().await;
    let settings = [
        ("store.kind", "postgres"),
        ("store.postgres.url", &database),
        ("cluster.bus", "redis"),
        ("cluster.redis.url", url),
        ("cluster.secret", SECRET),
    ];
    settings.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn start(settings: &[(String, String)]) -> Node {
    let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Node::start(&settings).await
}

/// Runs the server's binary until it ends by itself.
async fn run(settings: Vec<(String, String)>) -> Output {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command.args(["--listen", "127.0.0.1:0"]);
        for (key, value) in settings {
            command.env(format!("CONCLAVE__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command.output().expect("the server's binary")
    });
    within("the node to end by itself", run).await.expect("no panic")
}

#[tokio::test]
async fn a_node_waits_for_its_bus_and_says_what_is_missing() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let node = start(&cluster(&redis.url(), &[]).await).await;
    let body = within("the node to say what is missing", async {
        loop {
            let body = node.until_ready_is(503).await.text;
            if body.contains("missing") {
                return body;
            }
        }
    })
    .await;
    assert!(body.contains("the node does not deliver or does not commit: missing bus\""), "{body}");
    redis.start_again();
    node.until_ready_is(200).await;
}

/// A session of two, whose members are on two nodes.
#[tokio::test]
async fn what_redis_loses_when_it_restarts_is_delivered_all_the_same() {
    let mut redis = RedisServer::start(&[]);
    let settings = cluster(&redis.url(), &[]).await;
    let (one, other) = (start(&settings).await, start(&settings).await);
    one.until_ready_is(200).await;
    other.until_ready_is(200).await;
    let mut alice = one.client("alice").await;
    let mut bob = other.client("bob").await;
    let sid = plain(&mut alice, &mut [&mut bob]).await;
    alice.ok("send_msg", text(&sid, "through Redis")).await;
    assert_eq!(bob.expect("Msg").await["markdown_text"], "through Redis");
    redis.kill();
    // The session lives on the node that made it, which needs no bus to commit.
    alice.ok("send_msg", text(&sid, "into the void")).await;
    redis.start_again();
    assert_eq!(bob.expect("Msg").await["markdown_text"], "into the void");
    alice.ok("send_msg", text(&sid, "through Redis again")).await;
    assert_eq!(bob.expect("Msg").await["markdown_text"], "through Redis again");
    let page = bob.ok("fetch_msgs", json!({"session_id": sid, "after_seq": 0, "limit": 100})).await;
    assert_eq!(page["more"], false);
}

#[tokio::test]
async fn a_node_gives_up_when_its_bus_does_not_come() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let settings = cluster(&redis.url(), &[("cluster.connect_within_s", "1")]).await;
    let Output { status, stderr, .. } = run(settings).await;
    assert!(!status.success());
    let said = String::from_utf8(stderr).expect("text");
    let expected = format!("conclave: no answer from Redis at 127.0.0.1:{}: ", redis.port);
    assert!(said.lines().any(|line| line.starts_with(&expected)), "{said}");
}

#[tokio::test]
async fn a_wrong_password_ends_the_start_and_is_not_shown() {
    let redis = RedisServer::start(&["--requirepass", "the-right-one"]);
    let url = format!("redis://:the-wrong-one@127.0.0.1:{}", redis.port);
    let Output { status, stderr, stdout } = run(cluster(&url, &[]).await).await;
    assert!(!status.success());
    let said = String::from_utf8([stdout, stderr].concat()).expect("text");
    let expected =
        format!("conclave: Redis at 127.0.0.1:{} refuses the user or the password in cluster.redis.url", redis.port);
    assert!(said.lines().any(|line| line == expected), "{said}");
    assert!(!said.contains("the-wrong-one") && !said.contains(SECRET), "{said}");
}

#[tokio::test]
async fn a_cluster_without_what_it_needs_is_refused_with_what_to_set() {
    let settings = [("cluster.bus", "redis"), ("cluster.redis.url", "redis://127.0.0.1")];
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let Output { status, stderr, .. } = run(settings).await;
    assert!(!status.success());
    let said = String::from_utf8(stderr).expect("text");
    for line in [
        "  store.kind: expected \"postgres\", since cluster.bus is \"redis\": nodes of a cluster share one store, and \
         SQLite is for one node",
        "  cluster.secret: expected at least 32 bytes that all nodes know and nobody else, since cluster.bus is \
         \"redis\"; set it, or cluster.secret_file, to what `openssl rand -hex 32` prints",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
}
