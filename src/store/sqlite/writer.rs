//! The one place that writes: who has the turn, small transactions, and the size of the WAL. Batches of commits are
//! written by a thread of their own ([`super::desk`]), in their turn.
//!
//! Whoever holds the [`Writer`]'s lock is the only one in this process that writes, and the lock on the data directory
//! keeps other processes out: `SQLITE_BUSY` cannot happen between writers. A [`Write`] that is dropped before its
//! commit is rolled back with its connection.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Row;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::checkpoint::Checkpoints;
use super::column::failed;
use super::desk::{Clerk, Desk, Gone, Work};
use crate::protocol::Timestamp;
use crate::store::{StoreError, StoreResult};

/// How long an emptying of the WAL waits for readers.
const TRUNCATE_WITHIN: Duration = Duration::from_secs(5);

/// How long a turn waits for the connection to come back from the one before.
const ACQUIRE: Duration = Duration::from_secs(5);

/// How long it waits before it looks again.
const TRUNCATE_AGAIN: Duration = Duration::from_millis(5);

/// Connections that write, one at a time.
pub(super) struct Writer {
    /// Held by whoever writes; first come, first served.
    turn: Arc<Mutex<()>>,
    /// One connection, made again if it breaks.
    writing: SqlitePool,
    /// Another one, for the probe alone.
    probing: SqlitePool,
    /// Another one, for commits of sessions.
    committing: Arc<Desk>,
    checkpoints: Arc<Checkpoints>,
    wal: PathBuf,
    wal_bytes: u64,
    /// A recalled text may still be in the WAL.
    owed: AtomicBool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("wal", &self.wal).finish_non_exhaustive()
    }
}

/// A transaction that has the writer for itself.
///
/// SQLite ends a transaction by itself where the disk is full or fails, so nobody can tell from here whether one is
/// still open after an error: a write that does not come to its commit takes its connection with it.
pub(super) struct Write<'a> {
    connection: PoolConnection<Sqlite>,
    done: bool,
    writer: &'a Writer,
    _turn: MutexGuard<'a, ()>,
}

/// Where a write failed: before `COMMIT` nothing of it is stored.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Nothing is stored.
    Undone(sqlx::Error),
    /// `COMMIT` itself failed in a way that leaves it open.
    Unknown(sqlx::Error),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Undone(error)
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Undone(error) | WriteError::Unknown(error) => failed(error),
        }
    }
}

impl Writer {
    /// Opens the connection that writes.
    pub(super) async fn open(connect: SqliteConnectOptions, wal: PathBuf, wal_bytes: u64) -> sqlx::Result<Self> {
        let turn = Arc::new(Mutex::new(()));
        let committing = Arc::new(Desk::start("commits", connect.get_filename(), Work::Writing)?);
        let checkpoints = Checkpoints::start(connect.get_filename(), Arc::clone(&turn), Arc::clone(&committing))?;
        let one = || {
            SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(ACQUIRE)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let probing = one().connect_lazy_with(connect.clone());
        let writing = one().connect_with(connect).await?;
        let owed = AtomicBool::new(false);
        Ok(Self { turn, writing, probing, committing, checkpoints, wal, wal_bytes, owed })
    }

    /// Waits for its turn and has the thread that commits write a batch. If a text is recalled in it, returns when the
    /// WAL has nothing of that any more.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        recalls: bool,
        write: impl FnOnce(&mut Clerk) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let _turn = self.turn.lock().await;
        if recalls {
            self.owed.store(true, Ordering::Release);
        }
        let write = move |clerk: &mut Clerk| (write(clerk), clerk.wal_pages());
        let (written, wal_pages) = self.committing.visit(write).await?;
        self.checkpoints.committed(wal_pages);
        if !self.is_tidy() {
            match self.writing.acquire().await {
                Ok(mut connection) => self.keep_wal_short(&mut connection).await,
                Err(error) => tracing::warn!(%error, "the write-ahead log could not be emptied"),
            }
        }
        Ok(written)
    }

