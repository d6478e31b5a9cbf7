//! What is known of a rotation run: who is where, what was said, heard and read. Every member's task writes in it.

use std::collections::{HashMap, HashSet};

use conclave::client::ClientError;
use conclave::client::e2ee::{Asking, Body, KeyNews, Message, News};
use conclave::protocol::{Happening, Role, SessionEvent, SessionId, UserId};

use super::stay::Stay;
use crate::engine::Clock;
use crate::measures::Measures;
use crate::tally::Tally;
use crate::verify::{Faults, Heard, Ledger, Source, Texts};

/// Rotations whose ends are waited for.
const MOST_ROTATIONS: usize = 10_000;

/// A member, by number.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) user_id: UserId,
    /// The node that it is on, or was last.
    pub(super) node: String,
    pub(super) connected: bool,
    /// Is about to be put out: says nothing.
    pub(super) leaving: bool,
    /// Messages under way.
    pub(super) busy: u32,
    pub(super) stays: Vec<Stay>,
    /// Sessions of an earlier run, and whether they are this user's own: those that there are at the first connection.
    pub(super) old: Option<Vec<(SessionId, bool)>>,
}

/// What a member has to do about what came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// Accept an invitation.
    Accept { session_id: SessionId, inviter_id: UserId },
}

pub(super) struct Book {
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) measures: Measures,
    pub(super) tally: Tally,
    pub(super) texts: Texts,
    pub(super) members: Vec<Member>,
    pub(super) sessions: HashMap<SessionId, u32>,
    /// Of each speaker of the ledger, the member.
    pub(super) speakers: Vec<usize>,
    old: HashSet<SessionId>,
    /// When the rotation to an epoch was asked for.
    rotations: HashMap<(SessionId, u64), u64>,
    /// Epochs that became current.
    epochs: HashSet<(SessionId, u64)>,
    pub(super) changes: u64,
    pub(super) expect_restarts: bool,
    /// Connections that end from now on are told.
    pub(super) serving: bool,
}

impl Book {
    pub(super) fn new(run: &str, payload: usize, expect_restarts: bool) -> Self {
        Self {
            clock: Clock::start(),
            ledger: Ledger::new(run),
            measures: Measures::new(),
            tally: Tally::default(),
            texts: Texts::new(payload),
            members: Vec::new(),
            sessions: HashMap::new(),
            speakers: Vec::new(),
            old: HashSet::new(),
            rotations: HashMap::new(),
            epochs: HashSet::new(),
            changes: 0,
            expect_restarts,
            serving: false,
        }
    }

    /// The text of a message. It says which one it is, since a client chooses ids of its own.
    pub(super) fn text(&self, speaker: u32, number: u32) -> String {
        format!("{} {}", self.ledger.client_msg_id(speaker, number), self.texts.of(speaker, number))
    }

    /// The stay of a member that is open.
    pub(super) fn stay(&self, member: usize) -> Option<&Stay> {
        self.members[member].stays.last().filter(|stay| stay.is_open())
    }

    fn stay_in(&mut self, member: usize, session: u32) -> Option<&mut Stay> {
        self.members[member].stays.last_mut().filter(|stay| stay.is_open() && stay.session == session)
    }

    /// The number of a session; new ones get one.
    pub(super) fn session(&mut self, session_id: SessionId) -> u32 {
        *self.sessions.entry(session_id).or_insert_with(|| self.ledger.add_session(0))
    }

    /// How often room keys were replaced.
    pub(super) fn rotated(&self) -> usize {
        self.epochs.len()
    }

    /// How many messages newcomers cannot read, since the key was replaced before anybody gave it to them.
    pub(super) fn missed(&self) -> usize {
        self.members.iter().flat_map(|member| &member.stays).map(Stay::missed).sum()
    }

    /// A rotation was asked for.
    pub(super) fn rotation_asked(&mut self, session_id: SessionId, epoch: u64, when: u64) {
        if self.rotations.len() < MOST_ROTATIONS {
            self.rotations.insert((session_id, epoch), when);
        }
    }

    /// A member hears something.
    pub(super) fn hear(&mut self, member: usize, news: News) -> Option<Todo> {
        match news {
            News::Connected { node, sessions } => {
                self.members[member].node = node;
                let me = &mut self.members[member];
                me.connected = true;
                if me.old.is_none() {
                    self.old.extend(sessions.iter().map(|session| session.session_id));
                    let old = sessions.iter().map(|session| (session.session_id, session.role == Role::Owner));
                    me.old = Some(old.collect());
                }
            }
            News::Event(event) => self.event(member, &event),
            News::Message(message) => self.message(member, &message),
            News::Asking(Asking::Invitation { session_id, inviter_id, .. }) => {
                return Some(Todo::Accept { session_id, inviter_id });
            }
            News::Gap { expected, came, .. } => {
                self.ledger.add(Faults { lost: came.saturating_sub(expected), ..Faults::default() });
            }
            News::Repeated { .. } => self.ledger.add(Faults { duplicated: 1, ..Faults::default() }),
            News::Gone(gone) => {
                if let Some(session) = self.sessions.get(&gone.session_id).copied()
                    && let Some(stay) = self.stay_in(member, session)
                {
                    stay.end(None);
                }
            }
            News::Disconnected => self.disconnected(member),
            News::Stopped { why } => self.tally.fail(&format!("a client gave up: {why}")),
            News::Keys(KeyNews::Refused { why, .. }) => self.tally.fail(&format!("a room key was refused: {why}")),
            News::Keys(KeyNews::FingerprintChanged { .. } | KeyNews::OwnKeyReplaced) => {
                self.tally.fail("a member's public key is not the one it was");
            }
            News::Keys(KeyNews::Made(_) | KeyNews::Arrived { .. } | KeyNews::Given { .. })
            | News::Asking(
                Asking::JoinRequest { .. }
                | Asking::JoinDecided { .. }
                | Asking::InvitationAnswered { .. }
                | Asking::Withdrawn { .. },
            )
            | News::Typing { .. }
            | News::SaveFailed => {}
        }
        None
    }

