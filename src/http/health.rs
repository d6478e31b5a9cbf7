//! Whether this node lives, whether it delivers and commits, and its metrics.
//!
//! Readiness is what the probes of the last seconds found, and not an opinion: when they stop being made, the node is
//! not ready either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, ResponseError, web};

use super::error::HttpError;
use crate::protocol::{ErrorCode, Refusal};
use crate::telemetry::Metrics;

/// Probes in a row that must fail before the node says so.
const MISSES: u32 = 3;

/// How long the last probe's word counts: a prober that died must not leave a green light behind.
const STALE: Duration = Duration::from_secs(15);

/// What the probes found.
#[derive(Debug)]
pub struct Readiness {
    began: Instant,
    /// Milliseconds after `began` of the last probe; 0: none yet.
    probed_at: AtomicU64,
    misses: AtomicU32,
    stopping: AtomicBool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            probed_at: AtomicU64::new(0),
            misses: AtomicU32::new(MISSES),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Readiness {
    /// A probe came back.
    pub fn probed(&self, good: bool) {
        self.probed_at.store(self.millis(Instant::now()).max(1), Ordering::Relaxed);
        if good {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            // Only the prober writes, so nothing is lost between reading and writing.
            let misses = self.misses.load(Ordering::Relaxed).saturating_add(1);
            self.misses.store(misses, Ordering::Relaxed);
        }
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
    fn reason_at(&self, now: Instant) -> Option<&'static str> {
        let probed_at = self.probed_at.load(Ordering::Relaxed);
        if self.stopping.load(Ordering::Relaxed) {
            Some("the node is stopping")
        } else if probed_at == 0 {
            Some("the node is starting")
        } else if self.millis(now).saturating_sub(probed_at) > STALE.as_millis() as u64 {
            Some("the probes have stopped")
        } else if self.misses.load(Ordering::Relaxed) >= MISSES {
            Some("the node does not deliver or does not commit")
        } else {
            None
        }
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

    #[test]
    fn a_node_is_ready_from_its_first_good_probe_to_its_third_bad_one_in_a_row() {
        let readiness = Readiness::default();
        assert_eq!(readiness.reason_at(Instant::now()), Some("the node is starting"));
        readiness.probed(false);
        assert!(!readiness.is_ready());
        for good in [true, false, false, true, false, false] {
            readiness.probed(good);
            assert!(readiness.is_ready());
        }
        readiness.probed(false);
        assert_eq!(readiness.reason_at(Instant::now()), Some("the node does not deliver or does not commit"));
        readiness.probed(true);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_prober_that_died_is_not_a_good_sign() {
        let readiness = Readiness::default();
        readiness.probed(true);
        assert_eq!(readiness.reason_at(Instant::now() + Duration::from_secs(14)), None);
        assert_eq!(readiness.reason_at(Instant::now() + Duration::from_secs(16)), Some("the probes have stopped"));
    }

    #[test]
    fn a_node_that_stops_is_not_ready() {
        let readiness = Readiness::default();
        readiness.probed(true);
        readiness.stop();
        readiness.probed(true);
        assert_eq!(readiness.reason_at(Instant::now()), Some("the node is stopping"));
    }
}
