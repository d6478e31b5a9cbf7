//! What came of a command, and the draft in which it grows.

use crate::protocol::{InboxId, InboxNotice, KeyEpoch, NoticeBody, Refusal, Reply, Timestamp, UserId};

use super::{Change, SessionState};

/// What came of a command, a task or the passing of time.
///
/// Nothing of it is true for anybody outside before `changes` are durable; a refusal too waits for them.
#[must_use = "a decision that is dropped leaves memory ahead of the store"]
#[derive(Clone, Debug)]
pub struct Decision {
    /// The answer. A refused command changes nothing by itself, but time may have passed, and a message that was
    /// refused for want of encryption may make its sender the rotator.
    pub outcome: Result<Reply, Refusal>,
    /// What to store and tell, in order.
    pub changes: Vec<Change>,
    /// Whether the session's head changed.
    pub head_changed: bool,
}

/// What a member's client is to be asked, in the order in which it is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskFor {
    /// To make a new room key.
    NewKey {
        /// Who is asked.
        to: UserId,
        /// The epoch that it will be.
        epoch: KeyEpoch,
    },
    /// To encrypt a key for a member.
    Key {
        /// Who is asked.
        to: UserId,
        /// For whom.
        member: UserId,
        /// Which key.
        epoch: KeyEpoch,
    },
}

impl AskFor {
    /// Who is asked.
    pub const fn to(&self) -> UserId {
        match self {
            Self::NewKey { to, .. } | Self::Key { to, .. } => *to,
        }
    }
}

/// A decision in the making.
pub(super) struct Draft {
    /// The moment of the decision; not before the session's latest event.
    pub(super) now: Timestamp,
    pub(super) changes: Vec<Change>,
    pub(super) head_changed: bool,
}

impl Draft {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { now, changes: Vec::new(), head_changed: false }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn into_decision(self, outcome: Result<Reply, Refusal>) -> Decision {
        Decision { outcome, changes: self.changes, head_changed: self.head_changed }
    }
}

impl SessionState {
    /// Adds an event with the next `seq`.
    pub(super) fn emit(&mut self, draft: &mut Draft, by: Option<UserId>, what: impl Into<crate::protocol::Happening>) {
        self.last_seq += 1;
        self.last_time = draft.now;
        draft.push(Change::Event(crate::protocol::SessionEvent {
            session_id: self.head.session_id,
            seq: self.last_seq,
            time: draft.now,
            by,
            what: what.into(),
        }));
    }

    /// Adds an inbox event of one user; its name.
    pub(super) fn notify(
        &mut self,
        draft: &mut Draft,
        user_id: UserId,
        body: NoticeBody,
        lapses_at: Option<Timestamp>,
    ) -> InboxId {
        let inbox_id = self.next_inbox_id(draft);
        let notice = InboxNotice { inbox_id: inbox_id.clone(), body };
        draft.push(Change::Notice(user_id, notice, lapses_at));
        inbox_id
    }

    /// Names an inbox event that is put together later.
    pub(super) fn next_inbox_id(&mut self, draft: &mut Draft) -> InboxId {
        let inbox_id = InboxId::of(self.head.session_id, self.head.next_inbox);
        self.head.next_inbox += 1;
        draft.head_changed = true;
        inbox_id
    }
}
