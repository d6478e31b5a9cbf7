//! Taking room keys: which are believed, and what is done about those that are missing.

use std::collections::BTreeMap;

use super::{Core, Effect, KeyNews, Purpose};
use crate::client::crypto::{CryptoError, KeyName, RoomKey, verify_check};
use crate::client::identity::PublicKey;
use crate::client::ring::Trust;
use crate::protocol::{
    Base64Text, FetchRoomKeys, InboxId, LostReason, Request, RequestRoomKey, RoomKeysPage, SessionId, UserId,
};

/// Keys that wait for their sender to be looked up or agreed to. What finds no room comes again after a reconnect.
const MAX_WAITING: usize = 1_024;

/// A wrapped key that somebody sent.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) name: KeyName,
    pub(super) from: UserId,
    pub(super) room_key: Base64Text,
    pub(super) key_check: Option<Base64Text>,
    pub(super) signature: Option<Base64Text>,
    /// The notification that brought it; none where it was fetched.
    pub(super) inbox_id: Option<InboxId>,
}

/// Keys that wait.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// Until the server says who the sender is.
    looking_up: BTreeMap<UserId, Vec<Offer>>,
    /// Until the user agrees to the sender's new fingerprint.
    distrusted: BTreeMap<UserId, Vec<Offer>>,
}

impl Taking {
    fn waiting(&self) -> usize {
        self.looking_up.values().chain(self.distrusted.values()).map(Vec::len).sum()
    }

    fn waits_for(&self, name: KeyName) -> bool {
        self.looking_up.values().chain(self.distrusted.values()).flatten().any(|offer| offer.name == name)
    }
}

impl Core {
    /// Somebody sent a key.
    pub(super) fn take(&mut self, offer: Offer) {
        if self.ring.key(&offer.name).is_some() {
            self.done_with(offer.inbox_id);
            return;
        }
        if offer.key_check.is_none() || offer.signature.is_none() {
            self.refuse(offer, CryptoError::Unsigned);
            return;
        }
        match self.sender_key(offer.from) {
            Some(sender) => match self.believe(&offer, &sender) {
                Ok(key) => self.accept(offer, key),
                // Maybe the sender has a new key pair: ask, then decide.
                Err(CryptoError::Signature) if offer.from != self.me => self.look_up_first(offer),
                Err(why) => self.refuse(offer, why),
            },
            None => self.look_up_first(offer),
        }
    }

    fn sender_key(&self, user_id: UserId) -> Option<PublicKey> {
        if user_id == self.me {
            return Some(self.identity.public().clone());
        }
        self.ring.sender(user_id).cloned()
    }

    fn believe(&self, offer: &Offer, sender: &PublicKey) -> Result<RoomKey, CryptoError> {
        let (Some(key_check), Some(signature)) = (&offer.key_check, &offer.signature) else {
            return Err(CryptoError::Unsigned);
        };
        verify_check(sender, &offer.name, key_check, signature)?;
        let key = RoomKey::unwrap_with(&self.identity, &offer.room_key)?;
        if key.check(&offer.name) == *key_check { Ok(key) } else { Err(CryptoError::Check) }
    }

    fn accept(&mut self, offer: Offer, key: RoomKey) {
        let Offer { name, from, inbox_id, .. } = offer;
        self.insert_key(name, key);
        self.done_with(inbox_id);
        self.tell(KeyNews::Arrived { name, from });
        self.read_sealed(name);
    }

    fn refuse(&mut self, offer: Offer, why: CryptoError) {
        let Offer { name, from, inbox_id, .. } = offer;
        self.done_with(inbox_id);
        self.tell(KeyNews::Refused { name, from, why });
        self.ask_again(name, LostReason::Bad);
    }

    fn done_with(&mut self, inbox_id: Option<InboxId>) {
        let Some(inbox_id) = inbox_id else { return };
        if self.unsaved.is_empty() {
            self.out.push(Effect::AckInbox(inbox_id));
        } else {
            self.ack_when_saved.push((self.generation, inbox_id));
        }
    }

    fn look_up_first(&mut self, offer: Offer) {
        if self.taking.waiting() >= MAX_WAITING {
            return;
        }
        let from = offer.from;
        let offers = self.taking.looking_up.entry(from).or_default();
        offers.push(offer);
        if offers.len() == 1 {
            self.out.push(Effect::LookUp(from));
        }
    }

