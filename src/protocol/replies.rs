//! Replies: what a request that was not refused is answered with.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Base64Text, ErrorCode, JoinPolicy, KeyEpoch, Role, SessionId, Timestamp, UserId};

/// The body of any reply. On the wire it is the body alone: the request's type says which it is.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// `{}`.
    Done {},
    /// To `authenticate`.
    Authenticated(Box<Authenticated>),
    /// To `resume`.
    Resumed(Resumed),
    /// To `new_session`.
    NewSession {
        /// The new session.
        session_id: SessionId,
        /// 1 where it is encrypted.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
        /// Who was not invited, and why.
        failed_members: Vec<FailedMember>,
    },
    /// To `join_session`.
    Join {
        /// In, or to be decided.
        status: JoinStatus,
    },
    /// To `send_room_keys`.
    RoomKeys {
        /// Who was not sent the key, and why.
        failed_members: Vec<FailedMember>,
    },
    /// To `fetch_room_keys`.
    FetchRoomKeys(RoomKeysPage),
    /// To `send_msg`.
    Sent {
        /// The message's place.
        seq: u64,
        /// When it was taken.
        time: Timestamp,
    },
    /// To `e2eeize_session`.
    E2eeized {
        /// The epoch that the caller is asked for.
        key_epoch: KeyEpoch,
    },
    /// To `get_session_info`.
    SessionInfo(Box<SessionInfo>),
    /// To `list_members`.
    Members(MembersPage),
    /// To `fetch_msgs`.
    Msgs(MsgsPage),
    /// To `ping`.
    Pong {
        /// The server's time.
        time: Timestamp,
    },
}

/// A member of a list for whom a request could not be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedMember {
    /// Who.
    pub user_id: UserId,
    /// Why.
    pub reason: ErrorCode,
}

/// How a join request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinStatus {
    /// A member.
    Joined,
    /// To be decided by an owner or admin.
    Pending,
}

/// The reply to `authenticate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authenticated {
    /// Who the connection is.
    pub user_id: UserId,
    /// The node that it is on.
    pub node: String,
    /// What the node takes.
    pub limits: PublicLimits,
    /// The user's sessions.
    pub sessions: Vec<SessionOverview>,
}

/// Limits that a client should know beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicLimits {
    /// The largest frame.
    pub frame_bytes: usize,
    /// Requests without a reply, per connection.
    pub requests_in_flight: usize,
    /// Requests each second, per user.
    pub requests_per_s: u32,
}

/// One of the user's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOverview {
    /// Which.
    pub session_id: SessionId,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is end-to-end encrypted.
    pub e2ee_on: bool,
    /// The current epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<KeyEpoch>,
    /// Whether the user has been sent the current key.
    pub has_key: bool,
    /// The user's role.
    pub role: Role,
    /// The user's own latest `MemberJoined`: the first event that they may see.
    pub first_seq: u64,
    /// The latest event.
    pub last_seq: u64,
    /// The latest event that the user said to have.
    pub acked_seq: u64,
    /// The history that these numbers are of; opaque.
    pub log: String,
}

/// The reply to `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Every session of the user, and where its events go on.
    pub sessions: Vec<ResumedSession>,
    /// Cursors whose session the user is no longer in.
    pub gone: Vec<Gone>,
}

/// Where a session's events go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedSession {
    /// Which.
    pub session_id: SessionId,
    /// The first event that follows.
    pub from_seq: u64,
    /// Present and true where the cursor was of another history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// A session that the user is no longer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Which.
    pub session_id: SessionId,
    /// Why.
    pub reason: GoneReason,
}

/// Why a session is gone for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// The user left.
    Left,
    /// The user was removed.
    Kicked,
    /// The user was banned.
    Banned,
    /// The session ended.
    Deleted,
}

/// A page of wrapped keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomKeysPage {
    /// By epoch, ascending.
    pub room_keys: Vec<RoomKeyView>,
    /// Whether there are further ones.
    pub more: bool,
}

/// A wrapped key that was sent to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomKeyView {
    /// Its epoch.
    pub key_epoch: KeyEpoch,
    /// Who sent it.
    pub user_id: UserId,
    /// The room key, wrapped for the caller.
    pub room_key: Base64Text,
    /// Its check value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_check: Option<Base64Text>,
    /// The sender's signature over the check value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Base64Text>,
}

/// The reply to `get_session_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Which.
    pub session_id: SessionId,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is end-to-end encrypted.
    pub e2ee_on: bool,
    /// The current epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<KeyEpoch>,
    /// Whether plain messages are refused while encryption is on.
    pub require_encryption: bool,
    /// Whether the room key is replaced when someone joined.
    pub rotate_on_join: bool,
    /// Who comes in by `join_session`.
    pub join_policy: JoinPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// The latest event.
    pub last_seq: u64,
    /// How many members there are.
    pub member_count: u64,
    /// The first 1,000 by joining.
    pub members: Vec<MemberView>,
    /// Open join requests, for owner and admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_requests: Option<Vec<JoinRequestView>>,
    /// Open invitations, for owner and admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invitations: Option<Vec<InvitationView>>,
}

/// A member, as members see each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Who.
    pub user_id: UserId,
    /// Their account's name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// When they came in.
    pub joined_at: Timestamp,
    /// Whether they have been sent the current room key.
    pub has_key: bool,
    /// Until when they may not speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Timestamp>,
    /// Whether they may not speak.
    pub muted: bool,
}

/// An open join request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequestView {
    /// Who asks.
    pub user_id: UserId,
    /// What they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave_message: Option<String>,
    /// Since when.
    pub time: Timestamp,
}

/// An open invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationView {
    /// Who is asked in.
    pub user_id: UserId,
    /// Who asked.
    pub inviter_id: UserId,
    /// Until when it stands.
    pub expire_timestamp: Timestamp,
}

/// The reply to `list_members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// By `user_id`, ascending.
    pub members: Vec<MemberView>,
    /// Whether there are further ones.
    pub more: bool,
}

/// The reply to `fetch_msgs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MsgsPage {
    /// Event frames, ascending.
    pub events: Vec<Box<RawValue>>,
    /// Whether there are further ones in the direction asked for.
    pub more: bool,
}
