//! Publications and what they put into outboxes, with connections that have no socket.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::IntCounter;

use super::after::After;
use super::roster::Roster;
use crate::cluster::{Effect, Publication, Row, UserSignal};
use crate::connection::ConnectionKey;
use crate::connection::catch_up::Standing;
use crate::connection::link::{Identity, Link, LinkParts, Stage};
use crate::connection::outbox::Taken;
use crate::connection::socket::Socket;
use crate::protocol::{Frame, InboxId, NodeId, SessionId, UserId};
use crate::store::TokenHash;

const SESSION: SessionId = SessionId::from_bytes([9; 16]);

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

/// A connection whose events flow.
fn link(roster: &mut Roster, serial: u64, user_id: UserId, outbox_bytes: usize) -> Rc<Link> {
    let link = Rc::new(Link::new(LinkParts {
        key: ConnectionKey { node: NodeId::from_bytes([7; 16]), worker: 0, serial },
        socket: Socket::default(),
        bearer: None,
        address: None,
        outbox_bytes,
        inbox_window: 2,
        requests_in_flight: 4,
        slow_clients: IntCounter::new("slow", "slow").unwrap(),
    }));
    let expires = Instant::now() + Duration::from_secs(3600);
    let identity = Identity { user_id, token: TokenHash([0; 32]), expires, throttle: Arc::default() };
    assert!(link.identity.set(identity).is_ok());
    link.stage.set(Stage::Resumed);
    let mut inbox = link.inbox.borrow_mut();
    inbox.open();
    let asked = inbox.begin().unwrap();
    inbox.page(Vec::new(), asked);
    drop(inbox);
    roster.links.insert(serial, Rc::clone(&link));
    roster.identify(&link, user_id);
    link
}

fn seat(roster: &mut Roster, link: &Rc<Link>, standing: Standing) {
    link.seats.borrow_mut().insert(SESSION);
    roster.sessions.entry(SESSION).or_default().add(link, link.user_id().unwrap(), standing);
}

fn event(seq: u64, effect: Effect) -> Row {
    Row::Event { seq, effect, frame: Frame::text(format!("event {seq}").as_bytes()) }
}

fn key(user_id: UserId, number: u64) -> Row {
    let frame = Frame::text(format!("key {number}").as_bytes());
    Row::Notice { user_id, inbox_id: InboxId(format!("key {number}")), holds_key: true, frame }
}

fn publish(roster: &mut Roster, version: u64, rows: Vec<Row>) -> After {
    let mut after = After::default();
    roster.publication(&Publication { session_id: SESSION, version, rows }, &mut after);
    after
}

/// The pieces that are in the outbox.
fn pieces(link: &Link) -> Vec<Bytes> {
    std::iter::from_fn(|| match link.outbox().take() {
        Taken::Frame(bytes) => Some(bytes),
        Taken::Empty | Taken::Closed => None,
    })
    .collect()
}

/// What is in the outbox, as text. Only of frames with a short header.
fn got(link: &Link) -> Vec<String> {
    let all = pieces(link).concat();
    let (mut rest, mut texts) = (all.as_slice(), Vec::new());
    while let [first, len, behind @ ..] = rest {
        assert!(*first == 0x81 && *len < 126);
        let (text, others) = behind.split_at(usize::from(*len));
        texts.push(String::from_utf8_lossy(text).into_owned());
        rest = others;
    }
    texts
}

fn standing(roster: &mut Roster, link: &Link) -> Option<Standing> {
    roster.sessions.get_mut(&SESSION)?.seat(link).map(|seat| seat.standing)
}

#[test]
fn everyone_who_is_live_shares_the_frame_and_repeated_versions_are_dropped() {
    let mut roster = Roster::default();
    let links: Vec<_> = (1..=3).map(|number| link(&mut roster, number.into(), user(number), 1000)).collect();
    seat(&mut roster, &links[0], Standing::Live { last: 4 });
    seat(&mut roster, &links[1], Standing::Held);
    seat(&mut roster, &links[2], Standing::CatchingUp { cursor: 2 });
    let after = publish(&mut roster, 10, vec![event(5, Effect::None)]);
    assert_eq!(after.pushed, 1);
    publish(&mut roster, 10, vec![event(5, Effect::None)]);
    publish(&mut roster, 11, vec![event(6, Effect::None), event(7, Effect::None)]);
    assert_eq!(got(&links[0]), ["event 5", "event 6", "event 7"]);
    assert!(got(&links[1]).is_empty() && got(&links[2]).is_empty());
    assert_eq!(roster.sessions[&SESSION].known_seq, 7, "what a page must reach before it counts as caught up");
}

