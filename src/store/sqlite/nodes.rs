//! The nodes' leases, what they tell of themselves, and what is asked of them.

use super::SqliteStore;
use super::column::{failed, int};
use crate::protocol::NodeId;
use crate::store::{NodeReport, NodeRow, StoreResult, records};

impl SqliteStore {
    pub(super) async fn write_lease(
        &self,
        node_id: NodeId,
        lease_ms: i64,
        report: &NodeReport,
    ) -> StoreResult<NodeRow> {
        let mut write = self.writer.begin().await?;
        // By the clock at the moment of writing: waiting for the writer must not shorten the lease.
        let now = self.clock.now();
        let row = sqlx::query(
            "INSERT INTO nodes (node_id, started_at, expires_at, bus_ok_at, program, wire_oldest, wire_newest,
                connections, sessions, bus_ok)
             VALUES (?1, ?2, ?3, iif(?9, ?2, NULL), ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at,
                bus_ok_at = coalesce(excluded.bus_ok_at, nodes.bus_ok_at), program = excluded.program,
                wire_oldest = excluded.wire_oldest, wire_newest = excluded.wire_newest,
                connections = excluded.connections, sessions = excluded.sessions, bus_ok = excluded.bus_ok
             RETURNING *",
        )
        .bind(node_id.to_string())
        .bind(now.as_millis())
        .bind(now.plus_millis(lease_ms).as_millis())
        .bind(report.program.as_str())
        .bind(report.wire.oldest)
        .bind(report.wire.newest)
        .bind(int(report.connections))
        .bind(int(report.sessions))
        .bind(report.bus_ok)
        .fetch_one(write.connection())
        .await
        .map_err(failed)?;
        let row = records::node(&row)?;
        write.commit().await?;
        Ok(row)
    }

    pub(super) async fn delete_lease(&self, node_id: NodeId) -> StoreResult<()> {
        let mut write = self.writer.begin().await?;
        for sql in
            ["UPDATE sessions SET owner_node = NULL WHERE owner_node = ?1", "DELETE FROM nodes WHERE node_id = ?1"]
        {
            sqlx::query(sql).bind(node_id.to_string()).execute(write.connection()).await.map_err(failed)?;
        }
        Ok(write.commit().await?)
    }

    pub(super) async fn find_nodes(&self) -> StoreResult<Vec<NodeRow>> {
        let rows = sqlx::query("SELECT * FROM nodes WHERE expires_at > ?1 ORDER BY node_id")
            .bind(self.clock.now().as_millis())
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(records::node).collect()
    }

    pub(super) async fn note_drain(&self, node_id: NodeId) -> StoreResult<bool> {
        let mut write = self.writer.begin().await?;
        let asked = sqlx::query("UPDATE nodes SET drain = 1 WHERE node_id = ?1 AND expires_at > ?2")
            .bind(node_id.to_string())
            .bind(self.clock.now().as_millis())
            .execute(write.connection())
            .await
            .map_err(failed)?;
        write.commit().await?;
        Ok(asked.rows_affected() > 0)
    }
}
