//! What waits for the user: join requests and invitations. And the first key of a session that is being made.

use std::collections::BTreeMap;

use rand::CryptoRng;

use super::{Asking, Core, Effect, KeyNews};
use crate::client::ClientError;
use crate::client::crypto::{KeyName, RoomKey};
use crate::client::identity::PublicKey;
use crate::client::ring::Trust;
use crate::protocol::{AllowUserJoinSession, InboxId, KeyEpoch, SessionId, Timestamp, UserId};

/// Notifications that wait for the user. Beyond it the oldest are acknowledged undecided, so that they do not hold up
/// room keys: at most 256 notifications are under way per connection.
const MAX_UNDECIDED: usize = 64;

/// What an approval needs that the core does not have.
#[derive(Debug)]
pub enum Decided {
    /// Send this.
    Request(Box<AllowUserJoinSession>),
    /// Look the applicant's public key up, then decide again with it.
    NeedsKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    JoinRequest,
    Invitation,
}

type Place = (Kind, SessionId, UserId);

/// Notifications that wait for the user.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    waiting: BTreeMap<Place, Waiting>,
    counter: u64,
}

#[derive(Debug)]
struct Waiting {
    inbox_id: InboxId,
    number: u64,
    public_key: Option<PublicKey>,
    /// The user has decided, and the server is being told: that it takes the notification back is no news then.
    decided: bool,
}

impl Undecided {
    /// Puts it down; whether it is new (the server sends it again after a reconnect), and what had to go for it.
    fn wait(&mut self, place: Place, inbox_id: InboxId, public_key: Option<PublicKey>) -> (bool, Option<InboxId>) {
        self.counter += 1;
        let number = self.counter;
        let before = self.waiting.insert(place, Waiting { inbox_id, number, public_key, decided: false });
        let oldest = (self.waiting.len() > MAX_UNDECIDED)
            .then(|| self.waiting.iter().min_by_key(|(_, waiting)| waiting.number).map(|(place, _)| *place))
            .flatten();
        let gone = oldest.and_then(|place| self.waiting.remove(&place)).map(|waiting| waiting.inbox_id);
        (before.is_none(), gone)
    }
}

impl Core {
    pub(super) fn join_requested(
        &mut self,
        inbox_id: InboxId,
        session_id: SessionId,
        user_id: UserId,
        leave_message: Option<String>,
        public_key: Option<&str>,
    ) {
        let key = public_key.and_then(|key| PublicKey::from_base64(key).ok());
        let fingerprint = key.as_ref().map(PublicKey::fingerprint);
        let (new, gone) = self.undecided.wait((Kind::JoinRequest, session_id, user_id), inbox_id, key);
        self.out.extend(gone.map(Effect::AckInbox));
        if new {
            self.tell(Asking::JoinRequest { session_id, user_id, leave_message, fingerprint });
        }
    }

    pub(super) fn invited(
        &mut self,
        inbox_id: InboxId,
        session_id: SessionId,
        inviter_id: UserId,
        leave_message: Option<String>,
        expire_timestamp: Timestamp,
    ) {
        let (new, gone) = self.undecided.wait((Kind::Invitation, session_id, inviter_id), inbox_id, None);
        self.out.extend(gone.map(Effect::AckInbox));
        if new {
            self.tell(Asking::Invitation { session_id, inviter_id, leave_message, expire_timestamp });
        }
    }

    /// The server took notifications back.
    pub fn withdrawn(&mut self, inbox_ids: &[InboxId]) -> Vec<Effect> {
        let gone: Vec<Place> = self
            .undecided
            .waiting
            .iter()
            .filter(|(_, waiting)| inbox_ids.contains(&waiting.inbox_id))
            .map(|(place, _)| *place)
            .collect();
        for place @ (_, session_id, user_id) in gone {
            if self.undecided.waiting.remove(&place).is_some_and(|waiting| !waiting.decided) {
                self.tell(Asking::Withdrawn { session_id, user_id });
            }
        }
        self.take_out()
    }

