//! Two and three clients simulated against scripted frames.

use std::sync::{Arc, LazyLock};

use crate::client::crypto::{CryptoError, RoomKey, sign_check};
use crate::client::ring::Trust;
use crate::protocol::*;

use super::*;

const S: SessionId = SessionId::from_bytes([0x51; 16]);
const TIME: Timestamp = Timestamp::from_millis(0);

/// Key pairs are made once: they take long.
static IDENTITIES: LazyLock<Vec<Arc<Identity>>> =
    LazyLock::new(|| (0..4).map(|_| Arc::new(Identity::generate(2048, &mut rand::rng()).unwrap())).collect());

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn name(epoch: u64) -> KeyName {
    KeyName::new(S, KeyEpoch(epoch))
}

/// A client whose disk is as slow as the test wants.
struct Party {
    core: Core,
    done: Vec<Effect>,
}

impl Party {
    fn new(number: u8) -> Self {
        let identity = Arc::clone(&IDENTITIES[usize::from(number)]);
        Self { core: Core::new(user(number), identity, KeyRing::default()), done: Vec::new() }
    }

    /// A member of S, which is encrypted with this epoch.
    fn member(number: u8, epoch: Option<u64>, has_key: bool) -> Self {
        let mut party = Self::new(number);
        party.authenticated(epoch, has_key);
        party
    }

    fn authenticated(&mut self, epoch: Option<u64>, has_key: bool) -> Vec<Effect> {
        let overview = SessionOverview {
            session_id: S,
            name: None,
            e2ee_on: true,
            key_epoch: epoch.map(KeyEpoch),
            has_key,
            role: Role::Owner,
            first_seq: 1,
            last_seq: 1,
            acked_seq: 0,
            log: "log".to_owned(),
        };
        let limits = PublicLimits { frame_bytes: 1, requests_in_flight: 1, requests_per_s: 1 };
        let sessions = vec![overview];
        self.core.authenticated(&Authenticated { user_id: self.core.me(), node: "n".to_owned(), limits, sessions })
    }

    /// A member who holds the key of this epoch already.
    fn holder(number: u8, epoch: u64, key: &RoomKey) -> Self {
        let mut party = Self::new(number);
        assert!(party.core.ring_mut().keep(name(epoch), key.clone()));
        party.authenticated(Some(epoch), true);
        party
    }

    fn public(&self) -> PublicKey {
        self.core.identity().public().clone()
    }

    fn save(&mut self) -> Vec<Effect> {
        let (generation, _) = self.core.snapshot();
        self.core.saved(generation)
    }

    fn ask_for(&mut self, epoch: u64, of: &Party) -> Vec<Effect> {
        let ask = Ask::SendRoomKeyNotification {
            session_id: S,
            user_id: of.core.me(),
            public_key: of.public().to_base64(),
            key_epoch: KeyEpoch(epoch),
        };
        self.core.ask(ask, &mut rand::rng())
    }

    fn flush(&mut self) -> Vec<Effect> {
        self.core.flush(&mut rand::rng())
    }

    /// A signed key from this party, as the server hands it to `reader`.
    fn offer(&self, epoch: u64, key: &RoomKey, reader: &Party) -> InboxNotice {
        let check = key.check(&name(epoch));
        let signature = sign_check(self.core.identity(), &name(epoch), &check, &mut rand::rng()).unwrap();
        receive(self.core.me(), epoch, key.wrap_for(&reader.public(), &mut rand::rng()).unwrap(), check, signature)
    }

    fn encrypted(&self, seq: u64, id: &str, text: &str) -> SessionEvent {
        let sent = self.core.seal(S, &ClientId(id.into()), text, &mut rand::rng()).unwrap();
        let msg = Msg {
            sender_id: self.core.me(),
            markdown_text: sent.markdown_text,
            is_encrypted: true,
            key_epoch: sent.key_epoch,
            client_msg_id: sent.client_msg_id,
            content_type: None,
            recalled: false,
        };
        event(seq, Happening::Msg(msg))
    }

