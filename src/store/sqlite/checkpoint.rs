//! Copying the WAL into the database, beside the commits that go on: no acknowledgement waits for it.
//!
//! The WAL starts over only when all of it has been copied, and commits would keep adding to it: so most of it is
//! copied beside them, and the little that came meanwhile in the writer's turn. Invariant: one at a time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::desk::{Clerk, Desk, Work};

/// Pages in the WAL from which on they are copied: 16 MiB.
pub(super) const PAGES: u32 = 4_000;

/// Copies.
pub(super) struct Checkpoints {
    desk: Desk,
    /// The writer's.
    turn: Arc<Mutex<()>>,
    under_way: AtomicBool,
}

impl Checkpoints {
    pub(super) fn start(file: &Path, turn: Arc<Mutex<()>>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            desk: Desk::start("checkpoints", file, Work::Writing)?,
            turn,
            under_way: AtomicBool::new(false),
        }))
    }

    /// A commit has left so many pages in the WAL: begins to copy them if they are many.
    pub(super) fn committed(self: &Arc<Self>, wal_pages: u32) {
        if wal_pages < PAGES || self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            this.copy().await;
            let turn = this.turn.lock().await;
            this.copy().await;
            drop(turn);
            this.under_way.store(false, Ordering::Release);
        });
    }

    /// Whether a copy is being made: another one could not be.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    async fn copy(&self) {
        let copied = self
            .desk
            .visit(|clerk: &mut Clerk| clerk.connection()?.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
        // A copy that failed is made with a later commit.
        if let Ok(Err(error)) = copied.await {
            tracing::warn!(%error, "the write-ahead log could not be copied into the database");
        }
    }

    /// Ends the thread, after what is under way.
    pub(super) async fn close(&self) {
        self.desk.close().await;
    }
}
