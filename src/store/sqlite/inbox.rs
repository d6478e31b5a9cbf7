//! What belongs to one user: inbox events, and how far they have received.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::SqliteStore;
use super::column::{Columns, Hex, failed, int, json};
use super::readers::rows;
use crate::protocol::{InboxId, SessionId, Timestamp, UserId};
use crate::store::{AckRow, InboxRow, StoreResult, records};

impl SqliteStore {
    pub(super) async fn find_inbox(&self, user_id: UserId, limit: u64, now: Timestamp) -> StoreResult<Vec<InboxRow>> {
        const SQL: &str = "
            SELECT * FROM inbox WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY id LIMIT ?3";
        let find = move |connection: &mut Connection| {
            let params = params![user_id.as_bytes(), now.as_millis(), int(limit)];
            rows(connection, SQL, params, |row| records::inbox_row(row))
        };
        self.reading.read(find).await
    }

    pub(super) async fn find_inbox_keys(
        &self,
        user_id: UserId,
        session_id: SessionId,
        up_to: u64,
    ) -> StoreResult<Vec<InboxRow>> {
        let rows = sqlx::query(
            "SELECT * FROM inbox WHERE user_id = ?1 AND session_id = ?2 AND version <= ?3 AND holds_key ORDER BY id",
        )
        .bind(&user_id.as_bytes()[..])
        .bind(&session_id.as_bytes()[..])
        .bind(int(up_to))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(records::inbox_row).collect()
    }

    pub(super) async fn delete_inbox(&self, user_id: UserId, inbox_ids: &[InboxId]) -> StoreResult<()> {
        let mut write = self.writer.begin().await?;
        sqlx::query("DELETE FROM inbox WHERE user_id = ?1 AND inbox_id IN (SELECT value FROM json_each(?2))")
            .bind(&user_id.as_bytes()[..])
            .bind(json(inbox_ids))
            .execute(write.connection())
            .await
            .map_err(failed)?;
        Ok(write.commit().await?)
    }

    pub(super) async fn delete_lapsed_inbox(&self, now: Timestamp, limit: u64) -> StoreResult<Vec<(UserId, InboxId)>> {
        let mut write = self.writer.begin().await?;
        let rows = sqlx::query(
            "DELETE FROM inbox WHERE id IN
                (SELECT id FROM inbox WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
             RETURNING user_id, inbox_id",
        )
        .bind(now.as_millis())
        .bind(int(limit))
        .fetch_all(write.connection())
        .await
        .map_err(failed)?;
        write.commit().await?;
        rows.iter().map(|row| Ok((row.user("user_id")?, row.inbox_id("inbox_id")?))).collect()
    }

    pub(super) async fn write_acks(&self, acks: &[AckRow]) -> StoreResult<()> {
        // The statement would take any one of several rows of a member: they get the highest.
        let mut highest = BTreeMap::new();
        for ack in acks {
            let seq = highest.entry((Hex::from(ack.session_id), Hex::from(ack.user_id))).or_insert(0);
            *seq = int(ack.seq).max(*seq);
        }
        let rows: Vec<_> = highest.into_iter().map(|((session, user), seq)| (session, user, seq)).collect();
        let mut write = self.writer.begin().await?;
        sqlx::query(
            "UPDATE members SET acked_seq = ack.value->>2 FROM json_each(?1) AS ack
             WHERE session_id = unhex(ack.value->>0) AND user_id = unhex(ack.value->>1) AND acked_seq < ack.value->>2",
        )
        .bind(json(&rows))
        .execute(write.connection())
        .await
        .map_err(failed)?;
        Ok(write.commit().await?)
    }
}
