//! What the sweep asks in bulk: where sessions stand, what connected users belong to, who has something to fetch.

use super::SqliteStore;
use super::column::{Columns, Hex, failed, int, json};
use crate::protocol::{SessionId, Timestamp, UserId};
use crate::store::{Page, Position, StoreResult, records};

impl SqliteStore {
    pub(super) async fn find_positions(&self, sessions: &[SessionId]) -> StoreResult<Vec<Position>> {
        let sessions: Vec<Hex> = sessions.iter().copied().map(Hex::from).collect();
        let rows = sqlx::query(
            "SELECT session_id, version, last_seq
             FROM json_each(?1) AS asked CROSS JOIN sessions ON session_id = unhex(asked.value)
             WHERE ended_at IS NULL",
        )
        .bind(json(&sessions))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(records::position).collect()
    }

    pub(super) async fn find_memberships_of(
        &self,
        users: &[UserId],
        after: Option<(UserId, SessionId)>,
        limit: u64,
    ) -> StoreResult<Page<(UserId, SessionId)>> {
        let still = users.iter().copied().filter(|user| after.is_none_or(|(last, _)| *user >= last));
        let still: Vec<Hex> = still.map(Hex::from).collect();
        let rows = sqlx::query(
            "SELECT m.user_id, m.session_id
             FROM (SELECT DISTINCT value FROM json_each(?1)) AS asked
             CROSS JOIN members AS m ON m.user_id = unhex(asked.value)
             WHERE ?2 IS NULL OR (m.user_id, m.session_id) > (?2, ?3)
             ORDER BY m.user_id, m.session_id LIMIT ?4",
        )
        .bind(json(&still))
        .bind(after.map(|(user, _)| user.as_bytes().to_vec()))
        .bind(after.map(|(_, session)| session.as_bytes().to_vec()))
        .bind(int(limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        records::page(&rows, limit, |row| Ok((row.user("user_id")?, row.session()?)))
    }

    pub(super) async fn find_users_with_inbox(&self, users: &[UserId], now: Timestamp) -> StoreResult<Vec<UserId>> {
        let users: Vec<Hex> = users.iter().copied().map(Hex::from).collect();
        let rows = sqlx::query(
            "SELECT unhex(asked.value) AS user_id FROM (SELECT DISTINCT value FROM json_each(?1)) AS asked
             WHERE EXISTS (SELECT 1 FROM inbox AS i
                WHERE i.user_id = unhex(asked.value) AND (i.expires_at IS NULL OR i.expires_at > ?2))",
        )
        .bind(json(&users))
        .bind(now.as_millis())
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| row.user("user_id")).collect()
    }
}
