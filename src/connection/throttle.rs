//! How many requests a user may make each second, over all of their connections to this node. PURE.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bucket of one second's requests, as one number: the moment at which it would be full again
/// (the generic cell rate algorithm). Invariant: never further ahead of now than a second.
#[derive(Debug, Default)]
pub(super) struct Throttle(AtomicU64);

const SECOND: u64 = 1_000_000_000;

impl Throttle {
    /// Takes one request at `now`, in nanoseconds from any fixed moment.
    ///
    /// # Errors
    /// How many nanoseconds to wait.
    pub(super) fn admit(&self, now: u64, per_s: u32) -> Result<(), u64> {
        let cost = SECOND / u64::from(per_s.max(1));
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now) + cost;
            let wait = next.saturating_sub(now + SECOND);
            if wait > 0 {
                return Err(wait);
            }
            match self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_its_number_and_comes_back_evenly() {
        let throttle = Throttle::default();
        let start = 5 * SECOND;
        for _ in 0..100 {
            assert_eq!(throttle.admit(start, 100), Ok(()));
        }
        assert_eq!(throttle.admit(start, 100), Err(SECOND / 100));
        assert_eq!(throttle.admit(start + SECOND / 100, 100), Ok(()));
        assert!(throttle.admit(start + SECOND / 100, 100).is_err());
        // A long pause gives a second's worth, not more.
        let later = start + 1000 * SECOND;
        assert_eq!((0..200).filter(|_| throttle.admit(later, 100).is_ok()).count(), 100);
    }

    #[test]
    fn one_each_second() {
        let throttle = Throttle::default();
        assert_eq!(throttle.admit(0, 1), Ok(()));
        assert_eq!(throttle.admit(0, 1), Err(SECOND));
        assert_eq!(throttle.admit(SECOND, 1), Ok(()));
    }
}