    /// The join requests that wait: where, and whose.
    pub fn join_requests(&self) -> impl Iterator<Item = (SessionId, UserId)> + '_ {
        self.waiting(Kind::JoinRequest)
    }

    /// The invitations that wait: where to, and from whom.
    pub fn invitations(&self) -> impl Iterator<Item = (SessionId, UserId)> + '_ {
        self.waiting(Kind::Invitation)
    }

    fn waiting(&self, kind: Kind) -> impl Iterator<Item = (SessionId, UserId)> + '_ {
        let places = self.undecided.waiting.keys().filter(move |(of, _, _)| *of == kind);
        places.map(|(_, session_id, user_id)| (*session_id, *user_id))
    }

    /// The user decided on a join request: what to send. The room key goes along where it is here.
    ///
    /// # Errors
    /// [`ClientError::FingerprintChanged`] where the applicant's key is not the pinned one and the user has not agreed.
    pub fn decide<R: CryptoRng + ?Sized>(
        &mut self,
        session_id: SessionId,
        user_id: UserId,
        accepted: bool,
        looked_up: Option<&PublicKey>,
        rng: &mut R,
    ) -> Result<(Decided, Vec<Effect>), ClientError> {
        let bare = AllowUserJoinSession {
            session_id,
            user_id,
            accepted,
            room_key: None,
            key_epoch: None,
            key_check: None,
            signature: None,
        };
        let current = self.rooms.get(&session_id).and_then(|room| room.current);
        let name = current.map(|epoch| KeyName::new(session_id, epoch));
        let key = name.and_then(|name| Some((name, self.usable_key(&name)?.clone())));
        let place = (Kind::JoinRequest, session_id, user_id);
        let (true, Some((name, key))) = (accepted, key) else {
            self.mark_decided(place);
            return Ok((Decided::Request(Box::new(bare)), self.take_out()));
        };
        let told = self.undecided.waiting.get(&place).and_then(|waiting| waiting.public_key.clone());
        let Some(public_key) = looked_up.cloned().or(told) else {
            return Ok((Decided::NeedsKey, self.take_out()));
        };
        if let Trust::Changed { pinned } = self.meet(user_id, &public_key) {
            return Err(ClientError::FingerprintChanged { user_id, pinned, offered: public_key.fingerprint() });
        }
        let endorsement = self.endorse(name, &key, rng)?;
        self.mark_decided(place);
        let request = AllowUserJoinSession {
            room_key: Some(key.wrap_for(&public_key, rng)?),
            key_epoch: Some(name.key_epoch),
            key_check: Some(endorsement.key_check),
            signature: Some(endorsement.signature),
            ..bare
        };
        Ok((Decided::Request(Box::new(request)), self.take_out()))
    }

    /// The user answers an invitation: the server is told next.
    pub fn answering(&mut self, session_id: SessionId, inviter_id: UserId) {
        self.mark_decided((Kind::Invitation, session_id, inviter_id));
    }

    fn mark_decided(&mut self, place: Place) {
        if let Some(waiting) = self.undecided.waiting.get_mut(&place) {
            waiting.decided = true;
        }
    }

    /// The server took the decision on a join request.
    pub fn join_decided(&mut self, session_id: SessionId, user_id: UserId) -> Vec<Effect> {
        self.settled((Kind::JoinRequest, session_id, user_id))
    }

    /// The server took the answer to an invitation.
    pub fn invitation_answered(&mut self, session_id: SessionId, inviter_id: UserId) -> Vec<Effect> {
        self.settled((Kind::Invitation, session_id, inviter_id))
    }

    fn settled(&mut self, place: Place) -> Vec<Effect> {
        let waiting = self.undecided.waiting.remove(&place);
        self.out.extend(waiting.map(|waiting| Effect::AckInbox(waiting.inbox_id)));
        self.take_out()
    }

    /// A session is about to be made: until it is, nobody misses its first key.
    pub const fn begin_create(&mut self) {
        self.creating += 1;
    }

    /// A session was made, with the epoch of its first key where it is encrypted; or it was not.
    pub fn end_create<R: CryptoRng + ?Sized>(
        &mut self,
        made: Option<(SessionId, Option<KeyEpoch>)>,
        rng: &mut R,
    ) -> Vec<Effect> {
        self.creating = self.creating.saturating_sub(1);
        if let Some((session_id, epoch)) = made {
            let room = self.room(session_id);
            let current = room.current.max(epoch);
            room.turn(epoch.is_some(), current);
            if let Some(epoch) = epoch {
                let name = KeyName::new(session_id, epoch);
                self.insert_key(name, RoomKey::generate(rng));
                self.tell(KeyNews::Made(name));
                // The check value names the session, so the key goes to one's other devices after the reply only.
                let own = self.identity.public().to_base64();
                self.give_later(name, self.me, own);
            }
        }
        self.take_out()
    }
}
