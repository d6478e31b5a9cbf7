//! What a node does by itself: it renews its lease, looks whether it serves ([`super::service`]), follows who else is
//! alive, and sweeps.
//!
//! The bus and wake-ups are shortcuts that may lose something; the sweep finds it in the store, and at once where the
//! bus knows that something may be missing. Each duty runs in a task of its own, so that a slow one delays no other;
//! all end with the [`Upkeep`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::bus::NodeBus;
use crate::cluster::{Lease, UserSignal};
use crate::connection::{Connections, Recovery, Subscriptions};
use crate::http::Readiness;
use crate::protocol::{InboxId, UserId};
use crate::session::{Clock, Sessions};
use crate::store::{Retention, Store, StoreResult};
use crate::telemetry::Metrics;

use super::service::{self, BusIsGone};

/// How often the node looks which versions of the wire the others read.
const PEERS_EVERY: Duration = Duration::from_secs(5);

/// Rows that one question of the sweep asks for.
const PAGE: u64 = 1000;

/// Steps of removing in one sweep: what is left then waits for the next one.
const STEPS: usize = 100;

/// What the node's duties work with.
#[derive(Clone)]
pub(super) struct UpkeepParts {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: NodeBus,
    pub(super) lease: Arc<Lease>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sessions: Sessions,
    pub(super) subscriptions: Subscriptions,
    pub(super) connections: Arc<Connections>,
    pub(super) recovery: Recovery,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) retention: Retention,
    pub(super) sweep_every: Duration,
    /// Between two sweeps while nobody has the bus.
    pub(super) hurried_sweep_every: Duration,
    pub(super) bus_is_gone: BusIsGone,
    /// Over which clients that are sent away are asked to spread their coming back.
    pub(super) reconnect_spread_ms: u64,
    /// Whether the store is this node's own: there are no others.
    pub(super) is_alone: bool,
}

/// The duties, as long as it lives.
pub(super) struct Upkeep {
    sweep: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Upkeep {
    /// Takes them up.
    pub(super) fn start(parts: UpkeepParts) -> Self {
        let lease = Arc::clone(&parts.lease);
        let keeping = tokio::spawn(async move { lease.keep().await });
        let watching = tokio::spawn(service::watch(parts.clone()));
        let recovery = parts.recovery.clone();
        let following = tokio::spawn(async move { recovery.follow().await });
        let peers = tokio::spawn(follow_peers(parts.clone()));
        Self { sweep: tokio::spawn(sweep(parts)), others: vec![keeping, watching, following, peers] }
    }

    /// Stops sweeping: sessions should go now, and none be woken.
    pub(super) fn stop_sweeping(&self) {
        self.sweep.abort();
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.sweep.abort();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// Looks who is alive, and speaks on the bus so that all of them understand it.
async fn follow_peers(parts: UpkeepParts) {
    let mut ticks = interval(PEERS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(nodes) = parts.store.nodes().await {
            let versions: Vec<_> = nodes.into_iter().map(|node| node.report.wire).collect();
            parts.bus.set_peers(&versions);
        }
    }
}

async fn sweep(parts: UpkeepParts) {
    loop {
        if let Err(error) = sweep_once(&parts).await {
            tracing::warn!(%error, "a sweep was not finished; the next one goes on");
        }
        wait(&parts).await;
    }
}

/// Until the next sweep is due; it is hurried if the bus goes away meanwhile.
async fn wait(parts: &UpkeepParts) {
    let step = parts.hurried_sweep_every.min(parts.sweep_every);
    let mut waited = Duration::ZERO;
    loop {
        sleep(step).await;
        waited += step;
        if waited >= parts.sweep_every || parts.bus_is_gone.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
    }
}

async fn sweep_once(parts: &UpkeepParts) -> StoreResult<()> {
    parts.recovery.everything().await?;
    for session_id in parts.store.sessions_with_tasks(PAGE).await? {
        parts.sessions.wake(session_id);
    }
    // Whose node has died or let it go: its deadline and its asks are looked after again, though nobody speaks there.
    for session_id in parts.store.rotations_unattended(PAGE).await? {
        parts.sessions.take_up(session_id);
    }
    lapse_inbox(parts).await?;
    for _ in 0..STEPS {
        if !parts.store.prune(parts.clock.now(), &parts.retention).await? {
            break;
        }
    }
    let coverage = parts.store.key_coverage(parts.clock.now()).await?;
    parts.metrics.members_without_key.set(gauge(coverage.without_key));
    parts.metrics.rotations_open.set(gauge(coverage.rotations_open));
    parts.metrics.rotation_oldest_ms.set(coverage.oldest_ms);
    Ok(())
}

async fn lapse_inbox(parts: &UpkeepParts) -> StoreResult<()> {
    for _ in 0..STEPS {
        let lapsed = parts.store.lapse_inbox(parts.clock.now(), PAGE).await?;
        let full = lapsed.len() as u64 >= PAGE;
        parts.metrics.inbox_lapsed.inc_by(lapsed.len() as u64);
        let mut by_user: HashMap<UserId, Vec<InboxId>> = HashMap::new();
        for (user_id, inbox_id) in lapsed {
            by_user.entry(user_id).or_default().push(inbox_id);
        }
        for (user_id, inbox_ids) in by_user {
            parts.subscriptions.signal(user_id, UserSignal::Withdrawn(inbox_ids)).await;
        }
        if !full {
            break;
        }
    }
    Ok(())
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
