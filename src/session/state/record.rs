//! What a session is made of, and what of it is stored: the records that the state holds in memory, that its changes
//! carry to the store, and that a snapshot brings back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Base64Text, ClientId, InboxId, InboxNotice, JoinPolicy, KeyEpoch, LeftReason, Role, SessionEvent, SessionId,
    Timestamp, UserId,
};

/// The one record of a session itself; everything that grows with the members is a record of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which session.
    pub session_id: SessionId,
    /// Who made it.
    pub creator: UserId,
    /// When.
    pub created_at: Timestamp,
    /// What people call it.
    pub name: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// Whether plain messages are refused while encryption is on.
    pub require_encryption: bool,
    /// Whether the room key is replaced when someone joined.
    pub rotate_on_join: bool,
    /// Who comes in by `join_session`.
    pub join_policy: JoinPolicy,
    /// Encryption, the room key's epochs, and the rotation.
    pub e2ee: E2ee,
    /// The number of the next inbox event that this session makes.
    pub next_inbox: u64,
    /// Who let a rotation lapse, and until when they are passed over.
    pub passed_over: BTreeMap<UserId, PassedOver>,
    /// Answers that were "no", so that a repeated one is answered alike; the oldest go first.
    pub declined: Vec<Declined>,
    /// Whether it was deleted, or its last member left.
    pub ended: bool,
}

/// Encryption of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum E2ee {
    /// Plain; `last_epoch` remembers which numbers are spent (0: none).
    Off {
        /// The highest number ever given out.
        last_epoch: u64,
    },
    /// Encrypted.
    On(KeyState),
}

/// The room key of an encrypted session, as far as the server knows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyState {
    /// The epoch in use; none before the first rotation after switching on.
    pub current: Option<CurrentKey>,
    /// The highest number ever given out.
    pub last_epoch: u64,
    /// Whether and how the key is being replaced.
    pub phase: Phase,
}

/// The epoch in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurrentKey {
    /// Its number.
    pub epoch: KeyEpoch,
    /// Its check value: the first one stored stands.
    pub key_check: Option<Base64Text>,
    /// Since when it is in use.
    pub since: Timestamp,
}

/// Where the replacement of the room key stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to do.
    Steady,
    /// The first member to speak replaces the key.
    Marked {
        /// Why.
        reasons: BTreeSet<MarkReason>,
    },
    /// A member is replacing it.
    Rotating(Rotation),
}

/// Why a session is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkReason {
    /// The key is older than its lifetime.
    Age,
    /// The key has covered its number of messages.
    Messages,
    /// Somebody is no longer a member.
    Left,
    /// Somebody joined, and the session rotates on that.
    Joined,
    /// A rotation came to nothing.
    Void,
    /// No member holds the current key any more.
    NoHolder,
}

impl MarkReason {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Messages => "messages",
            Self::Left => "left",
            Self::Joined => "joined",
            Self::Void => "void",
            Self::NoHolder => "no_holder",
        }
    }
}

/// A rotation: a lease on the next epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// The number that the new key will have.
    pub epoch: KeyEpoch,
    /// Who makes it, or hands on what another made.
    pub rotator: UserId,
    /// The new key's check value, once it is known.
    pub key_check: Option<Base64Text>,
    /// Whether a `send_room_key(s)` has come.
    pub started: bool,
    /// When it lapses.
    pub deadline: Timestamp,
    /// Why the session was marked before; a rotation on demand has none.
    pub reasons: BTreeSet<MarkReason>,
    /// Since when.
    pub since: Timestamp,
}

/// How long somebody who let a rotation lapse is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Until when.
    pub until: Timestamp,
    /// How many lapses in a row.
    pub times: u32,
}

/// An answer that was "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// Whose request or invitation it was.
    pub user_id: UserId,
    /// Who had invited them; none for a join request.
    pub inviter_id: Option<UserId>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
    /// Since when.
    pub joined_at: Timestamp,
    /// The `seq` of their `MemberJoined`: the first event that they may see.
    pub first_seq: u64,
    /// What they have of the room keys.
    pub keys: MemberKeys,
}

/// What a member has of the room keys. They have the key of epoch `e` if `held` or `sent` is `e`: a finished rotation
/// makes `sent` the current epoch without writing one record, and a void one leaves a number that is never current.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberKeys {
    /// An epoch whose key they hold.
    pub held: Option<KeyEpoch>,
    /// The epoch whose key was stored for them last.
    pub sent: Option<KeyEpoch>,
    /// The highest epoch whose key they may know, though it counts as lost since.
    pub exposed: Option<KeyEpoch>,
    /// The epoch whose rotator withheld the key from them.
    pub withheld: Option<KeyEpoch>,
    /// Holders who will not give them the current key.
    pub withheld_by: Vec<UserId>,
    /// The inbox event with the latest of these keys, to be taken back with it.
    pub notice: Option<InboxId>,
}

impl MemberKeys {
    /// Whether they have the key of `epoch`.
    pub fn has(&self, epoch: KeyEpoch) -> bool {
        self.held == Some(epoch) || self.sent == Some(epoch)
    }

