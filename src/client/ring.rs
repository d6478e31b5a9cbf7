//! The key ring: room keys by session and epoch, and whose fingerprint is whose.
//!
//! Owns what is worth keeping between two runs of a client and the rule of trust on first use. It does not write
//! files (the vault does) and asks nobody. Invariant: a key that stands under a name is never replaced by another one
//! except through [`KeyRing::forget`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::crypto::{KeyName, RoomKey};
use super::identity::{Fingerprint, PublicKey};
use super::secret::Secret;
use crate::protocol::{KeyEpoch, SessionId, UserId};

/// People whose fingerprint is kept; a server that invents more than this is not believed.
const MAX_PINS: usize = 1_000_000;
/// Epochs kept per session; the oldest go.
const MAX_EPOCHS: usize = 10_000;
/// Senders of room keys whose public key is kept, so that their next key is believed without asking the server.
const MAX_SENDERS: usize = 4_096;

/// What is known of somebody's fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Not seen before; it is pinned now.
    First,
    /// The one that is pinned.
    Same,
    /// Another one than the pinned: nothing is given to it or taken from it until the user agrees.
    Changed {
        /// The one that was known.
        pinned: Fingerprint,
    },
}

/// A fingerprint that was seen, and whether the user compared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The fingerprint.
    #[serde(with = "as_text")]
    pub fingerprint: Fingerprint,
    /// Whether the user said that it is right.
    pub verified: bool,
}

/// A login that is kept, so that a person types the passphrase only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptLogin {
    /// Who.
    pub user_id: UserId,
    /// The bearer token.
    pub token: Secret,
}

/// Room keys, pins and the login of one user on one device.
#[derive(Default, Serialize, Deserialize)]
pub struct KeyRing {
    #[serde(with = "as_entries")]
    keys: BTreeMap<SessionId, BTreeMap<KeyEpoch, RoomKey>>,
    pins: BTreeMap<UserId, Pin>,
    #[serde(default)]
    senders: BTreeMap<UserId, PublicKey>,
    /// The token of the last login.
    pub login: Option<KeptLogin>,
}

impl KeyRing {
    /// The key of this name.
    pub fn key(&self, name: &KeyName) -> Option<&RoomKey> {
        self.keys.get(&name.session_id)?.get(&name.key_epoch)
    }

    /// Keeps a key; `false` where another one has the name already.
    #[must_use]
    pub fn keep(&mut self, name: KeyName, key: RoomKey) -> bool {
        let epochs = self.keys.entry(name.session_id).or_default();
        let stands = epochs.entry(name.key_epoch).or_insert_with(|| key.clone()) == &key;
        if epochs.len() > MAX_EPOCHS {
            epochs.pop_first();
        }
        stands
    }

    /// Throws away a key that turned out not to be the session's.
    pub fn forget(&mut self, name: &KeyName) {
        if let Some(epochs) = self.keys.get_mut(&name.session_id) {
            epochs.remove(&name.key_epoch);
        }
    }

    /// Throws away every key of a session, as a lost device would have.
    pub fn forget_session(&mut self, session_id: SessionId) {
        self.keys.remove(&session_id);
    }

    /// The epochs of a session whose keys are here, ascending.
    pub fn epochs(&self, session_id: SessionId) -> impl Iterator<Item = KeyEpoch> + '_ {
        self.keys.get(&session_id).into_iter().flat_map(|epochs| epochs.keys().copied())
    }

    /// Every key, for tests of secrecy.
    pub fn all(&self) -> impl Iterator<Item = (KeyName, &RoomKey)> {
        self.keys
            .iter()
            .flat_map(|(session, epochs)| epochs.iter().map(|(epoch, key)| (KeyName::new(*session, *epoch), key)))
    }

    /// Compares a key with what is pinned for its user; pins it where there is nothing.
    pub fn meet(&mut self, user_id: UserId, key: &PublicKey) -> Trust {
        let fingerprint = key.fingerprint();
        match self.pins.get(&user_id) {
            Some(pin) if pin.fingerprint == fingerprint => Trust::Same,
            Some(pin) => Trust::Changed { pinned: pin.fingerprint },
            None => {
                if self.pins.len() < MAX_PINS {
                    self.pins.insert(user_id, Pin { fingerprint, verified: false });
                }
                Trust::First
            }
        }
    }

    /// What is pinned for a user.
    pub fn pin(&self, user_id: UserId) -> Option<Pin> {
        self.pins.get(&user_id).copied()
    }

    /// The public key of somebody who sent room keys before, as long as it is the pinned one.
    pub fn sender(&self, user_id: UserId) -> Option<&PublicKey> {
        let pin = self.pins.get(&user_id)?;
        self.senders.get(&user_id).filter(|key| key.fingerprint() == pin.fingerprint)
    }

    /// Keeps the public key of somebody who sends room keys.
    pub fn remember_sender(&mut self, user_id: UserId, key: PublicKey) {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&user_id) {
            self.senders.pop_first();
        }
        self.senders.insert(user_id, key);
    }

    /// Somebody has a new public key: it has to be looked up.
    pub fn forget_sender(&mut self, user_id: UserId) {
        self.senders.remove(&user_id);
    }

    /// The user says that this fingerprint is right.
    pub fn agree(&mut self, user_id: UserId, fingerprint: Fingerprint) {
        self.pins.insert(user_id, Pin { fingerprint, verified: true });
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: usize = self.keys.values().map(BTreeMap::len).sum();
        write!(f, "KeyRing {{ keys: {keys}, pins: {} }}", self.pins.len())
    }
}

/// Fingerprints as hex.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::client::identity::Fingerprint;

    pub(super) fn serialize<S: Serializer>(value: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Room keys as a list of `{session_id, key_epoch, key}`.
mod as_entries {
    use std::collections::BTreeMap;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use zeroize::Zeroizing;

    use crate::client::crypto::RoomKey;
    use crate::client::secret::Secret;
    use crate::protocol::{KeyEpoch, SessionId};

    #[derive(Serialize, Deserialize)]
    struct Entry {
        session_id: SessionId,
        key_epoch: KeyEpoch,
        key: Secret,
    }

    type Keys = BTreeMap<SessionId, BTreeMap<KeyEpoch, RoomKey>>;

    pub(super) fn serialize<S: Serializer>(keys: &Keys, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().flat_map(|(&session_id, epochs)| {
            epochs.iter().map(move |(&key_epoch, key)| {
                let key = Secret::new(STANDARD.encode(key.expose()));
                Entry { session_id, key_epoch, key }
            })
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        let mut keys = Keys::new();
        for Entry { session_id, key_epoch, key } in Vec::<Entry>::deserialize(deserializer)? {
            let bytes = Zeroizing::new(STANDARD.decode(key.expose()).map_err(de::Error::custom)?);
            let key = RoomKey::from_bytes(&bytes).ok_or_else(|| de::Error::custom("a room key has 32 bytes"))?;
            keys.entry(session_id).or_default().insert(key_epoch, key);
        }
        Ok(keys)
    }
}
