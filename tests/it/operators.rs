//! `conclave admin`, the program, on a node's store.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::redis::RedisServer;
use crate::support::*;

/// Runs `conclave admin` on the node's data directory.
async fn admin(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.arg("admin").args(arguments).arg("--data-dir").arg(node.data());
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the server's binary")
}

async fn told(node: &Node, arguments: &[&str]) -> Value {
    let output = admin(node, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn a_disabled_account_cannot_log_in_until_it_is_enabled() {
    let mut node = Node::start(&[("store.kind", "sqlite")]).await;
    let user = node.user("ann").await;
    let login = json!({"name": user.name, "password": PASSWORD});
    node.terminate();
    node.terminated().await;

    let disabled = told(&node, &["user", &user.name, "--disable"]).await;
    assert_eq!((&disabled["user_id"], &disabled["standing"]), (&json!(user.id), &json!("disabled")));
    assert_eq!((&disabled["tokens"], &disabled["tokens_ended"]), (&json!(0), &json!(1)));
    node.restart().await;
    node.post("/v1/login", &login).await.refused(401, "unauthenticated");
    node.terminate();
    node.terminated().await;

    assert_eq!(told(&node, &["user", &user.name, "--enable"]).await["standing"], "live");
    node.restart().await;
    node.post("/v1/login", &login).await.expect(200);
}

#[tokio::test]
async fn sessions_are_shown_with_their_keys_state_and_never_a_key() {
    let mut node = Node::start(&[("store.kind", "sqlite")]).await;
    let mut ann = node.client("ann").await;
    let made = ann.ok("new_session", json!({"e2ee_on": true, "name": "Tea", "key_check": check(1)})).await;
    let id = made["session_id"].as_str().expect("an id").to_owned();
    node.terminate();
    node.terminated().await;

    let page = told(&node, &["sessions"]).await;
    assert_eq!((&page["sessions"][0]["session_id"], &page["more"]), (&json!(id), &json!(false)));
    let session = told(&node, &["session", &id]).await;
    assert_eq!((&session["name"], &session["members"], &session["last_seq"]), (&json!("Tea"), &json!(1), &json!(1)));
    let key = json!({"epoch": 1, "members_without_it": 0, "phase": {"is": "steady"}});
    assert_eq!(session["room_key"], key);
    let text = String::from_utf8(admin(&node, &["session", &id]).await.stdout).expect("UTF-8");
    assert!(text.contains("epoch       1\n") && text.contains("phase       steady\n"), "{text}");
}

/// Runs `conclave admin` beside a running cluster, on its database.
async fn admin_of(database: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.args(["admin", "--json"]).args(arguments);
    command.env("CONCLAVE__STORE__KIND", "postgres").env("CONCLAVE__STORE__POSTGRES__URL", database);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
}

async fn told_of(database: &str, arguments: &[&str]) -> Value {
    let output = admin_of(database, arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The member sees these messages, in order, and no other with an id between them.
async fn sees(client: &mut Client, said: &[String]) {
    for id in said {
        let msg = client.expect_where("Msg", |body| body["client_msg_id"].is_string()).await;
        assert_eq!(msg["client_msg_id"], id.as_str());
    }
}

#[tokio::test]
async fn a_node_that_an_operator_drains_hands_everything_over_stays_alive_and_says_so() {
    let (redis, database) = (RedisServer::start(&[]), Postgres::shared().database().await);
    let url = redis.url();
    let settings = [
        ("store.kind", "postgres"),
        ("store.postgres.url", database.as_str()),
        ("cluster.bus", "redis"),
        ("cluster.redis.url", url.as_str()),
        ("cluster.secret", "what only the nodes of the tests know"),
        // The drained node holds its lease all the time: nobody could take anything over that it does not give up.
        ("cluster.lease_s", "9"),
        ("shutdown.reconnect_spread_ms", "1"),
    ];
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(&settings).await);
    }
    for node in &nodes {
        node.until_ready_is(200).await;
    }
    let alice = nodes[0].user("alice").await;
    let mut a = alice.connect().await;
    let (mut bob, mut carol) = (nodes[1].client("bob").await, nodes[2].client("carol").await);
    let spoken_in = plain(&mut a, &mut [&mut bob, &mut carol]).await;
    let silent = plain(&mut a, &mut [&mut bob]).await;
    let id = a.started["node"].as_str().expect("an id").to_owned();

    assert_eq!(told_of(&database, &["drain", &id]).await["node"], id.as_str());
    let mut said = Vec::new();
    let speaking = async {
        let (mut is_drained, mut after) = (false, 0);
        // Until some time after the session has moved.
        while after < 20 {
            let name = format!("message-{}", said.len());
            let mut body = text(&spoken_in, &name);
            body["client_msg_id"] = json!(name);
            // No refusal at all: what was under way goes on where the session went.
            bob.ok("send_msg", body).await;
            said.push(name);
            is_drained = is_drained || nodes[0].metric("conclave_sessions_live").await == 0;
            after += u32::from(is_drained);
        }
    };
    within("the session to move", speaking).await;
    let body = nodes[0].until_ready_is(503).await.text;
    assert!(body.contains("the node has sent its clients to others"), "{body}");

    a.expect("GoingAway").await;
    assert_eq!(a.closed().await, 1012);
    let refused = alice.unauthenticated().await.request("authenticate", json!({"token": alice.token})).await;
    assert_eq!(refused.expect_err("it takes nobody")["code"], "unavailable");
    let mut a = User { address: nodes[1].address, ..alice.clone() }.connect().await;
    sees(&mut a, &said).await;
    sees(&mut carol, &said).await;
    a.ok("send_msg", text(&silent, "it went too")).await;
    bob.expect_where("Msg", |body| body["session_id"] == silent.as_str()).await;

    // It is alive, and drains: for as long as it is let run.
    assert_eq!(nodes[0].get("/livez").await.status, 200);
    let known = told_of(&database, &["nodes"]).await;
    let draining = known.as_array().expect("nodes").iter().filter(|node| node["draining"] == true);
    assert_eq!(draining.map(|node| node["node"].as_str()).collect::<Vec<_>>(), [Some(id.as_str())], "{known}");
    assert_eq!(nodes[0].metric("conclave_sessions_live").await, 0);
    nodes[0].terminate();
    assert!(nodes[0].terminated().await.success());
}

#[tokio::test]
async fn what_cannot_be_done_is_one_sentence_and_a_status() {
    let node = Node::start(&[("store.kind", "sqlite")]).await;
    let output = admin(&node, &["nodes"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("already uses the data directory") && error.lines().count() == 1, "{error}");

    // A node would wait for a minute.
    let output = admin_of("postgres://nobody@127.0.0.1:1/nothing", &["nodes"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("waited 3 s in vain") && error.lines().count() == 1, "{error}");
}
