//! Room keys and what is done with them: wrapping, check values, signatures, text.
//!
//! Owns the cryptography at the end of the wire contract, byte for byte, and nothing else: it keeps no state and
//! decides nothing. Every function is a pure one of its arguments and the random source that it is given. The server
//! never calls any of it.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::identity::{Identity, PublicKey};
use crate::protocol::{Base64Text, ClientId, KeyEpoch, SessionId, UserId};

/// Bytes of a room key.
pub const ROOM_KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// What can be wrong with something that another client made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The wrapped key is not for this identity, or was damaged.
    #[error("the wrapped room key cannot be unwrapped")]
    Unwrap,
    /// The key is not the one that its check value was made with.
    #[error("the room key does not match its check value")]
    Check,
    /// There is no signature, or no check value for one to be over.
    #[error("the room key is not signed")]
    Unsigned,
    /// The signature is not its sender's.
    #[error("the room key's signature is not its sender's")]
    Signature,
    /// The text was not made with this key, by this sender, in this place.
    #[error("the text cannot be decrypted")]
    Text,
    /// Not an RSA public key of 2048 to 8192 bits.
    #[error("not an RSA public key of 2048 to 8192 bits")]
    PublicKey,
    /// Not a private key that this version can use.
    #[error("not a usable RSA private key")]
    PrivateKey,
}

/// The name of one room key: a session and an epoch in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Whose key.
    pub session_id: SessionId,
    /// Which of its keys.
    pub key_epoch: KeyEpoch,
}

impl KeyName {
    /// Names the key of this session and epoch.
    pub const fn new(session_id: SessionId, key_epoch: KeyEpoch) -> Self {
        Self { session_id, key_epoch }
    }

    fn check_input(&self) -> String {
        format!("conclave-room-key-check-v1:{}:{}", self.session_id, self.key_epoch.0)
    }

    fn signature_input(&self, key_check: &Base64Text) -> String {
        format!("conclave-room-key-v1:{}:{}:{}", self.session_id, self.key_epoch.0, key_check.as_str())
    }
}

/// Where a text stands: what binds a ciphertext to its session, sender, epoch and message.
#[derive(Clone, Copy, Debug)]
pub struct TextPlace<'a> {
    /// The key that it is encrypted with.
    pub key: KeyName,
    /// Who wrote it.
    pub sender_id: UserId,
    /// The sender's own id for it.
    pub client_msg_id: &'a ClientId,
}

impl TextPlace<'_> {
    fn additional_data(&self) -> String {
        let Self { key: KeyName { session_id, key_epoch }, sender_id, client_msg_id } = self;
        format!("{session_id}:{sender_id}:{}:{}", key_epoch.0, client_msg_id.0)
    }
}

/// A room key: 32 random bytes, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomKey(Zeroizing<[u8; ROOM_KEY_BYTES]>);

impl RoomKey {
    /// A new key.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut bytes = Zeroizing::new([0; ROOM_KEY_BYTES]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    /// A key that came from somewhere; `None` for a wrong length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; ROOM_KEY_BYTES]);
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    /// The secret itself, for the key store and for tests of secrecy.
    pub fn expose(&self) -> &[u8; ROOM_KEY_BYTES] {
        &self.0
    }

    /// `key_check`: tells whether two clients mean the same key, without showing it.
    pub fn check(&self, name: &KeyName) -> Base64Text {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes a key of any length");
        mac.update(name.check_input().as_bytes());
        Base64Text::encode(&mac.finalize().into_bytes())
    }

    /// `room_key`: the key, for one reader.
    ///
    /// # Errors
    /// Where the reader's key is too weak to carry it; one that was parsed by [`PublicKey`] is not.
    pub fn wrap_for<R: CryptoRng + ?Sized>(&self, reader: &PublicKey, rng: &mut R) -> Result<Base64Text, CryptoError> {
        let wrapped = reader.rsa().oaep_encrypt_with_rng::<Sha256, _>(rng, self.0.as_slice());
        wrapped.map(|bytes| Base64Text::encode(&bytes)).map_err(|_| CryptoError::PublicKey)
    }

    /// Opens what [`RoomKey::wrap_for`] made.
    ///
    /// # Errors
    /// Where it is for somebody else, damaged, or no room key.
    pub fn unwrap_with(identity: &Identity, wrapped: &Base64Text) -> Result<Self, CryptoError> {
        let wrapped = wrapped.decode().ok_or(CryptoError::Unwrap)?;
        let mut bytes = identity.rsa().oaep_decrypt::<Sha256>(&wrapped).map_err(|_| CryptoError::Unwrap)?;
        let key = Self::from_bytes(&bytes).ok_or(CryptoError::Unwrap);
        bytes.zeroize();
        key
    }

    /// `markdown_text` of an encrypted message: base64 of nonce, ciphertext and tag.
    pub fn encrypt<R: CryptoRng + ?Sized>(&self, place: &TextPlace<'_>, text: &str, rng: &mut R) -> String {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        self.encrypt_with_nonce(place, text, nonce)
    }

    fn encrypt_with_nonce(&self, place: &TextPlace<'_>, text: &str, nonce: [u8; NONCE_BYTES]) -> String {
        let place = place.additional_data();
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let sealed = self.cipher().encrypt(&Nonce::from(nonce), payload).expect("a frame is far below GCM's 64 GiB");
        let mut whole = Vec::with_capacity(NONCE_BYTES + sealed.len());
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&sealed);
        STANDARD.encode(whole)
    }

    /// Reads what [`RoomKey::encrypt`] made.
    ///
    /// # Errors
    /// Where anything of it differs: key, place or text.
    pub fn decrypt(&self, place: &TextPlace<'_>, markdown_text: &str) -> Result<String, CryptoError> {
        let whole = STANDARD.decode(markdown_text).map_err(|_| CryptoError::Text)?;
        let (nonce, sealed) = whole.split_first_chunk::<NONCE_BYTES>().ok_or(CryptoError::Text)?;
        if sealed.len() < TAG_BYTES {
            return Err(CryptoError::Text);
        }
        let place = place.additional_data();
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let text = self.cipher().decrypt(&Nonce::from(*nonce), payload).map_err(|_| CryptoError::Text)?;
        String::from_utf8(text).map_err(|_| CryptoError::Text)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new_from_slice(self.0.as_slice()).expect("a room key has AES-256's length")
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<room key of {ROOM_KEY_BYTES} bytes>")
    }
}

/// `signature`: the sender's word that this key is theirs to give.
pub fn sign_check<R: CryptoRng + ?Sized>(
    identity: &Identity,
    name: &KeyName,
    key_check: &Base64Text,
    rng: &mut R,
) -> Result<Base64Text, CryptoError> {
    let message = name.signature_input(key_check);
    let signature = identity.rsa().pss_sign_with_rng::<Sha256, _>(rng, message.as_bytes());
    signature.map(|bytes| Base64Text::encode(&bytes)).map_err(|_| CryptoError::PrivateKey)
}

/// Whether `signature` is `sender`'s over this check value.
///
/// # Errors
/// [`CryptoError::Signature`] where it is not.
pub fn verify_check(
    sender: &PublicKey,
    name: &KeyName,
    key_check: &Base64Text,
    signature: &Base64Text,
) -> Result<(), CryptoError> {
    let bytes = signature.decode().ok_or(CryptoError::Signature)?;
    let message = name.signature_input(key_check);
    sender.rsa().pss_verify::<Sha256>(message.as_bytes(), &bytes).map_err(|_| CryptoError::Signature)
}

#[cfg(test)]
#[path = "crypto_tests.rs"]
mod tests;
