//! The session's whole life at random: members, strangers, clients that answer and clients that lie, time, restarts.

use proptest::prelude::*;

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

type Step = (u8, u8, u8, u8);

/// The people of a simulation: some come in, some never do.
const PEOPLE: u8 = 7;

fn person(number: u8) -> UserId {
    user(1 + number % PEOPLE)
}

/// One of the epochs about now, or none given.
fn some_epoch(world: &World, number: u8) -> Option<KeyEpoch> {
    let current = world.epoch().unwrap_or(1);
    match number % 5 {
        0 => None,
        1 => Some(KeyEpoch(current)),
        2 => Some(KeyEpoch(current + 1)),
        3 => Some(KeyEpoch(current + 2)),
        _ => Some(KeyEpoch(current.saturating_sub(1).max(1))),
    }
}

/// The right check value of an epoch, a wrong one, or none.
fn some_check(epoch: Option<KeyEpoch>, number: u8) -> Option<Base64Text> {
    match number % 4 {
        0 => None,
        1 => Some(b64("a lie")),
        _ => epoch.map(|epoch| b64(&format!("check {}", epoch.0))),
    }
}

fn admission(world: &World, (op, a, b, c): Step) -> Command {
    let target = person(a);
    let epoch = some_epoch(world, b);
    match op % 5 {
        0 => join(),
        1 => Command::Allow(AllowUserJoinSession {
            room_key: (c % 3 > 0).then(|| b64("wrapped")),
            key_epoch: epoch,
            key_check: some_check(epoch, c),
            ..allow(target, c % 7 != 0)
        }),
        2 => invite(target),
        3 => accept(target, b % 5 != 0),
        _ => Command::SetInfo(SetSessionInfo {
            require_encryption: (b % 3 == 0).then_some(c % 2 == 0),
            rotate_on_join: (b % 3 == 1).then_some(c % 2 == 0),
            join_policy: (b % 3 == 2)
                .then_some([JoinPolicy::Approval, JoinPolicy::Open, JoinPolicy::Closed][usize::from(c % 3)]),
            ..info()
        }),
    }
}

fn moderation((op, a, b, _): Step) -> Command {
    let user_id = person(a);
    let duration_s = (b % 2 == 0).then_some(u64::from(b) * 100 + 1);
    match op % 9 {
        0 => Command::Kick(user_id),
        1 => Command::Ban { user_id, duration_s, known: b % 5 != 0 },
        2 | 3 => Command::Unban(user_id),
        4 => Command::Mute { user_id, duration_s },
        5 => Command::Unmute(user_id),
        6 => Command::SetRole { user_id, role: [Role::Member, Role::Admin, Role::Owner][usize::from(b % 3)] },
        _ => Command::Leave { force: b % 3 == 0 },
    }
}

fn keys_of_members(world: &World, (op, a, b, c): Step) -> Command {
    let epoch = some_epoch(world, b);
    match op % 6 {
        0 => Command::SendRoomKey(SendRoomKey {
            session_id: session_id(),
            user_id: person(a),
            room_key: b64("wrapped"),
            key_epoch: epoch,
            key_check: some_check(epoch, c),
            signature: None,
        }),
        1 | 2 => {
            let chosen = |bits: u8| (0..PEOPLE).filter(move |bit| bits & (1 << bit) != 0).map(person);
            let some: Vec<_> = chosen(a).collect();
            let withheld: Vec<_> = if c % 4 == 0 { chosen(!a & c).collect() } else { Vec::new() };
            Command::SendRoomKeys(SendRoomKeys {
                key_epoch: epoch,
                key_check: some_check(epoch, c),
                ..keys(1, &some, &withheld)
            })
        }
        3 => lost(),
        4 => Command::E2eeize,
        _ if a % 4 == 0 => Command::Dee2eeize,
        _ => Command::E2eeize,
    }
}

fn speech(world: &World, (op, a, b, c): Step) -> Command {
    if op % 5 == 4 {
        let seq = u64::from(a) % (world.model.events.len() as u64 + 1);
        let original = seq.checked_sub(1).and_then(|place| world.model.events.get(usize::try_from(place).unwrap()));
        return Command::Recall { seq, original: original.cloned().map(Box::new) };
    }
    Command::SendMsg(SendMsg {
        is_encrypted: a % 2 == 0,
        key_epoch: if c % 2 == 0 { None } else { some_epoch(world, b) },
        client_msg_id: (c % 3 == 0).then(|| ClientId(format!("id {}", b % 8).into())),
        ..msg("text")
    })
}

/// Asks go to clients who answer them, unless they are in a mood not to.
fn answer_asks(world: &mut World, honest: bool, mood: u8) {
    for (place, ask) in world.asks().into_iter().enumerate() {
        assert!(world.state.is_member(ask.to()), "a stranger is asked");
        if !honest && (place + usize::from(mood)).is_multiple_of(3) {
            continue;
        }
        if world.online.contains(&ask.to()) {
            answer(world, ask);
        }
    }
}

