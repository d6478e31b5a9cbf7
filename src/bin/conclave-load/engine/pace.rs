//! When messages are due. Pure.

/// How a scenario speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many messages each million seconds over all speakers together, evenly, whatever becomes of them.
    Open { per_million_s: u64 },
    /// Each speaker has so many messages in flight, and says the next when one is acknowledged.
    Closed { in_flight: usize },
}

impl Pace {
    /// An open loop of so many messages each second.
    pub(crate) fn per_second(rate: f64) -> Self {
        Self::Open { per_million_s: (rate * 1e6) as u64 }
    }
}

/// The times of an open loop: message `n` is due at `start + n / rate`. No delay moves a later one.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: u64,
    per_million_s: u64,
    next: u64,
}

impl Schedule {
    pub(crate) const fn new(start: u64, per_million_s: u64) -> Self {
        Self { start, per_million_s, next: 0 }
    }

    /// The times of a pace, if it has any.
    pub(crate) fn of(pace: Pace, start: u64) -> Option<Self> {
        match pace {
            Pace::Open { per_million_s } => Some(Self::new(start, per_million_s)),
            Pace::Closed { .. } => None,
        }
    }

    /// When the next message is due; `None` if never.
    pub(crate) fn due(&self) -> Option<u64> {
        if self.per_million_s == 0 {
            return None;
        }
        let after = u128::from(self.next) * 1_000_000_000_000 / u128::from(self.per_million_s);
        Some(self.start.saturating_add(after.min(u128::from(u64::MAX)) as u64))
    }

    /// Takes the next message if it is due by now: its number and when it was due.
    pub(crate) fn take(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.due().filter(|due| *due <= now)?;
        let number = self.next;
        self.next += 1;
        Some((number, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_a_stall_moves_none() {
        let mut schedule = Schedule::new(1_000, 50 * 1_000_000);
        assert_eq!(schedule.take(999), None);
        assert_eq!(schedule.take(1_000), Some((0, 1_000)));
        assert_eq!(schedule.take(20_999), None);
        let after_a_stall: Vec<_> = std::iter::from_fn(|| schedule.take(1_000_000)).collect();
        assert_eq!(after_a_stall.len(), 49);
        assert_eq!((after_a_stall[0], after_a_stall[48]), ((1, 21_000), (49, 981_000)));
    }

    #[test]
    fn long_runs_do_not_drift_and_slow_ones_are_slow() {
        let mut schedule = Schedule::new(0, 3 * 1_000_000);
        schedule.next = 3 * 3600 * 24;
        assert_eq!(schedule.due(), Some(86_400_000_000));
        assert_eq!(Schedule { next: 1, ..Schedule::new(0, 500_000) }.due(), Some(2_000_000));
        assert_eq!(Schedule::new(5, 0).due(), None);
    }
}
