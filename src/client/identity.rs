//! Who a client is to other clients: an RSA key pair, public keys, and their fingerprints.
//!
//! Owns parsing, encoding and comparison of keys. Where a private key is kept is the vault's affair; whom to trust is
//! the key ring's. Invariant: a [`PublicKey`] has 2048 to 8192 bits and its `spki` is the canonical encoding.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::CryptoRng;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::crypto::CryptoError;

/// Bits of a new key pair where nobody asks for others.
pub const DEFAULT_BITS: usize = 3072;
const MIN_BITS: u32 = 2048;
const MAX_BITS: u32 = 8192;

/// SHA-256 of a public key's SPKI DER: what people compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// For people: sixteen groups of four hex digits.
    pub fn grouped(&self) -> String {
        let pairs = self.0.chunks_exact(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
        pairs.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = CryptoError;

    /// Hex, with or without blanks between groups.
    fn from_str(text: &str) -> Result<Self, CryptoError> {
        let digits: Option<Vec<u8>> =
            text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(CryptoError::PublicKey)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

/// Somebody's public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    rsa: rsa::PublicKey,
    spki: Box<[u8]>,
}

impl PublicKey {
    /// Reads the contract's `public_key`: base64 of SPKI or PKCS#1 DER.
    ///
    /// # Errors
    /// Where it is no RSA key, or too small or large.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let der = STANDARD.decode(text).map_err(|_| CryptoError::PublicKey)?;
        let spki = rsa::PublicKey::from_public_key_der(&der).ok();
        let rsa = spki.or_else(|| rsa::PublicKey::from_pkcs1_der(&der).ok()).ok_or(CryptoError::PublicKey)?;
        Self::from_rsa(rsa)
    }

    fn from_rsa(rsa: rsa::PublicKey) -> Result<Self, CryptoError> {
        let bits = rsa.n().bit_width_vartime();
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(CryptoError::PublicKey);
        }
        let spki = rsa.to_public_key_der().map_err(|_| CryptoError::PublicKey)?.into_vec().into();
        Ok(Self { rsa, spki })
    }

    /// The contract's `public_key`: base64 of SPKI DER.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.spki)
    }

    /// What people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.spki).into())
    }

    pub(super) fn rsa(&self) -> &rsa::PublicKey {
        &self.rsa
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_base64(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// This user's own key pair. The private half is wiped when dropped.
pub struct Identity {
    private: rsa::PrivateKey,
    public: PublicKey,
}

impl Identity {
    /// Makes a new key pair: seconds of work, so not on a thread that others wait for.
    ///
    /// # Errors
    /// Where `bits` is outside 2048 to 8192.
    pub fn generate<R: CryptoRng + ?Sized>(bits: usize, rng: &mut R) -> Result<Self, CryptoError> {
        if !(MIN_BITS as usize..=MAX_BITS as usize).contains(&bits) {
            return Err(CryptoError::PrivateKey);
        }
        Self::from_rsa(rsa::PrivateKey::new(rng, bits).map_err(|_| CryptoError::PrivateKey)?)
    }

    /// Reads a private key as [`Identity::to_pkcs8_der`] wrote it.
    ///
    /// # Errors
    /// Where it is no sound RSA key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, CryptoError> {
        Self::from_rsa(rsa::PrivateKey::from_pkcs8_der(der).map_err(|_| CryptoError::PrivateKey)?)
    }

    fn from_rsa(private: rsa::PrivateKey) -> Result<Self, CryptoError> {
        let public = PublicKey::from_rsa(private.to_public_key())?;
        Ok(Self { private, public })
    }

    /// The private key, for the vault and for tests of secrecy.
    ///
    /// # Errors
    /// Never for a key that this type holds; the encoder has an error type.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        self.private.to_pkcs8_der().map(|der| der.to_bytes()).map_err(|_| CryptoError::PrivateKey)
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) const fn rsa(&self) -> &rsa::PrivateKey {
        &self.private
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public.fingerprint())
    }
}
