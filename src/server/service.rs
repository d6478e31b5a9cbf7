//! Whether the node serves clients, looked at each second: readiness, and what follows when it should not.
//!
//! A node that is cut off from the bus while its peers are not, whose lease is over, or that drains gives its sessions
//! up, sends its clients away and takes no new ones, until that is over. Invariant: sessions are given up only after
//! commands are no longer taken, so none is lost on the way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cluster::{Own, Standing};
use crate::http::Found;
use crate::protocol::{CloseCode, Timestamp};
use crate::store::NodeRow;

use super::upkeep::UpkeepParts;

/// How often the node looks whether it delivers and commits, and how long that may take.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Probes of the bus that must fail in a row before it counts as lost.
const MISSES: u32 = 3;

/// Within which sessions should have given themselves up.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(5);

/// What one look has found.
struct Look {
    store: bool,
    bus: bool,
    lease: bool,
}

/// Looks, for ever.
pub(super) async fn watch(parts: UpkeepParts) {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut standing, mut misses, mut lost_since) = (Standing::Serves, 0_u32, None);
    let mut lapses = parts.lease.lapses();
    // A bus that has not come yet since the start is waited for, and not lost.
    let mut has_come = false;
    loop {
        ticks.tick().await;
        let mut look = look(&parts).await;
        // A lease that was over for a moment was over: others may own what was this node's.
        let lapses_now = parts.lease.lapses();
        look.lease &= lapses_now == lapses;
        lapses = lapses_now;
        if look.bus {
            (misses, lost_since, has_come) = (0, None, true);
        } else {
            misses += 1;
            lost_since = lost_since.or_else(|| Some(parts.clock.now()));
        }
        let bus_lost = lost_since.filter(|_| has_come && misses >= MISSES);
        let now = stand(&parts, &look, bus_lost).await;
        if now != standing {
            change(&parts, standing, now).await;
            standing = now;
        }
        tell(&parts, &look, standing);
    }
}

async fn look(parts: &UpkeepParts) -> Look {
    let bus = parts.bus.bus();
    let (store, bus) = tokio::join!(
        timeout(PROBE_EVERY, parts.store.probe()), //
        timeout(PROBE_EVERY, bus.probe()),
    );
    let (store, bus, lease) = (matches!(store, Ok(Ok(()))), matches!(bus, Ok(Ok(()))), parts.lease.is_held());
    for (what, good) in [("store", store), ("bus", bus), ("lease", lease)] {
        if !good {
            parts.metrics.probe_failures.with_label_values(&[what]).inc();
        }
    }
    parts.lease.set_bus_ok(bus);
    Look { store, bus, lease }
}

/// How the node stands. One that is alone has nowhere to send its clients: it goes on as well as it can.
async fn stand(parts: &UpkeepParts, look: &Look, bus_lost: Option<Timestamp>) -> Standing {
    let nodes: Vec<NodeRow> = match bus_lost {
        Some(_) => match timeout(PROBE_EVERY, parts.store.nodes()).await {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(_)) | Err(_) => Vec::new(),
        },
        None => Vec::new(),
    };
    let lease = look.lease || parts.is_alone;
    let own = Own { node_id: parts.lease.node_id(), lease, drain: parts.lease.is_draining(), bus_lost, nodes: &nodes };
    Standing::of(&own)
}

async fn change(parts: &UpkeepParts, before: Standing, now: Standing) {
    match (before.serves(), now.serves()) {
        (true, false) => {
            tracing::warn!(why = ?now, "the node serves nobody from now on");
            // Said before anybody is sent away, so that none is sent back here.
            parts.readiness.set_aside(true);
            parts.subscriptions.set_shut(true);
            let code = if now == Standing::Drains { CloseCode::Restart } else { CloseCode::CutOff };
            parts.connections.close_all(code, parts.reconnect_spread_ms);
            let left = parts.sessions.stop(GIVE_UP_WITHIN).await;
            if left > 0 {
                tracing::warn!(left, "sessions did not give themselves up in time");
            }
        }
        (false, true) => {
            tracing::info!("the node serves again");
            parts.sessions.open();
            parts.subscriptions.set_shut(false);
            parts.readiness.set_aside(false);
        }
        (true, true) => tracing::warn!(standing = ?now, "the bus is there again, or gone for everybody"),
        (false, false) => {}
    }
}

fn tell(parts: &UpkeepParts, look: &Look, standing: Standing) {
    let was_ready = parts.readiness.is_ready();
    let delivers = look.bus || standing == Standing::BusIsGone;
    parts.readiness.probed(Found { bus: delivers, store: look.store, lease: look.lease });
    parts.bus_is_gone.store(standing == Standing::BusIsGone, std::sync::atomic::Ordering::Relaxed);
    match (was_ready, parts.readiness.is_ready()) {
        (false, true) => tracing::info!(node = %parts.lease.node_id(), "the node is ready"),
        (true, false) => {
            let Look { store, bus, lease } = *look;
            tracing::warn!(store, bus, lease, ?standing, "the node is no longer ready");
        }
        (true, true) | (false, false) => {}
    }
}

/// A word on which the sweep hurries.
pub(super) type BusIsGone = Arc<std::sync::atomic::AtomicBool>;
