//! A batch of commits taken apart: what messages need as arrays, everything else as steps with JSON rows.
//!
//! Sessions share no rows, so the order between them is free; within one session the order is kept table by table. The
//! steps' names and the order of their columns are those of `conclave_step` in the migrations.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Serialize;
use uuid::Uuid;

use super::column::{AsUuid, DELETED, Hex, HexWords, end, int, json, left_word, role_word};
use crate::protocol::{Happening, SessionEvent, SessionId, Timestamp, UserId};
use crate::session::state::{Change, E2ee, Head, Member, Phase, RecentMsg};
use crate::store::records::RareKeys;
use crate::store::{SessionCommit, Write};

/// Steps in order, each with its rows as a JSON list; neighbours of the same name become one.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<(&'static str, String)>);

impl Steps {
    fn add(&mut self, name: &'static str, row: &impl Serialize) {
        let row = json(row);
        match self.0.last_mut() {
            Some((last, rows)) if *last == name => {
                rows.push(',');
                rows.push_str(&row);
            }
            Some(_) | None => self.0.push((name, format!("[{row}"))),
        }
    }
}

/// Rows of `sessions`, column by column.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) session: Vec<Uuid>,
    pub(super) fence: Vec<i64>,
    pub(super) previous: Vec<i64>,
    pub(super) version: Vec<i64>,
    pub(super) seq: Vec<i64>,
    pub(super) time: Vec<i64>,
    pub(super) key_messages: Vec<i64>,
    pub(super) wants_keys: Vec<bool>,
}

impl Sessions {
    fn add(&mut self, commit: &SessionCommit) {
        self.session.push(commit.session_id.uuid());
        self.fence.push(int(commit.fence));
        self.previous.push(int(commit.previous_version));
        self.version.push(int(commit.version));
        self.seq.push(int(commit.last_seq));
        self.time.push(commit.last_time.as_millis());
        self.key_messages.push(int(commit.key_messages));
        self.wants_keys.push(commit.wants_keys);
    }
}

/// Rows of `events`, column by column.
#[derive(Debug, Default)]
pub(super) struct Events<'a> {
    pub(super) session: Vec<Uuid>,
    pub(super) seq: Vec<i64>,
    pub(super) version: Vec<i64>,
    pub(super) json: Vec<Cow<'a, str>>,
}

/// A row of `recent_msgs`.
#[derive(Debug)]
pub(super) struct Recent<'a> {
    pub(super) session: Uuid,
    pub(super) sender: Uuid,
    pub(super) id: &'a [u8],
    pub(super) seq: i64,
    pub(super) time: i64,
}

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// Sessions that there are.
    pub(super) old: Sessions,
    /// Sessions to be made, with who makes them and what they call them.
    pub(super) new: Sessions,
    pub(super) creators: Vec<Uuid>,
    pub(super) client_ids: Vec<Option<&'a [u8]>>,
    pub(super) events: Events<'a>,
    /// Rows for `recent_msgs`, after those to forget are gone.
    pub(super) remember: Vec<Recent<'a>>,
    /// Keys of `recent_msgs`.
    pub(super) forget: Vec<(Uuid, Uuid, &'a [u8])>,
    recalls: Steps,
    /// Before `people`, since the end of a session looks up whose keys go.
    keys: Steps,
    people: Steps,
    heads: Steps,
    ends: Steps,
    /// Everybody whom a row was written for.
    pub(super) written_for: BTreeSet<(SessionId, UserId)>,
}

impl<'a> Plan<'a> {
    /// Adds one session's commit; one that makes its session has its record with it.
    pub(super) fn add(&mut self, commit: &'a SessionCommit) {
        match &commit.head {
            Some(head) if commit.previous_version == 0 => {
                self.new.add(commit);
                self.creators.push(head.creator.uuid());
                self.client_ids.push(commit.client_session_id.as_ref().map(|id| id.0.as_bytes()));
            }
            Some(_) | None => self.old.add(commit),
        }
        if let Some(head) = &commit.head {
            self.put_head(commit, head);
        }
        for write in &commit.writes {
            self.add_write(commit, write);
        }
    }

    /// The steps, names and rows apart.
    pub(super) fn steps(&mut self) -> (Vec<&'static str>, Vec<String>) {
        let all = [&mut self.recalls, &mut self.keys, &mut self.people, &mut self.heads, &mut self.ends];
        all.into_iter().flat_map(|steps| std::mem::take(&mut steps.0)).map(|(name, rows)| (name, rows + "]")).unzip()
    }

