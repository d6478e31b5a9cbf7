//! Giving room keys: rotations, members without a key, applicants.
//!
//! Asks are gathered and answered in batches; the key's check value is signed once per epoch.

use std::collections::BTreeMap;

use rand::CryptoRng;
use serde_json::value::RawValue;

use super::room::Endorsement;
use super::{Core, Effect, KeyNews, Purpose, is_mismatch, parse};
use crate::client::ClientError;
use crate::client::calls::KeysSent;
use crate::client::crypto::{CryptoError, KeyName, RoomKey, sign_check};
use crate::client::identity::PublicKey;
use crate::client::ring::Trust;
use crate::protocol::{Request, SendRoomKeys, SessionId, UserId, Withheld, WrappedKey};

/// Asks under way per key: what the server has open at once, and a little more.
const MAX_ASKS: usize = 1_024;
/// Keys that are asked for at once.
const MAX_NAMES: usize = 10_000;
/// Members in one `send_room_keys`: a frame of at most some 350 KiB with RSA-8192.
const BATCH: usize = 256;
/// Users from whom keys are withheld, remembered until the user agrees.
const MAX_WITHHELD: usize = 10_000;

/// What is to be given, and what is withheld.
#[derive(Debug, Default)]
pub(super) struct Giving {
    asked: BTreeMap<KeyName, BTreeMap<UserId, String>>,
    withheld: BTreeMap<(UserId, SessionId), KeyName>,
}

impl Giving {
    /// What was asked of earlier epochs is of no use any more.
    pub(super) fn turned(&mut self, current: KeyName) {
        self.asked.retain(|name, _| name.session_id != current.session_id || name.key_epoch >= current.key_epoch);
    }

    /// A new connection: what is still wanted is asked for again.
    pub(super) fn reconnected(&mut self) {
        self.asked.clear();
    }

    /// Somebody has another public key: what is still wanted for it is asked for again.
    pub(super) fn public_key_changed(&mut self, user_id: UserId) {
        self.asked.values_mut().for_each(|asked| drop(asked.remove(&user_id)));
    }

    pub(super) fn forget(&mut self, session_id: SessionId) {
        self.asked.retain(|name, _| name.session_id != session_id);
        self.withheld.retain(|(_, session), _| *session != session_id);
    }
}

impl Core {
    /// The room key of this epoch is this client's to make. Asked twice, it is the same key: one number, one key.
    pub(super) fn make_key<R: CryptoRng + ?Sized>(&mut self, name: KeyName, rng: &mut R) {
        if self.ring.key(&name).is_none() {
            self.insert_key(name, RoomKey::generate(rng));
            self.tell(KeyNews::Made(name));
        }
        // To oneself, for one's other devices; and it is the one `send_room_keys` that even a lonely rotator owes.
        let own = self.identity.public().to_base64();
        self.giving.asked.entry(name).or_default().insert(self.me, own);
    }

    /// Keeps a key that is not used before it is on the disk.
    pub(super) fn insert_key(&mut self, name: KeyName, key: RoomKey) {
        if self.ring.keep(name, key) {
            self.save();
            self.unsaved.insert(name, self.generation);
        }
    }

    /// The key that may be used: here, and on the disk.
    pub(super) fn usable_key(&self, name: &KeyName) -> Option<&RoomKey> {
        self.ring.key(name).filter(|_| !self.unsaved.contains_key(name))
    }

    pub(super) fn give_later(&mut self, name: KeyName, user_id: UserId, public_key: String) {
        if self.giving.asked.len() < MAX_NAMES || self.giving.asked.contains_key(&name) {
            let asked = self.giving.asked.entry(name).or_default();
            if asked.len() < MAX_ASKS {
                asked.insert(user_id, public_key);
            }
        }
        // Where the key is on its way it is given as soon as it is here. Where it was lost the server hears of it, so that
        // another is asked.
        self.recover_name(name, true);
    }

