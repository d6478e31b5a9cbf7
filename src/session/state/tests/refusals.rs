//! Who may do what: each request by each kind of caller, a line each in `callers.txt`; and which refusal comes where
//! several fit.

use std::fmt::Write;

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

const MUTED: UserId = user(5);
const EX: UserId = user(6);
const BANNED: UserId = user(7);
const APPLICANT: UserId = user(8);
const STRANGER: UserId = EVE;
const INVITEE: UserId = user(10);
/// Another applicant, another admin and a further stranger, as targets.
const PETER: UserId = user(11);
const CARLA: UserId = user(12);
const NEW: UserId = user(13);

const CALLERS: &[(&str, UserId)] = &[
    ("stranger", STRANGER),
    ("applicant", APPLICANT),
    ("invitee", INVITEE),
    ("ex-member", EX),
    ("banned", BANNED),
    ("muted", MUTED),
    ("member", ANN),
    ("admin", ADMIN),
    ("owner", OWNER),
];

/// Everybody in their place; in an encrypted session owner, admins, ann and bob hold the key.
fn people(e2ee_on: bool) -> World {
    let mut world = World::group(e2ee_on);
    for member in [MUTED, EX, BANNED, CARLA] {
        world.admit(member);
    }
    world.ok(OWNER, Command::SetRole { user_id: CARLA, role: Role::Admin });
    world.ok(OWNER, Command::Mute { user_id: MUTED, duration_s: None });
    world.ok(EX, Command::Leave { force: false });
    world.ok(OWNER, Command::Ban { user_id: BANNED, duration_s: None, known: true });
    world.ok(APPLICANT, join());
    world.ok(PETER, join());
    world.ok(OWNER, invite(INVITEE));
    world.ok(BOB, Command::SendMsg(msg("bob's")));
    world
}

fn recall_bobs(world: &World) -> Command {
    let event = world.model.events.iter().rev().find(|event| event.what.name() == "Msg").cloned().unwrap();
    Command::Recall { seq: event.seq, original: Some(Box::new(event)) }
}

fn commands(world: &World) -> Vec<(&'static str, Command)> {
    let epoch = world.epoch().unwrap_or(1);
    vec![
        ("join_session", join()),
        ("allow_user_join_session", Command::Allow(allow(PETER, true))),
        ("allow_user_join_session, declined", Command::Allow(allow(PETER, false))),
        ("allow_user_join_session, with the key", allow_with_key(PETER, epoch)),
        ("allow_user_join_session, of nobody", Command::Allow(allow(NEW, true))),
        ("invite_user_to_session", invite(NEW)),
        ("invite_user_to_session, of a member", invite(BOB)),
        ("invite_user_to_session, of a banned user", invite(BANNED)),
        (
            "invite_user_to_session, of nobody",
            Command::Invite {
                body: InviteUserToSession { session_id: session_id(), invitee: NEW, leave_message: None },
                known: false,
            },
        ),
        ("accept_join_session_approval", accept(OWNER, true)),
        ("accept_join_session_approval, declined", accept(OWNER, false)),
        ("accept_join_session_approval, of bob's", accept(BOB, true)),
        ("send_room_key, to the muted member", send_key(MUTED, epoch)),
        ("send_room_key, to bob", send_key(BOB, epoch)),
        ("send_room_key, to a stranger", send_key(NEW, epoch)),
        ("send_room_key, to a stranger, of another epoch", send_key(NEW, epoch + 7)),
        ("send_room_key, of another epoch", send_key(MUTED, epoch + 7)),
        ("send_room_keys", send_keys(epoch, &[MUTED, BOB, NEW])),
        ("request_room_key", lost()),
        ("send_msg", say()),
        ("send_msg, encrypted", say_encrypted(None)),
        ("e2eeize_session", Command::E2eeize),
        ("dee2eeize_session", Command::Dee2eeize),
        ("leave_session", Command::Leave { force: false }),
        ("delete_session", Command::Delete),
        ("kick_user bob", Command::Kick(BOB)),
        ("kick_user the other admin", Command::Kick(CARLA)),
        ("kick_user the owner", Command::Kick(OWNER)),
        ("kick_user a stranger", Command::Kick(NEW)),
        ("ban_user bob", Command::Ban { user_id: BOB, duration_s: Some(60), known: true }),
        ("ban_user the owner", Command::Ban { user_id: OWNER, duration_s: None, known: true }),
        ("ban_user a stranger", Command::Ban { user_id: NEW, duration_s: None, known: true }),
        ("ban_user nobody", Command::Ban { user_id: NEW, duration_s: None, known: false }),
        ("unban_user", Command::Unban(BANNED)),
        ("unban_user the owner", Command::Unban(OWNER)),
        ("mute_user bob", Command::Mute { user_id: BOB, duration_s: Some(60) }),
        ("mute_user the other admin", Command::Mute { user_id: CARLA, duration_s: None }),
        ("mute_user a stranger", Command::Mute { user_id: NEW, duration_s: None }),
        ("unmute_user", Command::Unmute(MUTED)),
        ("set_role bob admin", Command::SetRole { user_id: BOB, role: Role::Admin }),
        ("set_role bob owner", Command::SetRole { user_id: BOB, role: Role::Owner }),
        ("set_role a stranger", Command::SetRole { user_id: NEW, role: Role::Admin }),
        ("set_session_info", Command::SetInfo(SetSessionInfo { name: Some("a name".to_owned()), ..info() })),
        ("set_session_info, open", Command::SetInfo(SetSessionInfo { join_policy: Some(JoinPolicy::Open), ..info() })),
        ("recall_msg bob's", recall_bobs(world)),
        ("recall_msg of nothing", Command::Recall { seq: 99, original: None }),
    ]
}