    fn knows(&mut self, other: &Party) {
        assert_eq!(self.core.ring_mut().meet(other.core.me(), &other.public()), Trust::First);
        self.done = self.core.looked_up(other.core.me(), Ok(Some(other.public())));
    }
}

fn receive(from: UserId, epoch: u64, room_key: Base64Text, check: Base64Text, signature: Base64Text) -> InboxNotice {
    InboxNotice {
        inbox_id: InboxId(format!("key-{epoch}")),
        body: NoticeBody::ReceiveRoomKeyNotification {
            session_id: S,
            user_id: from,
            room_key,
            key_epoch: KeyEpoch(epoch),
            key_check: Some(check),
            signature: Some(signature),
        },
    }
}

fn event(seq: u64, what: Happening) -> SessionEvent {
    SessionEvent { session_id: S, seq, time: TIME, by: None, what }
}

fn rotated(seq: u64, epoch: u64, key_check: Option<Base64Text>) -> SessionEvent {
    event(seq, Happening::RoomKeyRotated(RoomKeyRotated { key_epoch: KeyEpoch(epoch), key_check }))
}

fn requests(effects: &[Effect]) -> Vec<&Request> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Request(_, request) => Some(request),
            Effect::Save | Effect::LookUp(_) | Effect::AckInbox(_) | Effect::Tell(_) => None,
        })
        .collect()
}

fn keys_sent(effects: &[Effect]) -> SendRoomKeys {
    match requests(effects)[..] {
        [Request::SendRoomKeys(sent)] => sent.clone(),
        ref other => panic!("expected one send_room_keys, got {other:?}"),
    }
}

fn acks(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::AckInbox(_))).count()
}

fn told(effects: &[Effect]) -> Vec<&News> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Tell(news) => Some(news),
            Effect::Save | Effect::LookUp(_) | Effect::AckInbox(_) | Effect::Request(..) => None,
        })
        .collect()
}

fn texts(effects: &[Effect]) -> Vec<(u64, Body, bool)> {
    told(effects)
        .into_iter()
        .filter_map(|news| match news {
            News::Message(message) => Some((message.seq, message.body.clone(), message.late)),
            _ => None,
        })
        .collect()
}

fn refused(code: ErrorCode) -> Result<Box<RawValue>, ClientError> {
    Err(ClientError::Refused(Refusal::new(code, "no")))
}

#[test]
fn a_new_key_is_on_the_disk_before_it_is_sent_to_anyone_and_its_readers_read_what_it_encrypts() {
    let (mut alice, mut bob) = (Party::member(0, None, false), Party::member(1, None, false));
    let update = Ask::UpdateRoomKeyNotification { session_id: S, key_epoch: KeyEpoch(2) };
    let made = alice.core.ask(update.clone(), &mut rand::rng());
    assert!(made.contains(&Effect::Save));
    alice.ask_for(2, &bob);
    assert_eq!(requests(&alice.flush()), Vec::<&Request>::new(), "nothing leaves before the disk has it");
    alice.save();
    let sent = keys_sent(&alice.flush());
    assert_eq!(sent.key_epoch, Some(KeyEpoch(2)));
    let readers: Vec<UserId> = sent.room_keys.iter().map(|wrapped| wrapped.user_id).collect();
    assert_eq!(readers, [alice.core.me(), bob.core.me()], "one's other devices, and everybody asked for");

    // Asked again, after a reconnect: the same key.
    alice.core.ask(update, &mut rand::rng());
    assert_eq!(keys_sent(&alice.flush()).key_check, sent.key_check);

    let to_bob = sent.room_keys[1].room_key.clone();
    let notice = receive(alice.core.me(), 2, to_bob, sent.key_check.clone().unwrap(), sent.signature.unwrap());
    let effects = bob.core.notice(notice.clone());
    assert_eq!(effects, [Effect::LookUp(alice.core.me())], "nobody's signature is taken without their key");
    let effects = bob.core.looked_up(alice.core.me(), Ok(Some(alice.public())));
    assert!(told(&effects).contains(&&News::Keys(KeyNews::Arrived { name: name(2), from: alice.core.me() })));
    assert_eq!(acks(&effects), 0, "not acknowledged before it is saved");
    assert_eq!(acks(&bob.save()), 1);
    assert_eq!(acks(&bob.core.notice(notice)), 1, "and acknowledged again when it comes again");

    alice.core.event(rotated(2, 2, sent.key_check.clone()));
    bob.core.event(rotated(2, 2, sent.key_check));
    let effects = bob.core.event(alice.encrypted(3, "m1", "hello"));
    assert_eq!(texts(&effects), [(3, Body::Decrypted("hello".to_owned()), false)]);
}