    /// After a reconnect: whoever could not be looked up before.
    pub(super) fn look_up_again(&mut self) {
        // Notifications come again by themselves, so only what was fetched has to be kept.
        for offers in self.taking.looking_up.values_mut().chain(self.taking.distrusted.values_mut()) {
            offers.retain(|offer| offer.inbox_id.is_none());
        }
        self.taking.looking_up.retain(|_, offers| !offers.is_empty());
        self.taking.distrusted.retain(|_, offers| !offers.is_empty());
        self.out.extend(self.taking.looking_up.keys().map(|user_id| Effect::LookUp(*user_id)));
    }

    /// The server said whose key a sender's is, or the user agreed to it.
    pub(super) fn sender_known(&mut self, user_id: UserId, key: Result<Option<PublicKey>, ()>) {
        let Ok(key) = key else { return };
        let mut offers = self.taking.looking_up.remove(&user_id).unwrap_or_default();
        let Some(key) = key else {
            offers.into_iter().for_each(|offer| self.refuse(offer, CryptoError::Signature));
            return;
        };
        if let Trust::Changed { pinned } = self.meet(user_id, &key) {
            self.tell(KeyNews::FingerprintChanged { user_id, pinned, offered: key.fingerprint() });
            self.taking.distrusted.entry(user_id).or_default().append(&mut offers);
            return;
        }
        offers.append(&mut self.taking.distrusted.remove(&user_id).unwrap_or_default());
        self.ring.remember_sender(user_id, key.clone());
        self.save();
        for offer in offers {
            if self.ring.key(&offer.name).is_some() {
                self.done_with(offer.inbox_id);
                continue;
            }
            match self.believe(&offer, &key) {
                Ok(room_key) => self.accept(offer, room_key),
                Err(why) => self.refuse(offer, why),
            }
        }
    }

    /// Gets the current key of a session where it should be here and is not.
    pub(super) fn recover(&mut self, session_id: SessionId, believed_held: bool) {
        let Some(room) = self.rooms.get(&session_id) else { return };
        if let Some(current) = room.current {
            self.recover_name(KeyName::new(session_id, current), believed_held);
        }
    }

    /// Gets a key: from what the server has kept, else from another member.
    pub(super) fn recover_name(&mut self, wanted: KeyName, believed_held: bool) {
        let being_made = self.creating > 0 && wanted.key_epoch == crate::protocol::KeyEpoch::FIRST;
        if self.ring.key(&wanted).is_some()
            || being_made
            || !self.room(wanted.session_id).should_fetch(wanted.key_epoch)
        {
            return;
        }
        // A device that has nothing of this session yet takes what there is: it can read the history then.
        let has_some = self.ring.epochs(wanted.session_id).next().is_some();
        let after = if has_some { wanted.key_epoch.0 - 1 } else { 0 };
        self.fetch(wanted, believed_held, after);
    }

    fn fetch(&mut self, wanted: KeyName, believed_held: bool, after: u64) {
        let request = FetchRoomKeys { session_id: wanted.session_id, after_epoch: Some(after), limit: None };
        self.out.push(Effect::Request(Purpose::Fetch { wanted, believed_held }, Request::from(request)));
    }

    pub(super) fn fetched(&mut self, wanted: KeyName, believed_held: bool, page: RoomKeysPage) {
        let last = page.room_keys.last().map(|view| view.key_epoch.0);
        for view in page.room_keys {
            self.take(Offer {
                name: KeyName::new(wanted.session_id, view.key_epoch),
                from: view.user_id,
                room_key: view.room_key,
                key_check: view.key_check,
                signature: view.signature,
                inbox_id: None,
            });
        }
        match last {
            Some(last) if page.more => self.fetch(wanted, believed_held, last),
            Some(_) | None => {
                let coming = self.ring.key(&wanted).is_some() || self.taking.waits_for(wanted);
                // Who was never sent the key is on the server's list already.
                if !coming && believed_held {
                    self.ask_again(wanted, LostReason::Lost);
                }
            }
        }
    }

    /// Says that this user is without the key, a few times at most.
    pub(super) fn ask_again(&mut self, name: KeyName, reason: LostReason) {
        if self.room(name.session_id).should_ask(name.key_epoch) {
            let request = RequestRoomKey { session_id: name.session_id, reason };
            self.out.push(Effect::Request(Purpose::AskAgain(name), Request::from(request)));
        }
    }
}
