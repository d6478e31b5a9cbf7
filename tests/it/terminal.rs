//! `conclave-chat` on real terminals: questions that show no secret, and lines that come in above the one being typed.

use tempfile::TempDir;

use crate::support::chat::Terminal;
use crate::support::{Node, PASSWORD, unique};

/// Answers the questions of the first start.
fn signs_in(server: &str, home: &TempDir, name: &str) -> Terminal {
    let mut terminal = Terminal::start(server, home.path(), name);
    terminal.shows("A passphrase to encrypt your keys with: ");
    terminal.presses("a long passphrase\r");
    terminal.shows("Once more: ");
    terminal.presses("a long passphrase\r");
    terminal.shows(&format!("Password of {name} on {server}: "));
    terminal.presses(&format!("{PASSWORD}\r"));
    terminal.shows("your fingerprint: ");
    terminal.shows("connected");
    terminal
}

#[tokio::test]
async fn two_people_chat_on_their_terminals() {
    let node = Node::shared().await;
    tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a directory");
        let (ann_name, ben_name) = (unique("ann"), unique("ben"));
        let mut ann = signs_in(&node.url(), &home, &ann_name);
        let mut ben = signs_in(&node.url(), &home, &ben_name);
        ann.presses("/create the den\r");
        ann.shows("made the den, 🔒 end-to-end encrypted");
        ann.presses(&format!("/invite {ben_name}\r"));
        ben.shows(&format!("{ann_name} invites you"));
        ben.presses("/accept\r");
        ann.shows(&format!("{ben_name} came in"));
        ben.shows("room key 1 of the den came from");

        // What comes in while one types does not touch what is typed.
        ann.presses("half a sen");
        ann.shows("half a sen");
        ben.presses("I interrupt\r");
        ann.shows(&format!("🔒 {ben_name}: I interrupt"));
        ann.shows("half a sen");
        ann.presses("tence\r");
        ben.shows(&format!("🔒 {ann_name}: half a sentence"));

        for terminal in [&ann, &ben] {
            let screen = terminal.screen();
            assert!(!screen.contains(PASSWORD) && !screen.contains("a long passphrase"), "a secret was shown");
        }
        ben.quits();
        // The end of the input is a goodbye too.
        ann.presses("\u{4}");
        ann.ends();
    })
    .await
    .expect("no panic");
}

#[tokio::test]
async fn two_passphrases_that_differ_make_no_keys() {
    let node = Node::shared().await;
    tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a directory");
        let mut terminal = Terminal::start(&node.url(), home.path(), &unique("typo"));
        terminal.shows("A passphrase to encrypt your keys with: ");
        terminal.presses("a long passphrase\r");
        terminal.shows("Once more: ");
        terminal.presses("a lung passphrase\r");
        terminal.shows("the two passphrases differ");
        assert_eq!(home.path().read_dir().expect("a folder").count(), 0, "nothing was made");
    })
    .await
    .expect("no panic");
}