#[test]
fn a_lonely_rotator_sends_its_one_batch_too() {
    let mut alice = Party::member(0, None, false);
    alice.core.ask(Ask::UpdateRoomKeyNotification { session_id: S, key_epoch: KeyEpoch(1) }, &mut rand::rng());
    alice.save();
    assert_eq!(keys_sent(&alice.flush()).room_keys.len(), 1);
}

#[test]
fn a_changed_fingerprint_is_given_nothing_until_the_user_agrees() {
    let key = RoomKey::generate(&mut rand::rng());
    let (mut alice, bob, mallory) = (Party::holder(0, 1, &key), Party::new(1), Party::new(2));
    alice.knows(&bob);
    let ask = Ask::SendRoomKeyNotification {
        session_id: S,
        user_id: bob.core.me(),
        public_key: mallory.public().to_base64(),
        key_epoch: KeyEpoch(1),
    };
    alice.core.ask(ask, &mut rand::rng());
    let effects = alice.flush();
    let sent = keys_sent(&effects);
    assert_eq!(sent.room_keys, []);
    let withheld = Withheld { user_id: bob.core.me(), reason: "fingerprint_changed".to_owned() };
    assert_eq!(sent.withheld, Some(vec![withheld]));
    let (pinned, offered) = (bob.public().fingerprint(), mallory.public().fingerprint());
    assert!(told(&effects).contains(&&News::Keys(KeyNews::FingerprintChanged {
        user_id: bob.core.me(),
        pinned,
        offered
    })));

    alice.core.agree(bob.core.me(), &mallory.public());
    let sent = keys_sent(&alice.flush());
    assert_eq!(RoomKey::unwrap_with(mallory.core.identity(), &sent.room_keys[0].room_key), Ok(key));
}

#[test]
fn keys_of_a_changed_fingerprint_wait_for_the_user() {
    let key = RoomKey::generate(&mut rand::rng());
    let (mut alice, bob, mut bob_anew) = (Party::member(0, Some(3), false), Party::new(1), Party::new(2));
    bob_anew.core.me = bob.core.me();
    alice.knows(&bob);
    let effects = alice.core.notice(bob_anew.offer(3, &key, &alice));
    assert_eq!(effects, [Effect::LookUp(bob.core.me())], "the signature is not the pinned key's");
    let effects = alice.core.looked_up(bob.core.me(), Ok(Some(bob_anew.public())));
    assert!(matches!(told(&effects)[..], [News::Keys(KeyNews::FingerprintChanged { .. })]));
    assert!(alice.core.ring().key(&name(3)).is_none());
    assert_eq!(acks(&effects), 0);
    alice.core.agree(bob.core.me(), &bob_anew.public());
    assert_eq!(alice.core.ring().key(&name(3)), Some(&key));
    assert_eq!(acks(&alice.save()), 1);
}

