//! The versions of what nodes tell each other: of the envelope, and of all that is in it. PURE.
//!
//! A message travels with the version that it is written in, from where it is encoded to where it is read, so a new
//! version is a variant here and a match arm where it is written and read differently. For the length of an upgrade a
//! release reads its own version and the one before, and writes the newest that all live nodes read.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::publication::Damaged;
use crate::store::WireVersions;

/// One version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// The first.
    V1,
    /// What tests take for the version after the newest.
    #[cfg(test)]
    Next,
}

/// The versions that a node reads: its own and the one before. It writes one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The one before.
    pub oldest: Wire,
    /// Its own.
    pub newest: Wire,
}

impl Wire {
    /// What this release reads. There is no version before the first.
    pub const RANGE: Range = Range { oldest: Self::V1, newest: Self::V1 };

    /// As it stands in envelopes and in the store.
    pub const fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            #[cfg(test)]
            Self::Next => 2,
        }
    }

    const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            #[cfg(test)]
            2 => Some(Self::Next),
            _ => None,
        }
    }

    /// What each message begins with.
    const fn head(self) -> &'static [u8] {
        match self {
            Self::V1 => b"",
            #[cfg(test)]
            Self::Next => b"next",
        }
    }

    /// Begins a message.
    pub(super) fn begin(self, capacity: usize) -> BytesMut {
        let mut out = BytesMut::with_capacity(capacity);
        out.put_slice(self.head());
        out
    }

    /// Takes off what [`Wire::begin`] has put there.
    pub(super) fn begun(self, message: &mut Bytes) -> Result<(), Damaged> {
        if !message.starts_with(self.head()) {
            return Err(Damaged);
        }
        message.advance(self.head().len());
        Ok(())
    }
}

impl Range {
    /// The version of this number, if it is read.
    pub(super) fn read(self, number: u16) -> Option<Wire> {
        Wire::of(number).filter(|_| (self.oldest.number()..=self.newest.number()).contains(&number))
    }

    /// The newest version that is no newer than this number; the oldest, if there is none.
    pub(super) fn up_to(self, number: u16) -> Wire {
        Wire::of(number.clamp(self.oldest.number(), self.newest.number())).unwrap_or(self.oldest)
    }

    /// As other nodes are told.
    pub const fn versions(self) -> WireVersions {
        WireVersions { oldest: self.oldest.number(), newest: self.newest.number() }
    }
}

/// A message, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// In which version.
    pub wire: Wire,
    /// What it is in that version.
    pub bytes: Bytes,
}
