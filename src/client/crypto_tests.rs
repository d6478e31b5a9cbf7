//! Known answers, made with another implementation (Python's `cryptography`), so that other clients interoperate;
//! and what must not be accepted.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    private_key_pkcs8: String,
    public_key_spki: String,
    public_key_pkcs1: String,
    fingerprint: String,
    session_id: SessionId,
    sender_id: UserId,
    key_epoch: KeyEpoch,
    client_msg_id: ClientId,
    room_key_hex: String,
    key_check: Base64Text,
    room_key: Base64Text,
    signature: Base64Text,
    nonce_hex: String,
    text: String,
    markdown_text: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

impl Vectors {
    fn identity(&self) -> Identity {
        Identity::from_pkcs8_der(&STANDARD.decode(&self.private_key_pkcs8).unwrap()).unwrap()
    }

    fn name(&self) -> KeyName {
        KeyName::new(self.session_id, self.key_epoch)
    }

    fn key(&self) -> RoomKey {
        RoomKey::from_bytes(&unhex(&self.room_key_hex)).unwrap()
    }

    fn place(&self) -> TextPlace<'_> {
        TextPlace { key: self.name(), sender_id: self.sender_id, client_msg_id: &self.client_msg_id }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn public_keys_are_read_in_both_encodings_and_written_as_spki() {
    let vectors = vectors();
    for text in [&vectors.public_key_spki, &vectors.public_key_pkcs1] {
        let key = PublicKey::from_base64(text).unwrap();
        assert_eq!(key.to_base64(), vectors.public_key_spki);
        assert_eq!(key.fingerprint().to_string(), vectors.fingerprint);
    }
    assert_eq!(vectors.identity().public().to_base64(), vectors.public_key_spki);
    assert_eq!(vectors.fingerprint.parse(), Ok(vectors.identity().public().fingerprint()));
    assert!(PublicKey::from_base64("AAAA").is_err());
}

#[test]
fn a_wrapped_key_of_another_implementation_is_unwrapped() {
    let vectors = vectors();
    assert_eq!(RoomKey::unwrap_with(&vectors.identity(), &vectors.room_key), Ok(vectors.key()));
}

#[test]
fn check_values_are_the_same_everywhere() {
    let vectors = vectors();
    assert_eq!(vectors.key().check(&vectors.name()), vectors.key_check);
}

#[test]
fn a_signature_of_another_implementation_is_verified_for_its_key_only() {
    let vectors = vectors();
    let sender = PublicKey::from_base64(&vectors.public_key_spki).unwrap();
    let verify = |name| verify_check(&sender, &name, &vectors.key_check, &vectors.signature);
    assert_eq!(verify(vectors.name()), Ok(()));
    assert_eq!(verify(KeyName { key_epoch: vectors.key_epoch.next(), ..vectors.name() }), Err(CryptoError::Signature));
}

#[test]
fn text_is_encrypted_to_the_same_bytes_everywhere() {
    let vectors = vectors();
    let nonce = unhex(&vectors.nonce_hex).try_into().unwrap();
    let text = vectors.key().encrypt_with_nonce(&vectors.place(), &vectors.text, nonce);
    assert_eq!(text, vectors.markdown_text);
    assert_eq!(vectors.key().decrypt(&vectors.place(), &vectors.markdown_text), Ok(vectors.text.clone()));
}

#[test]
fn a_text_moved_to_another_place_cannot_be_read() {
    let vectors = vectors();
    let elsewhere = SessionId::from_bytes([9; 16]);
    let somebody = UserId::from_bytes([9; 16]);
    let other = ClientId("msg-0002".into());
    let place = vectors.place();
    let moved = [
        TextPlace { key: KeyName { session_id: elsewhere, ..place.key }, ..place },
        TextPlace { key: KeyName { key_epoch: place.key.key_epoch.next(), ..place.key }, ..place },
        TextPlace { sender_id: somebody, ..place },
        TextPlace { client_msg_id: &other, ..place },
    ];
    for place in moved {
        assert_eq!(vectors.key().decrypt(&place, &vectors.markdown_text), Err(CryptoError::Text));
    }
    for broken in ["", "AAAA", "not base64", &vectors.markdown_text[..40]] {
        assert_eq!(vectors.key().decrypt(&place, broken), Err(CryptoError::Text));
    }
}

#[test]
fn what_this_client_makes_it_can_read_and_nobody_else() {
    let vectors = vectors();
    let (ours, mut rng) = (vectors.identity(), rand::rng());
    let theirs = Identity::generate(2048, &mut rng).unwrap();
    let key = RoomKey::generate(&mut rng);
    let wrapped = key.wrap_for(ours.public(), &mut rng).unwrap();
    assert_eq!(RoomKey::unwrap_with(&ours, &wrapped), Ok(key.clone()));
    assert_eq!(RoomKey::unwrap_with(&theirs, &wrapped), Err(CryptoError::Unwrap));

    let check = key.check(&vectors.name());
    let signature = sign_check(&ours, &vectors.name(), &check, &mut rng).unwrap();
    assert_eq!(verify_check(ours.public(), &vectors.name(), &check, &signature), Ok(()));
    assert_eq!(verify_check(theirs.public(), &vectors.name(), &check, &signature), Err(CryptoError::Signature));

    let text = key.encrypt(&vectors.place(), "hello", &mut rng);
    assert_eq!(key.decrypt(&vectors.place(), &text).as_deref(), Ok("hello"));
}

#[test]
fn secrets_are_not_shown() {
    let vectors = vectors();
    assert_eq!(format!("{:?}", vectors.key()), "<room key of 32 bytes>");
    assert_eq!(format!("{:?}", vectors.identity()), format!("Identity({})", vectors.fingerprint));
}
