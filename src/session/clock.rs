//! The clock of sessions: the store's, as near as this node can tell it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::protocol::Timestamp;

/// Tells the time. Injected, so that tests move it.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The store's time, as it was told last, and what has passed since then. It does not follow this machine's clock when
/// that is set.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
    /// The time when this began, in milliseconds.
    began_at: AtomicI64,
}

impl Default for SystemClock {
    /// By this machine's clock, until the store is heard.
    fn default() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_at: AtomicI64::new(millis(since_epoch)) }
    }
}

impl SystemClock {
    /// Takes over the store's time, as it was told just now.
    pub fn set(&self, store: Timestamp) {
        self.began_at.store(store.as_millis().saturating_sub(millis(self.began.elapsed())), Ordering::Relaxed);
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let began_at = Timestamp::from_millis(self.began_at.load(Ordering::Relaxed));
        began_at.plus_millis(millis(self.began.elapsed()))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
