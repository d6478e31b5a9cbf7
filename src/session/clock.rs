//! The clock of sessions: the store's, as near as this node can tell it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::protocol::Timestamp;

/// Tells the time. Injected, so that tests move it.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// This machine's clock, corrected by how far it is from the store's.
#[derive(Debug, Default)]
pub struct SystemClock {
    offset_ms: AtomicI64,
}

impl SystemClock {
    /// Takes over the store's time, as it was told just now.
    pub fn set(&self, store: Timestamp) {
        self.offset_ms.store(store.millis_since(machine_now()), Ordering::Relaxed);
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        machine_now().plus_millis(self.offset_ms.load(Ordering::Relaxed))
    }
}

fn machine_now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