    /// Notes that they know the key of `next`, which is still to become the current one.
    pub(super) fn take_next(&mut self, next: KeyEpoch, current: Option<KeyEpoch>) {
        // `sent` moves on; what it said of the current epoch is kept in `held`.
        if self.sent.is_some() && self.sent == current {
            self.held = current;
        }
        self.sent = Some(next);
        self.exposed = self.exposed.max(Some(next));
    }
}

/// Until when something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Without end.
    Forever,
    /// Up to this moment.
    At(Timestamp),
}

impl Until {
    /// Whether it still holds at `now`.
    pub fn holds(self, now: Timestamp) -> bool {
        match self {
            Self::Forever => true,
            Self::At(end) => now < end,
        }
    }

    /// The end, if there is one.
    pub const fn end(self) -> Option<Timestamp> {
        match self {
            Self::Forever => None,
            Self::At(end) => Some(end),
        }
    }
}

/// What a user may not do here, member or not: it outlives their leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// May not speak.
    pub muted: Option<Until>,
    /// May not come in.
    pub banned: Option<Until>,
}

/// An open join request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who asks.
    pub user_id: UserId,
    /// What they say.
    pub leave_message: Option<String>,
    /// Their public key, base64 of SPKI DER.
    pub public_key: String,
    /// Since when.
    pub time: Timestamp,
    /// Who was told of it, and by which inbox event.
    pub notices: Vec<(UserId, InboxId)>,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Who is asked in.
    pub invitee: UserId,
    /// Who asked.
    pub inviter: UserId,
    /// When it lapses.
    pub expires_at: Timestamp,
    /// Whether it lapsed before: its inviter is no longer a member, or the invitee was banned.
    pub lapsed: bool,
    /// The inbox event that told of it.
    pub notice: InboxId,
}

/// A message's own id, remembered so that a repeated one is not stored twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentMsg {
    /// Who sent it.
    pub sender: UserId,
    /// What they called it.
    pub client_msg_id: ClientId,
    /// Its place.
    pub seq: u64,
    /// When it was taken.
    pub time: Timestamp,
}

/// A wrapped room key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// For whom.
    pub user_id: UserId,
    /// Which epoch.
    pub epoch: KeyEpoch,
    /// Who sent it.
    pub sender: UserId,
    /// The wrapped key.
    pub room_key: Base64Text,
    /// The room key's check value.
    pub key_check: Option<Base64Text>,
    /// The sender's signature over it.
    pub signature: Option<Base64Text>,
}

/// What changed outside that a session has to take in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The row, to be consumed with the commit that takes it in.
    pub id: i64,
    /// Whose account.
    pub user_id: UserId,
    /// What happened to it.
    pub kind: TaskKind,
}

/// What happened to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Closed or disabled: its user leaves.
    Closed,
    /// It has a new public key, with this fingerprint.
    PublicKeyChanged(String),
}

/// One change of what is stored, in the order in which it was decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A member came in, or changed.
    PutMember(Member),
    /// A member is no longer one; why is remembered for `resume`.
    RemoveMember(UserId, LeftReason),
    /// A restriction; an empty one is removed.
    PutRestriction(UserId, Restriction),
    /// A join request was opened.
    PutJoinRequest(JoinRequest),
    /// It was decided.
    RemoveJoinRequest(UserId),
    /// An invitation was made, or lapsed.
    PutInvitation(Invitation),
    /// It was answered: invitee, inviter.
    RemoveInvitation(UserId, UserId),
    /// A wrapped key; it replaces one of the same epoch for the same user.
    PutRoomKey(StoredKey),
    /// All keys of a void epoch.
    DropEpoch(KeyEpoch),
    /// One user's key of one epoch.
    DropRoomKey(UserId, KeyEpoch),
    /// All that a user was sent here: keys, and inbox events with keys in them.
    DropKeysOf(UserId),
    /// An event, for all members.
    Event(SessionEvent),
    /// A message whose text is gone: it stands in for the event with its `seq`.
    Recall(SessionEvent),
    /// An inbox event, with the moment after which it is not delivered any more.
    Notice(UserId, InboxNotice, Option<Timestamp>),
    /// Inbox events that no longer matter.
    Withdraw(UserId, Vec<InboxId>),
    /// A message whose own id is no longer remembered. The oldest of a session go first.
    Forget(RecentMsg),
    /// A task was taken in.
    TaskDone(i64),
    /// The session ended: no members, no keys, no requests from now on.
    End,
}

/// Everything that the state is made of, as the store brings it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The session.
    pub head: Head,
    /// The latest event.
    pub last_seq: u64,
    /// Its time.
    pub last_time: Timestamp,
    /// Encrypted messages under the current key.
    pub key_messages: u64,
    /// In any order.
    pub members: Vec<Member>,
    /// In any order.
    pub restrictions: Vec<(UserId, Restriction)>,
    /// In any order.
    pub join_requests: Vec<JoinRequest>,
    /// In any order.
    pub invitations: Vec<Invitation>,
    /// By time, ascending.
    pub recent: Vec<RecentMsg>,
}
