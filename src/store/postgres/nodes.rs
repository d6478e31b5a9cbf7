//! The nodes' leases, what they tell of themselves, and what is asked of them.

use super::PostgresStore;
use super::column::{AsUuid, corrupt, int};
use crate::protocol::NodeId;
use crate::store::{NodeReport, NodeRow, StoreResult, records};

impl PostgresStore {
    pub(super) async fn write_lease(
        &self,
        node_id: NodeId,
        lease_ms: i64,
        report: &NodeReport,
    ) -> StoreResult<NodeRow> {
        let query = sqlx::query(
            "INSERT INTO nodes AS n (node_id, started_at, expires_at, bus_ok_at, program, wire_oldest, wire_newest,
                connections, sessions, bus_ok)
             SELECT $1, now.at, now.at + $2, CASE WHEN $8 THEN now.at END, $3, $4, $5, $6, $7, $8
             FROM (SELECT conclave_now() AS at OFFSET 0) AS now
             ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at,
                bus_ok_at = coalesce(excluded.bus_ok_at, n.bus_ok_at), program = excluded.program,
                wire_oldest = excluded.wire_oldest, wire_newest = excluded.wire_newest,
                connections = excluded.connections, sessions = excluded.sessions, bus_ok = excluded.bus_ok
             RETURNING *",
        )
        .bind(node_id.uuid())
        .bind(lease_ms)
        .bind(report.program.as_str())
        .bind(i64::from(report.wire.oldest))
        .bind(i64::from(report.wire.newest))
        .bind(int(report.connections))
        .bind(int(report.sessions))
        .bind(report.bus_ok);
        let row = self.vital.row(query).await?.ok_or_else(|| corrupt("node_id"))?;
        records::node(&row)
    }

    pub(super) async fn delete_lease(&self, node_id: NodeId) -> StoreResult<()> {
        let query = sqlx::query(
            "WITH freed AS (UPDATE sessions SET owner_node = NULL WHERE owner_node = $1)
             DELETE FROM nodes WHERE node_id = $1",
        );
        self.vital.rows(query.bind(node_id.uuid())).await?;
        Ok(())
    }

    pub(super) async fn find_nodes(&self) -> StoreResult<Vec<NodeRow>> {
        let query = sqlx::query("SELECT * FROM nodes WHERE expires_at > conclave_now() ORDER BY node_id");
        self.vital.rows(query).await?.iter().map(records::node).collect()
    }

    pub(super) async fn note_drain(&self, node_id: NodeId) -> StoreResult<bool> {
        let sql = "UPDATE nodes SET drain = true WHERE node_id = $1 AND expires_at > conclave_now() RETURNING node_id";
        Ok(self.daily.row(sqlx::query(sql).bind(node_id.uuid())).await?.is_some())
    }

    /// Writes a row over a connection that nothing else uses. Each store has a row of its own: no node waits for one
    /// that stopped in the middle.
    pub(super) async fn write_probe(&self) -> StoreResult<()> {
        let query = sqlx::query(
            "INSERT INTO probes (probe_id, at) VALUES ($1, conclave_now())
             ON CONFLICT (probe_id) DO UPDATE SET at = excluded.at",
        );
        self.probing.rows(query.bind(self.probe_id)).await?;
        Ok(())
    }
}
