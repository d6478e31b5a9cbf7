//! Commits: one transaction for a batch of sessions, guarded by fence and version.
//!
//! A batch is taken apart ([`Part`]) where it comes from, and written in one visit to the thread that commits. The guard
//! of each session comes before its rows and tells whether it is still this node's. If a row is refused the transaction
//! is undone and each session tries alone.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, ToSql, TransactionBehavior, params};

use super::SqliteStore;
use super::column::{int, json};
use super::desk::Clerk;
use super::plan::{Plan, Runs};
use crate::protocol::{ClientId, NodeId, SessionId, UserId};
use crate::session::state::Change;
use crate::store::{CommitError, SessionCommit};

type Outcomes = Vec<Result<(), CommitError>>;

const PUT_EVENT: &str = "
    INSERT INTO events (session_id, seq, version, sender, client_msg_id, time, json)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

pub(super) const GUARD: &str = "
    UPDATE sessions SET version = ?5, last_seq = ?6, last_time = ?7, key_messages = ?8, wants_keys = ?9,
        remembered_from = ?11
    WHERE session_id = ?1 AND owner_node = ?2 AND fence = ?3 AND version = ?4 AND last_seq = ?10 AND ended_at IS NULL";

const MAKE: &str = "
    INSERT INTO sessions (session_id, creator, client_session_id, owner_node, fence, version, last_seq, last_time,
        key_messages, wants_keys)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";

const MADE_BEFORE: &str = "SELECT 1 FROM sessions WHERE creator = ?1 AND client_session_id = ?2";

/// Rows: session, e2ee on, epoch, since when a rotation is open.
pub(super) const PUT_HEAD_COLUMNS: &str = "
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

/// One session's part of a batch.
#[derive(Debug)]
pub(super) struct Part {
    session_id: SessionId,
    fence: u64,
    previous_version: u64,
    version: u64,
    last_seq: u64,
    last_time: i64,
    key_messages: u64,
    wants_keys: bool,
    remembered_from: u64,
    /// Who makes the session with this commit, and their own id for it.
    creator: Option<UserId>,
    client_session_id: Option<ClientId>,
    plan: Plan,
}

/// Why nothing of a batch is stored, or may not be.
#[derive(Debug)]
enum Failure {
    /// Nothing is stored: it is one row that the store does not take, rather than the store that takes none.
    RefusedRow(rusqlite::Error),
    /// Nothing is stored.
    Undone(rusqlite::Error),
    /// `COMMIT` itself failed in a way that leaves it open.
    Unknown(rusqlite::Error),
}

impl SqliteStore {
    pub(super) async fn commit_batch(&self, node_id: NodeId, batch: &[SessionCommit]) -> Outcomes {
        let parts: Vec<Part> = batch.iter().map(Part::of).collect();
        let recalls =
            batch.iter().flat_map(|commit| &commit.writes).any(|write| matches!(write.change, Change::Recall(_)));
        let node_id = node_id.to_string();
        self.writer.commit(recalls, move |clerk| write_batch(clerk, &node_id, &parts)).await.unwrap_or_else(|_| {
            let gone = || CommitError::Unknown("the thread that commits failed".to_owned());
            batch.iter().map(|_| Err(gone())).collect()
        })
    }
}

/// On the thread that commits.
fn write_batch(clerk: &mut Clerk, node_id: &str, parts: &[Part]) -> Outcomes {
    match try_batch(clerk, node_id, parts) {
        Ok(outcomes) => outcomes,
        Err(Failure::RefusedRow(_)) if parts.len() > 1 => {
            parts.iter().flat_map(|part| write_batch(clerk, node_id, std::slice::from_ref(part))).collect()
        }
        Err(failure) => parts.iter().map(|_| Err(failure.told())).collect(),
    }
}

fn try_batch(clerk: &mut Clerk, node_id: &str, parts: &[Part]) -> Result<Outcomes, Failure> {
    let connection = clerk.connection().map_err(Failure::Undone)?;
    let written = write_transaction(connection, node_id, parts);
    match &written {
        Ok(_) => {}
        Err(Failure::RefusedRow(_) | Failure::Undone(_)) => clerk.close_unless_idle(),
        Err(Failure::Unknown(_)) => clerk.close(),
    }
    written
}

fn write_transaction(connection: &mut Connection, node_id: &str, parts: &[Part]) -> Result<Outcomes, Failure> {
    // Dropped before its commit it is undone.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Failure::of_statement)?;
    let outcomes = write_parts(&transaction, node_id, parts).map_err(Failure::of_statement)?;
    transaction.commit().map_err(Failure::of_commit)?;
    Ok(outcomes)
}

