//! A recalled text is nowhere in the data directory when its commit returns.

use std::path::Path;

use super::until;
use crate::store::conformance::{NODE, Session, user};
use crate::store::{SqliteOptions, SqliteStore, Store};

fn is_in_files(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn marker(session: usize, seq: u64) -> String {
    format!("secret-{session}-{seq}-text")
}

#[tokio::test]
async fn a_recalled_text_is_gone_from_the_database_and_its_wal() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..5 {
        sessions.push(Session::new(n, user(1)).made(&store).await);
    }
    // Texts of all sizes, from smaller than what stands in for them to several pages, in sessions that take turns.
    let sizes = [0, 3, 90, 700, 2_500, 9_000];
    let mut recalled = Vec::new();
    for round in 0..60_usize {
        let mut batch = Vec::new();
        for (number, session) in sessions.iter_mut().enumerate() {
            let text = marker(number, session.seq + 1) + &"x".repeat(sizes[(round + number) % sizes.len()]);
            let said = session.says(user(1), &text, None);
            batch.push(session.commit([said]));
        }
        assert!(store.commit(NODE, &batch).await.iter().all(Result::is_ok));
        if round % 3 == 2 {
            let number = round % sessions.len();
            let seq = 2 + (round as u64 * 7) % (sessions[number].seq - 1);
            let recall = sessions[number].recall(seq, user(1));
            assert!(is_in_files(dir.path(), &marker(number, seq)) || recalled.contains(&(number, seq)));
            sessions[number].put(&store, [recall]).await;
            recalled.push((number, seq));
            assert!(!is_in_files(dir.path(), &marker(number, seq)), "{number}.{seq} in round {round}");
        }
    }
    for (number, seq) in recalled {
        assert!(!is_in_files(dir.path(), &marker(number, seq)), "{number}.{seq} at the end");
    }
}

#[tokio::test]
async fn a_reader_of_the_old_text_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&store).await;
    let said = session.says(user(1), &marker(0, 2), None);
    session.put(&store, [said]).await;
    let mut reader = store.readers.begin().await.unwrap();
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(events, 2);
    let recall = session.recall(2, user(1));
    let release = async {
        until("the recall is committed", || async { store.position(session_id()).await.unwrap() == Some((3, 2)) })
            .await;
        assert!(is_in_files(dir.path(), &marker(0, 2)), "the reader still sees it");
        reader.rollback().await.unwrap();
    };
    let (id, commit) = (session.id(), session.commit([recall]));
    assert_eq!(id, session_id());
    let commits = [commit];
    let (outcome, ()) = tokio::join!(store.commit(NODE, &commits), release);
    assert_eq!(outcome, [Ok(())]);
    assert!(!is_in_files(dir.path(), &marker(0, 2)));
}

fn session_id() -> crate::protocol::SessionId {
    Session::new(1, user(1)).id()
}