#[test]
fn unsigned_forged_and_wrong_keys_are_refused_and_asked_for_again_a_few_times() {
    let (key, other) = (RoomKey::generate(&mut rand::rng()), RoomKey::generate(&mut rand::rng()));
    let (bob, mallory) = (Party::new(1), Party::new(2));
    let refuse = |notice: &dyn Fn(&Party) -> InboxNotice| {
        let mut alice = Party::member(0, Some(3), false);
        alice.knows(&bob);
        let effects = alice.core.notice(notice(&alice));
        let looked_up = alice.core.looked_up(bob.core.me(), Ok(Some(bob.public())));
        let effects = [effects, looked_up].concat();
        assert!(alice.core.ring().key(&name(3)).is_none());
        let bad = Request::from(RequestRoomKey { session_id: S, reason: LostReason::Bad });
        assert_eq!(requests(&effects), [&bad]);
        assert_eq!(acks(&effects), 1, "a key that is of no use need not come again");
        let why = told(&effects).into_iter().find_map(|news| match news {
            News::Keys(KeyNews::Refused { why, .. }) => Some(*why),
            _ => None,
        });
        why.unwrap()
    };
    let strip = |mut notice: InboxNotice| {
        if let NoticeBody::ReceiveRoomKeyNotification { signature, .. } = &mut notice.body {
            *signature = None;
        }
        notice
    };
    let pretend = |mut notice: InboxNotice| {
        if let NoticeBody::ReceiveRoomKeyNotification { user_id, .. } = &mut notice.body {
            *user_id = bob.core.me();
        }
        notice
    };
    let swap = |mut notice: InboxNotice, alice: &Party| {
        if let NoticeBody::ReceiveRoomKeyNotification { room_key, .. } = &mut notice.body {
            *room_key = other.wrap_for(&alice.public(), &mut rand::rng()).unwrap();
        }
        notice
    };
    assert_eq!(refuse(&|alice| strip(bob.offer(3, &key, alice))), CryptoError::Unsigned);
    assert_eq!(refuse(&|alice| pretend(mallory.offer(3, &key, alice))), CryptoError::Signature);
    assert_eq!(refuse(&|alice| swap(bob.offer(3, &key, alice), alice)), CryptoError::Check);
    assert_eq!(refuse(&|_| bob.offer(3, &key, &mallory)), CryptoError::Unwrap);

    let mut alice = Party::member(0, Some(3), false);
    let asked = (0..10).map(|_| requests(&alice.core.notice(strip(bob.offer(3, &key, &alice)))).len());
    assert_eq!(asked.sum::<usize>(), 3);
}

#[test]
fn where_another_device_was_first_its_key_stands() {
    let mut alice = Party::member(0, None, false);
    alice.core.ask(Ask::UpdateRoomKeyNotification { session_id: S, key_epoch: KeyEpoch(4) }, &mut rand::rng());
    alice.save();
    alice.flush();
    let effects = alice.core.replied(Purpose::Give(name(4)), refused(ErrorCode::KeyMismatch));
    assert!(alice.core.ring().key(&name(4)).is_none());
    assert!(matches!(requests(&effects)[..], [Request::FetchRoomKeys(_)]));
}

#[test]
fn a_key_that_is_not_the_rotated_one_is_dropped() {
    let (key, other) = (RoomKey::generate(&mut rand::rng()), RoomKey::generate(&mut rand::rng()));
    let mut alice = Party::holder(0, 2, &key);
    let effects = alice.core.event(rotated(9, 2, Some(other.check(&name(2)))));
    assert!(alice.core.ring().key(&name(2)).is_none());
    assert!(matches!(requests(&effects)[..], [Request::FetchRoomKeys(_)]));
    let mut bob = Party::holder(1, 2, &key);
    bob.core.event(rotated(9, 2, Some(key.check(&name(2)))));
    assert_eq!(bob.core.ring().key(&name(2)), Some(&key));
}

#[test]
fn text_whose_key_comes_later_is_read_then_and_nothing_is_read_twice() {
    let key = RoomKey::generate(&mut rand::rng());
    let (alice, mut bob) = (Party::holder(0, 5, &key), Party::member(1, Some(5), false));
    bob.knows(&alice);
    let effects = bob.core.event(alice.encrypted(7, "m1", "early"));
    assert_eq!(texts(&effects), [(7, Body::Sealed(Some(KeyEpoch(5))), false)]);
    assert!(matches!(requests(&effects)[..], [Request::FetchRoomKeys(_)]), "it may be on the server");
    let effects = bob.core.event(alice.encrypted(8, "m2", "recalled meanwhile"));
    assert_eq!(requests(&effects), Vec::<&Request>::new(), "once is enough");
    bob.core.event(event(9, Happening::MsgRecalled(MsgRecalled { recalled_seq: 8 })));

    let effects = bob.core.notice(alice.offer(5, &key, &bob));
    assert_eq!(texts(&effects), [(7, Body::Decrypted("early".to_owned()), true)]);

    let again = alice.encrypted(10, "m1", "early");
    assert_eq!(texts(&bob.core.event(again)), [], "the same sender and id under another seq");
    let effects = bob.core.event(alice.encrypted(11, "m3", "fresh"));
    assert_eq!(texts(&effects), [(11, Body::Decrypted("fresh".to_owned()), false)]);
}

