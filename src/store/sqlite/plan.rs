//! A session's commit taken apart by table, as rows that can travel to the thread that writes them.
//!
//! Within a session the order is kept table by table. The rows that messages need ([`super::commit`]) are bound one by
//! one; what is rarer goes as one JSON text of rows for each statement.

use std::collections::BTreeSet;

use serde::Serialize;

use super::column::{DELETED, Hex, end, int, json, left_word, role_word};
use super::commit::PUT_HEAD_COLUMNS;
use crate::protocol::{ClientId, Frame, Happening, SessionEvent, Timestamp, UserId};
use crate::session::state::{Change, E2ee, Head, Member, Phase};
use crate::store::records::RareKeys;
use crate::store::{SessionCommit, Write};

/// A row of `events`.
#[derive(Debug)]
pub(super) struct EventRow {
    pub(super) seq: u64,
    /// Its text is the row's.
    pub(super) frame: Frame,
    /// What is remembered of a message that its sender gave an id.
    pub(super) recent: Option<(UserId, ClientId, Timestamp)>,
}

/// Statements in order, each with its rows as a JSON list; neighbours with the same text become one.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(&'static str, String)>);

impl Runs {
    fn add(&mut self, sql: &'static str, row: &impl Serialize) {
        let row = json(row);
        match self.0.last_mut() {
            Some((last, rows)) if *last == sql => {
                rows.insert_str(rows.len() - 1, &format!(",{row}"));
            }
            Some(_) | None => self.0.push((sql, format!("[{row}]"))),
        }
    }

    /// Each statement with its parameter.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(sql, rows)| (*sql, rows.as_str()))
    }
}

/// What a session's commit writes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows for the end of `events`.
    pub(super) events: Vec<EventRow>,
    /// Texts that go; after `events`.
    pub(super) recalls: Runs,
    /// Room keys and inbox events; before `people`, since the end of a session looks up whose keys go.
    pub(super) keys: Runs,
    /// Members, departures, restrictions, join requests, invitations.
    pub(super) people: Runs,
    /// The session's record, where it changed.
    pub(super) heads: Runs,
    /// Tasks that were taken in, and the session's end.
    pub(super) ends: Runs,
    /// Everybody whom a row was written for: if their account is closed, the session is told.
    pub(super) written_for: BTreeSet<(Hex, Hex)>,
}

impl Plan {
    /// Of one session's commit.
    pub(super) fn of(commit: &SessionCommit) -> Self {
        let mut plan = Self::default();
        if let Some(head) = &commit.head {
            plan.heads.add(PUT_HEAD_COLUMNS, &head_columns(commit.session_id.into(), head));
            plan.heads.add(PUT_HEAD, &(Hex::from(commit.session_id), json(head), &commit.creation_reply));
        }
        for write in &commit.writes {
            plan.add(commit, write);
        }
        plan
    }

    fn add(&mut self, commit: &SessionCommit, write: &Write) {
        let session = Hex::from(commit.session_id);
        match &write.change {
            Change::PutMember(member) => self.put_member(session, member),
            Change::RemoveMember(user, reason) => {
                let user = Hex::from(*user);
                self.people.add(REMOVE_MEMBER, &(session, user));
                let at = commit.last_time.as_millis();
                self.people.add(PUT_DEPARTURE, &(user, session, left_word(*reason), at));
            }
            Change::PutRestriction(user, restriction) => {
                let row = (session, Hex::from(*user), restriction.muted.map(end), restriction.banned.map(end));
                let empty = restriction.muted.is_none() && restriction.banned.is_none();
                self.people.add(if empty { REMOVE_RESTRICTION } else { PUT_RESTRICTION }, &row);
            }
            Change::PutJoinRequest(request) => {
                let user = Hex::from(request.user_id);
                let notices = json(&request.notices);
                let time = request.time.as_millis();
                let row = (session, user, &request.leave_message, &request.public_key, time, notices);
                self.people.add(PUT_JOIN_REQUEST, &row);
                self.written_for.insert((session, user));
            }
            Change::RemoveJoinRequest(user) => self.people.add(REMOVE_JOIN_REQUEST, &(session, Hex::from(*user))),
            Change::PutInvitation(invitation) => {
                let (invitee, inviter) = (Hex::from(invitation.invitee), Hex::from(invitation.inviter));
                let expires_at = invitation.expires_at.as_millis();
                let row = (session, invitee, inviter, expires_at, u8::from(invitation.lapsed), &invitation.notice);
                self.people.add(PUT_INVITATION, &row);
                self.written_for.insert((session, invitee));
            }
            Change::RemoveInvitation(invitee, inviter) => {
                self.people.add(REMOVE_INVITATION, &(session, Hex::from(*invitee), Hex::from(*inviter)));
            }
            Change::PutRoomKey(key) => {
                let (user, sender) = (Hex::from(key.user_id), Hex::from(key.sender));
                let row = (session, user, int(key.epoch.0), sender, &key.room_key, &key.key_check, &key.signature);
                self.keys.add(PUT_ROOM_KEY, &row);
            }
            Change::DropEpoch(epoch) => self.keys.add(DROP_EPOCH, &(session, int(epoch.0))),
            Change::DropRoomKey(user, epoch) => {
                self.keys.add(DROP_ROOM_KEY, &(session, Hex::from(*user), int(epoch.0)));
            }
            Change::DropKeysOf(user) => {
                self.keys.add(DROP_ROOM_KEYS_OF, &(session, Hex::from(*user)));
                self.keys.add(DROP_INBOX_KEYS_OF, &(session, Hex::from(*user)));
            }
            Change::Event(event) => self.put_event(event, write),
            Change::Recall(event) => {
                let row = (session, int(event.seq), text(write, || event.encode()));
                self.recalls.add(BLANK_EVENT, &row);
                self.recalls.add(PUT_RECALLED, &row);
            }
            Change::Notice(user, notice, expires_at) => {
                let holds_key = u8::from(notice.body.holds_key());
                let (version, expires_at) = (int(commit.version), expires_at.map(Timestamp::as_millis));
                let json = text(write, || notice.encode());
                let row = (Hex::from(*user), &notice.inbox_id, session, version, holds_key, expires_at, json);
                self.keys.add(PUT_INBOX, &row);
            }
            Change::Withdraw(user, inbox_ids) => {
                for inbox_id in inbox_ids {
                    self.keys.add(REMOVE_INBOX, &(Hex::from(*user), inbox_id));
                }
            }
            // Told by the commit's `remembered_from`.
            Change::Forget(_) => {}
            Change::TaskDone(id) => self.ends.add(REMOVE_TASK, &(session, id)),
            Change::End => self.end_session(commit, session),
        }
    }

