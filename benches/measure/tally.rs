//! What was delivered and stored, against what was acknowledged: lost, duplicated, disordered.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;

/// What a node must never show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) disordered: u64,
    /// A store that is not sound.
    pub(crate) damaged: u64,
}

impl Faults {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.damaged += other.damaged;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, duplicated, disordered, damaged } = self;
        write!(f, "lost {lost}, duplicated {duplicated}, disordered {disordered}, damaged {damaged}")
    }
}

/// What one connection has been given of one session.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    /// The last event in order.
    pub(crate) last: u64,
    pub(crate) count: u64,
    missing: HashSet<u64>,
    duplicated: u64,
    disordered: u64,
}

impl Delivered {
    /// Of a connection that has everything up to `seq`.
    pub(crate) fn after(seq: u64) -> Self {
        Self { last: seq, count: 0, missing: HashSet::new(), duplicated: 0, disordered: 0 }
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self, seq: u64) {
        self.count += 1;
        if seq == self.last + 1 {
            self.last = seq;
        } else if seq > self.last {
            self.missing.extend(self.last + 1..seq);
            self.last = seq;
        } else if self.missing.remove(&seq) {
            self.disordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// What was wrong, when everything up to `head` should have come.
    pub(crate) fn faults(&self, head: u64) -> Faults {
        Faults {
            lost: self.missing.len() as u64 + head.saturating_sub(self.last),
            duplicated: self.duplicated,
            disordered: self.disordered,
            damaged: 0,
        }
    }
}

/// A message as the store has it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) sender_id: String,
    pub(crate) number: u64,
}

/// What one sender was told: the `seq` of each of its messages, by number, from 0.
#[derive(Debug)]
pub(crate) struct Acknowledged<'a> {
    pub(crate) sender_id: &'a str,
    pub(crate) seqs: &'a [Option<u64>],
}

/// Compares a session's store with what its senders were told. What was never acknowledged may be there, once and in
/// order, or not.
pub(crate) fn compare(stored: &[Stored], acknowledged: &[Acknowledged<'_>]) -> Faults {
    let mut faults = Faults::default();
    let mut found: HashMap<(&str, u64), u64> = HashMap::with_capacity(stored.len());
    let mut newest: HashMap<&str, u64> = HashMap::new();
    for message in stored {
        let sender = message.sender_id.as_str();
        if found.insert((sender, message.number), message.seq).is_some() {
            faults.duplicated += 1;
        } else if newest.insert(sender, message.number).is_some_and(|before| before > message.number) {
            faults.disordered += 1;
        }
    }
    faults.disordered += stored.windows(2).filter(|pair| pair[0].seq >= pair[1].seq).count() as u64;
    for Acknowledged { sender_id, seqs } in acknowledged {
        for (number, seq) in (0..).zip(*seqs) {
            match (seq, found.get(&(*sender_id, number))) {
                (None, _) => {}
                (Some(told), Some(at)) if told == at => {}
                (Some(_), Some(_)) => faults.disordered += 1,
                (Some(_), None) => faults.lost += 1,
            }
        }
    }
    faults
}
