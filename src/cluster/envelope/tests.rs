//! Envelopes: what is opened, and what is not.

use proptest::prelude::*;

use super::*;

const CHANNEL: &str = "conclave:s:00000000-0000-7000-8000-000000000001";
const ALICE: NodeId = NodeId::from_bytes([0xa1; 16]);

fn secret(byte: u8) -> ClusterSecret {
    ClusterSecret::new(&[byte; 32]).unwrap()
}

fn sealed(counter: u64) -> Vec<u8> {
    Sealer::new(&secret(1), ALICE).seal(Wire::V1, (0, counter), CHANNEL, Kind::Message, b"hello")
}

fn opener() -> Opener {
    Opener::new(secret(1), Wire::RANGE)
}

#[test]
fn what_a_node_seals_the_others_open() {
    for kind in [Kind::Message, Kind::Missed, Kind::Probe] {
        for payload in [&b""[..], b"hello"] {
            let message = Sealer::new(&secret(1), ALICE).seal(Wire::V1, (7, 1), CHANNEL, kind, payload);
            assert_eq!(message.len(), payload.len() + OVERHEAD);
            let opened = opener().open(CHANNEL, message);
            let message = Message { wire: Wire::V1, bytes: Bytes::from_static(payload) };
            assert_eq!(opened, Ok(Opened { sender: ALICE, kind, message }));
        }
    }
}

#[test]
fn nothing_of_the_payload_can_be_seen_from_outside() {
    let message = sealed(1);
    assert!(!message.windows(5).any(|part| part == b"hello"));
}

#[test]
fn any_changed_byte_is_noticed() {
    let message = sealed(1);
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        let expected = if at < 2 { Rejected::Version } else { Rejected::Signature };
        assert_eq!(opener().open(CHANNEL, changed), Err(expected), "byte {at}");
    }
}

#[test]
fn another_secret_another_channel_and_another_sender_do_not_fit() {
    assert_eq!(Opener::new(secret(2), Wire::RANGE).open(CHANNEL, sealed(1)), Err(Rejected::Signature));
    assert_eq!(opener().open("conclave:s:other", sealed(1)), Err(Rejected::Signature));
    let mut message = sealed(1);
    message[2..18].copy_from_slice(&[0xb0; 16]);
    assert_eq!(opener().open(CHANNEL, message), Err(Rejected::Signature));
}

#[test]
fn nothing_is_opened_twice_nor_behind_what_came_later() {
    let mut opener = opener();
    assert!(opener.open(CHANNEL, sealed(5)).is_ok());
    assert_eq!(opener.open(CHANNEL, sealed(5)), Err(Rejected::Replayed));
    assert_eq!(opener.open(CHANNEL, sealed(4)), Err(Rejected::Replayed));
    assert!(opener.open(CHANNEL, sealed(9)).is_ok());
    let other_lane = Sealer::new(&secret(1), ALICE).seal(Wire::V1, (1, 1), CHANNEL, Kind::Message, b"");
    assert!(opener.open(CHANNEL, other_lane).is_ok());
}

#[test]
fn a_stranger_moves_no_counter() {
    let mut opener = opener();
    let forged = Sealer::new(&secret(2), ALICE).seal(Wire::V1, (0, u64::MAX), CHANNEL, Kind::Message, b"hello");
    assert_eq!(opener.open(CHANNEL, forged), Err(Rejected::Signature));
    assert!(opener.open(CHANNEL, sealed(1)).is_ok());
}

#[test]
fn a_node_reads_its_version_and_the_one_before() {
    let next = Range { oldest: Wire::V1, newest: Wire::Next };
    for (range, wire, read) in [
        (Wire::RANGE, Wire::V1, true),
        (Wire::RANGE, Wire::Next, false),
        (next, Wire::V1, true),
        (next, Wire::Next, true),
    ] {
        let message = Sealer::new(&secret(1), ALICE).seal(wire, (0, 1), CHANNEL, Kind::Message, b"hello");
        let opened = Opener::new(secret(1), range).open(CHANNEL, message).map(|opened| opened.message);
        let expected =
            if read { Ok(Message { wire, bytes: Bytes::from_static(b"hello") }) } else { Err(Rejected::Version) };
        assert_eq!(opened, expected, "{range:?} reads {wire:?}");
    }
    for number in [0, 3, u16::MAX] {
        let mut message = sealed(1);
        message[..2].copy_from_slice(&number.to_be_bytes());
        assert_eq!(Opener::new(secret(1), next).open(CHANNEL, message), Err(Rejected::Version), "{number}");
    }
}

#[test]
fn who_restarts_too_often_pushes_out_who_was_silent_for_longest() {
    let mut opener = opener();
    let node = |n: u32| {
        let mut id = [0xc0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(id)
    };
    for n in 0..=SENDERS as u32 {
        let message = Sealer::new(&secret(1), node(n)).seal(Wire::V1, (0, 1), CHANNEL, Kind::Message, b"");
        assert!(opener.open(CHANNEL, message).is_ok());
        assert!(opener.open(CHANNEL, sealed(u64::from(n) + 1)).is_ok(), "who speaks is remembered");
    }
    assert_eq!(opener.senders.len(), SENDERS);
    assert!(!opener.senders.contains_key(&node(0)));
    assert_eq!(opener.open(CHANNEL, sealed(1)), Err(Rejected::Replayed));
}

#[test]
fn a_secret_has_32_bytes_and_shows_none() {
    assert!(ClusterSecret::new(&[7; 31]).is_none());
    assert_eq!(format!("{:?}", secret(7)), "ClusterSecret(32 bytes)");
}

proptest! {
    #[test]
    fn whatever_comes_is_opened_or_refused(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(opener().open(CHANNEL, message).is_err());
    }
}