    fn put_member(&mut self, session: Hex, member: &Member) {
        let user = Hex::from(member.user_id);
        let row = (
            session,
            user,
            role_word(member.role),
            member.joined_at.as_millis(),
            int(member.first_seq),
            member.keys.held.map(|epoch| int(epoch.0)),
            member.keys.sent.map(|epoch| int(epoch.0)),
            RareKeys::column(&member.keys),
        );
        self.people.add(PUT_MEMBER, &row);
        self.written_for.insert((session, user));
    }

    fn put_event(&mut self, event: &SessionEvent, write: &Write) {
        let seq = event.seq;
        let frame = write.frame.clone().unwrap_or_else(|| Frame::text(&event.encode()));
        let recent = if let Happening::Msg(msg) = &event.what {
            msg.client_msg_id.clone().map(|id| (msg.sender_id, id, event.time))
        } else {
            None
        };
        self.events.push(EventRow { seq, frame, recent });
    }

    fn end_session(&mut self, commit: &SessionCommit, session: Hex) {
        let row = (session, commit.last_time.as_millis(), DELETED);
        for sql in END_KEYS {
            self.keys.add(sql, &row);
        }
        for sql in END_PEOPLE {
            self.people.add(sql, &row);
        }
        for sql in END_SESSION {
            self.ends.add(sql, &row);
        }
    }
}

