//! The envelope of a message between nodes: sealed with the cluster's secret, so that the bus passes on what it can
//! neither read nor make.
//!
//! Pure: the secret, counters and messages come in as arguments. Layout: version (2 bytes), sender (16), lane (4),
//! counter (8), big-endian; then kind (1) and payload under AES-256-GCM, and its tag (16). The key is HMAC-SHA-256 of
//! the sender's id with the secret; the nonce is lane and counter; the head and the name of the channel are
//! authenticated with the rest. Invariants:
//! 1. No nonce comes twice under a key: a node's id is of one start of its process, and each lane counts up.
//! 2. Within a lane, which is one connection of a sender, an opener gives out greater counters only: nothing twice, and
//!    nothing behind what came later.
//! 3. Whoever does not know the secret changes nothing in an opener.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::wire::{Message, Range, Wire};
use crate::protocol::NodeId;

/// Bytes before what is encrypted.
const HEAD: usize = 30;
const TAG: usize = 16;

/// Bytes that an envelope adds to its payload.
pub(super) const OVERHEAD: usize = HEAD + 1 + TAG;

/// Senders that an opener remembers. A node restarts with another id, so old ones pile up; the one not heard of for the
/// longest goes first.
const SENDERS: usize = 1024;

/// Lanes of one sender that an opener remembers; the oldest goes first.
const LANES: usize = 1024;

/// What all nodes of a cluster know, and nobody else.
#[derive(Clone)]
pub struct ClusterSecret(Zeroizing<Vec<u8>>);

impl ClusterSecret {
    /// The least bytes of a secret.
    pub const MIN_BYTES: usize = 32;

    /// A secret, if it is long enough.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::MIN_BYTES).then(|| Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The cipher of one start of one node.
    fn cipher(&self, sender: NodeId) -> Aes256Gcm {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"conclave bus 1");
        mac.update(sender.as_bytes());
        let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        Aes256Gcm::new_from_slice(key.as_slice()).expect("a SHA-256 has the length of an AES-256 key")
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecret({} bytes)", self.0.len())
    }
}

/// What an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Brings a message.
    Message,
    /// Says that messages on this channel were lost on their way.
    Missed,
    /// Comes back to its sender, and proves that it can.
    Probe,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Message => 0,
            Self::Missed => 1,
            Self::Probe => 2,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Message),
            1 => Some(Self::Missed),
            2 => Some(Self::Probe),
            _ => None,
        }
    }
}

/// Why an envelope was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    /// It is no envelope.
    #[error("it is no envelope")]
    Damaged,
    /// This release does not read its version.
    #[error("this release does not read its version")]
    Version,
    /// Whoever made it does not know the secret, or meant it for another channel.
    #[error("its signature is wrong")]
    Signature,
    /// It came before, or something behind it did.
    #[error("it came before")]
    Replayed,
}

impl Rejected {
    /// For metrics and logs.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Version => "version",
            Self::Signature => "signature",
            Self::Replayed => "replayed",
        }
    }
}

/// Makes the envelopes of one node.
pub(super) struct Sealer {
    sender: NodeId,
    cipher: Aes256Gcm,
}

impl Sealer {
    /// For this start of this node.
    pub(super) fn new(secret: &ClusterSecret, sender: NodeId) -> Self {
        Self { sender, cipher: secret.cipher(sender) }
    }

    /// Seals a payload for a channel. The caller never uses a counter of a lane twice.
    pub(super) fn seal(
        &self,
        wire: Wire,
        (lane, counter): (u32, u64),
        channel: &str,
        kind: Kind,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + OVERHEAD);
        out.extend_from_slice(&wire.number().to_be_bytes());
        out.extend_from_slice(self.sender.as_bytes());
        out.extend_from_slice(&lane.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        let bound = bound(&out, channel);
        out.push(kind.byte());
        out.extend_from_slice(payload);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(lane, counter), &bound, (&mut out[HEAD..]).into())
            .expect("messages are far below AES-GCM's 64 GiB: the bus refuses longer ones");
        out.extend_from_slice(&tag);
        out
    }
}

