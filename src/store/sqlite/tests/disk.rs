//! A full disk: writes are refused, reads go on, and when there is room again so is everything else.

use sqlx::AssertSqlSafe;

use super::super::desk::Clerk;
use crate::store::conformance::{NODE, Session, account, user};
use crate::store::{CommitError, EventRange, Retention, SqliteOptions, SqliteStore, Store, StoreError, UserRow};

/// SQLite's own limit answers as a full disk does; every connection has one of its own.
async fn limit_pages(store: &SqliteStore, most: i64) {
    let pool = store.writer.connections();
    pool.set_connect_options(pool.connect_options().as_ref().clone().pragma("max_page_count", most.to_string()));
    sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {most}"))).execute(pool).await.unwrap();
    let limit = move |clerk: &mut Clerk| {
        let limited =
            clerk.connection().unwrap().pragma_update_and_check(None, "max_page_count", most, |row| row.get(0));
        assert_eq!(limited, Ok(most));
    };
    store.writer.commit(false, limit).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_while_reads_go_on_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    store.create_user(&account(1)).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&store).await;
    let mut other = Session::new(2, user(1)).made(&store).await;
    let now = sqlx::query_scalar("PRAGMA page_count").fetch_one(store.writer.connections()).await.unwrap();
    limit_pages(&store, now).await;

    let large = "x".repeat(100_000);
    let said = session.says(user(1), &large, Some("a"));
    let commit = session.commit([said]);
    let said = other.says(user(1), &large, None);
    let other_commit = other.commit([said]);
    let outcomes = store.commit(NODE, &[commit.clone(), other_commit.clone()]).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CommitError::Refused(_)))), "{outcomes:?}");
    let huge = UserRow { public_key: large.clone(), ..account(2) };
    assert!(matches!(store.create_user(&huge).await, Err(StoreError::Unavailable(_))));

    assert_eq!(store.position(session.id()).await.unwrap(), Some((1, 1)), "nothing of it is stored");
    let all = EventRange::After { after: 0, up_to: None };
    assert_eq!(store.events(session.id(), all, 10, 1_000_000).await.unwrap().rows.len(), 1);
    assert_eq!(store.user_by_id(user(1)).await.unwrap(), Some(account(1)));
    let retention = Retention { inbox_per_user: 1, ended_ms: 0, batch: 10 };
    store.prune(store.now().await.unwrap(), &retention).await.unwrap();

    limit_pages(&store, 1_073_741_823).await;
    assert_eq!(store.commit(NODE, &[commit, other_commit]).await, [Ok(()), Ok(())], "the same commits, by themselves");
    store.create_user(&huge).await.unwrap();
    assert_eq!(store.events(session.id(), all, 10, 1_000_000).await.unwrap().rows.len(), 2);
}