/// A change's JSON text: that of its frame, which is what members get.
fn text(write: &Write, encode: impl Fn() -> Vec<u8>) -> String {
    let bytes = write.frame.as_ref().map_or_else(encode, |frame| frame.json().to_vec());
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

const PUT_HEAD: &str = "
    INSERT INTO session_heads (session_id, head, creation_reply)
    SELECT unhex(value->>0), value->>1, value->>2 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET head = excluded.head,
        creation_reply = coalesce(excluded.creation_reply, session_heads.creation_reply)";

pub(super) const PUT_MEMBER: &str = "
    INSERT INTO members (session_id, user_id, role, joined_at, first_seq, acked_seq, held, sent, keys)
    SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, value->>4, (value->>4) - 1, value->>5, value->>6,
        value->>7
    FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET role = excluded.role, joined_at = excluded.joined_at, held = excluded.held,
        sent = excluded.sent, keys = excluded.keys, first_seq = excluded.first_seq,
        acked_seq = iif(excluded.first_seq = members.first_seq, members.acked_seq, excluded.acked_seq)";

pub(super) const REMOVE_MEMBER: &str = "
    DELETE FROM members WHERE (session_id, user_id) IN
        (SELECT unhex(value->>0), unhex(value->>1) FROM json_each(?1))";

const PUT_DEPARTURE: &str = "
    INSERT INTO departures (user_id, session_id, reason, at)
    SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET reason = excluded.reason, at = excluded.at";

const PUT_RESTRICTION: &str = "
    INSERT INTO restrictions (session_id, user_id, muted_until, banned_until)
    SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET muted_until = excluded.muted_until, banned_until = excluded.banned_until";

const REMOVE_RESTRICTION: &str = "
    DELETE FROM restrictions WHERE (session_id, user_id) IN
        (SELECT unhex(value->>0), unhex(value->>1) FROM json_each(?1))";

const PUT_JOIN_REQUEST: &str = "
    INSERT INTO join_requests (session_id, user_id, leave_message, public_key, time, notices)
    SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, value->>4, value->>5 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET leave_message = excluded.leave_message, public_key = excluded.public_key,
        time = excluded.time, notices = excluded.notices";

const REMOVE_JOIN_REQUEST: &str = "
    DELETE FROM join_requests WHERE (session_id, user_id) IN
        (SELECT unhex(value->>0), unhex(value->>1) FROM json_each(?1))";

const PUT_INVITATION: &str = "
    INSERT INTO invitations (session_id, invitee, inviter, expires_at, lapsed, notice)
    SELECT unhex(value->>0), unhex(value->>1), unhex(value->>2), value->>3, value->>4, value->>5
    FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, lapsed = excluded.lapsed, notice = excluded.notice";

const REMOVE_INVITATION: &str = "
    DELETE FROM invitations WHERE (session_id, invitee, inviter) IN
        (SELECT unhex(value->>0), unhex(value->>1), unhex(value->>2) FROM json_each(?1))";

const PUT_ROOM_KEY: &str = "
    INSERT INTO room_keys (session_id, user_id, epoch, sender, room_key, key_check, signature)
    SELECT unhex(value->>0), unhex(value->>1), value->>2, unhex(value->>3), value->>4, value->>5, value->>6
    FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET sender = excluded.sender, room_key = excluded.room_key, key_check = excluded.key_check,
        signature = excluded.signature";

const DROP_EPOCH: &str = "
    DELETE FROM room_keys WHERE (session_id, epoch) IN (SELECT unhex(value->>0), value->>1 FROM json_each(?1))";

pub(super) const DROP_ROOM_KEY: &str = "
    DELETE FROM room_keys WHERE (session_id, user_id, epoch) IN
        (SELECT unhex(value->>0), unhex(value->>1), value->>2 FROM json_each(?1))";

pub(super) const DROP_ROOM_KEYS_OF: &str = "
    DELETE FROM room_keys WHERE (session_id, user_id) IN
        (SELECT unhex(value->>0), unhex(value->>1) FROM json_each(?1))";

pub(super) const DROP_INBOX_KEYS_OF: &str = "
    DELETE FROM inbox WHERE holds_key AND (user_id, session_id) IN
        (SELECT unhex(value->>1), unhex(value->>0) FROM json_each(?1))";

const PUT_INBOX: &str = "
    INSERT INTO inbox (user_id, inbox_id, session_id, version, holds_key, expires_at, json)
    SELECT unhex(value->>0), value->>1, unhex(value->>2), value->>3, value->>4, value->>5, value->>6
    FROM json_each(?1)";

pub(super) const REMOVE_INBOX: &str = "
    DELETE FROM inbox WHERE (user_id, inbox_id) IN (SELECT unhex(value->>0), value->>1 FROM json_each(?1))";

pub(super) const BLANK_EVENT: &str = "
    UPDATE events SET json = '' FROM json_each(?1) AS recall
    WHERE session_id = unhex(recall.value->>0) AND seq = recall.value->>1";

const PUT_RECALLED: &str = "
    INSERT INTO recalled (session_id, seq, json)
    SELECT unhex(value->>0), value->>1, value->>2 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET json = excluded.json";

pub(super) const REMOVE_TASK: &str = "
    DELETE FROM tasks WHERE (id, session_id) IN (SELECT value->>1, unhex(value->>0) FROM json_each(?1))";

pub(super) const END_KEYS: [&str; 2] = [
    "DELETE FROM room_keys WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    "DELETE FROM inbox WHERE holds_key AND (user_id, session_id) IN
        (SELECT user_id, session_id FROM members WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1)))",
];

pub(super) const END_PEOPLE: [&str; 5] = [
    "INSERT INTO departures (user_id, session_id, reason, at)
     SELECT user_id, session_id, ended.value->>2, ended.value->>1
     FROM json_each(?1) AS ended CROSS JOIN members ON session_id = unhex(ended.value->>0)
     ON CONFLICT DO UPDATE SET reason = excluded.reason, at = excluded.at",
    "DELETE FROM members WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    "DELETE FROM restrictions WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    "DELETE FROM join_requests WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    "DELETE FROM invitations WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
];

const END_SESSION: [&str; 2] = [
    "DELETE FROM tasks WHERE session_id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    "UPDATE sessions SET ended_at = ended.value->>1, wants_keys = 0, rotating_since = NULL
     FROM json_each(?1) AS ended WHERE session_id = unhex(ended.value->>0)",
];

/// The parts of a session's record that reads and figures need, as a row of [`PUT_HEAD_COLUMNS`].
fn head_columns(session: Hex, head: &Head) -> impl Serialize + use<> {
    let (e2ee_on, key_epoch, rotating_since) = match &head.e2ee {
        E2ee::Off { .. } => (0, None, None),
        E2ee::On(keys) => {
            let since = match &keys.phase {
                Phase::Steady | Phase::Marked { .. } => None,
                Phase::Rotating(rotation) => Some(rotation.since.as_millis()),
            };
            (1, keys.current.as_ref().map(|current| int(current.epoch.0)), since)
        }
    };
    (session, e2ee_on, key_epoch, rotating_since)
}
