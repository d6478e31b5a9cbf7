//! What nodes tell of themselves, and what operators see of nodes, sessions and accounts.

use crate::protocol::{NodeId, SessionId, Timestamp, UserId};
use crate::session::state::E2ee;

/// Versions of the envelopes between nodes that a node reads, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireVersions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

/// What a node tells of itself with each renewal of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The program's version.
    pub program: String,
    /// What it reads of other nodes.
    pub wire: WireVersions,
    /// Open WebSocket connections.
    pub connections: u64,
    /// Sessions in its memory.
    pub sessions: u64,
    /// Whether it reaches the bus.
    pub bus_ok: bool,
}

/// A node's row. All times are by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Made anew at each start.
    pub node_id: NodeId,
    /// When it entered.
    pub started_at: Timestamp,
    /// Until when it counts as alive.
    pub expires_at: Timestamp,
    /// Its latest renewal with the bus in reach.
    pub bus_ok_at: Option<Timestamp>,
    /// Whether an operator asked it to drain.
    pub drain: bool,
    /// What it told with its latest renewal.
    pub report: NodeReport,
}

/// Where a session stands in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which session.
    pub session_id: SessionId,
    /// The version of its latest commit.
    pub version: u64,
    /// The latest event.
    pub last_seq: u64,
}

/// A session that has not ended, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSummary {
    /// Which.
    pub session_id: SessionId,
    /// What people call it.
    pub name: Option<String>,
    /// How many members it has.
    pub members: u64,
    /// Members without the current key, where it is encrypted.
    pub without_key: u64,
    /// The node that owns it; it may be dead.
    pub owner: Option<NodeId>,
    /// The version of its latest commit.
    pub version: u64,
    /// The latest event.
    pub last_seq: u64,
    /// Its time.
    pub last_time: Timestamp,
    /// Encryption, the epoch, and whether the key is being replaced.
    pub e2ee: E2ee,
}

/// Whether an account can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Live,
    /// An operator disabled it, at this time, and may enable it again.
    Disabled(Timestamp),
    /// Closed for good, at this time.
    Closed(Timestamp),
}

/// An account, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSummary {
    /// Who.
    pub user_id: UserId,
    /// The name that they log in with.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it can be used.
    pub standing: Standing,
    /// Sessions in which they are a member.
    pub sessions: u64,
    /// Tokens that are not removed, expired ones included.
    pub tokens: u64,
    /// Inbox events that they have not acknowledged.
    pub inbox: u64,
}

/// Figures for operators: how far room keys have come, without any key being seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCoverage {
    /// Members of encrypted sessions without the current key.
    pub without_key: u64,
    /// Rotations under way.
    pub rotations_open: u64,
    /// Milliseconds since the oldest of them began.
    pub oldest_ms: i64,
}