    /// The connection outside of any transaction.
    pub(super) const fn connections(&self) -> &SqlitePool {
        &self.writing
    }

    /// Waits for its turn and begins a transaction.
    pub(super) async fn begin(&self) -> Result<Write<'_>, WriteError> {
        let turn = self.turn.lock().await;
        let connection = self.writing.acquire().await?;
        let mut write = Write { connection, done: false, writer: self, _turn: turn };
        sqlx::query("BEGIN IMMEDIATE").execute(write.connection()).await?;
        Ok(write)
    }

    /// Writes a row over a connection that nothing else uses.
    pub(super) async fn probe(&self, at: Timestamp) -> StoreResult<()> {
        let _turn = self.turn.lock().await;
        sqlx::query("INSERT INTO probe (id, at) VALUES (1, ?1) ON CONFLICT DO UPDATE SET at = excluded.at")
            .bind(at.as_millis())
            .execute(&self.probing)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Closes the connections, after what is under way.
    pub(super) async fn close(&self) {
        let _turn = self.turn.lock().await;
        self.committing.close().await;
        self.checkpoints.close().await;
        self.probing.close().await;
        self.writing.close().await;
    }

    /// Empties the WAL if it has outgrown its bound, or has to be rid of a recalled text.
    pub(super) async fn tidy(&self) -> StoreResult<()> {
        if self.is_tidy() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let mut connection = self.writing.acquire().await.map_err(failed)?;
        self.truncate(&mut connection, TRUNCATE_WITHIN).await.map_err(failed)
    }

    fn is_tidy(&self) -> bool {
        !self.owed.load(Ordering::Acquire) && std::fs::metadata(&self.wal).is_ok_and(|wal| wal.len() <= self.wal_bytes)
    }

    /// Copies the WAL into the database and cuts it to nothing, waiting for readers that still need it: new ones
    /// read the database alone once all is copied, so each reader holds it up once at most.
    async fn truncate(&self, connection: &mut SqliteConnection, within: Duration) -> sqlx::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
            if row.try_get::<i64, _>(0)? == 0 {
                self.owed.store(false, Ordering::Release);
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::warn!("a reader keeps the write-ahead log from being emptied");
                return Ok(());
            }
            tokio::time::sleep(TRUNCATE_AGAIN).await;
        }
    }

    /// After a commit, in its turn.
    async fn keep_wal_short(&self, connection: &mut SqliteConnection) {
        let owed = self.owed.load(Ordering::Acquire);
        if self.is_tidy() || (!owed && self.checkpoints.are_under_way()) {
            return;
        }
        // A WAL that is merely long is no reason to make commits wait.
        let within = if owed { TRUNCATE_WITHIN } else { Duration::ZERO };
        if let Err(error) = self.truncate(connection, within).await {
            tracing::warn!(%error, "the write-ahead log could not be emptied");
        }
    }
}

impl Write<'_> {
    /// The connection, inside the transaction.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Makes it durable.
    pub(super) async fn commit(mut self) -> Result<(), WriteError> {
        match sqlx::query("COMMIT").execute(self.connection()).await {
            Ok(_) => self.done = true,
            Err(error) if is_full_or_busy(&error) => return Err(WriteError::Undone(error)),
            Err(error) => return Err(WriteError::Unknown(error)),
        }
        self.writer.keep_wal_short(&mut self.connection).await;
        Ok(())
    }

    /// Undoes it and keeps the connection: for rows that are refused, which is no fault of the database.
    pub(super) async fn undo(mut self) {
        self.done = sqlx::query("ROLLBACK").execute(self.connection()).await.is_ok();
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.connection.close_on_drop();
        }
    }
}

fn is_full_or_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    const FULL: i32 = 13;
    primary_code(error).is_some_and(|code| code == BUSY || code == FULL)
}

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}
