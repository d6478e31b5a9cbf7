//! A whole session as its new owner needs it, and the tasks that wait for it.

use rusqlite::{Connection, Row};
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::column::{Columns, failed};
use super::readers::{row, rows};
use crate::protocol::SessionId;
use crate::session::state::{Snapshot, Task};
use crate::store::records::{invitation, join_request, member, recent, restriction, task};
use crate::store::{StoreError, StoreResult};

impl SqliteStore {
    /// Reads a session at one moment.
    pub(super) async fn read_snapshot(&self, session_id: SessionId) -> StoreResult<Snapshot> {
        let read = move |connection: &mut Connection| {
            // Ended without a commit: nothing was written.
            let moment = connection.transaction()?;
            let id = session_id.as_bytes();
            snapshot(&moment, id)
        };
        self.reading.read(read).await
    }

    pub(super) async fn find_tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>> {
        const SQL: &str = "SELECT * FROM tasks WHERE session_id = ?1 ORDER BY id";
        let read = move |connection: &mut Connection| rows(connection, SQL, [session_id.as_bytes()], |row| task(row));
        self.reading.read(read).await
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

/// From the index alone.
pub(super) const RECENT: &str = "
    SELECT seq, sender, client_msg_id, time FROM events
    WHERE session_id = ?1 AND seq >= (SELECT remembered_from FROM sessions WHERE session_id = ?1)
        AND client_msg_id IS NOT NULL ORDER BY seq";

fn snapshot(moment: &Connection, id: &[u8; 16]) -> StoreResult<Snapshot> {
    const RECORD: &str = "
        SELECT last_seq, last_time, key_messages, head FROM sessions JOIN session_heads USING (session_id)
        WHERE session_id = ?1";
    let record = |row: &Row<'_>| {
        Ok(Snapshot {
            head: row.record("head")?,
            last_seq: row.count("last_seq")?,
            last_time: row.time("last_time")?,
            key_messages: row.count("key_messages")?,
            members: rows(moment, "SELECT * FROM members WHERE session_id = ?1", [id], |row| member(row))?,
            restrictions: rows(moment, "SELECT * FROM restrictions WHERE session_id = ?1", [id], |row| {
                restriction(row)
            })?,
            join_requests: rows(moment, "SELECT * FROM join_requests WHERE session_id = ?1", [id], |row| {
                join_request(row)
            })?,
            invitations: rows(moment, "SELECT * FROM invitations WHERE session_id = ?1", [id], |row| invitation(row))?,
            recent: rows(moment, RECENT, [id], |row| recent(row))?,
        })
    };
    row(moment, RECORD, [id], record)?.ok_or_else(|| StoreError::Corrupt("a session has no record".to_owned()))
}
