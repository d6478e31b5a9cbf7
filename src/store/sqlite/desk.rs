//! A thread with a connection of its own: whatever has to be done there is one visit, however many statements it takes.
//!
//! The connection is made with the first visit, and again after it broke. A visitor who panics takes the connection
//! along, and its transaction with it; the thread goes on. It ends with the store. Visits are made one after the other,
//! in the order of their coming.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::open::PRAGMAS;

/// Statements that stay prepared.
const STATEMENTS: usize = 64;

/// Visits that wait at the door; others wait outside.
const DOOR: usize = 64;

type Visit = Box<dyn FnOnce(&mut Clerk) + Send>;

thread_local! {
    /// Pages in the WAL after the last commit of this thread.
    static WAL_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Desk {
    door: Mutex<Option<mpsc::Sender<Visit>>>,
    /// Every visit holds a clone until it is over.
    visits: Arc<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread has ended, or the visitor panicked.
#[derive(Debug)]
pub(super) struct Gone;

/// What is done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Reading,
    Writing,
}

/// Who sits there.
pub(super) struct Clerk {
    file: PathBuf,
    work: Work,
    connection: Option<Connection>,
}

impl Desk {
    /// Starts the thread. The database is opened with the first visit.
    pub(super) fn start(name: &str, file: &Path, work: Work) -> std::io::Result<Self> {
        let (door, mut visits) = mpsc::channel::<Visit>(DOOR);
        let mut clerk = Clerk { file: file.to_owned(), work, connection: None };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(visit) = visits.blocking_recv() {
                if catch_unwind(AssertUnwindSafe(|| visit(&mut clerk))).is_err() {
                    clerk.close();
                }
            }
        })?;
        Ok(Self { door: Mutex::new(Some(door)), visits: Arc::new(()), thread: Mutex::new(Some(thread)) })
    }

    /// Goes to the thread. The visit is made even if nobody waits for its end any more.
    pub(super) async fn visit<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut Clerk) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Gone)?;
        let (done, result) = oneshot::channel();
        let under_way = Arc::clone(&self.visits);
        let visit: Visit = Box::new(move |clerk| {
            drop(done.send(visit(clerk)));
            drop(under_way);
        });
        door.send(visit).await.map_err(|_| Gone)?;
        result.await.map_err(|_| Gone)
    }

    /// How many visits have begun or wait for it.
    pub(super) fn visits(&self) -> usize {
        Arc::strong_count(&self.visits) - 1
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
            None => connect(&self.file, self.work)?,
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

fn connect(file: &Path, work: Work) -> rusqlite::Result<Connection> {
    // The thread is alone with it: it needs no lock of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    for (pragma, value) in PRAGMAS {
        connection.pragma_update(None, pragma, value)?;
    }
    if work == Work::Reading {
        connection.pragma_update(None, "query_only", "ON")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite3");
        let connection = Connection::open(&file).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)").unwrap();
        (dir, file)
    }

    fn count(clerk: &mut Clerk) -> i64 {
        clerk.connection().unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn a_visitor_who_panics_leaves_nothing_behind_and_the_next_one_is_served() {
        let (_dir, file) = database();
        let desk = Desk::start("test", &file, Work::Writing).unwrap();
        let broken = desk.visit(|clerk| -> () {
            clerk.connection().unwrap().execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
            panic!("in the middle of a transaction");
        });
        assert!(broken.await.is_err());
        assert_eq!(desk.visit(count).await.unwrap(), 0);
        desk.close().await;
        assert!(desk.visit(count).await.is_err(), "closed");
    }

    #[tokio::test]
    async fn a_visit_is_made_even_if_nobody_waits_for_its_end() {
        let (_dir, file) = database();
        let desk = Desk::start("test", &file, Work::Writing).unwrap();
        let visit = desk.visit(|clerk| clerk.connection().unwrap().execute("INSERT INTO t VALUES (1)", []).unwrap());
        let mut visit = Box::pin(visit);
        let _ = futures_util::poll!(&mut visit); // as far as the door
        drop(visit);
        assert_eq!(desk.visit(count).await.unwrap(), 1);
        desk.close().await;
    }

    #[tokio::test]
    async fn who_reads_cannot_write() {
        let (_dir, file) = database();
        let desk = Desk::start("test", &file, Work::Reading).unwrap();
        let written = desk.visit(|clerk| clerk.connection().unwrap().execute("INSERT INTO t VALUES (1)", []).is_ok());
        assert!(!written.await.unwrap());
        desk.close().await;
    }
}
