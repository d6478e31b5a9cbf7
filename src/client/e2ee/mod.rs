//! The end-to-end encryption as decisions: who is given which key, which key is believed, what can be read.
//!
//! PURE: frames and answers go in, [`Effect`]s come out; no socket, no clock, no file, no hidden randomness. Two or
//! three cores with a scripted server between them are a whole test.
//!
//! Invariants:
//! 1. A room key is on the disk before anything made with it leaves: keys that are not saved yet are not used.
//! 2. A key that came from somebody is used only after its signature was found to be that of its sender's pinned
//!    fingerprint, and its check value that of the key.
//! 3. Nobody whose fingerprint is not the pinned one is given a key, until the user agrees.
//! 4. A name (session, epoch) never means two keys.
//! 5. A notification is acknowledged after what it brought is safe; one that needs the user, after the user decided.
//! 6. Nothing is said in a session before it is known whether the session is encrypted.

mod deciding;
mod giving;
mod news;
mod reading;
mod room;
mod taking;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::CryptoRng;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::ClientError;
use super::crypto::KeyName;
use super::identity::{Fingerprint, Identity, PublicKey};
use super::profile::ring_json;
use super::ring::KeyRing;
use crate::protocol::{
    Ask, Authenticated, Base64Text, ErrorCode, GetSessionInfo, Happening, InboxId, InboxNotice, NoticeBody, Request,
    SessionEvent, SessionId, SessionInfo, UserId,
};

pub use deciding::Decided;
pub use news::{Asking, Body, Effect, KeyNews, Message, News, Purpose};
pub use reading::CannotSeal;

use giving::Giving;
use room::Room;
use taking::Taking;

/// The state of the end-to-end encryption of one user on one device.
pub struct Core {
    me: UserId,
    identity: Arc<Identity>,
    ring: KeyRing,
    /// Counts the ring's changes.
    generation: u64,
    /// Keys that are not on the disk yet, and the change that brought each.
    unsaved: BTreeMap<KeyName, u64>,
    /// Notifications to acknowledge once that change is on the disk.
    ack_when_saved: Vec<(u64, InboxId)>,
    rooms: BTreeMap<SessionId, Room>,
    giving: Giving,
    taking: Taking,
    undecided: deciding::Undecided,
    /// Sessions being made: their first key is about to be.
    creating: u32,
    out: Vec<Effect>,
}

impl Core {
    /// A core for this user, with the keys of an earlier run.
    pub fn new(me: UserId, identity: Arc<Identity>, ring: KeyRing) -> Self {
        Self {
            me,
            identity,
            ring,
            generation: 0,
            unsaved: BTreeMap::new(),
            ack_when_saved: Vec::new(),
            rooms: BTreeMap::new(),
            giving: Giving::default(),
            taking: Taking::default(),
            undecided: deciding::Undecided::default(),
            creating: 0,
            out: Vec::new(),
        }
    }

    /// Who this is.
    pub const fn me(&self) -> UserId {
        self.me
    }

    /// Room keys and pins.
    pub const fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Room keys and pins, to be changed by their owner: a login, a device that loses its keys.
    pub const fn ring_mut(&mut self) -> &mut KeyRing {
        &mut self.ring
    }

    /// This user's key pair.
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether this user is in a session, as far as has been heard.
    pub fn is_member(&self, session_id: SessionId) -> bool {
        self.rooms.contains_key(&session_id)
    }

    /// The user has a new key pair, which the server has already.
    pub fn replace_identity(&mut self, identity: Arc<Identity>) {
        self.identity = identity;
        self.rooms.values_mut().for_each(|room| room.endorsement = None);
    }

    /// The connection was authenticated.
    pub fn authenticated(&mut self, reply: &Authenticated) -> Vec<Effect> {
        self.giving.reconnected();
        let mut rooms = std::mem::take(&mut self.rooms);
        for overview in &reply.sessions {
            let mut room = rooms.remove(&overview.session_id).unwrap_or_default();
            room.turn(overview.e2ee_on, overview.key_epoch);
            room.reconnected();
            self.rooms.insert(overview.session_id, room);
            if overview.has_key {
                self.recover(overview.session_id, true);
            }
        }
        self.look_up_again();
        self.take_out()
    }

