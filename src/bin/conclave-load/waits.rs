//! How long each session waited for its acknowledgements: after a node was killed, whether those of other nodes noticed.
//! Pure.

use crate::report::model::{MOST_SESSIONS, SessionWait};
use crate::verify::Service;

/// The sessions that waited longest, the worst first; no more of them than reports name.
#[derive(Debug)]
pub(crate) struct Waits {
    worst: Vec<SessionWait>,
    /// Of all sessions, in microseconds.
    median: u64,
}

impl Waits {
    /// Of sessions by their ids.
    pub(crate) fn new(sessions: impl Iterator<Item = (String, Service)>) -> Self {
        let wait = |(session_id, Service { longest_wait, acknowledged })| SessionWait {
            session_id,
            longest_wait_us: longest_wait,
            acknowledged,
        };
        let worst = worst_first(sessions.map(wait).collect());
        let median = worst.get(worst.len() / 2).map_or(0, |session| session.longest_wait_us);
        let mut waits = Self { worst, median };
        waits.worst.truncate(MOST_SESSIONS);
        waits
    }

    /// Adds the sessions of another run.
    pub(crate) fn add(&mut self, other: Self) {
        let both = std::mem::take(&mut self.worst).into_iter().chain(other.worst);
        self.worst = worst_first(both.collect());
        self.worst.truncate(MOST_SESSIONS);
    }

    /// The longest of all.
    pub(crate) fn longest_us(&self) -> Option<u64> {
        self.worst.first().map(|session| session.longest_wait_us)
    }

    /// As reports have them.
    pub(crate) fn into_worst(self) -> Vec<SessionWait> {
        self.worst
    }

    /// In a sentence.
    pub(crate) fn tell(&self) -> String {
        format!(
            "the longest that a message waited from due to acknowledged, by session: median {:.0} ms, worst {:.0} ms",
            self.median as f64 / 1e3,
            self.longest_us().unwrap_or(0) as f64 / 1e3
        )
    }
}

/// Those who waited as long as each other in the order of their ids.
fn worst_first(mut sessions: Vec<SessionWait>) -> Vec<SessionWait> {
    sessions.sort_by(|a, b| b.longest_wait_us.cmp(&a.longest_wait_us).then_with(|| a.session_id.cmp(&b.session_id)));
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(longest: impl Iterator<Item = u64>) -> Waits {
        Waits::new(longest.map(|wait| (format!("s{wait}"), Service { longest_wait: wait * 1000, acknowledged: wait })))
    }

    #[test]
    fn the_worst_are_named_and_the_median_is_of_all() {
        let waits = waits(0..5001);
        assert!(waits.tell().ends_with("median 2500 ms, worst 5000 ms"), "{}", waits.tell());
        assert_eq!(waits.longest_us(), Some(5_000_000));
        let named = waits.into_worst();
        assert_eq!(named.len(), MOST_SESSIONS);
        let (first, last) = (&named[0], &named[MOST_SESSIONS - 1]);
        assert_eq!((&*first.session_id, first.acknowledged), ("s5000", 5000));
        assert_eq!((&*last.session_id, last.longest_wait_us), ("s4001", 4_001_000));
    }

    #[test]
    fn the_sessions_of_two_runs_are_ordered_together() {
        let mut both = waits([1, 3].into_iter());
        both.add(waits([2, 4].into_iter()));
        let named: Vec<String> = both.into_worst().into_iter().map(|session| session.session_id).collect();
        assert_eq!(named, ["s4", "s3", "s2", "s1"]);
        assert_eq!(waits(0..0).longest_us(), None);
    }
}