#[test]
fn a_burst_is_one_piece_for_each_seat_and_bounded() {
    let mut roster = Roster::default();
    let links: Vec<_> = (1..=3).map(|number| link(&mut roster, number.into(), user(number), 100_000)).collect();
    seat(&mut roster, &links[0], Standing::Live { last: 4 });
    seat(&mut roster, &links[1], Standing::Live { last: 6 });
    seat(&mut roster, &links[2], Standing::Live { last: 3 });
    let after = publish(&mut roster, 10, (5..=8).map(|seq| event(seq, Effect::None)).collect());
    assert_eq!((after.pushed, after.behind.len()), (6, 1));
    let whole = pieces(&links[0]);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0], b"\x81\x07event 5\x81\x07event 6\x81\x07event 7\x81\x07event 8"[..]);
    assert_eq!(got(&links[1]), ["event 7", "event 8"], "the others had come with a page");
    assert!(got(&links[2]).is_empty());
    assert_eq!(standing(&mut roster, &links[2]), Some(Standing::CatchingUp { cursor: 3 }));

    let large = |seq| Row::Event { seq, effect: Effect::None, frame: Frame::text(&[b'x'; 7_000]) };
    publish(&mut roster, 11, (9..=13).map(large).collect());
    let sizes: Vec<_> = pieces(&links[0]).iter().map(Bytes::len).collect();
    assert_eq!(sizes, [14_008, 14_008, 7_004]);
}

#[test]
fn who_joins_in_the_middle_of_a_burst_hears_what_follows() {
    let mut roster = Roster::default();
    let (member, newcomer) = (link(&mut roster, 1, user(1), 1000), link(&mut roster, 2, user(2), 1000));
    seat(&mut roster, &member, Standing::Live { last: 4 });
    let plain = |seq| event(seq, Effect::None);
    let joined = event(7, Effect::Joined(user(2)));
    publish(&mut roster, 10, vec![plain(5), plain(6), joined, plain(8), plain(9)]);
    assert_eq!(got(&member), ["event 5", "event 6", "event 7", "event 8", "event 9"]);
    assert_eq!(got(&newcomer), ["event 7", "event 8", "event 9"]);
}

#[test]
fn after_a_lost_publication_the_key_comes_from_the_store_before_the_text() {
    let mut roster = Roster::default();
    let member = link(&mut roster, 1, user(1), 1000);
    seat(&mut roster, &member, Standing::Live { last: 4 });
    publish(&mut roster, 10, vec![event(5, Effect::None)]);
    // Version 11, which only had this member's room key, is lost: the next event has the next `seq` all the same.
    let after = publish(&mut roster, 12, vec![event(6, Effect::None)]);
    assert_eq!(got(&member), ["event 5"], "the text waits for the key");
    assert_eq!(standing(&mut roster, &member), Some(Standing::CatchingUp { cursor: 5 }));
    assert_eq!((after.gaps, after.behind.len()), (1, 1));
    assert!(member.inbox.borrow().is_behind(), "so keys are read before the page");
}

#[test]
fn a_key_goes_to_its_user_alone_before_the_events_and_beyond_the_window() {
    let mut roster = Roster::default();
    let (one, other) = (link(&mut roster, 1, user(1), 1000), link(&mut roster, 2, user(2), 1000));
    seat(&mut roster, &one, Standing::Live { last: 0 });
    seat(&mut roster, &other, Standing::Live { last: 0 });
    let keys = (1..=4).map(|number| key(user(1), number));
    publish(&mut roster, 1, keys.chain([event(1, Effect::None)]).collect());
    assert_eq!(got(&one), ["key 1", "key 2", "key 3", "key 4", "event 1"]);
    assert_eq!(got(&other), ["event 1"]);
}

#[test]
fn a_join_brings_the_users_connections_in_and_a_leave_is_their_last() {
    let mut roster = Roster::default();
    let (one, other) = (link(&mut roster, 1, user(1), 1000), link(&mut roster, 2, user(2), 1000));
    seat(&mut roster, &one, Standing::Live { last: 3 });
    publish(&mut roster, 7, vec![event(4, Effect::Joined(user(2)))]);
    publish(&mut roster, 8, vec![event(5, Effect::None)]);
    publish(&mut roster, 9, vec![event(6, Effect::Left(user(2)))]);
    publish(&mut roster, 10, vec![event(7, Effect::None)]);
    assert_eq!(got(&other), ["event 4", "event 5", "event 6"]);
    assert!(other.seats.borrow().is_empty());
    let after = publish(&mut roster, 11, vec![event(8, Effect::Ended)]);
    assert_eq!(got(&one), ["event 4", "event 5", "event 6", "event 7", "event 8"]);
    assert_eq!(after.ignored, [SESSION], "nobody listens any more");
    assert!(roster.sessions.is_empty());
}

