//! What operators see of sessions and accounts.

use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::column::{Columns, corrupt, failed, int};
use crate::protocol::SessionId;
use crate::session::state::Head;
use crate::store::{Page, SessionSummary, Standing, StoreResult, UserSummary};

/// A session as operators see it.
macro_rules! summary {
    ($rest:literal) => {
        concat!(
            "SELECT s.session_id, s.owner_node, s.version, s.last_seq, s.last_time, h.head,
                (SELECT count(*) FROM members AS m WHERE m.session_id = s.session_id) AS members,
                (SELECT count(*) FROM members AS m WHERE m.session_id = s.session_id AND s.e2ee_on
                    AND (s.key_epoch IS NULL OR (m.held IS NOT s.key_epoch AND m.sent IS NOT s.key_epoch))
                ) AS without_key
             FROM sessions AS s JOIN session_heads AS h USING (session_id) WHERE s.ended_at IS NULL ",
            $rest
        )
    };
}

impl SqliteStore {
    pub(super) async fn summarize_sessions(
        &self,
        after: Option<SessionId>,
        limit: u64,
    ) -> StoreResult<Page<SessionSummary>> {
        let rows = sqlx::query(summary!("AND (?1 IS NULL OR s.session_id > ?1) ORDER BY s.session_id LIMIT ?2"))
            .bind(after.map(|session| session.as_bytes().to_vec()))
            .bind(int(limit.saturating_add(1)))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        super::reads::page(&rows, limit, session)
    }

    pub(super) async fn summarize_session(&self, session_id: SessionId) -> StoreResult<Option<SessionSummary>> {
        let row = sqlx::query(summary!("AND s.session_id = ?1"))
            .bind(&session_id.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        row.as_ref().map(session).transpose()
    }

    pub(super) async fn summarize_user(&self, name: &str) -> StoreResult<Option<UserSummary>> {
        let row = sqlx::query(
            "SELECT user_id, name, created_at, closed_at, disabled_at,
                (SELECT count(*) FROM members AS m WHERE m.user_id = u.user_id) AS sessions,
                (SELECT count(*) FROM tokens AS t WHERE t.user_id = u.user_id) AS tokens,
                (SELECT count(*) FROM inbox AS i WHERE i.user_id = u.user_id) AS inbox
             FROM users AS u WHERE name = ?1",
        )
        .bind(name)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed)?;
        row.as_ref().map(user).transpose()
    }
}

fn session(row: &SqliteRow) -> StoreResult<SessionSummary> {
    let head: Head = row.record("head")?;
    let owner = row.col::<Option<&str>>("owner_node")?.map(str::parse).transpose();
    Ok(SessionSummary {
        session_id: row.session()?,
        name: head.name,
        members: row.count("members")?,
        without_key: row.count("without_key")?,
        owner: owner.map_err(|_| corrupt("owner_node"))?,
        version: row.count("version")?,
        last_seq: row.count("last_seq")?,
        last_time: row.time("last_time")?,
        e2ee: head.e2ee,
    })
}

fn user(row: &SqliteRow) -> StoreResult<UserSummary> {
    let standing = match (row.moment("closed_at")?, row.moment("disabled_at")?) {
        (Some(at), _) => Standing::Closed(at),
        (None, Some(at)) => Standing::Disabled(at),
        (None, None) => Standing::Live,
    };
    Ok(UserSummary {
        user_id: row.user("user_id")?,
        name: row.col("name")?,
        created_at: row.time("created_at")?,
        standing,
        sessions: row.count("sessions")?,
        tokens: row.count("tokens")?,
        inbox: row.count("inbox")?,
    })
}
