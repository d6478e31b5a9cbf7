//! No statement of the daily work looks at a whole table: each finds its rows by an index, however many there are.

use sqlx::{Row, SqlSafeStr};

use super::super::{commit, plan, reads, snapshot};
use crate::store::{SqliteOptions, SqliteStore};

#[tokio::test]
async fn statements_of_every_day_find_their_rows_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let statements = [
        commit::GUARD,
        commit::TELL_OF_CLOSED,
        reads::EVENTS_AFTER,
        reads::EVENTS_BEFORE,
        plan::PUT_MEMBER,
        plan::REMOVE_MEMBER,
        plan::DROP_ROOM_KEY,
        plan::DROP_ROOM_KEYS_OF,
        plan::DROP_INBOX_KEYS_OF,
        plan::REMOVE_INBOX,
        plan::BLANK_EVENT,
        snapshot::RECENT,
        plan::REMOVE_TASK,
    ];
    for sql in statements.into_iter().chain(plan::END_PEOPLE).chain(plan::END_KEYS) {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")).into_sql_str();
        let steps = sqlx::query(explain).fetch_all(store.writer.connections()).await.unwrap();
        for step in steps {
            let step: String = step.get("detail");
            let scans = step.starts_with("SCAN")
                && !step.contains("VIRTUAL TABLE")
                && !step.contains("CONSTANT ROW")
                && !step.contains("SCAN 1-ROW VALUES");
            assert!(!scans && !step.contains("TEMP B-TREE FOR ORDER BY"), "{step} in {sql}");
        }
    }
}
