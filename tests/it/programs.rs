//! The programs that come with the server, against a real node: the walkthrough, whose secrets the node must not have
//! kept anywhere, and `conclave-chat` between two people.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::chat::Chat;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{Node, unique};

/// `cargo test` builds the examples beside the tests.
fn walkthrough() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let target = test.parent().and_then(Path::parent).expect("the target directory");
    let program = target.join("examples").join("walkthrough");
    assert!(program.exists(), "the walkthrough is not built: run `cargo build --example walkthrough` first");
    program
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Bytes as text that can be searched fast, in unoptimised tests too.
fn one_char_per_byte(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

#[tokio::test]
async fn the_walkthrough_succeeds_and_the_node_keeps_none_of_its_secrets() {
    let node = Node::start(&[("telemetry.log_level", "debug")]).await;
    let dir = TempDir::new().expect("a directory");
    let secrets = dir.path().join("secrets");
    let mut command = Command::new(walkthrough());
    command.arg("--server").arg(format!("http://{}", node.address)).arg("--secrets-out").arg(&secrets);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));

    // The data directory and, beside it, the log.
    let kept: Vec<(PathBuf, String)> = files(node.data().parent().expect("its parent"))
        .into_iter()
        .map(|path| (path.clone(), one_char_per_byte(&fs::read(path).expect("a file"))))
        .collect();
    assert!(kept.iter().any(|(path, text)| path.ends_with("node.log") && !text.is_empty()), "the log is searched too");
    let finder = |needle: &[u8]| -> Option<PathBuf> {
        let needle = one_char_per_byte(needle);
        kept.iter().find(|(_, text)| text.contains(&needle)).map(|(path, _)| path.clone())
    };
    let mut kinds = std::collections::BTreeSet::new();
    for line in fs::read_to_string(&secrets).expect("the secrets").lines() {
        let (kind, secret) = line.split_once('\t').expect("a kind and a secret");
        kinds.insert(kind.to_owned());
        assert_eq!(finder(secret.as_bytes()), None, "a secret of kind {kind}");
        if kind.contains("hex") {
            assert_eq!(finder(&unhex(secret)), None, "a secret of kind {kind}, as bytes");
        }
    }
    for kind in ["plaintext", "room-key-hex", "room-key-base64", "private-key-hex-piece", "password", "token"] {
        assert!(kinds.contains(kind), "no secret of kind {kind} was searched for");
    }
}

#[tokio::test]
async fn two_people_chat_through_pipes() {
    let node = Node::shared().await;
    tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a directory");
        let (ann_name, ben_name) = (unique("ann"), unique("ben"));
        let mut ann = Chat::start(&node.url(), home.path(), &ann_name, &[]);
        let mut ben = Chat::start(&node.url(), home.path(), &ben_name, &[]);
        ann.shows("connected");
        ben.shows("connected");
        ann.types("/create the den");
        ann.shows("made the den, 🔒 end-to-end encrypted");
        ann.types(&format!("/invite {ben_name}"));
        ben.shows(&format!("{ann_name} invites you"));
        ben.types("/accept");
        ben.shows("🔒 room key 1 of the den came from");
        ann.shows(&format!("{ben_name} came in"));
        ann.types("good evening");
        assert!(ben.shows("good evening").contains(&format!("🔒 {ann_name}: good evening")));
        ben.types("and to you");
        ann.shows(&format!("🔒 {ben_name}: and to you"));
        ann.types("/rotate");
        ben.shows("🔒 room key 2 is in use");
        ben.types(&format!("/verify {ann_name}"));
        ben.shows("seen before; compare it");
        ben.quits();

        // Keys and login are there again.
        ann.types("while you were away");
        ann.shows("while you were away");
        let mut ben = Chat::start(&node.url(), home.path(), &ben_name, &[]);
        ben.shows(&format!("🔒 {ann_name}: while you were away"));
        ben.types("/e2ee off");
        ben.shows("your role here does not allow that");
        ben.quits();
        ann.quits();
    })
    .await
    .expect("no panic");
}

#[tokio::test]
async fn a_chat_that_was_given_two_addresses_goes_on_at_the_one_that_is_left() {
    let node = Node::shared().await;
    let going = Proxy::start(node.address, Fault::Nothing).await;
    tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a directory");
        let (first, second) = (format!("http://{}", going.address), node.url());
        let mut ann = Chat::start(&first, home.path(), &unique("ann"), &["--server", &second]);
        ann.shows("connected");
        going.go_away();
        ann.shows("not connected, trying again");
        ann.types("/create the den");
        ann.shows("made the den");
        ann.quits();
    })
    .await
    .expect("no panic");
}
