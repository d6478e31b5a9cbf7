//! Commits: one call, and so one round trip and one transaction, for a batch of sessions.
//!
//! The database checks fence and version of every session before it writes anything (`conclave_commit` in the
//! migrations). A session that is not this node's any more leaves the batch, and the rest goes again; what collided
//! with another transaction goes again as it is; where a row is refused, each session tries alone.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PostgresStore;
use super::column::{AsUuid, Columns, cell};
use super::lanes::Failure;
use super::plan::Plan;
use crate::protocol::{NodeId, SessionId, UserId};
use crate::store::{CommitError, SessionCommit, StoreError};

/// How often a batch that collided is sent at most.
const TRIES: u32 = 10;

/// The arrays of `conclave_commit`, in its order.
const COMMIT: &str = "SELECT * FROM conclave_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)";

/// The sessions that the database would not let this node write.
type Refusals = BTreeMap<SessionId, CommitError>;

impl PostgresStore {
    pub(super) async fn commit_batch(&self, node_id: NodeId, batch: &[SessionCommit]) -> Vec<Result<(), CommitError>> {
        let mut refused = Refusals::new();
        for commit in batch.iter().filter(|commit| commit.previous_version == 0 && commit.head.is_none()) {
            let why = CommitError::Refused("a session is made with its record".to_owned());
            refused.insert(commit.session_id, why);
        }
        let mut left: Vec<&SessionCommit> =
            batch.iter().filter(|commit| !refused.contains_key(&commit.session_id)).collect();
        left.sort_by_key(|commit| commit.session_id);
        while !left.is_empty() {
            match self.send_again(node_id, &left).await {
                Ok(more) if more.is_empty() => break,
                Ok(more) => {
                    left.retain(|commit| !more.contains_key(&commit.session_id));
                    refused.extend(more);
                }
                Err(failure) if left.len() > 1 && is_refused_row(&failure) => {
                    refused.extend(self.each_alone(node_id, &left).await);
                    break;
                }
                Err(failure) => {
                    refused.extend(left.iter().map(|commit| (commit.session_id, outcome(&failure))));
                    break;
                }
            }
        }
        batch.iter().map(|commit| refused.remove(&commit.session_id).map_or(Ok(()), Err)).collect()
    }

    async fn each_alone(&self, node_id: NodeId, batch: &[&SessionCommit]) -> Refusals {
        let mut refused = Refusals::new();
        for commit in batch {
            match self.send_again(node_id, &[commit]).await {
                Ok(more) => refused.extend(more),
                Err(failure) => {
                    refused.insert(commit.session_id, outcome(&failure));
                }
            }
        }
        refused
    }

    /// Sends a batch until it does not collide with another transaction.
    async fn send_again(&self, node_id: NodeId, batch: &[&SessionCommit]) -> Result<Refusals, Failure> {
        let mut tries = 1;
        loop {
            match self.send(node_id, batch).await {
                Err(failure) if failure.is_a_collision() && tries < TRIES => {
                    tracing::debug!(tries, "a batch of commits collided with another transaction and goes again");
                    let most = 2_u64.saturating_pow(tries).min(100);
                    let pause = rand::rng().random_range(0..=most);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// One round trip: all of it is stored, or nothing is, with who stood in the way.
    async fn send(&self, node_id: NodeId, batch: &[&SessionCommit]) -> Result<Refusals, Failure> {
        let mut plan = Plan::default();
        batch.iter().for_each(|commit| plan.add(commit));
        let (steps, step_rows) = plan.steps();
        let (old, new) = (&plan.old, &plan.new);
        let (written_in, written_for): (Vec<Uuid>, Vec<Uuid>) =
            plan.written_for.iter().map(|(session, user): &(SessionId, UserId)| (session.uuid(), user.uuid())).unzip();
        let query = sqlx::query(COMMIT)
            .bind(node_id.uuid())
            .bind(&old.session)
            .bind(&old.fence)
            .bind(&old.previous)
            .bind(&old.version)
            .bind(&old.seq)
            .bind(&old.time)
            .bind(&old.key_messages)
            .bind(&old.wants_keys)
            .bind(&new.session)
            .bind(&plan.creators)
            .bind(&plan.client_ids)
            .bind(&new.fence)
            .bind(&new.version)
            .bind(&new.seq)
            .bind(&new.time)
            .bind(&new.key_messages)
            .bind(&new.wants_keys)
            .bind(&plan.events.session)
            .bind(&plan.events.seq)
            .bind(&plan.events.version)
            .bind(&plan.events.json)
            .bind(plan.forget.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(plan.forget.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(plan.forget.iter().map(|row| row.2).collect::<Vec<_>>())
            .bind(plan.remember.iter().map(|row| row.session).collect::<Vec<_>>())
            .bind(plan.remember.iter().map(|row| row.sender).collect::<Vec<_>>())
            .bind(plan.remember.iter().map(|row| row.id).collect::<Vec<_>>())
            .bind(plan.remember.iter().map(|row| row.seq).collect::<Vec<_>>())
            .bind(plan.remember.iter().map(|row| row.time).collect::<Vec<_>>())
            .bind(steps)
            .bind(step_rows)
            .bind(written_in)
            .bind(written_for);
        let rows = self.committing.rows(query).await?;
        rows.iter().map(refusal).collect()
    }
}

/// A row of the answer.
fn refusal(row: &PgRow) -> Result<(SessionId, CommitError), Failure> {
    let unread = |error: StoreError| Failure::Lost(error.to_string());
    let session = row.id("refused_session").map_err(unread)?;
    let reason: i32 = cell(row, "reason").map_err(unread)?;
    let why = if reason == 2 { CommitError::AlreadyMade } else { CommitError::NotOwner };
    Ok((SessionId::from_bytes(session), why))
}

/// Whether it is a row that the database does not take, rather than the database that takes none: data that does not
/// fit, a constraint, a limit.
fn is_refused_row(failure: &Failure) -> bool {
    failure.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

fn outcome(failure: &Failure) -> CommitError {
    match failure {
        Failure::Unsent(_) | Failure::Refused(_) => CommitError::Refused(failure.to_string()),
        Failure::Lost(_) => CommitError::Unknown(failure.to_string()),
    }
}