    fn disconnected(&mut self, member: usize) {
        let was_connected = std::mem::replace(&mut self.members[member].connected, false);
        if self.serving && was_connected {
            self.tally.reconnects += 1;
            self.measures.reconnected();
            if !self.expect_restarts {
                self.tally.fail("a connection broke");
            }
        }
    }

    fn event(&mut self, member: usize, event: &SessionEvent) {
        let SessionEvent { session_id, seq, .. } = *event;
        if self.old.contains(&session_id) {
            return;
        }
        let session = self.session(session_id);
        let me = self.members[member].user_id;
        match &event.what {
            Happening::MemberJoined(joined) if joined.user_id == me => {
                self.members[member].stays.push(Stay::begin(session, seq));
                return;
            }
            Happening::RoomKeyRotated(rotated) => {
                let now = self.clock.now();
                if self.epochs.len() < MOST_ROTATIONS {
                    self.epochs.insert((session_id, rotated.key_epoch.0));
                }
                if let Some(asked) = self.rotations.get(&(session_id, rotated.key_epoch.0)) {
                    self.measures.rotated(now - asked);
                }
            }
            Happening::Msg(_)
            | Happening::MemberJoined(_)
            | Happening::MemberLeft(_)
            | Happening::RoleChanged(_)
            | Happening::MemberRestricted(_)
            | Happening::SessionInfoChanged(_)
            | Happening::SessionE2eeChanged(_)
            | Happening::MsgRecalled(_)
            | Happening::PublicKeyChanged(_)
            | Happening::SessionDeleted(_) => {}
        }
        let now = self.clock.now();
        let Some(stay) = self.stay_in(member, session) else {
            self.tally.fail("events of a session came to who is no member of it");
            return;
        };
        stay.take(seq);
        match &event.what {
            Happening::MemberLeft(left) if left.user_id == me => stay.end(Some(seq)),
            Happening::RoomKeyRotated(rotated) => stay.turned(rotated.key_epoch, now),
            _ => {}
        }
    }

    fn message(&mut self, member: usize, message: &Message) {
        let Some(session) = self.sessions.get(&message.session_id).copied() else { return };
        let seq = message.seq;
        if message.late {
            // The stay may be over by now: a key that comes too late for it still unseals.
            let stays = &mut self.members[member].stays;
            stays.iter_mut().filter(|stay| stay.session == session).for_each(|stay| stay.unsealed(seq));
        } else {
            let now = self.clock.now();
            let Some(stay) = self.stay_in(member, session) else {
                self.tally.fail("messages of a session came to who is no member of it");
                return;
            };
            stay.take(seq);
            if let Body::Sealed(key) = message.body {
                stay.sealed(seq, key, now);
            }
            self.tally.delivered += 1;
        }
        let Some(source) = self.check(session, message) else { return };
        self.ledger.seen(session, seq, source);
        let sender = self.speakers[source.speaker as usize];
        let same = self.members[sender].node == self.members[member].node;
        self.measures.delivered(source.due, self.clock.now(), same);
    }

    /// Which of the run's messages this is, if it can be read and says what was said.
    pub(super) fn check(&mut self, session: u32, message: &Message) -> Option<Source> {
        let text = match &message.body {
            Body::Decrypted(text) => text,
            Body::Sealed(_) => return None,
            Body::Plain(_) => {
                self.tally.fail("a message was in the clear");
                return None;
            }
            Body::Unreadable(_) | Body::Recalled => {
                self.ledger.unreadable();
                return None;
            }
        };
        let (id, text) = text.split_once(' ').unwrap_or_default();
        let sender_id = message.sender_id.to_string();
        let source = self.ledger.identify(Heard { session, sender_id: &sender_id, client_msg_id: Some(id) })?;
        if self.texts.of(source.speaker, source.number) != text {
            self.ledger.unreadable();
            return None;
        }
        Some(source)
    }

    /// A message could not be said, for all that its client tried.
    pub(super) fn not_said(&mut self, error: &ClientError) {
        match error {
            ClientError::Refused(refusal) => {
                self.tally.refuse(refusal.code.as_str());
                if !refusal.code.retryable() {
                    self.tally.turned_away += 1;
                    self.tally.fail(&format!("send_msg was refused with {}", refusal.code.as_str()));
                }
            }
            error => self.tally.fail(&format!("a message could not be said: {error}")),
        }
    }
}
