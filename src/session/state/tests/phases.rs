//! The table of (phase, input): what each input comes to in each phase of the room key's life, a line each in
//! `phases.txt`. Members: owner, admin, ann and bob hold the key, cat does not; ann is the rotator where there is one;
//! bob is whom she has sent the new key in the phase that has started.

use std::fmt::Write;

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

const CAT: UserId = user(5);
const DAN: UserId = user(6);
const GONE: UserId = user(8);

type Setting = fn() -> World;
type Input = fn(&mut World) -> Told;

const PHASES: &[(&str, Setting)] = &[
    ("off", off),
    ("on, no key yet, marked", pending),
    ("on, no key yet, rotating", first_rotation),
    ("steady", steady),
    ("marked (age)", aged),
    ("marked (messages)", worn),
    ("marked (left)", left),
    ("marked (joined)", joined),
    ("marked (void)", void),
    ("marked (no holder)", holderless),
    ("rotating, not started", rotating),
    ("rotating, started", started),
];

const INPUTS: &[(&str, Input)] = &[
    ("ann speaks", |world| world.told(ANN, say())),
    ("bob speaks", |world| world.told(BOB, say())),
    ("cat speaks", |world| world.told(CAT, say())),
    ("bob speaks, encrypted", |world| world.told(BOB, say_encrypted(None))),
    ("bob speaks, encrypted with the next key", |world| {
        let next = world.epoch().unwrap_or(0) + 1;
        world.told(BOB, say_encrypted(Some(next)))
    }),
    ("bob speaks, plain where encryption is required", |world| {
        world.ok(OWNER, Command::SetInfo(SetSessionInfo { require_encryption: Some(true), ..info() }));
        world.told(BOB, say())
    }),
    ("ann sends cat the current key", |world| world.told(ANN, send_key(CAT, world.epoch().unwrap_or(1)))),
    ("bob sends cat the current key", |world| world.told(BOB, send_key(CAT, world.epoch().unwrap_or(1)))),
    ("cat sends bob the current key", |world| world.told(CAT, send_key(BOB, world.epoch().unwrap_or(1)))),
    ("ann sends cat the next key", |world| world.told(ANN, send_key(CAT, last(world)))),
    ("bob sends cat the next key", |world| world.told(BOB, send_key(CAT, last(world)))),
    ("ann sends herself the next key", |world| world.told(ANN, send_key(ANN, last(world)))),
    ("ann sends all the next key", |world| world.told(ANN, send_keys(last(world), &[OWNER, ADMIN, BOB, CAT]))),
    ("ann sends nobody the next key", |world| world.told(ANN, send_keys(last(world), &[]))),
    ("ann withholds the next key from cat, sends it to all others", |world| {
        world.told(ANN, Command::SendRoomKeys(keys(last(world), &[OWNER, ADMIN, BOB], &[CAT])))
    }),
    ("ann asks for the key again", |world| world.told(ANN, lost())),
    ("bob asks for the key again", |world| world.told(BOB, lost())),
    ("cat asks for the key again", |world| world.told(CAT, lost())),
    ("the owner e2eeizes", |world| world.told(OWNER, Command::E2eeize)),
    ("ann, owner now, e2eeizes", |world| {
        world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Owner });
        world.told(ANN, Command::E2eeize)
    }),
    ("the admin e2eeizes", |world| world.told(ADMIN, Command::E2eeize)),
    ("the owner dee2eeizes", |world| world.told(OWNER, Command::Dee2eeize)),
    ("dan joins", |world| {
        world.ok(OWNER, invite(DAN));
        world.told(DAN, accept(OWNER, true))
    }),
    ("dan joins, who makes the session rotate", |world| {
        world.ok(OWNER, Command::SetInfo(SetSessionInfo { rotate_on_join: Some(true), ..info() }));
        world.ok(OWNER, invite(DAN));
        world.told(DAN, accept(OWNER, true))
    }),
    ("dan is let in with the current key", |world| {
        world.ok(DAN, join());
        let epoch = world.epoch().unwrap_or(1);
        world.told(ADMIN, allow_with_key(DAN, epoch))
    }),
    ("dan is let in without a key", |world| {
        world.ok(DAN, join());
        world.told(ADMIN, Command::Allow(allow(DAN, true)))
    }),
    ("ann leaves", |world| world.told(ANN, Command::Leave { force: false })),
    ("bob leaves", |world| world.told(BOB, Command::Leave { force: false })),
    ("cat leaves", |world| world.told(CAT, Command::Leave { force: false })),
    ("the owner leaves", |world| world.told(OWNER, Command::Leave { force: false })),
    ("ann is kicked", |world| world.told(OWNER, Command::Kick(ANN))),
    ("bob is kicked", |world| world.told(OWNER, Command::Kick(BOB))),
    ("cat is kicked", |world| world.told(OWNER, Command::Kick(CAT))),
    ("bob is banned", |world| world.told(OWNER, Command::Ban { user_id: BOB, duration_s: None, known: true })),
    ("ann's account is closed", |world| task(world, ANN, TaskKind::Closed)),
    ("bob's account is closed", |world| task(world, BOB, TaskKind::Closed)),
    ("cat's account is closed", |world| task(world, CAT, TaskKind::Closed)),
    ("ann's public key changes", |world| task(world, ANN, TaskKind::PublicKeyChanged("ff".to_owned()))),
    ("bob's public key changes", |world| task(world, BOB, TaskKind::PublicKeyChanged("ff".to_owned()))),
    ("cat's public key changes", |world| task(world, CAT, TaskKind::PublicKeyChanged("ff".to_owned()))),
    ("the key's lifetime runs out before the deadline", |world| {
        world.state.rules.room_key_lifetime_ms = 1_000;
        time(world, 2_000)
    }),
    ("the key's messages run out", |world| {
        world.state.rules.room_key_messages = 1;
        world.told(BOB, say_encrypted(None))
    }),
    ("the deadline passes, all are connected", |world| time(world, 60_000)),
    ("the deadline passes, nobody is connected", |world| {
        world.online.clear();
        time(world, 60_000)
    }),
    ("ann is muted", |world| world.told(OWNER, Command::Mute { user_id: ANN, duration_s: None })),
    ("ann becomes admin", |world| world.told(OWNER, Command::SetRole { user_id: ANN, role: Role::Admin })),
    ("bob invites dan", |world| world.told(BOB, invite(DAN))),
    ("dan asks to join", |world| world.told(DAN, join())),
    ("the session is loaded anew", |world| {
        world.restart();
        Ok(serde_json::json!({}))
    }),
    ("the session is deleted", |world| world.told(OWNER, Command::Delete)),
];

