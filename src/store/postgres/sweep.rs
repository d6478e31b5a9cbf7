//! What the sweep asks in bulk: where sessions stand, what connected users belong to, who has something to fetch.

use super::PostgresStore;
use super::column::{AsUuid, Columns, int, uuids};
use crate::protocol::{SessionId, Timestamp, UserId};
use crate::store::{Page, Position, StoreResult, records};

impl PostgresStore {
    pub(super) async fn find_positions(&self, sessions: &[SessionId]) -> StoreResult<Vec<Position>> {
        let sql = "SELECT session_id, version, last_seq FROM sessions WHERE session_id = ANY ($1) AND ended_at IS NULL";
        self.daily.rows(sqlx::query(sql).bind(uuids(sessions))).await?.iter().map(records::position).collect()
    }

    pub(super) async fn find_memberships_of(
        &self,
        users: &[UserId],
        after: Option<(UserId, SessionId)>,
        limit: u64,
    ) -> StoreResult<Page<(UserId, SessionId)>> {
        let still: Vec<UserId> =
            users.iter().copied().filter(|user| after.is_none_or(|(last, _)| *user >= last)).collect();
        let query = sqlx::query(
            "SELECT user_id, session_id FROM members
             WHERE user_id = ANY ($1) AND ($2::uuid IS NULL OR (user_id, session_id) > ($2, $3))
             ORDER BY user_id, session_id LIMIT $4",
        )
        .bind(uuids(&still))
        .bind(after.map(|(user, _)| user.uuid()))
        .bind(after.map(|(_, session)| session.uuid()))
        .bind(int(limit.saturating_add(1)));
        records::page(&self.daily.rows(query).await?, limit, |row| Ok((row.user("user_id")?, row.session()?)))
    }

    pub(super) async fn find_users_with_inbox(&self, users: &[UserId], now: Timestamp) -> StoreResult<Vec<UserId>> {
        let query = sqlx::query(
            "SELECT DISTINCT asked.user_id FROM unnest($1) AS asked (user_id)
             WHERE EXISTS (SELECT 1 FROM inbox AS i
                WHERE i.user_id = asked.user_id AND (i.expires_at IS NULL OR i.expires_at > $2))",
        )
        .bind(uuids(users))
        .bind(now.as_millis());
        self.daily.rows(query).await?.iter().map(|row| row.user("user_id")).collect()
    }
}
