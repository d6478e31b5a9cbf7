//! The thread that commits: a batch is one visit to it, however many statements that takes.
//!
//! It has a connection of its own, which is made again after it broke. Whoever comes here holds the writer's turn
//! ([`super::writer`]), so nobody else writes meanwhile. A visitor who panics takes the connection along, and its
//! transaction with it; the thread goes on. It ends with the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::open::PRAGMAS;

/// Statements that stay prepared.
const STATEMENTS: usize = 64;

/// Visits that wait at the door: one, since each comes in its turn.
const DOOR: usize = 1;

type Visit = Box<dyn FnOnce(&mut Desk) + Send>;

/// The way to the thread.
pub(super) struct Committer {
    door: Mutex<Option<mpsc::Sender<Visit>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread has ended, or the visitor panicked.
#[derive(Debug)]
pub(super) struct Gone;

/// What is on the thread.
pub(super) struct Desk {
    file: PathBuf,
    connection: Option<Connection>,
}

impl Committer {
    /// Starts the thread. The database is opened with the first visit.
    pub(super) fn start(file: PathBuf) -> std::io::Result<Self> {
        let (door, mut visits) = mpsc::channel::<Visit>(DOOR);
        let thread = std::thread::Builder::new().name("commits".to_owned()).spawn(move || {
            let mut desk = Desk { file, connection: None };
            while let Some(visit) = visits.blocking_recv() {
                if catch_unwind(AssertUnwindSafe(|| visit(&mut desk))).is_err() {
                    desk.close();
                }
            }
        })?;
        Ok(Self { door: Mutex::new(Some(door)), thread: Mutex::new(Some(thread)) })
    }

    /// Goes to the thread. The visit is made even if nobody waits for its end any more.
    pub(super) async fn visit<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Gone)?;
        let (done, result) = oneshot::channel();
        let visit: Visit = Box::new(move |desk| drop(done.send(visit(desk))));
        door.send(visit).await.map_err(|_| Gone)?;
        result.await.map_err(|_| Gone)
    }

    /// Ends the thread, after what is under way.
    pub(super) async fn close(&self) {
        self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && !matches!(tokio::task::spawn_blocking(|| thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the thread that commits died");
        }
    }
}

impl Desk {
    /// The connection, made if need be.
    pub(super) fn connection(&mut self) -> rusqlite::Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.file)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Lets the connection go, if it is not known to be outside of any transaction.
    pub(super) fn close_unless_idle(&mut self) {
        if !self.connection.as_ref().is_some_and(Connection::is_autocommit) {
            self.close();
        }
    }

    /// Lets the connection go: whatever is open on it is undone.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }
}

fn connect(file: &std::path::Path) -> rusqlite::Result<Connection> {
    // The thread is alone with it: it needs no lock of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    for (pragma, value) in PRAGMAS {
        connection.pragma_update(None, pragma, value)?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}
