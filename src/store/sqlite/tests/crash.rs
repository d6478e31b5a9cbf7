//! kill -9 in the middle of commits: what was acknowledged is there, once, and the database is sound.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::conformance::{NODE, Session, user};
use crate::store::{EventRange, GroupCommit, GroupCommitOptions, SqliteOptions, SqliteStore, Store};

const CHILD: &str = "CONCLAVE_TEST_COMMITS_INTO";
const SESSIONS: u8 = 10;

/// The child of the next test: commits until it is killed, and prints what it was told is stored.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&SqliteOptions::new(dir)).await.unwrap());
    let commits = GroupCommit::start(store, NODE, GroupCommitOptions::default(), None);
    let end = Instant::now() + Duration::from_secs(60);
    let senders = (0..SESSIONS).map(|n| {
        let commits = commits.clone();
        tokio::spawn(async move {
            let mut session = Session::new(n, user(n));
            let mut commit = session.making();
            while Instant::now() < end {
                commits.submit(commit).unwrap().await.unwrap().unwrap();
                println!("stored {n} {}", session.seq);
                let texts = [0, 1, 2].map(|i| format!("{n} says {} {}", session.seq + 1 + i, "x".repeat(300)));
                let said: Vec<_> =
                    texts.iter().map(|text| session.says(user(n), text, Some(&text[..20.min(text.len())]))).collect();
                commit = session.commit(said);
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn after_kill_9_everything_acknowledged_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::crash::child_that_commits_until_it_is_killed", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut seen = 0;
    let note = |line: &str, acknowledged: &mut BTreeMap<u8, u64>| {
        // The test harness prints lines of its own, one of them without an end.
        let Some((_, stored)) = line.split_once("stored ") else { return 0 };
        let Some((n, seq)) = stored.split_once(' ') else { return 0 };
        let (Ok(n), Ok(seq)) = (n.parse(), seq.parse()) else { return 0 };
        acknowledged.insert(n, seq);
        1
    };
    while seen < 1_000 {
        let line = lines.next().expect("the child prints until it is killed").unwrap();
        seen += note(&line, &mut acknowledged);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had printed before it died counts too; the last line may be torn, and then says less than was stored.
    for line in lines.map_while(Result::ok) {
        note(&line, &mut acknowledged);
    }

    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let sound: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(store.writer.connections()).await.unwrap();
    assert_eq!(sound, "ok");
    assert_eq!(acknowledged.len(), usize::from(SESSIONS));
    for (n, seq) in acknowledged {
        let id = Session::new(n, user(n)).id();
        let all = EventRange::After { after: 0, up_to: None };
        let events = store.events(id, all, 1_000_000, usize::MAX).await.unwrap().rows;
        let (_, last_seq) = store.position(id).await.unwrap().unwrap();
        assert!(last_seq >= seq, "session {n}: acknowledged up to {seq}, stored up to {last_seq}");
        let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=last_seq).collect::<Vec<_>>(), "dense, and up to what the session says");
        let texts: BTreeSet<_> = events.iter().map(|event| &event.json).collect();
        assert_eq!(texts.len(), events.len(), "none twice");
        for event in &events[1..] {
            assert!(event.json.contains(&format!("{n} says {} ", event.seq)), "in its place");
        }
    }
}