    fn add_write(&mut self, commit: &'a SessionCommit, write: &'a Write) {
        let session = Hex::from(commit.session_id);
        match &write.change {
            Change::PutMember(member) => self.put_member(commit.session_id, member),
            Change::RemoveMember(user, reason) => {
                let row = (session, Hex::from(*user), left_word(*reason), commit.last_time.as_millis());
                self.people.add("remove_member", &row);
            }
            Change::PutRestriction(user, restriction) => {
                let row = (session, Hex::from(*user), restriction.muted.map(end), restriction.banned.map(end));
                let empty = restriction.muted.is_none() && restriction.banned.is_none();
                self.people.add(if empty { "remove_restriction" } else { "put_restriction" }, &row);
            }
            Change::PutJoinRequest(request) => {
                let user = Hex::from(request.user_id);
                let (words, notices) = (request.leave_message.as_deref().map(HexWords), json(&request.notices));
                let row = (session, user, words, &request.public_key, request.time.as_millis(), notices);
                self.people.add("put_join_request", &row);
                self.written_for.insert((commit.session_id, request.user_id));
            }
            Change::RemoveJoinRequest(user) => self.people.add("remove_join_request", &(session, Hex::from(*user))),
            Change::PutInvitation(invitation) => {
                let (invitee, inviter) = (Hex::from(invitation.invitee), Hex::from(invitation.inviter));
                let expires_at = invitation.expires_at.as_millis();
                let row = (session, invitee, inviter, expires_at, invitation.lapsed, &invitation.notice);
                self.people.add("put_invitation", &row);
                self.written_for.insert((commit.session_id, invitation.invitee));
            }
            Change::RemoveInvitation(invitee, inviter) => {
                self.people.add("remove_invitation", &(session, Hex::from(*invitee), Hex::from(*inviter)));
            }
            Change::PutRoomKey(key) => {
                let (user, sender) = (Hex::from(key.user_id), Hex::from(key.sender));
                let row = (session, user, int(key.epoch.0), sender, &key.room_key, &key.key_check, &key.signature);
                self.keys.add("put_room_key", &row);
            }
            Change::DropEpoch(epoch) => self.keys.add("drop_epoch", &(session, int(epoch.0))),
            Change::DropRoomKey(user, epoch) => {
                self.keys.add("drop_room_key", &(session, Hex::from(*user), int(epoch.0)));
            }
            Change::DropKeysOf(user) => self.keys.add("drop_keys_of", &(session, Hex::from(*user))),
            Change::Event(event) => self.put_event(commit, event, write),
            Change::Recall(event) => {
                self.recalls.add("recall", &(session, int(event.seq), text(write, || event.encode())));
            }
            Change::Notice(user, notice, expires_at) => {
                let (version, expires_at) = (int(commit.version), expires_at.map(Timestamp::as_millis));
                let json = text(write, || notice.encode());
                let holds_key = notice.body.holds_key();
                let row = (Hex::from(*user), &notice.inbox_id, session, version, holds_key, expires_at, json);
                self.keys.add("put_inbox", &row);
            }
            Change::Withdraw(user, inbox_ids) => {
                for inbox_id in inbox_ids {
                    self.keys.add("remove_inbox", &(Hex::from(*user), inbox_id));
                }
            }
            Change::Forget(RecentMsg { sender, client_msg_id, .. }) => {
                self.forget_msg(commit.session_id.uuid(), sender.uuid(), client_msg_id.0.as_bytes());
            }
            Change::TaskDone(id) => self.ends.add("remove_task", &(session, id)),
            Change::End => self.end_session(commit, session),
        }
    }

    fn put_head(&mut self, commit: &SessionCommit, head: &Head) {
        let (e2ee_on, key_epoch, rotating_since) = match &head.e2ee {
            E2ee::Off { .. } => (false, None, None),
            E2ee::On(keys) => {
                let since = match &keys.phase {
                    Phase::Steady | Phase::Marked { .. } => None,
                    Phase::Rotating(rotation) => Some(rotation.since.as_millis()),
                };
                (true, keys.current.as_ref().map(|current| int(current.epoch.0)), since)
            }
        };
        let (session, name) = (Hex::from(commit.session_id), head.name.as_deref().map(HexWords));
        let row = (session, name, json(head), &commit.creation_reply, e2ee_on, key_epoch, rotating_since);
        self.heads.add("put_head", &row);
    }

    fn put_member(&mut self, session_id: SessionId, member: &Member) {
        let row = (
            Hex::from(session_id),
            Hex::from(member.user_id),
            role_word(member.role),
            member.joined_at.as_millis(),
            int(member.first_seq),
            member.keys.held.map(|epoch| int(epoch.0)),
            member.keys.sent.map(|epoch| int(epoch.0)),
            RareKeys::column(&member.keys),
        );
        self.people.add("put_member", &row);
        self.written_for.insert((session_id, member.user_id));
    }

    fn put_event(&mut self, commit: &'a SessionCommit, event: &'a SessionEvent, write: &'a Write) {
        let session = commit.session_id.uuid();
        self.events.session.push(session);
        self.events.seq.push(int(event.seq));
        self.events.version.push(int(commit.version));
        self.events.json.push(text(write, || event.encode()));
        if let Happening::Msg(msg) = &event.what
            && let Some(id) = &msg.client_msg_id
        {
            let (sender, id) = (msg.sender_id.uuid(), id.0.as_bytes());
            self.remember.push(Recent { session, sender, id, seq: int(event.seq), time: event.time.as_millis() });
        }
    }

    /// All that is to be forgotten goes first; what the same batch put before is not put at all.
    fn forget_msg(&mut self, session: Uuid, sender: Uuid, id: &'a [u8]) {
        // A session's rows are the last ones: nothing before them is looked at.
        let own = self.remember.iter().rev().take_while(|row| row.session == session);
        let found = own.enumerate().find(|(_, row)| row.sender == sender && row.id == id);
        if let Some(from_end) = found.map(|(index, _)| index) {
            self.remember.remove(self.remember.len() - 1 - from_end);
        }
        self.forget.push((session, sender, id));
    }

    fn end_session(&mut self, commit: &SessionCommit, session: Hex) {
        let row = (session, commit.last_time.as_millis(), DELETED);
        let ended = commit.session_id.uuid();
        self.remember.retain(|recent| recent.session != ended);
        self.keys.add("end_keys", &row);
        self.people.add("end_people", &row);
        self.ends.add("end_session", &row);
    }
}

/// A change's JSON text: that of its frame, which is what members get.
fn text(write: &Write, encode: impl Fn() -> Vec<u8>) -> Cow<'_, str> {
    match &write.frame {
        Some(frame) => String::from_utf8_lossy(frame.json()),
        None => Cow::Owned(String::from_utf8_lossy(&encode()).into_owned()),
    }
}