#[test]
fn a_join_of_a_session_that_nobody_here_was_in_makes_its_audience() {
    let mut roster = Roster::default();
    let member = link(&mut roster, 1, user(1), 1000);
    let after = publish(&mut roster, 5, vec![event(9, Effect::Joined(user(1))), event(10, Effect::None)]);
    assert_eq!(got(&member), ["event 9", "event 10"]);
    assert_eq!(after.listened, [SESSION]);
    publish(&mut roster, 6, vec![event(11, Effect::None)]);
    assert_eq!(got(&member), ["event 11"]);
}

#[test]
fn a_missing_event_sends_one_connection_back_to_the_store_and_no_other() {
    let mut roster = Roster::default();
    let (one, other) = (link(&mut roster, 1, user(1), 1000), link(&mut roster, 2, user(2), 1000));
    seat(&mut roster, &one, Standing::Live { last: 3 });
    seat(&mut roster, &other, Standing::Live { last: 4 });
    let after = publish(&mut roster, 5, vec![event(5, Effect::None)]);
    assert_eq!(got(&other), ["event 5"]);
    assert!(got(&one).is_empty());
    assert_eq!(standing(&mut roster, &one), Some(Standing::CatchingUp { cursor: 3 }));
    assert_eq!(after.behind.len(), 1);
}

#[test]
fn a_full_outbox_dooms_its_connection_and_no_other() {
    let mut roster = Roster::default();
    let (one, other) = (link(&mut roster, 1, user(1), 12), link(&mut roster, 2, user(2), 1000));
    seat(&mut roster, &one, Standing::Live { last: 0 });
    seat(&mut roster, &other, Standing::Live { last: 0 });
    let after = publish(&mut roster, 1, vec![event(1, Effect::None), event(2, Effect::None)]);
    assert_eq!(after.doomed.iter().map(|link| link.key.serial).collect::<Vec<_>>(), [1]);
    assert_eq!(got(&other), ["event 1", "event 2"]);
}

#[test]
fn what_is_withdrawn_makes_room_and_a_wake_looks_into_the_store() {
    let mut roster = Roster::default();
    let member = link(&mut roster, 1, user(1), 1000);
    publish(&mut roster, 1, vec![key(user(1), 1), key(user(1), 2)]);
    got(&member);
    let mut after = After::default();
    roster.signal(user(1), &UserSignal::Withdrawn(vec![InboxId("key 1".into())]), &mut after);
    assert_eq!(got(&member), [r#"{"type":"InboxWithdrawn","body":{"inbox_ids":["key 1"]}}"#]);
    let mut after = After::default();
    roster.signal(user(1), &UserSignal::Wake, &mut after);
    assert_eq!((after.inbox.len(), after.memberships.len()), (1, 0));
    let joined = |roster: &mut Roster| {
        let mut after = After::default();
        roster.signal(user(1), &UserSignal::Joined(SESSION, 7), &mut after);
        (after.inbox.len(), after.memberships.len())
    };
    assert_eq!(joined(&mut roster), (1, 1), "no seat");
    seat(&mut roster, &member, Standing::Live { last: 0 });
    assert_eq!(joined(&mut roster), (1, 1), "maybe one of an earlier membership");
    publish(&mut roster, 7, vec![]);
    assert_eq!(joined(&mut roster), (1, 0), "the session's own news were here before");
}

#[test]
fn asks_wait_for_the_reply_to_authenticate() {
    let mut roster = Roster::default();
    let member = link(&mut roster, 1, user(1), 1000);
    member.stage.set(Stage::Authenticating);
    member.push_asks(vec![Frame::text(b"ask 1")]).unwrap();
    assert!(got(&member).is_empty());
    member.send(&Frame::text(b"reply"));
    member.authenticated();
    member.push_asks(vec![Frame::text(b"ask 2")]).unwrap();
    assert_eq!(got(&member), ["reply", "ask 1", "ask 2"]);
}

#[test]
fn who_does_not_read_replies_is_cut_off_and_counted_once() {
    let mut roster = Roster::default();
    let link = link(&mut roster, 1, user(1), 100);
    let reply = Frame::text(&[b'x'; 60]);
    for cut_off in [false, true, true] {
        link.send(&reply);
        assert_eq!((link.is_cut_off(), link.slow_clients.get()), (cut_off, u64::from(cut_off)));
    }
}
