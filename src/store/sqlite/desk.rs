//! A thread with a connection of its own: whatever has to be done there is one visit, however many statements it takes.
//!
//! The connection is made with the first visit, and again after it broke. A visitor who panics takes the connection
//! along, and its transaction with it; the thread goes on. It ends with the store. Visits are made one after the other,
//! in the order of their coming.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::open::PRAGMAS;

/// Statements that stay prepared.
const STATEMENTS: usize = 64;

/// Visits that wait at the door; others wait outside.
const DOOR: usize = 1;

type Visit = Box<dyn FnOnce(&mut Clerk) + Send>;

thread_local! {
    /// Pages in the WAL after the last commit of this thread.
    static WAL_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The way to the thread.
pub(super) struct Desk {
    door: Mutex<Option<mpsc::Sender<Visit>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread has ended, or the visitor panicked.
#[derive(Debug)]
pub(super) struct Gone;

/// Who sits there.
pub(super) struct Clerk {
    file: PathBuf,
    connection: Option<Connection>,
}

impl Desk {
    /// Starts the thread. The database is opened with the first visit.
    pub(super) fn start(name: &str, file: &Path) -> std::io::Result<Self> {
        let (door, mut visits) = mpsc::channel::<Visit>(DOOR);
        let mut clerk = Clerk { file: file.to_owned(), connection: None };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(visit) = visits.blocking_recv() {
                if catch_unwind(AssertUnwindSafe(|| visit(&mut clerk))).is_err() {
                    clerk.close();
                }
            }
        })?;
        Ok(Self { door: Mutex::new(Some(door)), thread: Mutex::new(Some(thread)) })
    }

    /// Goes to the thread. The visit is made even if nobody waits for its end any more.
    pub(super) async fn visit<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut Clerk) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Gone)?;
        let (done, result) = oneshot::channel();
        let visit: Visit = Box::new(move |clerk| drop(done.send(visit(clerk))));
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
            tracing::error!("a thread of the store died");
        }
    }
}

impl Clerk {
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

    /// Pages in the WAL after the last commit here.
    pub(super) fn wal_pages(&self) -> u32 {
        WAL_PAGES.get()
    }

    /// Lets the connection go: whatever is open on it is undone.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    // The thread is alone with it: it needs no lock of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    for (pragma, value) in PRAGMAS {
        connection.pragma_update(None, pragma, value)?;
    }
    // In the place of SQLite's own, which would copy the WAL into the database before it lets a commit return.
    connection.wal_hook(Some(note_wal));
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn note_wal(_: &Wal, pages: c_int) -> rusqlite::Result<()> {
    WAL_PAGES.set(pages.unsigned_abs());
    Ok(())
}
