//! Connections to the database, a few for each purpose, and statements with a deadline.
//!
//! Every statement is one round trip and a transaction of its own: a node that stops in the middle holds no lock. What
//! does not answer in time takes its connection with it, whatever the network or the server does, and so does a caller
//! that is gone: only a connection that answered is used again. (sqlx's own pool asks each connection once more when it
//! comes back, and waits for the answer without end.)

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgRow, PgSeverity, Postgres};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::store::{StoreError, StoreResult};

/// A connection that rested longer is asked whether it is still there before it is used.
const RESTED: Duration = Duration::from_millis(500);

/// How long such an answer may take.
const PING: Duration = Duration::from_secs(1);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A statement's answer comes at most this long after the server should have given up on it.
const SLACK: Duration = Duration::from_millis(500);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Waiting for a connection.
    pub(super) acquire: Duration,
    /// One statement, on the server.
    pub(super) statement: Duration,
}

/// The history that sequence numbers are of, as the latest connection found it.
#[derive(Debug, Default)]
pub(super) struct History(RwLock<Arc<str>>);

impl History {
    /// Its name.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, name: String) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if **known != *name {
            if !known.is_empty() {
                tracing::warn!("the database goes on from another state than before: clients read its history anew");
            }
            *known = name.into();
        }
    }
}

/// Why a statement has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent.
    Unsent(String),
    /// The database refused it: nothing of it is stored.
    Refused(Box<PgDatabaseError>),
    /// It was sent, and nobody knows what became of it.
    Lost(String),
}

impl Failure {
    /// The database's code for it.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => Some(error.code()),
            Self::Unsent(_) | Self::Lost(_) => None,
        }
    }

    /// Whether the same statement may well succeed if it is sent again: a deadlock, a serialization failure.
    pub(super) fn is_a_collision(&self) -> bool {
        matches!(self.code(), Some("40001" | "40P01"))
    }
}

impl std::fmt::Display for Failure {
    /// Never a value: the database's own text may quote one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(why) | Self::Lost(why) => f.write_str(why),
            Self::Refused(error) => {
                write!(f, "the database refuses it with {}", error.code())?;
                error.constraint().map_or(Ok(()), |constraint| write!(f, " by {constraint}"))
            }
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure.code() {
            Some("23505") => Self::Conflict("a row of this key exists"),
            Some(_) | None => Self::Unavailable(failure.to_string()),
        }
    }
}

/// Connections for one purpose.
pub(super) struct Lanes {
    connect: PgConnectOptions,
    /// The runtime of whoever opened the store. A connection ends with the runtime that it was made on, and threads that
    /// use the store end before it.
    home: Handle,
    timing: Timing,
    history: Arc<History>,
    most: u32,
    /// One for each connection that may be in use.
    permits: Semaphore,
    /// Connections that rest; the one that was used last is the first.
    resting: Mutex<VecDeque<(PgConnection, Instant)>>,
}

impl Lanes {
    /// At most `most` connections, made when they are needed; on a runtime.
    pub(super) fn new(most: usize, connect: PgConnectOptions, timing: Timing, history: Arc<History>) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        let (home, permits) = (Handle::current(), Semaphore::new(most as usize));
        Self { connect, home, timing, history, most, permits, resting: Mutex::default() }
    }

    /// Runs one statement.
    pub(super) async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Failure> {
        self.lane().await?.rows(query).await
    }

    /// Runs one statement that has at most one row.
    pub(super) async fn row(&self, query: Query<'_, Postgres, PgArguments>) -> StoreResult<Option<PgRow>> {
        Ok(self.rows(query).await?.pop())
    }

    /// Takes a connection for several statements.
    pub(super) async fn lane(&self) -> Result<Lane<'_>, Failure> {
        let lane = async {
            let permit = self.permits.acquire().await.map_err(|_| Failure::Unsent("the store is closed".to_owned()))?;
            let connection = match self.rested().await {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            Ok(Lane { connection: Some(connection), sound: true, lanes: self, _permit: permit })
        };
        let late = || Failure::Unsent("no connection to the database was free in time".to_owned());
        timeout(self.timing.acquire, lane).await.map_err(|_| late())?
    }

    /// Closes all connections, after what is under way. Nothing is sent from then on.
    pub(super) async fn close(&self) {
        // What takes longer than any statement may is not waited for.
        let _ = timeout(self.timing.statement + SLACK, self.permits.acquire_many(self.most)).await;
        self.permits.close();
        let resting = std::mem::take(&mut *self.resting());
        for (connection, _) in resting {
            // The server notices by itself where the goodbye does not come through.
            let _ = timeout(GOODBYE, connection.close()).await;
        }
    }

    /// The connection that was used last, if it is still there.
    async fn rested(&self) -> Option<PgConnection> {
        loop {
            let (mut connection, since) = self.resting().pop_front()?;
            if since.elapsed() < RESTED || matches!(timeout(PING, connection.ping()).await, Ok(Ok(()))) {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let (options, within) = (self.connect.clone(), self.timing.acquire);
        let connecting = async move {
            let mut connection = options.connect().await?;
            // A database that is another one shows in a new connection first: none outlives what it was made to.
            let name = sqlx::query_scalar("SELECT conclave_history()").fetch_one(&mut connection).await?;
            Ok((connection, name))
        };
        // Goes on if whoever asked is gone, for no longer than they would have waited.
        let made = self.home.spawn(timeout(within, connecting)).await;
        let (connection, name) = match made {
            Ok(Ok(made)) => made.map_err(|error: sqlx::Error| no_connection(&error))?,
            Ok(Err(late)) => return Err(no_connection(&late)),
            Err(ended) => return Err(no_connection(&ended)),
        };
        self.history.note(name);
        Ok(connection)
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, VecDeque<(PgConnection, Instant)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_connection(why: &impl std::fmt::Display) -> Failure {
    Failure::Unsent(format!("no connection to the database: {why}"))
}

/// A connection in use.
pub(super) struct Lane<'a> {
    connection: Option<PgConnection>,
    /// Whether nothing is under way on it.
    sound: bool,
    lanes: &'a Lanes,
    _permit: SemaphorePermit<'a>,
}

impl Lane<'_> {
    /// Runs one statement; what it did is durable when this returns.
    pub(super) async fn rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Failure> {
        let Some(connection) = &mut self.connection else {
            return Err(Failure::Unsent("the connection is gone".to_owned()));
        };
        self.sound = false;
        // All rows are fetched: the transaction is over only when the server says that it is ready again.
        let answer = timeout(self.lanes.timing.statement + SLACK, query.fetch_all(connection)).await;
        match answer {
            Ok(Ok(rows)) => {
                self.sound = true;
                Ok(rows)
            }
            Ok(Err(sqlx::Error::Database(error))) => match error.try_downcast::<PgDatabaseError>() {
                Ok(error) if error.severity() == PgSeverity::Error => {
                    // Read-only: a standby, or what has become one. The next connection finds the database that writes.
                    self.sound = error.code() != "25006";
                    Err(Failure::Refused(error))
                }
                Ok(error) => Err(Failure::Lost(format!("the database ended the connection with {}", error.code()))),
                Err(_) => Err(Failure::Lost("the database answered with an unknown error".to_owned())),
            },
            Ok(Err(error)) => Err(Failure::Lost(format!("the connection to the database failed: {error}"))),
            Err(_) => Err(Failure::Lost("the database did not answer in time".to_owned())),
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|_| self.sound && !self.lanes.permits.is_closed());
        if let Some(connection) = connection {
            self.lanes.resting().push_front((connection, Instant::now()));
        }
    }
}
