//! When to try again. Pure: the random number comes in.

use std::time::Duration;

use super::End;

/// Exponential backoff with full jitter: a wait is anything from nothing to a ceiling that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    most: Duration,
    attempt: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(250), most: Duration::from_secs(30), attempt: 0 }
    }
}

impl Backoff {
    /// The wait before the next attempt; `random` is uniform in 0..1.
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempt.min(16)).min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The wait after a connection that ended so: the node's own hint, where it gave one, with jitter behind it.
    pub fn after(&mut self, end: End, random: f64) -> Duration {
        match end.reconnect_after {
            Some(hint) => hint.min(self.most) + self.next(random),
            None => self.next(random),
        }
    }

    /// It worked: the next failure starts from the beginning.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_a_limit_and_jitter_is_full() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(ceilings, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 250);
    }

    #[test]
    fn a_hint_of_the_node_is_waited_for_but_not_forever() {
        let mut backoff = Backoff::default();
        let end = |ms| End { code: Some(1012), reconnect_after: Some(Duration::from_millis(ms)) };
        assert_eq!(backoff.after(end(3000), 0.0).as_millis(), 3000);
        assert_eq!(backoff.after(end(u64::MAX), 0.0).as_millis(), 30_000);
    }
}
