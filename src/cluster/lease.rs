//! The node's life: its row in the store, renewed well before it lapses, and the store's clock that comes with it.
//!
//! Invariant: [`Lease::is_held`] is true only while the store, too, counts the node as alive: the lease is counted from
//! before each renewal was asked for. Who cannot renew cannot commit either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::wire::Wire;
use crate::protocol::{NodeId, Timestamp};
use crate::store::{NodeReport, Store, StoreResult};
use crate::telemetry::Metrics;

/// Takes the store's time, as it is now.
pub type OnTime = Box<dyn Fn(Timestamp) + Send + Sync>;

/// One node's lease. Made by the server, which keeps it renewed and gives it up; if the process dies it lapses.
pub struct Lease {
    node_id: NodeId,
    lifetime: Duration,
    store: Arc<dyn Store>,
    on_time: OnTime,
    metrics: Arc<Metrics>,
    began: Instant,
    /// Milliseconds after `began`.
    held_until: AtomicU64,
    /// Milliseconds after `began` from which on it was held without a break.
    held_since: AtomicU64,
    /// How often it was over and taken up again.
    lapses: AtomicU64,
    /// Whether the last probe of the bus came back.
    bus_ok: AtomicBool,
    drain: AtomicBool,
    /// Whether it was given up. Held while the store writes, so that no renewal comes behind the end.
    ended: Mutex<bool>,
}

impl Lease {
    /// Enters a new node into the store.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn take(
        lifetime: Duration,
        store: Arc<dyn Store>,
        on_time: OnTime,
        metrics: Arc<Metrics>,
    ) -> StoreResult<Arc<Self>> {
        let lease = Self {
            node_id: NodeId::new(Uuid::now_v7()),
            lifetime,
            store,
            on_time,
            metrics,
            began: Instant::now(),
            held_until: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            bus_ok: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            ended: Mutex::new(false),
        };
        lease.renew().await?;
        Ok(Arc::new(lease))
    }

    /// The node's id: another one at each start.
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Whether the node counts as alive.
    pub fn is_held(&self) -> bool {
        self.millis(Instant::now()) < self.held_until.load(Ordering::Acquire)
    }

    /// Whether it has been held for a whole lifetime: others, if they live, have renewed theirs by now. After a time in
    /// which nobody reached the store all leases are over at once, and who comes first must not take what is not theirs.
    pub fn is_old(&self) -> bool {
        let held = self.millis(Instant::now()).saturating_sub(self.held_since.load(Ordering::Acquire));
        self.is_held() && u128::from(held) >= self.lifetime.as_millis()
    }

    /// How often it was over: a process that slept finds it renewed before anybody looked.
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Relaxed)
    }

    /// Whether an operator asked this node to drain.
    pub fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Relaxed)
    }

    /// Told to the peers with the next renewal.
    pub fn set_bus_ok(&self, ok: bool) {
        self.bus_ok.store(ok, Ordering::Relaxed);
    }

    /// Renews three times in a lifetime, for ever.
    pub async fn keep(&self) {
        let mut ticks = tokio::time::interval(self.lifetime / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, held = self.is_held(), "the node's lease was not renewed");
            }
        }
    }

    /// Takes the node's row away, for good: its sessions are free at once.
    ///
    /// # Errors
    /// If the store cannot be written; the lease lapses then.
    pub async fn give_up(&self) -> StoreResult<()> {
        let mut ended = self.ended.lock().await;
        *ended = true;
        self.held_until.store(0, Ordering::Release);
        self.store.end_lease(self.node_id).await
    }

    async fn renew(&self) -> StoreResult<()> {
        let ended = self.ended.lock().await;
        if *ended {
            return Ok(());
        }
        let asked = Instant::now();
        let lease_ms = i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX);
        let row = match self.store.renew_lease(self.node_id, lease_ms, &self.report()).await {
            Ok(row) => row,
            Err(error) => {
                self.metrics.lease_failures.inc();
                return Err(error);
            }
        };
        if !self.is_held() {
            self.held_since.store(self.millis(asked), Ordering::Release);
            self.lapses.fetch_add(1, Ordering::Relaxed);
        }
        self.held_until.store(self.millis(asked + self.lifetime), Ordering::Release);
        self.drain.store(row.drain, Ordering::Relaxed);
        // The store looked at its clock somewhere between question and answer.
        let since = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(0);
        (self.on_time)(row.expires_at.plus_millis(-lease_ms).plus_millis(since));
        self.metrics.lease_renewals.inc();
        Ok(())
    }

    fn report(&self) -> NodeReport {
        let count = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        NodeReport {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            wire: Wire::RANGE.versions(),
            connections: count(&self.metrics.connections),
            sessions: count(&self.metrics.sessions),
            bus_ok: self.bus_ok.load(Ordering::Relaxed),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}