fn answer(world: &mut World, ask: AskFor) {
    let told = match ask {
        AskFor::NewKey { to, epoch } => {
            world.told(to, Command::SendRoomKeys(SendRoomKeys { key_check: None, ..keys(epoch.0, &[], &[]) }))
        }
        AskFor::Key { to, member, epoch } => {
            let Command::SendRoomKey(body) = send_key(member, epoch.0) else { unreachable!() };
            world.told(to, Command::SendRoomKey(SendRoomKey { key_check: None, ..body }))
        }
    };
    // What was asked a moment ago may be settled by now, and by nothing else refused.
    if let Err(code) = told {
        let settled =
            [ErrorCode::AlreadyExists, ErrorCode::StaleRoomKey, ErrorCode::PermissionDenied, ErrorCode::NotFound];
        assert!(settled.contains(&code), "{code:?} for an answer to {ask:?}");
    }
}

fn step(world: &mut World, step: Step) {
    let (op, a, b, c) = step;
    let caller = person(c.wrapping_mul(31).wrapping_add(b));
    let inner = (op / 16, a, b, c);
    let before = world.phase();
    match op % 16 {
        0..=2 => drop(world.told(caller, admission(world, inner))),
        3 | 4 => drop(world.told(caller, moderation(inner))),
        5..=7 => drop(world.told(caller, keys_of_members(world, inner))),
        8..=10 => drop(world.told(caller, speech(world, inner))),
        11 => {
            world.pass([10, 1_000, 16_000, 31_000, 3_600_000, 90_000_000, 605_000_000][usize::from(a % 7)]);
            world.tick();
        }
        12 => {
            if !world.online.remove(&caller) {
                world.online.insert(caller);
                world.state.member_connected(caller);
            }
        }
        13 => {
            let kind = if a % 3 == 0 { TaskKind::Closed } else { TaskKind::PublicKeyChanged("ff".to_owned()) };
            world.task(caller, kind);
        }
        14 => world.restart(),
        _ => answer_asks(world, false, a),
    }
    assert_mark_is_kept(world, before);
}

/// A mark goes only into a rotation, out of a finished one, or with encryption.
fn assert_mark_is_kept(world: &World, before: Option<Phase>) {
    let finished = world.model.events.iter().rev().any(|event| matches!(event.what, Happening::RoomKeyRotated(_)));
    match (before, world.phase()) {
        (Some(Phase::Marked { reasons }), Some(Phase::Marked { reasons: now })) => {
            assert!(reasons.is_subset(&now), "a mark's reason was lost");
        }
        (Some(Phase::Marked { reasons }), Some(Phase::Rotating(now))) => {
            assert!(reasons.is_subset(&now.reasons), "a mark's reason was lost");
        }
        (Some(Phase::Marked { .. }), Some(Phase::Steady)) if !world.state.ended() => panic!("a mark was lost"),
        (Some(Phase::Rotating(_)), Some(Phase::Steady)) => assert!(finished, "a rotation ended without its event"),
        _ => {}
    }
}

/// With everybody connected and answering, everybody has the current key before long, and the session is steady.
fn settle(world: &mut World) {
    if world.state.ended() || world.phase().is_none() {
        return;
    }
    let members: Vec<UserId> = world.state.members.keys().copied().collect();
    world.online.extend(&members);
    for user_id in &members {
        world.state.member_connected(*user_id);
    }
    // Whom holders would not give the key gets the next one.
    let owner = world.state.members.values().find(|member| member.role == Role::Owner).unwrap().user_id;
    if world.state.members.values().any(|member| !member.keys.withheld_by.is_empty()) {
        world.ok(owner, Command::E2eeize);
    }
    for _ in 0..12 {
        for _ in 0..4 {
            answer_asks(world, true, 0);
        }
        if world.is_steady() && world.state.without_key.is_empty() {
            return;
        }
        if world.is_marked() {
            for user_id in &members {
                if world.told(*user_id, say()) == Err(ErrorCode::EncryptionRequired) {
                    drop(world.told(*user_id, say_encrypted(None)));
                }
            }
        }
        if world.is_marked() {
            // All who may speak are passed over, or muted.
            world.pass(10 * 3_600_000);
            if members.iter().all(|user_id| world.state.is_muted(*user_id, world.now)) {
                world.ok(owner, Command::E2eeize);
            }
        } else {
            world.pass(16_000);
        }
    }
    panic!("still {:?}, {} without the key", world.phase(), world.state.without_key.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_through_a_whole_life(
        e2ee_on: bool,
        steps in prop::collection::vec(any::<Step>(), 1..160),
    ) {
        let mut world = World::group(e2ee_on);
        for one in steps {
            step(&mut world, one);
            if world.state.ended() {
                break;
            }
        }
        settle(&mut world);
    }
}
