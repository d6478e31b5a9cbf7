//! The rows that go in and out of a [`Store`](super::Store), beside the session's own records.

use std::fmt;

use crate::protocol::{ClientId, Frame, KeyEpoch, NodeId, Role, SessionId, Timestamp, UserId};
use crate::session::state::{Change, Head, Snapshot, Task};

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Who.
    pub user_id: UserId,
    /// The name that they log in with.
    pub name: String,
    /// What others see.
    pub display_name: Option<String>,
    /// argon2id, in PHC's string format.
    pub password_hash: String,
    /// Base64 of SPKI DER.
    pub public_key: String,
    /// Hex SHA-256 of the SPKI DER.
    pub fingerprint: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl fmt::Debug for UserRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRow").field("user_id", &self.user_id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A token, known by the SHA-256 of its bytes only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hash of a token>")
    }
}

/// Whose a live token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// Who.
    pub user_id: UserId,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A new public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPublicKey {
    /// Base64 of SPKI DER.
    pub public_key: String,
    /// Hex SHA-256 of the SPKI DER.
    pub fingerprint: String,
}

/// One session's part of a batch: all that was decided since its last commit.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionCommit {
    /// Which session.
    pub session_id: SessionId,
    /// The owner's claim.
    pub fence: u64,
    /// The version that the row must have; 0: the row is made by this commit, together with the claim.
    pub previous_version: u64,
    /// The version that it gets: `previous_version + 1`.
    pub version: u64,
    /// The latest event after it.
    pub last_seq: u64,
    /// Its time.
    pub last_time: Timestamp,
    /// Encrypted messages under the current key.
    pub key_messages: u64,
    /// Whether members lack the current key, or one is being made; for `Membership::wants_keys`.
    pub wants_keys: bool,
    /// The first event whose sender's own id is remembered; if there is none, the one after the latest. The store may
    /// look no further back for them.
    pub remembered_from: u64,
    /// The session's record, where it changed.
    pub head: Option<Head>,
    /// The creator's own id for a session made by this commit.
    pub client_session_id: Option<ClientId>,
    /// The answer to its `new_session`, as the JSON of the reply's body, to be given alike to a repeated one.
    pub creation_reply: Option<String>,
    /// What changed, in order.
    pub writes: Vec<Write>,
}

/// A change, and what it is on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What changed.
    pub change: Change,
    /// The frame of an `Event`, `Recall` or `Notice`, encoded once for store and members.
    pub frame: Option<Frame>,
}

/// Why a session's commit was not taken. Other sessions of the batch are not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Fence or version did not match: another node owns the session, or an earlier outcome was not what was thought.
    #[error("the session is owned elsewhere")]
    NotOwner,
    /// The creator has a session with this `client_session_id` already.
    #[error("the session was made before")]
    AlreadyMade,
    /// The store refused a row, or was not there; nothing of this commit is stored.
    #[error("not stored: {0}")]
    Refused(String),
    /// The connection died with the transaction's outcome unknown.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// More commits are waiting than the node takes.
    #[error("too many commits are waiting")]
    Overloaded,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// This node owns it, with a fence higher than any before.
    Mine(Box<Claimed>),
    /// Another live node owns it.
    OwnedBy(NodeId),
    /// There is no such session, or it ended.
    NoSession,
}

/// A session that was just claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// To be shown with every commit.
    pub fence: u64,
    /// The version of the row.
    pub version: u64,
    /// What it is.
    pub snapshot: Snapshot,
    /// What it has to take in first.
    pub tasks: Vec<Task>,
}

/// What a user is to a session, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// There is no such session, or it ended.
    NoSession,
    /// Banned.
    Banned,
    /// Neither member nor banned.
    Stranger,
    /// A member.
    Member {
        /// Their role.
        role: Role,
        /// The first event that they may see.
        first_seq: u64,
        /// The session's latest event.
        last_seq: u64,
        /// The session's current epoch, where it is encrypted and has one.
        key_epoch: Option<KeyEpoch>,
    },
}

/// One stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place.
    pub seq: u64,
    /// The commit that it came with.
    pub version: u64,
    /// Its JSON text.
    pub json: Box<str>,
}

/// One inbox event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Its name.
    pub inbox_id: crate::protocol::InboxId,
    /// The session that made it.
    pub session_id: SessionId,
    /// The commit that it came with.
    pub version: u64,
    /// Whether a room key is in it.
    pub holds_key: bool,
    /// Its JSON text.
    pub json: Box<str>,
}

/// Which events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRange {
    /// Those after `after`, up to `up_to` where given, the oldest first.
    After {
        /// Exclusive.
        after: u64,
        /// Inclusive.
        up_to: Option<u64>,
    },
    /// Those before, from `from` on: the youngest of them, still in ascending order.
    Before {
        /// Exclusive.
        before: u64,
        /// Inclusive.
        from: u64,
    },
}

/// One line of [`super::Store::sessions_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// As the client is told.
    pub overview: crate::protocol::SessionOverview,
    /// The version of the session's row.
    pub version: u64,
    /// Whether the session has members without its current key, or a rotation open.
    pub wants_keys: bool,
}

/// An `ack` to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRow {
    /// Where.
    pub session_id: SessionId,
    /// Who.
    pub user_id: UserId,
    /// Up to where.
    pub seq: u64,
}

/// How much is kept; what is older or more is removed by [`super::Store::prune`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Unacknowledged inbox events per user; the oldest go first.
    pub inbox_per_user: u64,
    /// Milliseconds that an ended session's history and the memory of departures are kept.
    pub ended_ms: i64,
    /// The most rows that one call removes of each kind.
    pub batch: u64,
}