#[test]
fn a_second_device_fetches_what_there_is_and_asks_for_what_is_lost() {
    let key = RoomKey::generate(&mut rand::rng());
    let first = Party::holder(0, 2, &key);
    let mut second = Party::new(0);
    let effects = second.authenticated(Some(2), true);
    let expected = FetchRoomKeys { session_id: S, after_epoch: Some(0), limit: None };
    assert_eq!(requests(&effects), [&Request::from(expected)], "all of them, for the history");
    let purpose = Purpose::Fetch { wanted: name(2), believed_held: true };

    let check = key.check(&name(2));
    let signature = sign_check(first.core.identity(), &name(2), &check, &mut rand::rng()).unwrap();
    let view = RoomKeyView {
        key_epoch: KeyEpoch(2),
        user_id: user(0),
        room_key: key.wrap_for(&second.public(), &mut rand::rng()).unwrap(),
        key_check: Some(check),
        signature: Some(signature),
    };
    let page = |room_keys| serde_json::value::to_raw_value(&RoomKeysPage { room_keys, more: false }).unwrap();
    second.core.replied(purpose.clone(), Ok(page(vec![view])));
    assert_eq!(second.core.ring().key(&name(2)), Some(&key));

    let mut third = Party::new(0);
    third.authenticated(Some(2), true);
    let effects = third.core.replied(purpose, Ok(page(vec![])));
    let lost = Request::from(RequestRoomKey { session_id: S, reason: LostReason::Lost });
    assert_eq!(requests(&effects), [&lost]);
}

#[test]
fn who_is_asked_for_a_key_that_is_on_its_way_gives_it_when_it_is_here() {
    let key = RoomKey::generate(&mut rand::rng());
    let (alice, carol) = (Party::holder(0, 2, &key), Party::member(2, Some(2), false));
    let mut bob = Party::member(1, Some(2), false);
    // Its sender has to be looked up first.
    bob.core.notice(alice.offer(2, &key, &bob));
    bob.ask_for(2, &carol);
    let page = serde_json::value::to_raw_value(&RoomKeysPage { room_keys: vec![], more: false }).unwrap();
    let effects = bob.core.replied(Purpose::Fetch { wanted: name(2), believed_held: true }, Ok(page));
    assert!(requests(&effects).is_empty() && requests(&bob.flush()).is_empty(), "it is not lost, and not here");
    bob.knows(&alice);
    bob.save();
    let sent = keys_sent(&bob.flush());
    assert_eq!((sent.key_epoch, sent.room_keys[0].user_id), (Some(KeyEpoch(2)), carol.core.me()));

    let again = Purpose::AskAgain(name(2));
    assert!(!bob.core.still_wants(&again, true), "else he would count as without it");
    assert!(bob.core.still_wants(&Purpose::AskAgain(name(3)), true));
    assert!(!bob.core.still_wants(&Purpose::AskAgain(name(3)), false), "it may have been done");

    bob.ask_for(3, &carol);
    bob.core.event(rotated(2, 4, None));
    assert!(bob.core.ring_mut().keep(name(3), RoomKey::generate(&mut rand::rng())));
    assert!(requests(&bob.flush()).is_empty(), "3 came to nothing");
}

