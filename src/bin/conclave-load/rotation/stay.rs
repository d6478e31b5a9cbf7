//! A member's time in a session: from their own `MemberJoined` to their own `MemberLeft`, and what they were given in
//! it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use conclave::protocol::KeyEpoch;

use crate::verify::{Delivered, Faults};

/// Microseconds within which a holder who is asked for a key answers, the asking of a second one included. Who waited
/// for longer was not merely overtaken.
const ANSWERED_WITHIN: u64 = 30_000_000;

/// Messages that wait for their key; beyond it, they count as unreadable at once.
const MOST_SEALED: usize = 100_000;

/// A message whose key has not come.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    key: Option<KeyEpoch>,
    /// When it came.
    since: u64,
}

/// One stay.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) session: u32,
    from: u64,
    /// The member's own leaving.
    until: Option<u64>,
    delivered: Delivered,
    /// Messages whose key has not come.
    sealed: BTreeMap<u64, Sealed>,
    /// Whether the room key was replaced in it.
    turned: bool,
    /// Messages under the key that was the current one at joining, where it was replaced before it came.
    missed: BTreeSet<u64>,
    unreadable: u64,
}

impl Stay {
    /// Begins with the member's own joining.
    pub(crate) fn begin(session: u32, seq: u64) -> Self {
        let mut delivered = Delivered::after(seq - 1);
        delivered.take(seq);
        Self {
            session,
            from: seq,
            until: None,
            delivered,
            sealed: BTreeMap::new(),
            turned: false,
            missed: BTreeSet::new(),
            unreadable: 0,
        }
    }

    /// An event came.
    pub(crate) fn take(&mut self, seq: u64) {
        self.delivered.take(seq);
    }

    /// What came now cannot be read yet.
    pub(crate) fn sealed(&mut self, seq: u64, key: Option<KeyEpoch>, now: u64) {
        if self.sealed.len() < MOST_SEALED {
            self.sealed.insert(seq, Sealed { key, since: now });
        } else {
            self.unreadable += 1;
        }
    }

    /// The key of what came earlier has come.
    pub(crate) fn unsealed(&mut self, seq: u64) {
        self.sealed.remove(&seq);
        self.missed.remove(&seq);
    }

    /// Another room key is the current one from now on.
    ///
    /// Who joins without a key is owed the current one, whichever that is by then (rule 7 of the room key epochs in
    /// PROTOCOL.md): a key that was replaced before a holder could answer comes no more. This is so of the first alone, as
    /// each later one is there before its first message (rule 6).
    pub(crate) fn turned(&mut self, current: KeyEpoch, now: u64) {
        if std::mem::replace(&mut self.turned, true) {
            return;
        }
        let overtaken = |sealed: &Sealed| {
            sealed.key.is_some_and(|key| key < current) && now.saturating_sub(sealed.since) < ANSWERED_WITHIN
        };
        let overtaken = self.sealed.extract_if(.., |_, sealed| overtaken(sealed));
        self.missed.extend(overtaken.map(|(seq, _)| seq));
    }

    /// Ends with the member's own leaving, or where they were when they heard that they had been put out.
    pub(crate) fn end(&mut self, seq: Option<u64>) {
        self.until = Some(seq.unwrap_or(self.delivered.last()));
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.until.is_none()
    }

    /// Messages whose key was replaced before it came.
    pub(crate) fn missed(&self) -> usize {
        self.missed.len()
    }

    /// Whether everything that came can be read, but for what was missed.
    pub(crate) fn is_readable(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Whether the member has everything of a session that ends with `head`, and can read it.
    pub(crate) fn is_complete(&self, head: u64) -> bool {
        !self.is_open() || (self.delivered.last() >= head && self.is_readable())
    }

    /// What was wrong, in a session that ends with `head`.
    pub(crate) fn faults(&self, head: u64) -> Faults {
        let mut faults = self.delivered.faults(self.until.unwrap_or(head));
        faults.undecryptable += self.sealed.len() as u64 + self.unreadable;
        faults
    }

    /// How many of these messages were owed.
    pub(crate) fn owed(&self, seqs: impl Iterator<Item = u64>) -> u64 {
        let until = self.until.unwrap_or(u64::MAX);
        seqs.filter(|seq| (self.from..=until).contains(seq)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_owed_what_lies_between_joining_and_leaving() {
        let mut stay = Stay::begin(0, 5);
        [6, 7, 8].into_iter().for_each(|seq| stay.take(seq));
        assert!(stay.is_complete(8) && !stay.is_complete(9));
        assert_eq!(stay.owed([4, 6, 7, 9].into_iter()), 3);
        stay.end(Some(8));
        assert!(stay.is_complete(9));
        assert_eq!(stay.owed([4, 6, 7, 9].into_iter()), 2);
        assert_eq!(stay.faults(20), Faults::default(), "what came after is not theirs");
    }

    #[test]
    fn what_stays_sealed_is_undecryptable_and_what_is_left_out_is_lost() {
        let mut stay = Stay::begin(0, 1);
        [2, 4].into_iter().for_each(|seq| stay.take(seq));
        stay.sealed(2, Some(KeyEpoch(1)), 0);
        stay.sealed(4, Some(KeyEpoch(1)), 0);
        assert!(!stay.is_complete(4));
        stay.unsealed(2);
        assert_eq!(stay.faults(5), Faults { lost: 2, undecryptable: 1, ..Faults::default() });
    }

    #[test]
    fn a_newcomer_misses_the_key_that_was_replaced_before_it_came_and_no_later_one() {
        let mut stay = Stay::begin(0, 1);
        [2, 3].into_iter().for_each(|seq| stay.sealed(seq, Some(KeyEpoch(5)), 10));
        stay.turned(KeyEpoch(6), 20);
        assert!(stay.is_readable());
        assert_eq!(stay.missed(), 2);
        stay.unsealed(3);
        assert_eq!(stay.missed(), 1, "it was given all the same");
        stay.sealed(5, Some(KeyEpoch(6)), 30);
        assert!(!stay.is_readable());
        stay.turned(KeyEpoch(7), 40);
        assert_eq!(stay.faults(1).undecryptable, 1, "the key of 6 was due before 5");

        let mut stay = Stay::begin(0, 1);
        stay.sealed(2, Some(KeyEpoch(5)), 10);
        stay.sealed(3, Some(KeyEpoch(5)), 20);
        stay.turned(KeyEpoch(6), 10 + ANSWERED_WITHIN);
        assert_eq!((stay.missed(), stay.faults(1).undecryptable), (1, 1), "nobody gave it for all that time");
    }
}
