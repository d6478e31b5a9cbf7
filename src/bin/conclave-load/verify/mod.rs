//! What was promised, checked: each delivery, each acknowledgement, and at the end the server's history.
//!
//! PURE: no socket, no clock. The engines tell it what was said, acknowledged, delivered and read; it tells what of
//! that breaks a promise, each by its name. Its rules:
//! 1. A connection gets every event of its session from where it stands, in order, without a gap, each once.
//! 2. A message comes from who sent it, with the text that was sent, and at every member under the same `seq`.
//! 3. An acknowledged message is in the history, once, at the `seq` that its sender was told. One that was never
//!    acknowledged may be there, once.
//! 4. What one sender said stands in the order in which it was said, as far as nothing of it had to be repeated.

mod delivered;
mod ledger;
mod text;

#[cfg(test)]
mod tests;

use std::ops::AddAssign;

pub(crate) use delivered::Delivered;
pub(crate) use ledger::{Heard, Ledger, Past, Service, Source};
pub(crate) use text::Texts;

/// What a server must never show, and how often it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Deliveries that were owed and never came.
    pub(crate) lost: u64,
    /// Messages that were acknowledged or delivered and are not in the history.
    pub(crate) missing: u64,
    /// Deliveries that came again; messages that the history has twice.
    pub(crate) duplicated: u64,
    /// What stands or came behind something later, or at another place than was told.
    pub(crate) disordered: u64,
    /// Texts that cannot be read or are not what was sent.
    pub(crate) undecryptable: u64,
    /// Messages under another's name, or that nobody sent.
    pub(crate) misattributed: u64,
}

impl Faults {
    /// All of them.
    pub(crate) const fn total(&self) -> u64 {
        let Self { lost, missing, duplicated, disordered, undecryptable, misattributed } = self;
        *lost + *missing + *duplicated + *disordered + *undecryptable + *misattributed
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.undecryptable += other.undecryptable;
        self.misattributed += other.misattributed;
    }
}
