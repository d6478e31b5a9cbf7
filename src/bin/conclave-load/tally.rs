//! What a run counts beside the ledger. What the server could make grow is bounded.

use std::collections::BTreeMap;

use crate::report::model::Counts;
use crate::verify::Faults;

/// Kinds of failures, and codes of refusals, that are told apart.
const KINDS: usize = 64;

/// Counts of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Messages, each once.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Messages that were refused for good.
    pub(crate) turned_away: u64,
    /// Messages that came to a member.
    pub(crate) delivered: u64,
    pub(crate) reconnects: u64,
    /// Refusals by their code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// What made the run fail beside the ledger's faults, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Tally {
    /// A message was refused.
    pub(crate) fn refuse(&mut self, code: &str) {
        count(&mut self.refused, code);
    }

    /// Everything that is worth a look while a run goes on.
    pub(crate) fn errors(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.reconnects
    }

    /// All counts of a run, as reports tell them.
    pub(crate) fn counts(&self, faults: Faults, in_doubt: u64, expected: u64, reconnects_expected: bool) -> Counts {
        Counts {
            sent: self.sent,
            acknowledged: self.acknowledged,
            refused: self.refused.clone(),
            in_doubt,
            delivered: self.delivered,
            expected_deliveries: expected,
            lost: faults.lost,
            missing: faults.missing,
            duplicated: faults.duplicated,
            disordered: faults.disordered,
            undecryptable: faults.undecryptable,
            misattributed: faults.misattributed,
            reconnects: self.reconnects,
            reconnects_expected,
        }
    }

    /// Something that must not be makes the run fail.
    pub(crate) fn fail(&mut self, why: &str) {
        count(&mut self.failures, why);
    }
}

fn count(counts: &mut BTreeMap<String, u64>, what: &str) {
    let what = if counts.len() < KINDS || counts.contains_key(what) { what } else { "others" };
    *counts.entry(what.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_makes_up_costs_no_memory_without_end() {
        let mut tally = Tally::default();
        (0..1000).for_each(|code| tally.refuse(&code.to_string()));
        tally.refuse("0");
        assert_eq!((tally.refused.len(), tally.refused["0"], tally.refused["others"]), (KINDS + 1, 2, 936));
    }
}