    /// A session event came, for the first time and in order.
    pub fn event(&mut self, event: SessionEvent) -> Vec<Effect> {
        let session_id = event.session_id;
        match &event.what {
            Happening::Msg(msg) => {
                self.message(session_id, event.seq, event.time, msg.clone());
                return self.take_out();
            }
            Happening::MemberJoined(joined) if joined.user_id == self.me => {
                self.rooms.entry(session_id).or_default();
                self.learn(session_id);
            }
            Happening::MemberLeft(left) if left.user_id == self.me => self.forget_room(session_id),
            Happening::SessionDeleted(_) => self.forget_room(session_id),
            Happening::SessionE2eeChanged(change) => self.room(session_id).turn_at(event.seq, change.e2ee_on, None),
            Happening::RoomKeyRotated(rotated) => {
                let name = KeyName::new(session_id, rotated.key_epoch);
                self.rotated(event.seq, name, rotated.key_check.as_ref());
            }
            Happening::PublicKeyChanged(change) => self.public_key_changed(change.user_id, &change.fingerprint),
            Happening::MsgRecalled(recalled) => self.room(session_id).recall_sealed(recalled.recalled_seq),
            Happening::MemberJoined(_)
            | Happening::MemberLeft(_)
            | Happening::RoleChanged(_)
            | Happening::MemberRestricted(_)
            | Happening::SessionInfoChanged(_) => {}
        }
        self.tell(News::Event(Box::new(event)));
        self.take_out()
    }

    /// A notification came, maybe not for the first time.
    pub fn notice(&mut self, notice: InboxNotice) -> Vec<Effect> {
        self.handle_notice(notice);
        self.take_out()
    }

    /// The server asks for a key to be made or given. What is to be given is gathered until [`Core::flush`].
    pub fn ask<R: CryptoRng + ?Sized>(&mut self, ask: Ask, rng: &mut R) -> Vec<Effect> {
        match ask {
            Ask::UpdateRoomKeyNotification { session_id, key_epoch } => {
                self.make_key(KeyName::new(session_id, key_epoch), rng);
            }
            Ask::SendRoomKeyNotification { session_id, user_id, public_key, key_epoch } => {
                self.give_later(KeyName::new(session_id, key_epoch), user_id, public_key);
            }
        }
        self.take_out()
    }

