//! What operators see of sessions and accounts.

use super::PostgresStore;
use super::column::int;
use crate::protocol::SessionId;
use crate::store::{Page, SessionSummary, StoreResult, UserSummary, records};

/// A session as operators see it.
macro_rules! summary {
    ($rest:literal) => {
        concat!(
            "SELECT s.session_id, s.owner_node, s.version, s.last_seq, s.last_time, h.head,
                (SELECT count(*) FROM members AS m WHERE m.session_id = s.session_id) AS members,
                (SELECT count(*) FROM members AS m WHERE m.session_id = s.session_id AND s.e2ee_on
                    AND (s.key_epoch IS NULL OR (m.held IS DISTINCT FROM s.key_epoch
                        AND m.sent IS DISTINCT FROM s.key_epoch))) AS without_key
             FROM sessions AS s JOIN session_heads AS h USING (session_id) WHERE s.ended_at IS NULL ",
            $rest
        )
    };
}

impl PostgresStore {
    pub(super) async fn summarize_sessions(
        &self,
        after: Option<SessionId>,
        limit: u64,
    ) -> StoreResult<Page<SessionSummary>> {
        let sql = summary!("AND ($1::uuid IS NULL OR s.session_id > $1) ORDER BY s.session_id LIMIT $2");
        let query = sqlx::query(sql).bind(after.map(|session| session.uuid())).bind(int(limit.saturating_add(1)));
        records::page(&self.daily.rows(query).await?, limit, records::session_summary)
    }

    pub(super) async fn summarize_session(&self, session_id: SessionId) -> StoreResult<Option<SessionSummary>> {
        let query = sqlx::query(summary!("AND s.session_id = $1")).bind(session_id.uuid());
        self.daily.row(query).await?.as_ref().map(records::session_summary).transpose()
    }

    pub(super) async fn summarize_user(&self, name: &str) -> StoreResult<Option<UserSummary>> {
        if name.contains('\0') {
            return Ok(None);
        }
        let query = sqlx::query(
            "SELECT user_id, name, created_at, closed_at, disabled_at,
                (SELECT count(*) FROM members AS m WHERE m.user_id = u.user_id) AS sessions,
                (SELECT count(*) FROM tokens AS t WHERE t.user_id = u.user_id) AS tokens,
                (SELECT count(*) FROM inbox AS i WHERE i.user_id = u.user_id) AS inbox
             FROM users AS u WHERE name = $1",
        );
        self.daily.row(query.bind(name)).await?.as_ref().map(records::user_summary).transpose()
    }
}