fn table() -> String {
    let mut table = String::new();
    for (title, e2ee_on) in [("plain", false), ("encrypted", true)] {
        writeln!(table, "# {title}").unwrap();
        for (name, command) in commands(&people(e2ee_on)) {
            let told = CALLERS.iter().map(|(caller, user_id)| {
                let outcome = match people(e2ee_on).told(*user_id, command.clone()) {
                    Ok(_) => "ok",
                    Err(code) => code.as_str(),
                };
                format!("{caller}: {outcome}")
            });
            writeln!(table, "{name} -> {}", told.collect::<Vec<_>>().join(", ")).unwrap();
        }
        table.push('\n');
    }
    table
}

#[test]
fn every_request_by_every_caller_is_answered_as_the_table_says() {
    let (found, expected) = (table(), include_str!("callers.txt"));
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of callers.txt", line + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn nobody_is_the_target_of_their_own_moderation() {
    let mut world = people(false);
    for caller in [STRANGER, BANNED, ANN, OWNER] {
        for command in [
            Command::Kick(caller),
            Command::Ban { user_id: caller, duration_s: None, known: true },
            Command::Mute { user_id: caller, duration_s: None },
            Command::SetRole { user_id: caller, role: Role::Owner },
        ] {
            world.refused(caller, command, ErrorCode::InvalidArgument);
        }
    }
    // Not for these two: they are refused as anybody's who does not stand below the caller.
    world.refused(OWNER, Command::Unban(OWNER), ErrorCode::PermissionDenied);
    world.refused(ADMIN, Command::Unmute(ADMIN), ErrorCode::PermissionDenied);
}

#[test]
fn an_ended_session_is_not_found_by_anybody() {
    let mut world = people(true);
    let commands = commands(&world);
    world.ok(OWNER, Command::Delete);
    for (_, caller) in CALLERS {
        for (name, command) in &commands {
            // Oneself as the target is wrong before anybody looks for the session.
            let oneself = matches!(command, Command::Kick(user_id) | Command::Ban { user_id, .. } if user_id == caller);
            let code = if oneself { ErrorCode::InvalidArgument } else { ErrorCode::NotFound };
            assert_eq!(world.told(*caller, command.clone()), Err(code), "{name}");
        }
    }
}

#[test]
fn a_refusal_for_another_epoch_says_which_is_current() {
    let mut world = World::group(true);
    for command in [say_encrypted(Some(2)), send_key(ANN, 2)] {
        let refusal = world.act(BOB, command).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::StaleRoomKey);
        assert_eq!(refusal.details.unwrap().key_epoch, Some(KeyEpoch(1)));
    }
}

#[test]
fn a_full_session_takes_nobody_in() {
    let mut world = World::new(Rules { max_members: 2, ..rules() }, false);
    world.admit(ANN);
    world.ok(OWNER, invite(BOB));
    world.refused(BOB, accept(OWNER, true), ErrorCode::TooLarge);
    world.ok(EVE, join());
    world.refused(OWNER, Command::Allow(allow(EVE, true)), ErrorCode::TooLarge);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { join_policy: Some(JoinPolicy::Open), ..info() }));
    world.refused(EVE, join(), ErrorCode::TooLarge);
    world.ok(BOB, accept(OWNER, false));
}

#[test]
fn what_is_open_at_once_is_bounded() {
    let mut world = World::group(false);
    for number in 0..8 {
        world.ok(user(100 + number), join());
        world.ok(OWNER, invite(user(150 + number)));
    }
    world.refused(EVE, join(), ErrorCode::Overloaded);
    world.refused(OWNER, invite(EVE), ErrorCode::Overloaded);
    // What has lapsed makes room.
    world.pass(604_800_000);
    world.ok(OWNER, invite(EVE));
    assert_eq!(world.state.invitations.len(), 1);

    let mut world = World::new(Rules { max_members: 2, ..rules() }, false);
    let ban = |user_id, duration_s| Command::Ban { user_id, duration_s, known: true };
    world.ok(OWNER, ban(user(100), Some(60)));
    world.ok(OWNER, ban(user(101), None));
    world.refused(OWNER, ban(user(102), None), ErrorCode::Overloaded);
    world.pass(60_000);
    world.ok(OWNER, ban(user(102), None));
    assert_eq!(world.state.restrictions.len(), 2);
}
