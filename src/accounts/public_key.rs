//! Users' public keys: what is taken, and the one form in which they are kept and given out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rsa::PublicKey as RsaKey;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256};

use crate::protocol::Refusal;
use crate::store::NewPublicKey;

const BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// The smallest exponent. Small ones (3, 17) are sound in theory and have broken many an implementation's padding
/// check; FIPS 186-5 asks for more than 2^16. The largest is the `rsa` crate's 2^33-1: what is beyond only makes work.
const LEAST_EXPONENT: u64 = 65_537;

/// Characters: twice what the PEM of 8,192 bits has.
const MOST_CHARS: usize = 4096;

/// Reads DER in base64, or PEM, of SubjectPublicKeyInfo or PKCS#1.
///
/// # Errors
/// `invalid_argument`, with what would be right.
pub fn parse_public_key(text: &str) -> Result<NewPublicKey, Refusal> {
    let wrong = |right: &str| Refusal::invalid("public_key", right);
    let text = text.trim();
    if text.len() > MOST_CHARS {
        return Err(wrong("expected at most 4096 characters"));
    }
    let key = if text.starts_with("-----BEGIN") { from_pem(text) } else { from_base64(text) };
    // The crate has seen to it by now that modulus and exponent are odd, and the exponent below 2^33.
    let key = key.ok_or_else(|| wrong("expected an RSA public key: SPKI or PKCS#1, as PEM or as DER in base64"))?;
    if !BITS.contains(&key.n().bit_width_vartime()) {
        return Err(wrong("expected an RSA key of 2048 to 8192 bits"));
    }
    if *key.e() < rsa::BoxedUint::from(LEAST_EXPONENT) {
        return Err(wrong("expected a public exponent of at least 65537"));
    }
    let der = key.to_public_key_der().map_err(|_| wrong("expected an RSA public key"))?;
    Ok(NewPublicKey { public_key: STANDARD.encode(der.as_bytes()), fingerprint: hex(&Sha256::digest(der.as_bytes())) })
}

fn from_pem(text: &str) -> Option<RsaKey> {
    RsaKey::from_public_key_pem(text).ok().or_else(|| RsaKey::from_pkcs1_pem(text).ok())
}

fn from_base64(text: &str) -> Option<RsaKey> {
    let der = STANDARD.decode(text).ok()?;
    RsaKey::from_public_key_der(&der).ok().or_else(|| RsaKey::from_pkcs1_der(&der).ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rsa::pkcs1::der::asn1::UintRef;
    use rsa::pkcs1::der::pem::LineEnding;
    use rsa::pkcs1::der::{Encode, EncodePem};
    use rsa::pkcs1::{EncodeRsaPublicKey, RsaPublicKeyRef};

    use super::*;

    /// An odd modulus of exactly so many bits; whether it has factors is nobody's business here.
    fn modulus(bits: usize) -> Vec<u8> {
        let mut bytes = vec![0x5a; bits.div_ceil(8)];
        let top = (bits - 1) % 8;
        bytes[0] = 1 << top;
        *bytes.last_mut().unwrap() |= 1;
        bytes
    }

    fn pkcs1(bits: usize, exponent: &[u8]) -> Vec<u8> {
        let modulus = modulus(bits);
        let key = RsaPublicKeyRef {
            modulus: UintRef::new(&modulus).unwrap(),
            public_exponent: UintRef::new(exponent).unwrap(),
        };
        key.to_der().unwrap()
    }

    const F4: &[u8] = &[1, 0, 1];

    fn parse(der: &[u8]) -> Result<NewPublicKey, Refusal> {
        parse_public_key(&STANDARD.encode(der))
    }

    #[test]
    fn all_four_forms_of_a_key_are_one_key() {
        let der = pkcs1(2048, F4);
        let key = RsaKey::from_pkcs1_der(&der).unwrap();
        let spki = key.to_public_key_der().unwrap();
        let expected = NewPublicKey {
            public_key: STANDARD.encode(spki.as_bytes()),
            fingerprint: hex(&Sha256::digest(spki.as_bytes())),
        };
        let crlf = key.to_public_key_pem(LineEnding::CRLF).unwrap();
        for form in [
            STANDARD.encode(&der),
            STANDARD.encode(spki.as_bytes()),
            key.to_pkcs1_pem(LineEnding::LF).unwrap(),
            key.to_public_key_pem(LineEnding::LF).unwrap(),
            format!("\n  {crlf}\n"),
        ] {
            assert_eq!(parse_public_key(&form), Ok(expected.clone()), "{form}");
        }
        assert_eq!(expected.fingerprint.len(), 64);
        assert_eq!(STANDARD.decode(expected.public_key).unwrap(), spki.as_bytes());
    }

    #[test]
    fn sizes() {
        for (bits, sound) in [(1024, false), (2047, false), (2048, true), (3072, true), (8192, true), (8193, false)] {
            assert_eq!(parse(&pkcs1(bits, F4)).is_ok(), sound, "{bits} bits");
        }
        assert!(parse(&pkcs1(16_000, F4)).is_err());
    }

    #[test]
    fn exponents() {
        let cases: [(&[u8], bool); 8] = [
            (&[1], false),
            (&[2], false),
            (&[3], false),
            (&[1, 0, 0], false),
            (F4, true),
            (&[1, 0, 0, 1, 1], true),
            (&[1, 0, 0, 0, 0], false),
            (&[2, 0, 0, 0, 1], false),
        ];
        for (exponent, sound) in cases {
            assert_eq!(parse(&pkcs1(2048, exponent)).is_ok(), sound, "{exponent:?}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_without_repeating_it() {
        let mut even = modulus(2048);
        *even.last_mut().unwrap() &= 0xfe;
        let even =
            RsaPublicKeyRef { modulus: UintRef::new(&even).unwrap(), public_exponent: UintRef::new(F4).unwrap() };
        let mut longer = pkcs1(2048, F4);
        longer.push(0);
        let wrong_label = even.to_pem(LineEnding::LF).unwrap().replace("RSA PUBLIC", "RSA PRIVATE");
        for text in [
            String::new(),
            "secret".to_owned(),
            STANDARD.encode("secret"),
            "A".repeat(5000),
            STANDARD.encode(even.to_der().unwrap()),
            STANDARD.encode(longer),
            STANDARD.encode(&pkcs1(2048, F4)[..200]),
            "-----BEGIN PUBLIC KEY-----\nsecret\n-----END PUBLIC KEY-----".to_owned(),
            wrong_label,
        ] {
            let refusal = parse_public_key(&text).unwrap_err();
            assert!(refusal.message.starts_with("public_key: expected"), "{refusal}");
            assert!(!refusal.message.contains("secret"), "{refusal}");
        }
    }
}
