//! Whether this node lives, whether it delivers and commits, and its metrics.
//!
//! Readiness is what the probes of the last seconds found, and not an opinion: when they stop being made, the node is
//! not ready either.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, ResponseError, web};

use super::error::HttpError;
use crate::protocol::{ErrorCode, Refusal};
use crate::telemetry::Metrics;

/// Probes in a row that must fail before the node says so.
const MISSES: u32 = 3;

/// How long the last probe's word counts: a prober that died must not leave a green light behind.
const STALE: Duration = Duration::from_secs(15);

/// What a node needs to deliver and to commit, by the names that operators are told.
const PARTS: [&str; 3] = ["bus", "store", "lease"];

/// What one round of probes found in reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A message came through the bus.
    pub bus: bool,
    /// The store took a write.
    pub store: bool,
    /// The node counts as alive.
    pub lease: bool,
}

impl Found {
    /// Everything is there.
    pub const ALL: Self = Self { bus: true, store: true, lease: true };

    fn missing(self) -> u8 {
        u8::from(!self.bus) | u8::from(!self.store) << 1 | u8::from(!self.lease) << 2
    }
}

/// What the probes found.
#[derive(Debug)]
pub struct Readiness {
    began: Instant,
    /// Milliseconds after `began` of the last probe; 0: none yet.
    probed_at: AtomicU64,
    misses: AtomicU32,
    /// What the last probe did not find, or before the first one the node waits for; a bit for each of [`PARTS`].
    missing: AtomicU8,
    /// Whether the node has sent its clients away for now.
    aside: AtomicBool,
    stopping: AtomicBool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            probed_at: AtomicU64::new(0),
            misses: AtomicU32::new(MISSES),
            missing: AtomicU8::new(0),
            aside: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Readiness {
    /// There is no store to start with yet, or there is now.
    pub fn wait_for_store(&self, waits: bool) {
        self.missing.store(Found { store: !waits, ..Found::ALL }.missing(), Ordering::Relaxed);
    }

    /// A probe came back.
    pub fn probed(&self, found: Found) {
        self.missing.store(found.missing(), Ordering::Relaxed);
        self.probed_at.store(self.millis(Instant::now()).max(1), Ordering::Relaxed);
        if found == Found::ALL {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            // Only the prober writes, so nothing is lost between reading and writing.
            let misses = self.misses.load(Ordering::Relaxed).saturating_add(1);
            self.misses.store(misses, Ordering::Relaxed);
        }
    }

    /// Whether the node takes no clients for now, because it drains or is cut off.
    pub fn set_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::Relaxed);
    }

    /// From now on the node is not ready, whatever the probes say.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the node takes work.
    pub fn is_ready(&self) -> bool {
        self.reason_at(Instant::now()).is_none()
    }

    /// Why the node takes no work.
    fn reason_at(&self, now: Instant) -> Option<Cow<'static, str>> {
        let probed_at = self.probed_at.load(Ordering::Relaxed);
        if self.stopping.load(Ordering::Relaxed) {
            Some("the node is stopping".into())
        } else if probed_at == 0 {
            Some(format!("the node is starting{}", self.missing_names()).into())
        } else if self.millis(now).saturating_sub(probed_at) > STALE.as_millis() as u64 {
            Some("the probes have stopped".into())
        } else if self.misses.load(Ordering::Relaxed) >= MISSES {
            let missing = self.missing_names();
            Some(format!("the node does not deliver or does not commit{missing}").into())
        } else if self.aside.load(Ordering::Relaxed) {
            Some("the node has sent its clients to others".into())
        } else {
            None
        }
    }

    /// What is missing, as the end of a sentence; nothing if nothing is.
    fn missing_names(&self) -> String {
        let missing = self.missing.load(Ordering::Relaxed);
        let names = PARTS.into_iter().enumerate().filter(|(n, _)| missing & (1 << n) != 0).map(|(_, name)| name);
        let names = names.collect::<Vec<_>>().join(", ");
        if names.is_empty() { names } else { format!(": missing {names}") }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

pub(super) async fn livez() -> &'static str {
    "alive\n"
}

pub(super) async fn readyz(readiness: web::Data<Arc<Readiness>>) -> HttpResponse {
    match readiness.reason_at(Instant::now()) {
        None => HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ready\n"),
        Some(reason) => HttpError(Refusal::new(ErrorCode::Unavailable, reason)).error_response(),
    }
}

pub(super) async fn metrics(metrics: web::Data<Arc<Metrics>>, readiness: web::Data<Arc<Readiness>>) -> HttpResponse {
    metrics.ready.set(i64::from(readiness.is_ready()));
    HttpResponse::Ok().content_type(Metrics::CONTENT_TYPE).body(metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Found = Found { bus: false, store: true, lease: false };

    fn reason(readiness: &Readiness, now: Instant) -> String {
        readiness.reason_at(now).expect("not ready").into_owned()
    }

    #[test]
    fn a_node_is_ready_from_its_first_good_probe_to_its_third_bad_one_in_a_row() {
        let readiness = Readiness::default();
        assert_eq!(reason(&readiness, Instant::now()), "the node is starting");
        readiness.wait_for_store(true);
        assert_eq!(reason(&readiness, Instant::now()), "the node is starting: missing store");
        readiness.wait_for_store(false);
        assert_eq!(reason(&readiness, Instant::now()), "the node is starting");
        readiness.probed(BAD);
        assert!(!readiness.is_ready());
        for found in [Found::ALL, BAD, BAD, Found::ALL, BAD, BAD] {
            readiness.probed(found);
            assert!(readiness.is_ready());
        }
        readiness.probed(BAD);
        let expected = "the node does not deliver or does not commit: missing bus, lease";
        assert_eq!(reason(&readiness, Instant::now()), expected);
        readiness.probed(Found::ALL);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_prober_that_died_is_not_a_good_sign() {
        let readiness = Readiness::default();
        readiness.probed(Found::ALL);
        assert_eq!(readiness.reason_at(Instant::now() + Duration::from_secs(14)), None);
        assert_eq!(reason(&readiness, Instant::now() + Duration::from_secs(16)), "the probes have stopped");
    }

    #[test]
    fn a_node_that_has_sent_its_clients_away_is_not_ready_until_it_takes_them_again() {
        let readiness = Readiness::default();
        readiness.probed(Found::ALL);
        readiness.set_aside(true);
        assert_eq!(reason(&readiness, Instant::now()), "the node has sent its clients to others");
        readiness.set_aside(false);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_node_that_stops_is_not_ready() {
        let readiness = Readiness::default();
        readiness.probed(Found::ALL);
        readiness.stop();
        readiness.probed(Found::ALL);
        assert_eq!(reason(&readiness, Instant::now()), "the node is stopping");
    }
}
