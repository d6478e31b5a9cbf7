//! Removing what is kept no longer, and figures for operators.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::column::{Columns, failed, int};
use crate::protocol::Timestamp;
use crate::store::{KeyCoverage, Retention, StoreResult};

/// Statements with ?1 the moment up to which things go, and ?2 how many rows at most.
const OLD: [&str; 6] = [
    "DELETE FROM events WHERE id IN (
        SELECT id FROM sessions CROSS JOIN events USING (session_id) WHERE ended_at <= ?1 LIMIT ?2)",
    "DELETE FROM recalled WHERE (session_id, seq) IN (
        SELECT session_id, seq FROM sessions CROSS JOIN recalled USING (session_id) WHERE ended_at <= ?1 LIMIT ?2)",
    "DELETE FROM session_heads WHERE session_id IN (
        SELECT session_id FROM sessions WHERE ended_at <= ?1
            AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.session_id = sessions.session_id) LIMIT ?2)",
    "DELETE FROM sessions WHERE session_id IN (
        SELECT session_id FROM sessions WHERE ended_at <= ?1
            AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.session_id = sessions.session_id)
            AND NOT EXISTS (SELECT 1 FROM recalled AS r WHERE r.session_id = sessions.session_id)
            AND NOT EXISTS (SELECT 1 FROM session_heads AS h WHERE h.session_id = sessions.session_id) LIMIT ?2)",
    "DELETE FROM departures WHERE (user_id, session_id) IN (
        SELECT user_id, session_id FROM departures WHERE at <= ?1 LIMIT ?2)",
    "DELETE FROM nodes WHERE node_id IN (SELECT node_id FROM nodes WHERE expires_at <= ?1 LIMIT ?2)",
];

const EXPIRED_TOKENS: &str =
    "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// ?1 is how many each user keeps.
const INBOX_OVER: &str = "
    DELETE FROM inbox WHERE id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id DESC) AS place FROM inbox
            WHERE user_id IN (SELECT user_id FROM inbox GROUP BY user_id HAVING count(*) > ?1 LIMIT ?2))
        WHERE place > ?1 LIMIT ?2)";

impl SqliteStore {
    pub(super) async fn remove_old(&self, now: Timestamp, retention: &Retention) -> StoreResult<bool> {
        let ended_before = now.plus_millis(retention.ended_ms.saturating_neg()).as_millis();
        let rest = OLD.map(|sql| (sql, ended_before));
        let all = [(EXPIRED_TOKENS, now.as_millis()), (INBOX_OVER, int(retention.inbox_per_user))];
        let mut more = false;
        for (sql, bound) in all.into_iter().chain(rest) {
            more |= self.remove(sql, bound, retention.batch).await? >= retention.batch;
        }
        self.writer.tidy().await?;
        Ok(more)
    }

    /// Each kind in a transaction of its own, so that commits pass in between.
    async fn remove(&self, sql: &'static str, bound: i64, batch: u64) -> StoreResult<u64> {
        let mut write = self.writer.begin().await?;
        let connection: &mut SqliteConnection = write.connection();
        let removed =
            sqlx::query(sql).bind(bound).bind(int(batch)).execute(connection).await.map_err(failed)?.rows_affected();
        // Without a change there is nothing to sync.
        write.commit().await?;
        Ok(removed)
    }

    pub(super) async fn count_keys(&self, now: Timestamp) -> StoreResult<KeyCoverage> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM sessions AS s CROSS JOIN members AS m USING (session_id)
                    WHERE s.e2ee_on AND (s.wants_keys OR s.key_epoch IS NULL) AND s.ended_at IS NULL
                    AND (s.key_epoch IS NULL OR (m.held IS NOT s.key_epoch AND m.sent IS NOT s.key_epoch))
                ) AS without_key,
                (SELECT count(*) FROM sessions WHERE rotating_since IS NOT NULL) AS rotations_open,
                (SELECT min(rotating_since) FROM sessions WHERE rotating_since IS NOT NULL) AS oldest",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        let oldest: Option<i64> = row.try_get("oldest").map_err(failed)?;
        Ok(KeyCoverage {
            without_key: row.count("without_key")?,
            rotations_open: row.count("rotations_open")?,
            oldest_ms: oldest.map_or(0, |since| now.millis_since(Timestamp::from_millis(since)).max(0)),
        })
    }
}
