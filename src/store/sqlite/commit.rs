//! Commits: one transaction for a batch of sessions, guarded by fence and version.
//!
//! The guard comes first and tells which sessions are still this node's; only their rows are written. If a row is
//! refused the transaction is undone and each session tries alone.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Columns, Hex, int, json};
use super::plan::{EventRow, Plan, RecentRow, head_columns};
use super::statement::Rows;
use super::writer::{WriteError, primary_code};
use crate::protocol::{NodeId, SessionId};
use crate::session::state::Change;
use crate::store::{CommitError, SessionCommit};

type Outcomes = Vec<Result<(), CommitError>>;

static PUT_EVENTS: LazyLock<Rows> =
    LazyLock::new(|| Rows::new("INSERT INTO events (session_id, seq, version, json)", "(?, ?, ?, ?)", ""));

static PUT_RECENT: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new("INSERT INTO recent_msgs (session_id, sender, client_msg_id, seq, time)", "(?, ?, ?, ?, ?)", "")
});

pub(super) static FORGET: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new("DELETE FROM recent_msgs WHERE (session_id, sender, client_msg_id) IN (", "(?, ?, ?)", ")")
});

/// Rows: session, fence, previous version, version, last seq, last time, key messages, wants keys.
pub(super) const GUARD: &str = "
    UPDATE sessions SET version = c.value->>3, last_seq = c.value->>4, last_time = c.value->>5,
        key_messages = c.value->>6, wants_keys = c.value->>7
    FROM json_each(?2) AS c
    WHERE session_id = unhex(c.value->>0) AND owner_node = ?1 AND fence = c.value->>1 AND version = c.value->>2
        AND ended_at IS NULL
    RETURNING session_id";

const MAKE: &str = "
    INSERT INTO sessions (session_id, creator, client_session_id, owner_node, fence, version, last_seq, last_time,
        key_messages, wants_keys)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";

/// Rows: session, e2ee on, epoch, since when a rotation is open.
const PUT_HEAD_COLUMNS: &str = "
    UPDATE sessions SET e2ee_on = head.value->>1, key_epoch = head.value->>2, rotating_since = head.value->>3
    FROM json_each(?1) AS head WHERE session_id = unhex(head.value->>0)";

/// Rows: session, user. Closes the race with the closing or disabling of an account, which could not see these rows yet.
pub(super) const TELL_OF_CLOSED: &str = "
    INSERT INTO tasks (session_id, user_id, kind)
    SELECT unhex(w.value->>0), u.user_id, 'closed'
    FROM json_each(?1) AS w CROSS JOIN users AS u ON u.user_id = unhex(w.value->>1)
    WHERE (u.closed_at IS NOT NULL OR u.disabled_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM tasks AS t
            WHERE t.session_id = unhex(w.value->>0) AND t.user_id = u.user_id AND t.kind = 'closed')
        AND (EXISTS (SELECT 1 FROM members AS m WHERE m.session_id = unhex(w.value->>0) AND m.user_id = u.user_id)
            OR EXISTS (SELECT 1 FROM join_requests AS r
                WHERE r.session_id = unhex(w.value->>0) AND r.user_id = u.user_id)
            OR EXISTS (SELECT 1 FROM invitations AS i
                WHERE i.session_id = unhex(w.value->>0) AND i.invitee = u.user_id))";

impl SqliteStore {
    pub(super) async fn commit_batch(&self, node_id: NodeId, batch: &[SessionCommit]) -> Outcomes {
        match self.try_batch(node_id, batch).await {
            Ok(outcomes) => outcomes,
            Err(WriteError::Undone(error)) if batch.len() > 1 && is_refused_row(&error) => {
                let mut outcomes = Vec::with_capacity(batch.len());
                for commit in batch {
                    outcomes.push(match self.try_batch(node_id, std::slice::from_ref(commit)).await {
                        Ok(outcome) => outcome.into_iter().next().unwrap_or(Err(CommitError::NotOwner)),
                        Err(error) => Err(failure(&error)),
                    });
                }
                outcomes
            }
            Err(error) => vec![Err(failure(&error)); batch.len()],
        }
    }

    async fn try_batch(&self, node_id: NodeId, batch: &[SessionCommit]) -> Result<Outcomes, WriteError> {
        let mut write = self.writer.begin().await?;
        let outcomes = match write_batch(write.connection(), node_id, batch).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if is_refused_row(&error) {
                    write.undo().await;
                }
                return Err(error.into());
            }
        };
        let recalls =
            batch.iter().flat_map(|commit| &commit.writes).any(|write| matches!(write.change, Change::Recall(_)));
        if recalls {
            write.commit_and_forget().await?
        } else {
            write.commit().await?
        }
        Ok(outcomes)
    }
}

