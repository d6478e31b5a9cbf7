//! `conclave-chat` on real terminals: questions that show no secret, and lines that come in above the one being typed. And
//! the live line of `conclave-load`.

use std::io::Read;
use std::os::fd::OwnedFd;

use tempfile::TempDir;

use crate::support::chat::Terminal;
use crate::support::screen::Screen;
use crate::support::{Node, PASSWORD, unique};

/// Answers the questions of the first start.
fn signs_in(server: &str, home: &TempDir, name: &str) -> Terminal {
    let mut terminal = Terminal::start(server, home.path(), name);
    terminal.tells_secret("A passphrase to encrypt your keys with: ", "a long passphrase");
    terminal.tells_secret("Once more: ", "a long passphrase");
    terminal.tells_secret(&format!("Password of {name} on {server}: "), PASSWORD);
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
        terminal.tells_secret("A passphrase to encrypt your keys with: ", "a long passphrase");
        terminal.tells_secret("Once more: ", "a lung passphrase");
        terminal.shows("the two passphrases differ");
        assert_eq!(home.path().read_dir().expect("a folder").count(), 0, "nothing was made");
    })
    .await
    .expect("no panic");
}

/// What `conclave-load` wrote to a terminal of so many columns, when it has ended well.
fn load_on_a_terminal(arguments: &str, columns: u16) -> String {
    let folder = TempDir::new().expect("a folder");
    let (terminal, end) = pty_process::blocking::open().expect("a terminal");
    terminal.resize(pty_process::Size::new(24, columns)).expect("its size");
    let mut child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_conclave-load"))
        .args(arguments.split_whitespace())
        .current_dir(folder.path())
        .env("TERM", "xterm-256color")
        .spawn(end)
        .expect("the tester's binary");
    let mut screen = std::fs::File::from(OwnedFd::from(terminal));
    let (mut written, mut bytes) = (Vec::new(), [0; 4096]);
    // The end of the program is an error here.
    while let Ok(length @ 1..) = screen.read(&mut bytes) {
        written.extend_from_slice(&bytes[..length]);
    }
    let written = String::from_utf8(written).expect("UTF-8");
    assert!(child.wait().expect("its end").success(), "{written}");
    written
}

#[tokio::test]
async fn the_live_line_of_a_load_run_fits_its_terminal_and_leaves_a_clean_table() {
    let node = Node::shared().await;
    let run = format!("rooms --sessions 1 --members 3 --rate 50 --duration 3s --url ws://{}/v1/ws", node.address);
    for (columns, is_wide) in [(80, false), (160, true)] {
        let run = run.clone();
        let written = tokio::task::spawn_blocking(move || load_on_a_terminal(&run, columns)).await.expect("no panic");
        let screen = Screen::of(&written, columns.into());
        assert!(screen.ever.contains("measuring") && screen.ever.contains("s of 3 s · no errors · "), "{written:?}");
        assert_eq!(screen.ever.contains('━'), is_wide, "{written:?}");
        let too_long: Vec<_> = screen.wrapped.iter().filter(|line| line.contains("measuring")).collect();
        assert!(too_long.is_empty(), "{too_long:?}");
        // Nothing is left of it, and the table begins where it was.
        let shown = screen.text();
        assert!(shown.trim_start().starts_with("rooms: many sessions"), "{shown}");
        assert!(!shown.contains("measuring") && !shown.contains('━'), "{shown}");
        assert!(
            shown.lines().any(|line| line.starts_with(" acknowledged ")) && shown.contains("\nPASSED: "),
            "{shown}"
        );
    }
}
