//! Removing what is kept no longer, and figures for operators. All nodes do it; each takes what no other is just taking.

use super::PostgresStore;
use super::column::{Columns, int};
use crate::protocol::Timestamp;
use crate::store::{KeyCoverage, Retention, StoreError, StoreResult};

/// Statements with $1 the moment up to which things go, and $2 how many rows at most.
const OLD: [&str; 7] = [
    "DELETE FROM events AS x USING (
        SELECT e.session_id, e.seq FROM sessions AS s JOIN events AS e USING (session_id)
        WHERE s.ended_at <= $1 LIMIT $2 FOR UPDATE OF e SKIP LOCKED) AS old
     WHERE x.session_id = old.session_id AND x.seq = old.seq RETURNING 1",
    "DELETE FROM session_heads AS x USING (
        SELECT h.session_id FROM sessions AS s JOIN session_heads AS h USING (session_id)
        WHERE s.ended_at <= $1 AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.session_id = s.session_id)
        LIMIT $2 FOR UPDATE OF h SKIP LOCKED) AS old
     WHERE x.session_id = old.session_id RETURNING 1",
    "DELETE FROM sessions AS x USING (
        SELECT s.session_id FROM sessions AS s
        WHERE s.ended_at <= $1 AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.session_id = s.session_id)
            AND NOT EXISTS (SELECT 1 FROM session_heads AS h WHERE h.session_id = s.session_id)
        LIMIT $2 FOR UPDATE OF s SKIP LOCKED) AS old
     WHERE x.session_id = old.session_id RETURNING 1",
    "DELETE FROM departures AS x USING (
        SELECT user_id, session_id FROM departures WHERE at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) AS old
     WHERE x.user_id = old.user_id AND x.session_id = old.session_id RETURNING 1",
    // A node or probe that is gone for so long is in nobody's way any more.
    "DELETE FROM nodes AS x USING (
        SELECT node_id FROM nodes WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) AS old
     WHERE x.node_id = old.node_id RETURNING 1",
    "DELETE FROM probes AS x USING (
        SELECT probe_id FROM probes WHERE at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) AS old
     WHERE x.probe_id = old.probe_id RETURNING 1",
    // Tasks of sessions that ended meanwhile.
    "DELETE FROM tasks AS x USING (
        SELECT t.session_id, t.id FROM sessions AS s JOIN tasks AS t USING (session_id)
        WHERE s.ended_at <= $1 LIMIT $2 FOR UPDATE OF t SKIP LOCKED) AS old
     WHERE x.session_id = old.session_id AND x.id = old.id RETURNING 1",
];

const EXPIRED_TOKENS: &str = "
    DELETE FROM tokens AS x USING (
        SELECT hash FROM tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED) AS old
    WHERE x.hash = old.hash RETURNING 1";

/// $1 is how many each user keeps.
const INBOX_OVER: &str = "
    DELETE FROM inbox AS x USING (
        SELECT user_id, id FROM (
            SELECT user_id, id, row_number() OVER (PARTITION BY user_id ORDER BY id DESC) AS place FROM inbox
            WHERE user_id IN (SELECT user_id FROM inbox GROUP BY user_id HAVING count(*) > $1 LIMIT $2)) AS placed
        WHERE place > $1 LIMIT $2) AS old
    WHERE x.user_id = old.user_id AND x.id = old.id RETURNING 1";

impl PostgresStore {
    pub(super) async fn remove_old(&self, now: Timestamp, retention: &Retention) -> StoreResult<bool> {
        let ended_before = now.plus_millis(retention.ended_ms.saturating_neg()).as_millis();
        let rest = OLD.map(|sql| (sql, ended_before));
        let all = [(EXPIRED_TOKENS, now.as_millis()), (INBOX_OVER, int(retention.inbox_per_user))];
        let mut more = false;
        // Each kind in a transaction of its own, so that none is long.
        for (sql, bound) in all.into_iter().chain(rest) {
            let removed = self.daily.rows(sqlx::query(sql).bind(bound).bind(int(retention.batch))).await?.len();
            more |= removed as u64 >= retention.batch;
        }
        Ok(more)
    }

    pub(super) async fn count_keys(&self, now: Timestamp) -> StoreResult<KeyCoverage> {
        let query = sqlx::query(
            "SELECT (SELECT count(*) FROM sessions AS s JOIN members AS m USING (session_id)
                    WHERE s.e2ee_on AND (s.wants_keys OR s.key_epoch IS NULL) AND s.ended_at IS NULL
                    AND (s.key_epoch IS NULL OR (m.held IS DISTINCT FROM s.key_epoch
                        AND m.sent IS DISTINCT FROM s.key_epoch))) AS without_key,
                (SELECT count(*) FROM sessions WHERE rotating_since IS NOT NULL) AS rotations_open,
                (SELECT min(rotating_since) FROM sessions WHERE rotating_since IS NOT NULL) AS oldest",
        );
        let none = || StoreError::Corrupt("a count has no row".to_owned());
        let row = self.daily.row(query).await?.ok_or_else(none)?;
        Ok(KeyCoverage {
            without_key: row.count("without_key")?,
            rotations_open: row.count("rotations_open")?,
            oldest_ms: row.moment("oldest")?.map_or(0, |since| now.millis_since(since).max(0)),
        })
    }
}
