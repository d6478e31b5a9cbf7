//! Copying the WAL into the database, beside the commits that go on: no acknowledgement waits for it.
//!
//! The WAL starts over only when all of it has been copied, and commits would keep adding to it: so most of it is
//! copied beside them; then what came meanwhile, which takes less time and leaves less; and the little that is left in
//! the writer's turn, by the thread that commits. Invariant: one at a time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::desk::{Clerk, Desk, Work};

/// Pages in the WAL from which on they are copied: 16 MiB.
pub(super) const PAGES: u32 = 4_000;

/// How often it is copied beside the commits before the rest is.
const ROUNDS: usize = 3;

/// Copies.
pub(super) struct Checkpoints {
    beside: Desk,
    /// The writer's.
    committing: Arc<Desk>,
    /// The writer's.
    turn: Arc<Mutex<()>>,
    under_way: AtomicBool,
}

impl Checkpoints {
    pub(super) fn start(file: &Path, turn: Arc<Mutex<()>>, committing: Arc<Desk>) -> std::io::Result<Arc<Self>> {
        let beside = Desk::start("checkpoints", file, Work::Writing)?;
        Ok(Arc::new(Self { beside, committing, turn, under_way: AtomicBool::new(false) }))
    }

    /// A commit has left so many pages in the WAL: begins to copy them if they are many.
    pub(super) fn committed(self: &Arc<Self>, wal_pages: u32) {
        if wal_pages < PAGES || self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                copy(&this.beside).await;
            }
            let turn = this.turn.lock().await;
            copy(&this.committing).await;
            drop(turn);
            this.under_way.store(false, Ordering::Release);
        });
    }

    /// Whether a copy is being made: another one could not be.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    /// Ends the thread, after what is under way.
    pub(super) async fn close(&self) {
        self.beside.close().await;
    }
}

async fn copy(desk: &Desk) {
    let copied =
        desk.visit(|clerk: &mut Clerk| clerk.connection()?.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
    // A copy that failed is made with a later commit.
    if let Ok(Err(error)) = copied.await {
        tracing::warn!(%error, "the write-ahead log could not be copied into the database");
    }
}