    /// Nothing more has come for now: gives the keys that were asked for, as far as they are saved.
    pub fn flush<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) -> Vec<Effect> {
        self.give(rng);
        self.take_out()
    }

    /// The ring as it is to be saved, and the number to say to [`Core::saved`].
    pub fn snapshot(&self) -> (u64, Zeroizing<Vec<u8>>) {
        (self.generation, ring_json(&self.ring))
    }

    /// A snapshot is on the disk.
    pub fn saved(&mut self, generation: u64) -> Vec<Effect> {
        self.unsaved.retain(|_, change| *change > generation);
        let (now, later) = self.ack_when_saved.drain(..).partition(|(change, _)| *change <= generation);
        self.ack_when_saved = later;
        let now: Vec<(u64, InboxId)> = now;
        self.out.extend(now.into_iter().map(|(_, inbox_id)| Effect::AckInbox(inbox_id)));
        self.take_out()
    }

    /// A request of the core's own was answered.
    pub fn replied(&mut self, purpose: Purpose, outcome: Result<Box<RawValue>, ClientError>) -> Vec<Effect> {
        match purpose {
            // Where the connection is gone the next one tells.
            Purpose::Learn(session_id) => {
                if let Ok(info) = outcome.map_err(drop).and_then(|body| parse::<SessionInfo>(&body)) {
                    self.learned(session_id, &info);
                }
            }
            Purpose::Give(name) => self.gave(name, outcome),
            Purpose::Fetch { wanted, believed_held } => {
                if let Ok(page) = outcome.map_err(drop).and_then(|body| parse(&body)) {
                    self.fetched(wanted, believed_held, page);
                }
            }
            Purpose::AskAgain(_) => {}
        }
        self.take_out()
    }

    /// Whether a request that was refused for now, or not answered, is to be repeated: not to be given a key again that
    /// has come meanwhile, since that would take it away.
    pub fn still_wants(&self, purpose: &Purpose, was_answered: bool) -> bool {
        match purpose {
            Purpose::AskAgain(name) => was_answered && self.ring.key(name).is_none(),
            Purpose::Learn(_) | Purpose::Give(_) | Purpose::Fetch { .. } => true,
        }
    }

    /// The server said who a user is; `Ok(None)`: nobody; `Err`: it could not say now.
    pub fn looked_up(&mut self, user_id: UserId, key: Result<Option<PublicKey>, ()>) -> Vec<Effect> {
        self.sender_known(user_id, key);
        self.take_out()
    }

    /// The user compared this fingerprint and agrees to it. What was withheld from it is given, what it gave is taken.
    pub fn agree(&mut self, user_id: UserId, key: &PublicKey) -> Vec<Effect> {
        self.ring.agree(user_id, key.fingerprint());
        self.save();
        self.give_withheld(user_id, key);
        self.sender_known(user_id, Ok(Some(key.clone())));
        self.take_out()
    }

    fn learned(&mut self, session_id: SessionId, info: &SessionInfo) {
        let Some(room) = self.rooms.get_mut(&session_id) else { return };
        // Another node may have answered, and an event told of something later meanwhile.
        if room.is_news(info.last_seq) {
            let current = info.key_epoch.max(room.current.filter(|_| info.e2ee_on));
            room.turn(info.e2ee_on, current);
        }
        let me = info.members.iter().find(|member| member.user_id == self.me);
        if me.is_some_and(|me| me.has_key) {
            self.recover(session_id, true);
        }
    }

    fn learn(&mut self, session_id: SessionId) {
        let request = Request::from(GetSessionInfo { session_id });
        self.out.push(Effect::Request(Purpose::Learn(session_id), request));
    }

    fn rotated(&mut self, seq: u64, name: KeyName, key_check: Option<&Base64Text>) {
        self.room(name.session_id).turn_at(seq, true, Some(name.key_epoch));
        self.giving.turned(name);
        let differs = match (self.ring.key(&name), key_check) {
            (Some(key), Some(check)) => key.check(&name) != *check,
            (Some(_), None) | (None, _) => false,
        };
        if differs {
            // Another key than ours became the session's.
            self.forget_key(name);
            self.recover(name.session_id, false);
        }
    }

    fn public_key_changed(&mut self, user_id: UserId, fingerprint: &str) {
        self.ring.forget_sender(user_id);
        self.giving.public_key_changed(user_id);
        let Ok(offered) = fingerprint.parse::<Fingerprint>() else { return };
        if user_id == self.me {
            if offered != self.identity.public().fingerprint() {
                self.tell(KeyNews::OwnKeyReplaced);
            }
            return;
        }
        if let Some(pin) = self.ring.pin(user_id).filter(|pin| pin.fingerprint != offered) {
            self.tell(KeyNews::FingerprintChanged { user_id, pinned: pin.fingerprint, offered });
        }
    }

    fn handle_notice(&mut self, InboxNotice { inbox_id, body }: InboxNotice) {
        match body {
            NoticeBody::JoinSessionApproval { session_id, user_id, leave_message, public_key } => {
                self.join_requested(inbox_id, session_id, user_id, leave_message, public_key.as_deref());
            }
            NoticeBody::InviteUserToSession { session_id, inviter_id, leave_message, expire_timestamp } => {
                self.invited(inbox_id, session_id, inviter_id, leave_message, expire_timestamp);
            }
            NoticeBody::AllowUserJoinSessionNotification {
                session_id,
                user_id,
                accepted,
                room_key,
                key_epoch,
                key_check,
                signature,
            } => {
                self.tell(Asking::JoinDecided { session_id, by: user_id, accepted });
                match (room_key, key_epoch) {
                    (Some(room_key), Some(key_epoch)) if accepted => {
                        let name = KeyName::new(session_id, key_epoch);
                        self.take(taking::Offer {
                            name,
                            from: user_id,
                            room_key,
                            key_check,
                            signature,
                            inbox_id: Some(inbox_id),
                        });
                    }
                    (Some(_) | None, _) => self.out.push(Effect::AckInbox(inbox_id)),
                }
            }
            NoticeBody::AcceptSessionNotification { session_id, invitee_id, accepted, public_key, key_epoch } => {
                if let (true, Some(public_key), Some(epoch)) = (accepted, public_key, key_epoch) {
                    let name = KeyName::new(session_id, epoch);
                    // The server asks a holder anyway, so who is none has nothing to do.
                    if self.ring.key(&name).is_some() {
                        self.give_later(name, invitee_id, public_key);
                    }
                }
                self.tell(Asking::InvitationAnswered { session_id, invitee_id, accepted });
                self.out.push(Effect::AckInbox(inbox_id));
            }
            NoticeBody::ReceiveRoomKeyNotification {
                session_id,
                user_id,
                room_key,
                key_epoch,
                key_check,
                signature,
            } => {
                let name = KeyName::new(session_id, key_epoch);
                self.take(taking::Offer {
                    name,
                    from: user_id,
                    room_key,
                    key_check,
                    signature,
                    inbox_id: Some(inbox_id),
                });
            }
        }
    }

    fn room(&mut self, session_id: SessionId) -> &mut Room {
        self.rooms.entry(session_id).or_default()
    }

    fn forget_room(&mut self, session_id: SessionId) {
        self.rooms.remove(&session_id);
        self.giving.forget(session_id);
    }

    fn forget_key(&mut self, name: KeyName) {
        self.ring.forget(&name);
        if let Some(room) = self.rooms.get_mut(&name.session_id) {
            room.endorsement = None;
        }
        self.save();
    }

    /// The ring has changed and is to be written.
    fn save(&mut self) {
        self.generation += 1;
        self.out.push(Effect::Save);
    }

    fn tell(&mut self, news: impl Into<News>) {
        self.out.push(Effect::Tell(news.into()));
    }

    fn take_out(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("me", &self.me).field("ring", &self.ring).finish_non_exhaustive()
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &RawValue) -> Result<T, ()> {
    serde_json::from_str(body.get()).map_err(|error| tracing::warn!("a reply is not as the contract says: {error}"))
}

/// Whether a refusal says that the other key stands.
fn is_mismatch(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::KeyMismatch)
}

#[cfg(test)]
mod tests;
