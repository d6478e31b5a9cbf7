//! The data directory: its lock, its modes, the schema's version, the history's name.

use std::os::unix::fs::PermissionsExt;

use rusqlite::types::Value;

use super::super::desk::Clerk;
use crate::store::conformance::{NODE, OTHER, Session, report, user};
use crate::store::{Claim, SqliteOptions, SqliteStore, Store, StoreError};

async fn open(dir: &std::path::Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&SqliteOptions::new(dir)).await
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_who_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await.unwrap();
    let refused = open(dir.path()).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("process {} already uses", std::process::id())), "{refused}");
    assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
    first.close().await;
    drop(first);
    open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn nobody_but_the_owner_reads_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let store = open(&data).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "database, WAL and lock: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    store.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (99, 'later', TRUE, x'00', 0)";
    sqlx::query(sql).execute(store.writer.connections()).await.unwrap();
    store.close().await;
    drop(store);
    let refused = open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt(_)));
    assert!(
        refused.to_string().contains("a newer version of conclave wrote the database: it has schema 99"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_restart_keeps_what_is_stored_and_frees_what_was_owned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.renew_lease(NODE, 60_000, &report()).await.unwrap();
    let session = Session::new(1, user(1)).made(&store).await;
    assert_eq!(store.claim(session.id(), OTHER, true).await.unwrap(), Claim::OwnedBy(NODE));
    let log = store.sessions_of(user(1)).await.unwrap().remove(0).overview.log;
    store.close().await;
    drop(store);
    let store = open(dir.path()).await.unwrap();
    assert_eq!(store.sessions_of(user(1)).await.unwrap().remove(0).overview.log, log, "the same history");
    assert!(matches!(store.claim(session.id(), OTHER, true).await.unwrap(), Claim::Mine(_)), "no lease to wait for");
}

#[tokio::test]
async fn a_restored_backup_is_another_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    Session::new(1, user(1)).made(&store).await;
    let log = store.sessions_of(user(1)).await.unwrap().remove(0).overview.log;
    store.close().await;
    drop(store);
    let (file, backup) = (dir.path().join("conclave.sqlite3"), dir.path().join("backup"));
    std::fs::copy(&file, &backup).unwrap();
    // The new file may well get the removed one's number.
    std::fs::remove_file(&file).unwrap();
    std::fs::copy(&backup, &file).unwrap();
    let mut store = open(dir.path()).await.unwrap();
    let restored = store.sessions_of(user(1)).await.unwrap().remove(0).overview.log;
    assert_ne!(restored, log);
    store.begin_new_history().await.unwrap();
    assert_ne!(store.sessions_of(user(1)).await.unwrap().remove(0).overview.log, restored);
}

#[tokio::test]
async fn the_connection_that_commits_is_set_to_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let set = |pragma: &'static str| {
        let look = move |clerk: &mut Clerk| {
            let connection = clerk.connection().unwrap();
            connection.pragma_query_value(None, pragma, |row| row.get::<_, Value>(0)).unwrap()
        };
        store.writer.commit(false, look)
    };
    assert_eq!(set("journal_mode").await.unwrap(), Value::Text("wal".to_owned()));
    assert_eq!(set("synchronous").await.unwrap(), Value::Integer(2), "FULL");
    assert_eq!(set("secure_delete").await.unwrap(), Value::Integer(1));
    assert_eq!(set("foreign_keys").await.unwrap(), Value::Integer(0));
}

#[tokio::test]
async fn the_write_ahead_log_starts_over_while_commits_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { wal_bytes: u64::MAX, ..SqliteOptions::new(dir.path()) };
    let store = SqliteStore::open(&options).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&store).await;
    let text = "x".repeat(500_000);
    let wal = dir.path().join("conclave.sqlite3-wal");
    for _ in 0..240 {
        let said = session.says(user(1), &text, None);
        session.put(&store, [said]).await;
    }
    let len = std::fs::metadata(&wal).unwrap().len();
    assert!(len < 64 << 20, "120 MB went through a write-ahead log of {len} bytes");
    store.close().await;
}
