//! A whole session as its new owner needs it, and the tasks that wait for it.

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Columns, failed};
use crate::protocol::SessionId;
use crate::session::state::{Snapshot, Task};
use crate::store::records::{invitation, join_request, member, recent, restriction, task};
use crate::store::{StoreError, StoreResult};

impl SqliteStore {
    /// Reads a session at one moment.
    pub(super) async fn read_snapshot(&self, session_id: SessionId) -> StoreResult<Snapshot> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        let mut read = connection.begin().await.map_err(failed)?;
        let id = &session_id.as_bytes()[..];
        let row = sqlx::query(
            "SELECT last_seq, last_time, key_messages, head FROM sessions JOIN session_heads USING (session_id)
             WHERE session_id = ?1",
        )
        .bind(id)
        .fetch_optional(&mut *read)
        .await
        .map_err(failed)?;
        let row = row.ok_or_else(|| StoreError::Corrupt("a session has no record".to_owned()))?;
        let snapshot = Snapshot {
            head: row.record("head")?,
            last_seq: row.count("last_seq")?,
            last_time: row.time("last_time")?,
            key_messages: row.count("key_messages")?,
            members: all(&mut read, "SELECT * FROM members WHERE session_id = ?1", id, member).await?,
            restrictions: all(&mut read, "SELECT * FROM restrictions WHERE session_id = ?1", id, restriction).await?,
            join_requests: all(&mut read, "SELECT * FROM join_requests WHERE session_id = ?1", id, join_request)
                .await?,
            invitations: all(&mut read, "SELECT * FROM invitations WHERE session_id = ?1", id, invitation).await?,
            recent: all(&mut read, "SELECT * FROM recent_msgs WHERE session_id = ?1 ORDER BY time, seq", id, recent)
                .await?,
        };
        read.commit().await.map_err(failed)?;
        Ok(snapshot)
    }

    pub(super) async fn find_tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        let sql = "SELECT * FROM tasks WHERE session_id = ?1 ORDER BY id";
        all(&mut connection, sql, session_id.as_bytes(), task).await
    }

    pub(super) async fn find_sessions_with_tasks(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        let rows = sqlx::query("SELECT DISTINCT session_id FROM tasks ORDER BY session_id LIMIT ?1")
            .bind(super::column::int(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(SqliteRow::session).collect()
    }
}

async fn all<T>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    session_id: &[u8],
    read: fn(&SqliteRow) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    let rows = sqlx::query(sql).bind(session_id).fetch_all(connection).await.map_err(failed)?;
    rows.iter().map(read).collect()
}