/// A message as it was meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Who sent it.
    pub(super) sender: NodeId,
    /// What for.
    pub(super) kind: Kind,
    /// With what.
    pub(super) message: Message,
}

/// Opens the envelopes of all nodes.
pub(super) struct Opener {
    secret: ClusterSecret,
    range: Range,
    senders: HashMap<NodeId, Sender>,
    /// How many were opened: an age for senders.
    opened: u64,
}

struct Sender {
    cipher: Aes256Gcm,
    /// The greatest counter of each lane.
    lanes: BTreeMap<u32, u64>,
    heard: u64,
}

impl Opener {
    /// Knows nobody yet.
    pub(super) fn new(secret: ClusterSecret, range: Range) -> Self {
        Self { secret, range, senders: HashMap::new(), opened: 0 }
    }

    /// Who claims to have sent it; nothing is proven.
    pub(super) fn claimed(message: &[u8]) -> Option<NodeId> {
        message.get(2..18)?.try_into().ok().map(NodeId::from_bytes)
    }

    /// Opens what came on a channel.
    ///
    /// # Errors
    /// If it is not to be believed.
    pub(super) fn open(&mut self, channel: &str, mut message: Vec<u8>) -> Result<Opened, Rejected> {
        if message.len() < OVERHEAD {
            return Err(Rejected::Damaged);
        }
        let wire = self.range.read(u16::from_be_bytes(take(&message, 0))).ok_or(Rejected::Version)?;
        let sender = Self::claimed(&message).ok_or(Rejected::Damaged)?;
        let lane = u32::from_be_bytes(take(&message, 18));
        let counter = u64::from_be_bytes(take(&message, 22));
        let known = self.senders.get(&sender);
        if known.and_then(|known| known.lanes.get(&lane)).is_some_and(|last| counter <= *last) {
            return Err(Rejected::Replayed);
        }
        let made;
        let cipher = match known {
            Some(known) => &known.cipher,
            None => {
                made = self.secret.cipher(sender);
                &made
            }
        };
        let tag = Tag::from(take::<TAG>(&message, message.len() - TAG));
        message.truncate(message.len() - TAG);
        let bound = bound(&message[..HEAD], channel);
        cipher
            .decrypt_inout_detached(&nonce(lane, counter), &bound, (&mut message[HEAD..]).into(), &tag)
            .map_err(|_| Rejected::Signature)?;
        self.heard(sender, lane, counter);
        let kind = Kind::of(message[HEAD]).ok_or(Rejected::Damaged)?;
        let bytes = Bytes::from(message).slice(HEAD + 1..);
        Ok(Opened { sender, kind, message: Message { wire, bytes } })
    }

    /// Remembers an envelope that was genuine.
    fn heard(&mut self, id: NodeId, lane: u32, counter: u64) {
        self.opened += 1;
        if !self.senders.contains_key(&id) && self.senders.len() >= SENDERS {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.senders.remove(&oldest));
        }
        let secret = &self.secret;
        let sender = self.senders.entry(id).or_insert_with(|| Sender {
            cipher: secret.cipher(id),
            lanes: BTreeMap::new(),
            heard: 0,
        });
        sender.heard = self.opened;
        sender.lanes.insert(lane, counter);
        if sender.lanes.len() > LANES {
            sender.lanes.pop_first();
        }
    }
}

/// What is authenticated and not encrypted.
fn bound(head: &[u8], channel: &str) -> Vec<u8> {
    [head, channel.as_bytes()].concat()
}

fn nonce(lane: u32, counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&lane.to_be_bytes());
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

fn take<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    message[at..at + N].try_into().expect("the length was looked at")
}

#[cfg(test)]
mod tests;