fn write_parts(connection: &Connection, node_id: &str, parts: &[Part]) -> rusqlite::Result<Outcomes> {
    let mut statements = Statements::of(connection)?;
    parts
        .iter()
        .map(|part| {
            let outcome = match part.creator {
                Some(creator) => part.make(connection, node_id, creator)?,
                None if part.previous_version == 0 => {
                    Err(CommitError::Refused("a session is made with its record".to_owned()))
                }
                None => part.guard(&mut statements, node_id)?,
            };
            if outcome.is_ok() {
                part.write(connection, &mut statements)?;
            }
            Ok(outcome)
        })
        .collect()
}

/// The statements that every batch needs, prepared.
struct Statements<'a> {
    guard: CachedStatement<'a>,
    put_event: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn of(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self { guard: connection.prepare_cached(GUARD)?, put_event: connection.prepare_cached(PUT_EVENT)? })
    }
}

impl Part {
    fn of(commit: &SessionCommit) -> Self {
        let making = commit.head.as_ref().filter(|_| commit.previous_version == 0);
        Self {
            session_id: commit.session_id,
            fence: commit.fence,
            previous_version: commit.previous_version,
            version: commit.version,
            last_seq: commit.last_seq,
            last_time: commit.last_time.as_millis(),
            key_messages: commit.key_messages,
            wants_keys: commit.wants_keys,
            remembered_from: commit.remembered_from,
            creator: making.map(|head| head.creator),
            client_session_id: commit.client_session_id.clone(),
            plan: Plan::of(commit),
        }
    }

    fn guard(&self, statements: &mut Statements<'_>, node_id: &str) -> rusqlite::Result<Result<(), CommitError>> {
        let taken = statements.guard.execute(params![
            self.session_id.as_bytes(),
            node_id,
            int(self.fence),
            int(self.previous_version),
            int(self.version),
            int(self.last_seq),
            self.last_time,
            int(self.key_messages),
            self.wants_keys,
            int(self.last_seq.saturating_sub(self.plan.events.len() as u64)),
            int(self.remembered_from),
        ])?;
        Ok(if taken == 1 { Ok(()) } else { Err(CommitError::NotOwner) })
    }

    fn make(
        &self,
        connection: &Connection,
        node_id: &str,
        creator: UserId,
    ) -> rusqlite::Result<Result<(), CommitError>> {
        let client_id = self.client_session_id.as_ref().map(|id| &*id.0);
        let made = connection.prepare_cached(MAKE)?.execute(params![
            self.session_id.as_bytes(),
            creator.as_bytes(),
            client_id,
            node_id,
            int(self.fence),
            int(self.version),
            int(self.last_seq),
            self.last_time,
            int(self.key_messages),
            self.wants_keys,
        ])?;
        if made == 1 {
            return Ok(Ok(()));
        }
        let mut before = connection.prepare_cached(MADE_BEFORE)?;
        let before = before.query_row(params![creator.as_bytes(), client_id], |_| Ok(())).optional()?;
        Ok(Err(if before.is_some() { CommitError::AlreadyMade } else { CommitError::NotOwner }))
    }

    /// The rows, once the guard has let them pass.
    fn write(&self, connection: &Connection, statements: &mut Statements<'_>) -> rusqlite::Result<()> {
        let (session, plan) = (self.session_id.as_bytes(), &self.plan);
        for row in &plan.events {
            let (seq, version, text) = (int(row.seq), int(self.version), Text(row.frame.json()));
            let recent = row.recent.as_ref();
            let sender = recent.map(|(sender, ..)| sender.as_bytes());
            let client_msg_id = recent.map(|(_, id, _)| &*id.0);
            let time = recent.map(|(.., time)| time.as_millis());
            statements.put_event.execute(params![session, seq, version, sender, client_msg_id, time, text])?;
        }
        for runs in [&plan.recalls, &plan.keys, &plan.people, &plan.heads, &plan.ends] {
            run(connection, runs)?;
        }
        if !plan.written_for.is_empty() {
            connection.prepare_cached(TELL_OF_CLOSED)?.execute([json(&plan.written_for)])?;
        }
        Ok(())
    }
}

fn run(connection: &Connection, runs: &Runs) -> rusqlite::Result<()> {
    for (sql, rows) in runs.statements() {
        connection.prepare_cached(sql)?.execute([rows])?;
    }
    Ok(())
}

/// JSON that was encoded here, bound as it is.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

impl Failure {
    fn of_statement(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
                Self::RefusedRow(error)
            }
            Some(_) | None => Self::Undone(error),
        }
    }

    fn of_commit(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull) => Self::Undone(error),
            Some(_) | None => Self::Unknown(error),
        }
    }

    fn told(&self) -> CommitError {
        match self {
            Self::RefusedRow(error) | Self::Undone(error) => CommitError::Refused(error.to_string()),
            Self::Unknown(error) => CommitError::Unknown(error.to_string()),
        }
    }
}