#[test]
fn after_a_stale_key_the_next_one_is_used() {
    let (old, new) = (RoomKey::generate(&mut rand::rng()), RoomKey::generate(&mut rand::rng()));
    let mut alice = Party::holder(0, 1, &old);
    assert!(alice.core.ring_mut().keep(name(2), new));
    let id = ClientId("m".into());
    assert_eq!(alice.core.seal(S, &id, "x", &mut rand::rng()).unwrap().key_epoch, Some(KeyEpoch(1)));
    alice.core.stale(S, &Refusal::stale_room_key(Some(KeyEpoch(2))));
    assert_eq!(alice.core.seal(S, &id, "x", &mut rand::rng()).unwrap().key_epoch, Some(KeyEpoch(2)));
    let effects = alice.core.stale(S, &Refusal::stale_room_key(Some(KeyEpoch(3))));
    assert_eq!(alice.core.seal(S, &id, "x", &mut rand::rng()), Err(CannotSeal::NoKey(KeyEpoch(3))));
    assert!(matches!(requests(&effects)[..], [Request::FetchRoomKeys(_)]));
    alice.core.event(event(9, Happening::SessionE2eeChanged(SessionE2eeChanged { e2ee_on: true })));
    assert_eq!(alice.core.seal(S, &id, "x", &mut rand::rng()), Err(CannotSeal::Pending));
    alice.core.event(event(10, Happening::SessionE2eeChanged(SessionE2eeChanged { e2ee_on: false })));
    assert_eq!(alice.core.seal(S, &id, "x", &mut rand::rng()), Err(CannotSeal::NotEncrypted));
}

#[test]
fn an_applicant_is_admitted_with_the_key_once_the_user_agrees() {
    let key = RoomKey::generate(&mut rand::rng());
    let (mut alice, bob, mallory) = (Party::holder(0, 1, &key), Party::new(1), Party::new(2));
    let request = |public_key: Option<&Party>| InboxNotice {
        inbox_id: InboxId("join".to_owned()),
        body: NoticeBody::JoinSessionApproval {
            session_id: S,
            user_id: bob.core.me(),
            leave_message: None,
            public_key: public_key.map(|party| party.public().to_base64()),
        },
    };
    let decide = |alice: &mut Party, key: Option<&PublicKey>| {
        alice.core.decide(S, bob.core.me(), true, key, &mut rand::rng()).map(|(decided, _)| decided)
    };
    let effects = alice.core.notice(request(Some(&bob)));
    assert!(matches!(told(&effects)[..], [News::Asking(Asking::JoinRequest { .. })]));
    assert_eq!(acks(&effects), 0, "it stands until it is decided");
    assert_eq!(told(&alice.core.notice(request(Some(&bob)))), Vec::<&News>::new(), "heard once");
    let Ok(Decided::Request(sent)) = decide(&mut alice, None) else { panic!("expected a request") };
    assert_eq!(RoomKey::unwrap_with(bob.core.identity(), &sent.room_key.unwrap()), Ok(key));
    assert!(sent.signature.is_some() && sent.key_check.is_some());
    assert_eq!(acks(&alice.core.join_decided(S, bob.core.me())), 1);

    assert!(matches!(decide(&mut alice, None), Ok(Decided::NeedsKey)), "decided on another device's word");
    let changed = decide(&mut alice, Some(&mallory.public()));
    assert!(matches!(changed, Err(ClientError::FingerprintChanged { .. })));

    alice.core.notice(request(None));
    assert!(matches!(decide(&mut alice, Some(&bob.public())), Ok(Decided::Request(_))));
    let effects = alice.core.withdrawn(&[InboxId("join".to_owned())]);
    assert_eq!(told(&effects), Vec::<&News>::new(), "what one decided oneself is no news");

    alice.core.notice(request(None));
    let effects = alice.core.withdrawn(&[InboxId("join".to_owned())]);
    assert!(matches!(told(&effects)[..], [News::Asking(Asking::Withdrawn { .. })]));
}

