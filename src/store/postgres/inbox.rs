//! What belongs to one user: inbox events, and how far they have received.

use std::collections::BTreeMap;

use super::PostgresStore;
use super::column::{AsUuid, Columns, int};
use crate::protocol::{InboxId, SessionId, Timestamp, UserId};
use crate::store::{AckRow, InboxRow, StoreResult, records};

/// How often acks that collided with a commit are sent at most.
const TRIES: u32 = 5;

impl PostgresStore {
    pub(super) async fn find_inbox(&self, user_id: UserId, limit: u64, now: Timestamp) -> StoreResult<Vec<InboxRow>> {
        let query = sqlx::query(
            "SELECT * FROM inbox WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY id LIMIT $3",
        );
        let query = query.bind(user_id.uuid()).bind(now.as_millis()).bind(int(limit));
        self.daily.rows(query).await?.iter().map(records::inbox_row).collect()
    }

    pub(super) async fn find_inbox_keys(
        &self,
        user_id: UserId,
        session_id: SessionId,
        up_to: u64,
    ) -> StoreResult<Vec<InboxRow>> {
        let query = sqlx::query(
            "SELECT * FROM inbox WHERE user_id = $1 AND session_id = $2 AND version <= $3 AND holds_key ORDER BY id",
        );
        let query = query.bind(user_id.uuid()).bind(session_id.uuid()).bind(int(up_to));
        self.daily.rows(query).await?.iter().map(records::inbox_row).collect()
    }

    pub(super) async fn delete_inbox(&self, user_id: UserId, inbox_ids: &[InboxId]) -> StoreResult<()> {
        // What clients call by a name that no text column can have is unknown.
        let names: Vec<&str> =
            inbox_ids.iter().map(|inbox_id| inbox_id.0.as_str()).filter(|name| !name.contains('\0')).collect();
        let query = sqlx::query("DELETE FROM inbox WHERE user_id = $1 AND inbox_id = ANY ($2)");
        self.daily.rows(query.bind(user_id.uuid()).bind(names)).await?;
        Ok(())
    }

    pub(super) async fn delete_lapsed_inbox(&self, now: Timestamp, limit: u64) -> StoreResult<Vec<(UserId, InboxId)>> {
        // Each node takes what no other node is just taking.
        let query = sqlx::query(
            "DELETE FROM inbox AS i USING (
                SELECT user_id, id FROM inbox WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                FOR UPDATE SKIP LOCKED) AS lapsed
             WHERE i.user_id = lapsed.user_id AND i.id = lapsed.id RETURNING i.user_id, i.inbox_id",
        );
        let rows = self.daily.rows(query.bind(now.as_millis()).bind(int(limit))).await?;
        rows.iter().map(|row| Ok((row.user("user_id")?, row.inbox_id("inbox_id")?))).collect()
    }

    pub(super) async fn write_acks(&self, acks: &[AckRow]) -> StoreResult<()> {
        // The statement would take any one of several rows of a member: they get the highest.
        let mut highest = BTreeMap::new();
        for ack in acks {
            let seq = highest.entry((ack.session_id, ack.user_id)).or_insert(0);
            *seq = int(ack.seq).max(*seq);
        }
        let sessions: Vec<_> = highest.keys().map(|(session, _)| session.uuid()).collect();
        let users: Vec<_> = highest.keys().map(|(_, user)| user.uuid()).collect();
        let seqs: Vec<_> = highest.values().copied().collect();
        let mut tries = 1;
        loop {
            // Locked in one order by all who write acks; a commit that meets them in another one is a collision.
            let query = sqlx::query(
                "WITH due AS MATERIALIZED (
                    SELECT m.session_id, m.user_id, a.seq
                    FROM unnest($1, $2, $3) AS a (session_id, user_id, seq)
                    JOIN members AS m ON m.session_id = a.session_id AND m.user_id = a.user_id AND m.acked_seq < a.seq
                    ORDER BY m.session_id, m.user_id FOR NO KEY UPDATE OF m)
                 UPDATE members AS m SET acked_seq = due.seq FROM due
                 WHERE m.session_id = due.session_id AND m.user_id = due.user_id",
            );
            match self.daily.rows(query.bind(&sessions).bind(&users).bind(&seqs)).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is_a_collision() && tries < TRIES => tries += 1,
                Err(failure) => return Err(failure.into()),
            }
        }
    }
}
