//! Who owns which session.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::column::{Columns, corrupt, failed, int};
use crate::protocol::{NodeId, SessionId};
use crate::store::{Claim, Claimed, StoreError, StoreResult};

impl SqliteStore {
    pub(super) async fn take_session(
        &self,
        session_id: SessionId,
        node_id: NodeId,
        from_others: bool,
    ) -> StoreResult<Claim> {
        let mut write = self.writer.begin().await?;
        let taken = sqlx::query(
            "UPDATE sessions SET owner_node = ?2, fence = fence + 1
             WHERE session_id = ?1 AND ended_at IS NULL
               AND (owner_node IS NULL OR owner_node = ?2
                    OR (?4 AND NOT EXISTS (SELECT 1 FROM nodes WHERE node_id = owner_node AND expires_at > ?3)))
             RETURNING fence, version",
        )
        .bind(&session_id.as_bytes()[..])
        .bind(node_id.to_string())
        .bind(self.clock.now().as_millis())
        .bind(from_others)
        .fetch_optional(write.connection())
        .await
        .map_err(failed)?;
        let Some(taken) = taken else {
            write.undo().await;
            return self.owner_of(session_id).await;
        };
        let (fence, version) = (taken.count("fence")?, taken.count("version")?);
        write.commit().await?;
        // Read after the commit: with the fence raised nobody else's commit is taken any more.
        let snapshot = self.read_snapshot(session_id).await?;
        let tasks = self.find_tasks(session_id).await?;
        Ok(Claim::Mine(Box::new(Claimed { fence, version, snapshot, tasks })))
    }

    pub(super) async fn find_rotations_unattended(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        let rows = sqlx::query(
            "SELECT session_id FROM sessions WHERE rotating_since IS NOT NULL AND ended_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM nodes WHERE node_id = owner_node AND expires_at > ?1)
             ORDER BY rotating_since LIMIT ?2",
        )
        .bind(self.clock.now().as_millis())
        .bind(int(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(SqliteRow::session).collect()
    }

    async fn owner_of(&self, session_id: SessionId) -> StoreResult<Claim> {
        let owner: Option<Option<String>> =
            sqlx::query_scalar("SELECT owner_node FROM sessions WHERE session_id = ?1 AND ended_at IS NULL")
                .bind(&session_id.as_bytes()[..])
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
        match owner {
            None => Ok(Claim::NoSession),
            Some(Some(owner)) => owner.parse().map(Claim::OwnedBy).map_err(|_| corrupt("owner_node")),
            Some(None) => Err(StoreError::Unavailable("the session has just been given up".to_owned())),
        }
    }

    pub(super) async fn give_session_up(&self, session_id: SessionId, node_id: NodeId, fence: u64) -> StoreResult<()> {
        let mut write = self.writer.begin().await?;
        sqlx::query("UPDATE sessions SET owner_node = NULL WHERE session_id = ?1 AND owner_node = ?2 AND fence = ?3")
            .bind(&session_id.as_bytes()[..])
            .bind(node_id.to_string())
            .bind(int(fence))
            .execute(write.connection())
            .await
            .map_err(failed)?;
        Ok(write.commit().await?)
    }

    /// A session's version and latest `seq`, ended or not: both stay readable until the history is removed.
    pub(super) async fn find_position(&self, session_id: SessionId) -> StoreResult<Option<(u64, u64)>> {
        let row = sqlx::query("SELECT version, last_seq FROM sessions WHERE session_id = ?1")
            .bind(&session_id.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        row.map(|row| Ok((row.count("version")?, row.count("last_seq")?))).transpose()
    }

    /// The JSON of the answer that a session's creator got, by the creator's own id for it.
    pub(super) async fn find_creation_reply(
        &self,
        creator: crate::protocol::UserId,
        id: &crate::protocol::ClientId,
    ) -> StoreResult<Option<String>> {
        let row = sqlx::query(
            "SELECT creation_reply FROM sessions JOIN session_heads USING (session_id)
             WHERE creator = ?1 AND client_session_id = ?2",
        )
        .bind(&creator.as_bytes()[..])
        .bind(&*id.0)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed)?;
        Ok(row.and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten()))
    }
}
