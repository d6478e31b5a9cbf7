//! From decisions to what leaves the session: rows for the store, a publication for members, signals for others.

use std::collections::BTreeSet;

use crate::cluster::{Effect, Publication, Row, UserSignal};
use crate::connection::{ConnectionKey, ReplySlot};
use crate::protocol::{Frame, Happening, InboxId, Refusal, Reply, SessionEvent, SessionId, UserId};
use crate::session::state::{AskFor, Change, Decision};
use crate::store::Write;

/// All that was decided since the last commit was handed to the store. It leaves as one.
#[derive(Default)]
pub(super) struct Outgoing {
    /// For the store.
    pub(super) writes: Vec<Write>,
    /// Whether the session's head goes with them.
    pub(super) head_changed: bool,
    /// The answers that wait for it.
    pub(super) answers: Vec<(ReplySlot, Result<Reply, Refusal>)>,
    /// Who is asked for keys behind it.
    pub(super) asks: Vec<(ConnectionKey, AskFor)>,
    directed: Vec<Row>,
    events: Vec<Row>,
    signals: Vec<(UserId, UserSignal)>,
    newcomers: BTreeSet<UserId>,
}

impl Outgoing {
    /// Takes a decision's changes, in order. `is_member` tells who is a member after it.
    pub(super) fn take(&mut self, decision: &mut Decision, is_member: impl Fn(UserId) -> bool) {
        self.head_changed |= decision.head_changed;
        let changes = std::mem::take(&mut decision.changes);
        let joined = changes.iter().filter_map(newcomer);
        self.newcomers.extend(joined);
        let gone: BTreeSet<UserId> = changes.iter().filter_map(leaver).collect();
        for change in changes {
            let inside =
                |user_id: UserId| (is_member(user_id) || gone.contains(&user_id)) && !self.newcomers.contains(&user_id);
            let frame = match &change {
                Change::Event(event) => {
                    let frame = Frame::text(&event.encode());
                    let row = Row::Event { seq: event.seq, effect: effect(event), frame: frame.clone() };
                    self.events.push(row);
                    Some(frame)
                }
                Change::Recall(event) => Some(Frame::text(&event.encode())),
                Change::Notice(user_id, notice, _) => {
                    let frame = Frame::text(&notice.encode());
                    if !inside(*user_id) {
                        self.signals.push((*user_id, UserSignal::Wake));
                    }
                    self.directed.push(Row::Notice {
                        user_id: *user_id,
                        inbox_id: notice.inbox_id.clone(),
                        holds_key: notice.body.holds_key(),
                        frame: frame.clone(),
                    });
                    Some(frame)
                }
                Change::Withdraw(user_id, inbox_ids) => {
                    let inside = inside(*user_id);
                    self.withdraw(*user_id, inbox_ids.clone(), inside);
                    None
                }
                Change::PutMember(_)
                | Change::RemoveMember(..)
                | Change::PutRestriction(..)
                | Change::PutJoinRequest(_)
                | Change::RemoveJoinRequest(_)
                | Change::PutInvitation(_)
                | Change::RemoveInvitation(..)
                | Change::PutRoomKey(_)
                | Change::DropEpoch(_)
                | Change::DropRoomKey(..)
                | Change::DropKeysOf(_)
                | Change::Forget(..)
                | Change::TaskDone(_)
                | Change::End => None,
            };
            self.writes.push(Write { change, frame });
        }
    }

    fn withdraw(&mut self, user_id: UserId, inbox_ids: Vec<InboxId>, inside: bool) {
        if inside {
            self.directed.push(Row::Withdrawn { user_id, inbox_ids });
        } else {
            self.signals.push((user_id, UserSignal::Withdrawn(inbox_ids)));
        }
    }

    /// Whether there is nothing for the store in it.
    pub(super) fn is_read_only(&self) -> bool {
        self.writes.is_empty() && !self.head_changed
    }

    /// Whether there is nothing in it at all.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read_only() && self.answers.is_empty() && self.asks.is_empty()
    }

    /// What members and others are told of it once it is stored as `version`.
    pub(super) fn publication(
        &mut self,
        session_id: SessionId,
        version: u64,
    ) -> (Option<Publication>, Vec<(UserId, UserSignal)>) {
        let mut signals = std::mem::take(&mut self.signals);
        let newcomers = std::mem::take(&mut self.newcomers).into_iter();
        signals.extend(newcomers.map(|user_id| (user_id, UserSignal::Joined(session_id, version))));
        signals.dedup();
        let mut rows = std::mem::take(&mut self.directed);
        rows.append(&mut self.events);
        (Some(Publication { session_id, version, rows }), signals)
    }
}

fn newcomer(change: &Change) -> Option<UserId> {
    match change {
        Change::Event(SessionEvent { what: Happening::MemberJoined(joined), .. }) => Some(joined.user_id),
        _ => None,
    }
}

fn leaver(change: &Change) -> Option<UserId> {
    match change {
        Change::RemoveMember(user_id, _) => Some(*user_id),
        _ => None,
    }
}

fn effect(event: &SessionEvent) -> Effect {
    match &event.what {
        Happening::MemberJoined(joined) => Effect::Joined(joined.user_id),
        Happening::MemberLeft(left) => Effect::Left(left.user_id),
        Happening::SessionDeleted(_) => Effect::Ended,
        Happening::Msg(_)
        | Happening::RoleChanged(_)
        | Happening::MemberRestricted(_)
        | Happening::SessionInfoChanged(_)
        | Happening::SessionE2eeChanged(_)
        | Happening::RoomKeyRotated(_)
        | Happening::MsgRecalled(_)
        | Happening::PublicKeyChanged(_) => Effect::None,
    }
}