fn off() -> World {
    let mut world = World::group(false);
    world.admit(CAT);
    world
}

fn first_rotation() -> World {
    let mut world = off();
    world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Owner });
    world.ok(ANN, Command::E2eeize);
    world.ok(ANN, Command::SetRole { user_id: OWNER, role: Role::Owner });
    world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Member });
    world
}

fn pending() -> World {
    let mut world = first_rotation();
    world.pass(60_000);
    world.tick();
    world.pass(60_000);
    world
}

fn steady() -> World {
    let mut world = World::group(true);
    world.admit(CAT);
    world
}

fn aged() -> World {
    let mut world = steady();
    world.pass(604_800_000);
    world.tick();
    world
}

fn worn() -> World {
    let mut world = steady();
    for _ in 0..5 {
        world.ok(BOB, say_encrypted(None));
    }
    world
}

fn left() -> World {
    let mut world = steady();
    world.admit(GONE);
    world.ok(OWNER, Command::Kick(GONE));
    world
}

fn joined() -> World {
    let mut world = World::group(true);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { rotate_on_join: Some(true), ..info() }));
    world.admit(CAT);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { rotate_on_join: Some(false), ..info() }));
    world
}

fn void() -> World {
    let mut world = steady();
    world.ok(OWNER, Command::E2eeize);
    world.pass(60_000);
    world.tick();
    world.pass(60_000);
    world
}

fn holderless() -> World {
    let mut world = steady();
    for member in [OWNER, ADMIN, ANN, BOB] {
        world.ok(member, lost());
    }
    world.pass(60_000);
    world
}

fn rotating() -> World {
    let mut world = left();
    world.ok(ANN, say());
    world
}

fn started() -> World {
    let mut world = rotating();
    world.ok(ANN, send_keys(2, &[BOB]));
    world
}

/// The number that is given out next, or is being rotated in.
fn last(world: &World) -> u64 {
    match &world.state.head.e2ee {
        E2ee::Off { last_epoch } => last_epoch + 1,
        E2ee::On(KeyState { phase: Phase::Rotating(rotation), .. }) => rotation.epoch.0,
        E2ee::On(keys) => keys.last_epoch + 1,
    }
}

fn task(world: &mut World, user_id: UserId, kind: TaskKind) -> Told {
    world.task(user_id, kind);
    Ok(serde_json::json!({}))
}

fn time(world: &mut World, millis: i64) -> Told {
    world.pass(millis);
    world.tick();
    Ok(serde_json::json!({}))
}

fn name(user_id: UserId) -> &'static str {
    match user_id {
        OWNER => "owner",
        ADMIN => "admin",
        ANN => "ann",
        BOB => "bob",
        CAT => "cat",
        DAN => "dan",
        GONE => "gone",
        _ => "nobody",
    }
}

fn names<'a>(users: impl IntoIterator<Item = &'a UserId>) -> String {
    let names: Vec<&str> = users.into_iter().map(|user_id| name(*user_id)).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(" ") }
}

fn words(reasons: &std::collections::BTreeSet<MarkReason>) -> String {
    reasons.iter().map(|reason| format!("{reason:?}").to_lowercase()).collect::<Vec<_>>().join(" ")
}

fn told_phase(world: &World) -> String {
    if world.state.ended() {
        return "ended".to_owned();
    }
    let Some(phase) = world.phase() else { return "off".to_owned() };
    let current = world.epoch().map_or("no key".to_owned(), |epoch| format!("key {epoch}"));
    let phase = match phase {
        Phase::Steady => "steady".to_owned(),
        Phase::Marked { reasons } => format!("marked ({})", words(&reasons)),
        Phase::Rotating(rotation) => {
            let (epoch, by, started) = (rotation.epoch.0, name(rotation.rotator), rotation.started);
            let waiting = names(&world.state.waiting);
            format!("{by} makes key {epoch}{}, waits for {waiting}", if started { ", started" } else { "" })
        }
    };
    format!("{current}, {phase}; without: {}", names(&world.state.without_key))
}

fn table() -> String {
    let mut table = String::new();
    for (phase, setting) in PHASES {
        writeln!(table, "# {phase}: {}", told_phase(&setting())).unwrap();
        for (input, apply) in INPUTS {
            let mut world = setting();
            let before = told_phase(&world);
            let outcome = match apply(&mut world) {
                Ok(_) => "ok",
                Err(code) => code.as_str(),
            };
            let after = told_phase(&world);
            let after = if after == before { "the same" } else { &after };
            writeln!(table, "{input} -> {outcome}: {after}").unwrap();
        }
        table.push('\n');
    }
    table
}

#[test]
fn every_input_in_every_phase_comes_to_what_the_table_says() {
    let (found, expected) = (table(), include_str!("phases.txt"));
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of phases.txt", line + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
