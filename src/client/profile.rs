//! A user's keys on one device: a directory with the sealed key pair and the sealed key ring.
//!
//! Owns which file is which, and that one process at a time has them open. What the keys are used for is decided
//! elsewhere.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::identity::Identity;
use super::ring::KeyRing;
use super::vault::{Cost, Purpose, Vault, VaultError, create_private_dir, lock_dir};

/// Keys, opened.
#[derive(Debug)]
pub struct Profile {
    /// The key pair.
    pub identity: Arc<Identity>,
    /// Room keys and pins as they were saved last.
    pub ring: KeyRing,
    /// Where the ring is saved to.
    pub store: RingStore,
}

/// Where a key ring is saved.
#[derive(Debug)]
pub struct RingStore(Option<Place>);

#[derive(Debug)]
struct Place {
    vault: Vault,
    _lock: File,
}

impl RingStore {
    /// Keeps nothing: for programs whose keys need not outlive them.
    pub const fn nowhere() -> Self {
        Self(None)
    }

    /// Writes the ring's JSON; when this returns it survives a power cut.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn save(&self, ring: &[u8]) -> Result<(), VaultError> {
        match &self.0 {
            Some(place) => place.vault.write(ring),
            None => Ok(()),
        }
    }
}

impl Profile {
    /// Whether there are keys in this directory.
    pub fn exists(dir: &Path) -> bool {
        identity_path(dir).exists()
    }

    /// Keys in memory only.
    pub fn in_memory(identity: Arc<Identity>) -> Self {
        Self { identity, ring: KeyRing::default(), store: RingStore::nowhere() }
    }

    /// Puts a new key pair, and an empty ring, into a directory of its own.
    ///
    /// # Errors
    /// Where there are keys already, or the disk refuses.
    pub fn create(dir: &Path, passphrase: &str, cost: Cost, identity: Identity) -> Result<Self, VaultError> {
        create_private_dir(dir)?;
        let lock = lock_dir(dir)?;
        if Self::exists(dir) {
            return Err(VaultError::Io(io::ErrorKind::AlreadyExists.into()));
        }
        let ring = KeyRing::default();
        // The ring first: a directory with a key pair is a whole one.
        let _ = std::fs::remove_file(ring_path(dir));
        let vault = Vault::create(&ring_path(dir), Purpose::KeyRing, passphrase, cost, &ring_json(&ring))?;
        let der = identity.to_pkcs8_der().map_err(|_| VaultError::Format)?;
        Vault::create(&identity_path(dir), Purpose::Identity, passphrase, cost, &der)?;
        Ok(Self { identity: Arc::new(identity), ring, store: RingStore(Some(Place { vault, _lock: lock })) })
    }

    /// Opens what [`Profile::create`] made.
    ///
    /// # Errors
    /// For a wrong passphrase, damaged files, or where another process has them open.
    pub fn open(dir: &Path, passphrase: &str) -> Result<Self, VaultError> {
        let lock = lock_dir(dir)?;
        let (_, der) = Vault::open(&identity_path(dir), Purpose::Identity, passphrase)?;
        let identity = Identity::from_pkcs8_der(&der).map_err(|_| VaultError::Format)?;
        let (vault, json) = Vault::open(&ring_path(dir), Purpose::KeyRing, passphrase)?;
        let ring = serde_json::from_slice(&json).map_err(|_| VaultError::Format)?;
        Ok(Self { identity: Arc::new(identity), ring, store: RingStore(Some(Place { vault, _lock: lock })) })
    }

    /// Writes the ring.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn save(&self) -> Result<(), VaultError> {
        self.store.save(&ring_json(&self.ring))
    }
}

/// The ring as it is saved.
pub(super) fn ring_json(ring: &KeyRing) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(ring).expect("a ring has string keys and no failing serializers"))
}

fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity.key")
}

fn ring_path(dir: &Path) -> PathBuf {
    dir.join("rooms.key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::crypto::{KeyName, RoomKey};
    use crate::client::ring::Trust;
    use crate::protocol::{KeyEpoch, SessionId, UserId};

    #[test]
    fn keys_and_pins_come_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate(2048, &mut rand::rng()).unwrap();
        let (user, name) = (UserId::from_bytes([1; 16]), KeyName::new(SessionId::from_bytes([2; 16]), KeyEpoch(3)));
        let key = RoomKey::generate(&mut rand::rng());

        let mut profile = Profile::create(dir.path(), "passphrase", Cost::CHEAP, identity).unwrap();
        assert!(profile.ring.keep(name, key.clone()));
        assert!(!profile.ring.keep(name, RoomKey::generate(&mut rand::rng())), "a name never means two keys");
        assert_eq!(profile.ring.meet(user, profile.identity.public()), Trust::First);
        profile.save().unwrap();
        assert!(matches!(Profile::open(dir.path(), "passphrase"), Err(VaultError::InUse)));
        let public = profile.identity.public().clone();
        drop(profile);

        assert!(matches!(Profile::open(dir.path(), "another"), Err(VaultError::Sealed)));
        let mut profile = Profile::open(dir.path(), "passphrase").unwrap();
        assert_eq!(profile.identity.public(), &public);
        assert_eq!(profile.ring.key(&name), Some(&key));
        assert_eq!(profile.ring.meet(user, &public), Trust::Same);
    }
}
