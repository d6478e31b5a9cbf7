//! `conclave admin`, the program, on a node's store.

use std::process::{Command, Output};

use serde_json::{Value, json};

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

#[tokio::test]
async fn what_cannot_be_done_is_one_sentence_and_a_status() {
    let node = Node::start(&[("store.kind", "sqlite")]).await;
    let output = admin(&node, &["nodes"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("already uses the data directory") && error.lines().count() == 1, "{error}");
}
