//! Users, sessions and commits to feed a store with.

use std::collections::BTreeMap;

use crate::protocol::{
    ClientId, Frame, Happening, InboxId, InboxNotice, JoinPolicy, MemberJoined, Msg, NodeId, NoticeBody, Role,
    SessionEvent, SessionId, Timestamp, UserId,
};
use crate::session::state::{Change, E2ee, Head, Member, MemberKeys};
use crate::store::{CommitError, NodeReport, SessionCommit, Store, UserRow, WireVersions, Write};

/// The node that commits.
pub(crate) const NODE: NodeId = NodeId::from_bytes([0x0a; 16]);
/// Another node.
pub(crate) const OTHER: NodeId = NodeId::from_bytes([0x0b; 16]);

/// What a node tells of itself.
pub(crate) fn report() -> NodeReport {
    let wire = WireVersions { oldest: 1, newest: 2 };
    NodeReport { program: "1.2.3".to_owned(), wire, connections: 7, sessions: 3, bus_ok: true }
}

/// The `n`th user.
pub(crate) fn user(n: u8) -> UserId {
    UserId::from_bytes([1, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, n])
}

/// The account of the `n`th user.
pub(crate) fn account(n: u8) -> UserRow {
    UserRow {
        user_id: user(n),
        name: format!("user-{n}"),
        display_name: Some(format!("User {n}")),
        password_hash: "a hash".to_owned(),
        public_key: format!("key of {n}"),
        fingerprint: format!("fingerprint of {n}"),
        created_at: Timestamp::from_millis(1_000),
    }
}

/// A change with the frame that it has in a commit.
fn write(change: Change) -> Write {
    let frame = match &change {
        Change::Event(event) | Change::Recall(event) => Some(Frame::text(&event.encode())),
        Change::Notice(_, notice, _) => Some(Frame::text(&notice.encode())),
        _ => None,
    };
    Write { change, frame }
}

/// A session as its owner has it in mind.
pub(crate) struct Session {
    pub(crate) head: Head,
    pub(crate) fence: u64,
    pub(crate) version: u64,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) wants_keys: bool,
    pub(crate) remembered_from: u64,
    inbox: u64,
}

impl Session {
    /// The `n`th session; not stored yet.
    pub(crate) fn new(n: u8, creator: UserId) -> Self {
        let session_id = SessionId::from_bytes([2, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, n]);
        let time = Timestamp::from_millis(10_000);
        let head = Head {
            session_id,
            creator,
            created_at: time,
            name: Some(format!("session {n}")),
            description: None,
            require_encryption: false,
            rotate_on_join: true,
            join_policy: JoinPolicy::Approval,
            e2ee: E2ee::Off { last_epoch: 0 },
            next_inbox: 1,
            passed_over: BTreeMap::new(),
            declined: Vec::new(),
            ended: false,
        };
        Self { head, fence: 1, version: 0, seq: 0, time, wants_keys: false, remembered_from: 1, inbox: 0 }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.head.session_id
    }

    /// The commit that makes it, with its creator as owner.
    pub(crate) fn making(&mut self) -> SessionCommit {
        let creator = self.head.creator;
        let joined = self.happens(Happening::MemberJoined(MemberJoined { user_id: creator, role: Role::Owner }));
        let member = self.member(creator, Role::Owner);
        let mut commit = self.commit([Change::PutMember(member), joined]);
        commit.head = Some(self.head.clone());
        commit
    }

    /// Makes it in the store.
    pub(crate) async fn made(mut self, store: &dyn Store) -> Self {
        let commit = self.making();
        assert_eq!(store.commit(NODE, &[commit]).await, [Ok(())]);
        self
    }

    /// The next commit.
    pub(crate) fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> SessionCommit {
        self.version += 1;
        SessionCommit {
            session_id: self.id(),
            fence: self.fence,
            previous_version: self.version - 1,
            version: self.version,
            last_seq: self.seq,
            last_time: self.time,
            key_messages: 0,
            wants_keys: self.wants_keys,
            remembered_from: self.remembered_from,
            head: None,
            client_session_id: None,
            creation_reply: None,
            writes: changes.into_iter().map(write).collect(),
        }
    }

    /// Commits these changes, and the record of the session with them.
    pub(crate) async fn put(&mut self, store: &dyn Store, changes: impl IntoIterator<Item = Change>) {
        assert_eq!(self.try_put(store, changes).await, Ok(()));
    }

    pub(crate) async fn try_put(
        &mut self,
        store: &dyn Store,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), CommitError> {
        let mut commit = self.commit(changes);
        commit.head = Some(self.head.clone());
        store.commit(NODE, &[commit]).await.remove(0)
    }

    /// The next event.
    pub(crate) fn happens(&mut self, what: Happening) -> Change {
        self.seq += 1;
        self.time = self.time.plus_millis(1);
        Change::Event(SessionEvent { session_id: self.id(), seq: self.seq, time: self.time, by: None, what })
    }

    /// The next message.
    pub(crate) fn says(&mut self, sender_id: UserId, text: &str, id: Option<&str>) -> Change {
        self.happens(Happening::Msg(message(sender_id, text, id)))
    }

    /// What stands in for the message `seq`.
    pub(crate) fn recall(&self, seq: u64, sender_id: UserId) -> Change {
        let what = Happening::Msg(Msg { recalled: true, ..message(sender_id, "", None) });
        Change::Recall(SessionEvent { session_id: self.id(), seq, time: self.time, by: None, what })
    }

    /// A member who joined with the latest event.
    pub(crate) fn member(&self, user_id: UserId, role: Role) -> Member {
        let (joined_at, first_seq) = (self.time, self.seq);
        Member { user_id, role, joined_at, first_seq, keys: MemberKeys::default() }
    }

    /// The next inbox event, and its name.
    pub(crate) fn notice(&mut self, to: UserId, body: NoticeBody, expires_at: Option<Timestamp>) -> (InboxId, Change) {
        self.inbox += 1;
        let inbox_id = InboxId::of(self.id(), self.inbox);
        (inbox_id.clone(), Change::Notice(to, InboxNotice { inbox_id, body }, expires_at))
    }

    /// An invitation for the inbox.
    pub(crate) fn invites(&self, inviter_id: UserId) -> NoticeBody {
        let (session_id, expire_timestamp) = (self.id(), self.time);
        NoticeBody::InviteUserToSession { session_id, inviter_id, leave_message: None, expire_timestamp }
    }
}

fn message(sender_id: UserId, text: &str, id: Option<&str>) -> Msg {
    Msg {
        sender_id,
        markdown_text: text.to_owned(),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: id.map(|id| ClientId(id.into())),
        content_type: None,
        recalled: false,
    }
}
