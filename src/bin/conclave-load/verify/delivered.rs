//! What one connection has been given of one session: a place in a dense sequence, and what was wrong on the way.

use std::collections::BTreeSet;

use super::Faults;

/// Gaps that are remembered one by one; of a longer one the rest counts as lost at once.
const REMEMBERED: usize = 100_000;

/// Where a connection stands in a session. Small while nothing is wrong: there are thousands.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    last: u64,
    count: u64,
    wrong: Option<Box<Wrong>>,
}

#[derive(Clone, Debug, Default)]
struct Wrong {
    missing: BTreeSet<u64>,
    given_up: u64,
    duplicated: u64,
    disordered: u64,
}

impl Delivered {
    /// Of a connection that has everything up to `seq`.
    pub(crate) const fn after(seq: u64) -> Self {
        Self { last: seq, count: 0, wrong: None }
    }

    /// The greatest `seq` that came: where a `resume` goes on.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// How many events came.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Takes an event.
    pub(crate) fn take(&mut self, seq: u64) {
        self.count += 1;
        if seq == self.last + 1 {
            self.last = seq;
        } else {
            self.take_wrong(seq);
        }
    }

    #[cold]
    fn take_wrong(&mut self, seq: u64) {
        let wrong = self.wrong.get_or_insert_default();
        if seq > self.last {
            let room = REMEMBERED.saturating_sub(wrong.missing.len()) as u64;
            let remembered = (seq - self.last - 1).min(room);
            wrong.missing.extend(seq - remembered..seq);
            wrong.given_up += seq - self.last - 1 - remembered;
            self.last = seq;
        } else if wrong.missing.remove(&seq) {
            wrong.disordered += 1;
        } else {
            wrong.duplicated += 1;
        }
    }

    /// What was wrong, when everything up to `head` should have come.
    pub(crate) fn faults(&self, head: u64) -> Faults {
        let mut faults = Faults { lost: head.saturating_sub(self.last), ..Faults::default() };
        if let Some(wrong) = &self.wrong {
            faults.lost += wrong.missing.len() as u64 + wrong.given_up;
            faults.duplicated = wrong.duplicated;
            faults.disordered = wrong.disordered;
        }
        faults
    }
}
