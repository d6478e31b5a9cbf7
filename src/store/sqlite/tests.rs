//! Tests of the embedded store: the shared suite, and what is SQLite's alone.

mod crash;
mod disk;
mod files;
mod migrating;
mod plans;
mod recall;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::store::conformance::{self, Subject};
use crate::store::{SqliteOptions, SqliteStore, StoreClock};

async fn open() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(40_000));
    let options = SqliteOptions { clock: StoreClock::Manual(Arc::clone(&clock)), ..SqliteOptions::new(dir.path()) };
    let store = Arc::new(SqliteStore::open(&options).await.unwrap());
    let advance = Box::new(move |millis| {
        clock.fetch_add(millis, Ordering::AcqRel);
    });
    Subject { store, advance, _keep: Box::new(dir) }
}

conformance::suite!(open);

/// Waits for a condition that must come to hold.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}