async fn write_batch(
    connection: &mut SqliteConnection,
    node_id: NodeId,
    batch: &[SessionCommit],
) -> sqlx::Result<Outcomes> {
    let owned = guard(connection, node_id, batch).await?;
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut plan = Plan::default();
    let mut heads = Vec::new();
    for commit in batch {
        let outcome = match commit.previous_version {
            0 => make(connection, node_id, commit).await?,
            _ if owned.contains(&commit.session_id) => Ok(()),
            _ => Err(CommitError::NotOwner),
        };
        if outcome.is_ok() {
            plan.add(commit);
            heads.extend(head_columns(commit));
        }
        outcomes.push(outcome);
    }
    write_plan(connection, plan, &heads).await?;
    Ok(outcomes)
}

async fn guard(
    connection: &mut SqliteConnection,
    node_id: NodeId,
    batch: &[SessionCommit],
) -> sqlx::Result<BTreeSet<SessionId>> {
    let rows: Vec<_> = batch
        .iter()
        .filter(|commit| commit.previous_version > 0)
        .map(|commit| {
            (
                Hex::from(commit.session_id),
                int(commit.fence),
                int(commit.previous_version),
                int(commit.version),
                int(commit.last_seq),
                commit.last_time.as_millis(),
                int(commit.key_messages),
                u8::from(commit.wants_keys),
            )
        })
        .collect();
    if rows.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query(GUARD).bind(node_id.to_string()).bind(json(&rows)).fetch_all(connection).await?;
    Ok(rows.iter().filter_map(|row: &SqliteRow| row.session().ok()).collect())
}

async fn make(
    connection: &mut SqliteConnection,
    node_id: NodeId,
    commit: &SessionCommit,
) -> sqlx::Result<Result<(), CommitError>> {
    let Some(head) = &commit.head else {
        return Ok(Err(CommitError::Refused("a session is made with its record".to_owned())));
    };
    let client_id = commit.client_session_id.as_ref().map(|id| &*id.0);
    let made = sqlx::query(MAKE)
        .bind(&commit.session_id.as_bytes()[..])
        .bind(&head.creator.as_bytes()[..])
        .bind(client_id)
        .bind(node_id.to_string())
        .bind(int(commit.fence))
        .bind(int(commit.version))
        .bind(int(commit.last_seq))
        .bind(commit.last_time.as_millis())
        .bind(int(commit.key_messages))
        .bind(commit.wants_keys)
        .execute(&mut *connection)
        .await?;
    if made.rows_affected() == 1 {
        return Ok(Ok(()));
    }
    let before = sqlx::query("SELECT 1 FROM sessions WHERE creator = ?1 AND client_session_id = ?2")
        .bind(&head.creator.as_bytes()[..])
        .bind(client_id)
        .fetch_optional(connection)
        .await?;
    Ok(Err(if before.is_some() { CommitError::AlreadyMade } else { CommitError::NotOwner }))
}

async fn write_plan<H: serde::Serialize>(
    connection: &mut SqliteConnection,
    plan: Plan<'_>,
    heads: &[H],
) -> sqlx::Result<()> {
    let Plan { events, remember, forget, recalls, keys, people, ends, heads: records, people_written } = plan;
    PUT_EVENTS
        .run(connection, &events, |row: &EventRow, values| {
            values.push(&row.session_id.as_bytes()[..]);
            values.push(int(row.seq));
            values.push(int(row.version));
            values.push(row.json.as_str());
        })
        .await?;
    FORGET
        .run(connection, &forget, |(session_id, sender, client_msg_id), values| {
            values.push(&session_id.as_bytes()[..]);
            values.push(&sender.as_bytes()[..]);
            values.push(&*client_msg_id.0);
        })
        .await?;
    PUT_RECENT
        .run(connection, &remember, |row: &RecentRow<'_>, values| {
            values.push(&row.session_id.as_bytes()[..]);
            values.push(&row.sender.as_bytes()[..]);
            values.push(&*row.client_msg_id.0);
            values.push(int(row.seq));
            values.push(row.time.as_millis());
        })
        .await?;
    run(connection, recalls.into_statements().chain(keys.into_statements()).chain(people.into_statements())).await?;
    if !heads.is_empty() {
        run(connection, [(PUT_HEAD_COLUMNS, json(heads))]).await?;
    }
    run(connection, records.into_statements().chain(ends.into_statements())).await?;
    if !people_written.is_empty() {
        let people = json(&people_written.into_iter().collect::<BTreeSet<_>>());
        run(connection, [(TELL_OF_CLOSED, people)]).await?;
    }
    Ok(())
}

async fn run(
    connection: &mut SqliteConnection,
    statements: impl IntoIterator<Item = (&'static str, String)>,
) -> sqlx::Result<()> {
    for (sql, rows) in statements {
        sqlx::query(sql).bind(rows).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether it is one row that the store does not take, rather than the store that takes none.
fn is_refused_row(error: &sqlx::Error) -> bool {
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    primary_code(error).is_some_and(|code| [TOO_BIG, CONSTRAINT, MISMATCH].contains(&code))
}

fn failure(error: &WriteError) -> CommitError {
    match error {
        WriteError::Undone(error) => CommitError::Refused(error.to_string()),
        WriteError::Unknown(error) => CommitError::Unknown(error.to_string()),
    }
}
