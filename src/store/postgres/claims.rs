//! Who owns which session, the whole session as its new owner needs it, and the tasks that wait for it.

use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::column::{AsUuid, Columns, int};
use super::lanes::Lane;
use crate::protocol::{ClientId, NodeId, SessionId, UserId};
use crate::session::state::{Snapshot, Task};
use crate::store::records::{self, invitation, join_request, member, recent, restriction, task};
use crate::store::{Claim, Claimed, StoreError, StoreResult};

const TASKS: &str = "SELECT * FROM tasks WHERE session_id = $1 ORDER BY id";

impl PostgresStore {
    pub(super) async fn take_session(
        &self,
        session_id: SessionId,
        node_id: NodeId,
        from_others: bool,
    ) -> StoreResult<Claim> {
        let mut lane = self.daily.lane().await?;
        let query = sqlx::query(
            "UPDATE sessions AS s SET owner_node = $2, fence = fence + 1 FROM session_heads AS h
             WHERE s.session_id = $1 AND h.session_id = s.session_id AND s.ended_at IS NULL
               AND (s.owner_node IS NULL OR s.owner_node = $2
                    OR ($3 AND NOT EXISTS (SELECT 1 FROM nodes AS n
                        WHERE n.node_id = s.owner_node AND n.expires_at > conclave_now())))
             RETURNING s.fence, s.version, s.last_seq, s.last_time, s.key_messages, h.head",
        )
        .bind(session_id.uuid())
        .bind(node_id.uuid())
        .bind(from_others);
        let Some(row) = lane.rows(query).await?.pop() else {
            return owner_of(&mut lane, session_id).await;
        };
        // Read after the claim: with the fence raised nobody else's commit is taken any more.
        let snapshot = read_parts(&mut lane, session_id, &row).await?;
        let tasks = all(&mut lane, TASKS, session_id, task).await?;
        let (fence, version) = (row.count("fence")?, row.count("version")?);
        Ok(Claim::Mine(Box::new(Claimed { fence, version, snapshot, tasks })))
    }

    pub(super) async fn give_session_up(&self, session_id: SessionId, node_id: NodeId, fence: u64) -> StoreResult<()> {
        let sql = "UPDATE sessions SET owner_node = NULL WHERE session_id = $1 AND owner_node = $2 AND fence = $3";
        self.daily.rows(sqlx::query(sql).bind(session_id.uuid()).bind(node_id.uuid()).bind(int(fence))).await?;
        Ok(())
    }

    pub(super) async fn find_tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>> {
        let mut lane = self.daily.lane().await?;
        all(&mut lane, TASKS, session_id, task).await
    }

    pub(super) async fn find_sessions_with_tasks(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        let query = sqlx::query("SELECT DISTINCT session_id FROM tasks ORDER BY session_id LIMIT $1").bind(int(limit));
        self.daily.rows(query).await?.iter().map(Columns::session).collect()
    }

    pub(super) async fn find_rotations_unattended(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        let query = sqlx::query(
            "SELECT s.session_id FROM sessions AS s WHERE s.rotating_since IS NOT NULL AND s.ended_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM nodes AS n
                   WHERE n.node_id = s.owner_node AND n.expires_at > conclave_now())
             ORDER BY s.rotating_since LIMIT $1",
        );
        self.daily.rows(query.bind(int(limit))).await?.iter().map(Columns::session).collect()
    }

    /// A session's version and latest `seq`, ended or not: both stay readable until the history is removed.
    pub(super) async fn find_position(&self, session_id: SessionId) -> StoreResult<Option<(u64, u64)>> {
        let query = sqlx::query("SELECT session_id, version, last_seq FROM sessions WHERE session_id = $1");
        let row = self.daily.row(query.bind(session_id.uuid())).await?;
        row.map(|row| records::position(&row).map(|position| (position.version, position.last_seq))).transpose()
    }

    /// The JSON of the answer that a session's creator got, by the creator's own id for it.
    pub(super) async fn find_creation_reply(&self, creator: UserId, id: &ClientId) -> StoreResult<Option<String>> {
        let query = sqlx::query(
            "SELECT creation_reply FROM sessions JOIN session_heads USING (session_id)
             WHERE creator = $1 AND client_session_id = $2",
        )
        .bind(creator.uuid())
        .bind(id.0.as_bytes());
        match self.daily.row(query).await? {
            Some(row) => row.text("creation_reply"),
            None => Ok(None),
        }
    }
}

async fn owner_of(lane: &mut Lane<'_>, session_id: SessionId) -> StoreResult<Claim> {
    let query = sqlx::query("SELECT owner_node FROM sessions WHERE session_id = $1 AND ended_at IS NULL");
    match lane.rows(query.bind(session_id.uuid())).await?.pop() {
        None => Ok(Claim::NoSession),
        Some(row) => match row.node("owner_node")? {
            Some(owner) => Ok(Claim::OwnedBy(owner)),
            None => Err(StoreError::Unavailable("the session has just been given up".to_owned())),
        },
    }
}

async fn read_parts(lane: &mut Lane<'_>, session_id: SessionId, row: &PgRow) -> StoreResult<Snapshot> {
    Ok(Snapshot {
        head: row.record("head")?,
        last_seq: row.count("last_seq")?,
        last_time: row.time("last_time")?,
        key_messages: row.count("key_messages")?,
        members: all(lane, "SELECT * FROM members WHERE session_id = $1", session_id, member).await?,
        restrictions: all(lane, "SELECT * FROM restrictions WHERE session_id = $1", session_id, restriction).await?,
        join_requests: all(lane, "SELECT * FROM join_requests WHERE session_id = $1", session_id, join_request).await?,
        invitations: all(lane, "SELECT * FROM invitations WHERE session_id = $1", session_id, invitation).await?,
        recent: all(lane, "SELECT * FROM recent_msgs WHERE session_id = $1 ORDER BY time, seq", session_id, recent)
            .await?,
    })
}

async fn all<T>(
    lane: &mut Lane<'_>,
    sql: &'static str,
    session_id: SessionId,
    read: fn(&PgRow) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    lane.rows(sqlx::query(sql).bind(session_id.uuid())).await?.iter().map(read).collect()
}