    pub(super) fn give<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) {
        let ready: Vec<KeyName> =
            self.giving.asked.keys().filter(|name| self.usable_key(name).is_some()).copied().collect();
        for name in ready {
            let asked: Vec<(UserId, String)> =
                self.giving.asked.remove(&name).unwrap_or_default().into_iter().collect();
            for batch in asked.chunks(BATCH) {
                if let Err(error) = self.give_batch(name, batch, rng) {
                    tracing::error!("a room key could not be given: {error}");
                }
            }
        }
    }

    fn give_batch<R: CryptoRng + ?Sized>(
        &mut self,
        name: KeyName,
        batch: &[(UserId, String)],
        rng: &mut R,
    ) -> Result<(), CryptoError> {
        let Some(key) = self.usable_key(&name).cloned() else { return Ok(()) };
        let endorsement = self.endorse(name, &key, rng)?;
        let (mut room_keys, mut withheld) = (Vec::new(), Vec::new());
        for (user_id, public_key) in batch {
            match self.wrap_for_trusted(&key, *user_id, public_key, rng) {
                Ok(room_key) => room_keys.push(WrappedKey { user_id: *user_id, room_key }),
                Err(reason) => {
                    if self.giving.withheld.len() < MAX_WITHHELD {
                        self.giving.withheld.insert((*user_id, name.session_id), name);
                    }
                    withheld.push(Withheld { user_id: *user_id, reason: reason.to_owned() });
                }
            }
        }
        let others = room_keys.iter().filter(|wrapped| wrapped.user_id != self.me).count();
        self.tell(KeyNews::Given { name, members: others, withheld: withheld.len() });
        let request = SendRoomKeys {
            session_id: name.session_id,
            key_epoch: Some(name.key_epoch),
            key_check: Some(endorsement.key_check),
            signature: Some(endorsement.signature),
            room_keys,
            withheld: Some(withheld).filter(|withheld| !withheld.is_empty()),
        };
        self.out.push(Effect::Request(Purpose::Give(name), Request::from(request)));
        Ok(())
    }

    /// Wraps for the pinned fingerprint only; otherwise why not, as the server's operators will read it.
    fn wrap_for_trusted<R: CryptoRng + ?Sized>(
        &mut self,
        key: &RoomKey,
        user_id: UserId,
        public_key: &str,
        rng: &mut R,
    ) -> Result<crate::protocol::Base64Text, &'static str> {
        const BAD: &str = "bad_public_key";
        let public_key = PublicKey::from_base64(public_key).map_err(|_| BAD)?;
        if user_id == self.me {
            // One's own key is known, not believed.
            if public_key != *self.identity.public() {
                return Err("fingerprint_changed");
            }
        } else if let Trust::Changed { pinned } = self.meet(user_id, &public_key) {
            let offered = public_key.fingerprint();
            self.tell(KeyNews::FingerprintChanged { user_id, pinned, offered });
            return Err("fingerprint_changed");
        }
        key.wrap_for(&public_key, rng).map_err(|_| BAD)
    }

    /// Compares with the pin; a first meeting is saved.
    pub(super) fn meet(&mut self, user_id: UserId, key: &PublicKey) -> Trust {
        let trust = self.ring.meet(user_id, key);
        if trust == Trust::First {
            self.save();
        }
        trust
    }

    /// The check value and this user's signature over it.
    pub(super) fn endorse<R: CryptoRng + ?Sized>(
        &mut self,
        name: KeyName,
        key: &RoomKey,
        rng: &mut R,
    ) -> Result<Endorsement, CryptoError> {
        let known = self.room(name.session_id).endorsement.clone();
        if let Some(known) = known.filter(|known| known.key_epoch == name.key_epoch) {
            return Ok(known);
        }
        let key_check = key.check(&name);
        let signature = sign_check(&self.identity, &name, &key_check, rng)?;
        let endorsement = Endorsement { key_epoch: name.key_epoch, key_check, signature };
        self.room(name.session_id).endorsement = Some(endorsement.clone());
        Ok(endorsement)
    }

    /// The reply to `send_room_keys`.
    pub(super) fn gave(&mut self, name: KeyName, outcome: Result<Box<RawValue>, ClientError>) {
        match outcome {
            Ok(body) => {
                if let Ok(KeysSent { failed_members }) = parse(&body) {
                    tracing::debug!(failed = failed_members.len(), "room keys were sent");
                }
            }
            Err(error) if is_mismatch(&error) => {
                // Another device of this user, or another member, was first: theirs is the key of this epoch.
                self.forget_key(name);
                self.recover_name(name, false);
            }
            Err(error) => tracing::debug!("room keys were not taken: {error}"),
        }
    }

    /// The user agreed to a changed fingerprint: what was withheld from it is given now.
    pub(super) fn give_withheld(&mut self, user_id: UserId, key: &PublicKey) {
        let names: Vec<KeyName> =
            self.giving.withheld.iter().filter(|((user, _), _)| *user == user_id).map(|(_, name)| *name).collect();
        for name in names {
            self.giving.withheld.remove(&(user_id, name.session_id));
            // The current key, if another was rotated in meanwhile.
            let current = self.rooms.get(&name.session_id).and_then(|room| room.current);
            let name = KeyName { key_epoch: current.map_or(name.key_epoch, |epoch| epoch.max(name.key_epoch)), ..name };
            if self.ring.key(&name).is_some() {
                self.giving.asked.entry(name).or_default().insert(user_id, key.to_base64());
            }
        }
    }
}