#[test]
fn many_undecided_notifications_do_not_hold_up_the_others() {
    let mut alice = Party::new(0);
    let mut acknowledged = 0;
    for number in 0..100_u8 {
        let body = NoticeBody::InviteUserToSession {
            session_id: SessionId::from_bytes([number; 16]),
            inviter_id: user(1),
            leave_message: None,
            expire_timestamp: TIME,
        };
        acknowledged += acks(&alice.core.notice(InboxNotice { inbox_id: InboxId(number.to_string()), body }));
    }
    assert_eq!(acknowledged, 36);
    assert_eq!(alice.core.invitations().count(), 64);
}

#[test]
fn the_first_key_of_a_session_being_made_is_not_taken_for_lost() {
    let mut alice = Party::new(0);
    alice.core.begin_create();
    assert_eq!(requests(&alice.authenticated(Some(1), true)), Vec::<&Request>::new());
    alice.core.end_create(Some((S, Some(KeyEpoch(1)))), &mut rand::rng());
    alice.save();
    let sent = keys_sent(&alice.flush());
    assert_eq!(sent.room_keys.len(), 1, "to one's own other devices");
    alice.core.seal(S, &ClientId("m".into()), "x", &mut rand::rng()).unwrap();
}

#[test]
fn an_invitee_who_accepts_is_given_the_key() {
    let key = RoomKey::generate(&mut rand::rng());
    let (mut alice, bob) = (Party::holder(0, 1, &key), Party::new(1));
    let accepted = NoticeBody::AcceptSessionNotification {
        session_id: S,
        invitee_id: bob.core.me(),
        accepted: true,
        public_key: Some(bob.public().to_base64()),
        key_epoch: Some(KeyEpoch(1)),
    };
    let effects = alice.core.notice(InboxNotice { inbox_id: InboxId("a".to_owned()), body: accepted });
    assert_eq!(acks(&effects), 1);
    // The server asks for the same.
    alice.ask_for(1, &bob);
    assert_eq!(keys_sent(&alice.flush()).room_keys.len(), 1);
}

/// What the server says of S to a member who asks.
fn info(last_seq: u64, epoch: Option<u64>) -> Result<Box<RawValue>, ClientError> {
    let info = serde_json::json!({
        "session_id": S, "e2ee_on": epoch.is_some(), "key_epoch": epoch, "require_encryption": false,
        "rotate_on_join": false, "join_policy": "open", "created_at": "2026-01-31T12:00:00.000Z",
        "last_seq": last_seq, "member_count": 1, "members": [],
    });
    Ok(RawValue::from_string(info.to_string()).unwrap())
}

#[test]
fn nothing_is_said_in_a_session_before_it_is_known_whether_it_is_encrypted() {
    let says = |party: &Party| party.core.seal(S, &ClientId("m".into()), "x", &mut rand::rng());
    let joined = |party: &mut Party| {
        let me = party.core.me();
        let what = Happening::MemberJoined(MemberJoined { user_id: me, role: Role::Member });
        party.core.event(event(5, what))
    };
    for (epoch, then) in [(None, CannotSeal::NotEncrypted), (Some(1), CannotSeal::NoKey(KeyEpoch(1)))] {
        let mut alice = Party::new(0);
        assert_eq!(says(&alice), Err(CannotSeal::NotInSession));
        assert!(matches!(requests(&joined(&mut alice))[..], [Request::GetSessionInfo(_)]));
        assert_eq!(says(&alice), Err(CannotSeal::Unknown));
        alice.core.replied(Purpose::Learn(S), Err(ClientError::Closed(None)));
        assert_eq!(says(&alice), Err(CannotSeal::Unknown));
        alice.core.replied(Purpose::Learn(S), info(5, epoch));
        assert_eq!(says(&alice), Err(then));
    }
    // An answer that was on its way while encryption was switched on says what was true before.
    let mut alice = Party::new(0);
    joined(&mut alice);
    alice.core.event(event(6, Happening::SessionE2eeChanged(SessionE2eeChanged { e2ee_on: true })));
    alice.core.event(rotated(7, 1, None));
    alice.core.replied(Purpose::Learn(S), info(5, None));
    assert_eq!(says(&alice), Err(CannotSeal::NoKey(KeyEpoch(1))));
}
