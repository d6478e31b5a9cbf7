//! Who comes, goes and speaks: requests to join, invitations, roles, restrictions, messages and recalls.

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

fn policy(join_policy: JoinPolicy) -> Command {
    Command::SetInfo(SetSessionInfo { join_policy: Some(join_policy), ..info() })
}

fn recall(world: &World, seq: u64) -> Command {
    let place = usize::try_from(seq).unwrap() - 1;
    Command::Recall { seq, original: world.model.events.get(place).cloned().map(Box::new) }
}

fn said(world: &mut World, sender: UserId) -> u64 {
    world.ok(sender, say())["seq"].as_u64().unwrap()
}

fn with_id(id: &str) -> Command {
    Command::SendMsg(SendMsg { client_msg_id: Some(ClientId(id.into())), ..msg("once") })
}

#[test]
fn a_new_session_invites_its_members_and_starts_with_its_creators_coming() {
    let body = NewSession {
        name: Some("a name".to_owned()),
        members: Some(vec![ANN, BOB]),
        e2ee_on: true,
        room_key: Some(b64("wrapped for myself")),
        key_check: Some(b64("check 1")),
        leave_message: Some("come".to_owned()),
        client_session_id: None,
    };
    let mut world = World::made(rules(), body);
    assert_eq!(world.events_since(0), ["MemberJoined"]);
    assert_eq!(world.state.members[&OWNER].first_seq, 1);
    assert!(world.model.keys.contains_key(&(OWNER, KeyEpoch(1))));
    for invitee in [ANN, BOB] {
        assert!(matches!(
            world.inbox(invitee)[..],
            [NoticeBody::InviteUserToSession { inviter_id: OWNER, leave_message: Some(_), .. }]
        ));
        world.ok(invitee, accept(OWNER, true));
    }
    world.refused(OWNER, Command::Create { body: make(), failed: Vec::new() }, ErrorCode::AlreadyExists);
}

fn make() -> NewSession {
    NewSession {
        name: None,
        members: None,
        e2ee_on: false,
        room_key: None,
        key_check: None,
        leave_message: None,
        client_session_id: None,
    }
}

#[test]
fn join_policies() {
    let mut world = World::group(false);
    assert_eq!(world.ok(EVE, join()), serde_json::json!({ "status": "pending" }));
    world.ok(OWNER, policy(JoinPolicy::Closed));
    world.refused(user(40), join(), ErrorCode::PermissionDenied);
    world.refused(ANN, invite(user(40)), ErrorCode::PermissionDenied);
    world.ok(ADMIN, invite(user(40)));
    world.ok(OWNER, policy(JoinPolicy::Open));
    assert_eq!(world.ok(EVE, join()), serde_json::json!({ "status": "joined" }));
    assert!(world.state.join_requests.is_empty(), "the request is settled");
    assert_eq!(world.ok(EVE, join()), serde_json::json!({ "status": "joined" }), "again: alike");
}

#[test]
fn a_join_request_is_told_once_and_decided_once() {
    let mut world = World::group(true);
    world.ok(EVE, join());
    world.ok(EVE, join());
    let told = world.inbox(ADMIN);
    let asked = told
        .iter()
        .filter(|notice| matches!(notice, NoticeBody::JoinSessionApproval { user_id: EVE, public_key: Some(_), .. }));
    assert_eq!(asked.count(), 1);
    world.ok(ADMIN, Command::Allow(allow(EVE, false)));
    world.ok(OWNER, Command::Allow(allow(EVE, false)));
    world.refused(OWNER, allow_with_key(EVE, 1), ErrorCode::NotFound);
    assert!(matches!(
        world.inbox(EVE)[..],
        [NoticeBody::AllowUserJoinSessionNotification { accepted: false, user_id: ADMIN, .. }]
    ));
    world.ok(EVE, join());
    world.ok(OWNER, allow_with_key(EVE, 1));
    world.ok(ADMIN, Command::Allow(allow(EVE, true)));
    assert!(world.has(EVE, 1));
    let NoticeBody::AllowUserJoinSessionNotification { room_key, key_epoch, key_check, .. } = world.inbox(EVE)[1]
    else {
        panic!("not told")
    };
    assert_eq!((room_key.is_some(), *key_epoch, key_check), (true, Some(KeyEpoch(1)), &Some(b64("check 1"))));
}

#[test]
fn an_approver_without_the_key_admits_without_it_and_cannot_make_one_up() {
    let mut world = World::group(true);
    world.ok(EVE, join());
    world.ok(ADMIN, lost());
    world.refused(ADMIN, allow_with_key(EVE, 1), ErrorCode::PermissionDenied);
    world.ok(ADMIN, Command::Allow(allow(EVE, true)));
    assert!(world.state.is_member(EVE) && !world.has(EVE, 1));
}

#[test]
fn who_may_decide_is_told_of_what_is_open_and_who_may_no_longer_is_not() {
    let mut world = World::group(false);
    world.ok(EVE, join());
    let hears = |world: &World, user_id| {
        world.inbox(user_id).iter().any(|notice| matches!(notice, NoticeBody::JoinSessionApproval { .. }))
    };
    assert!(hears(&world, ADMIN) && !hears(&world, ANN));
    world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Admin });
    assert!(hears(&world, ANN));
    world.ok(OWNER, Command::SetRole { user_id: ADMIN, role: Role::Member });
    assert!(!hears(&world, ADMIN));
    world.ok(ANN, Command::Leave { force: false });
    assert!(!hears(&world, ANN));
    world.ok(OWNER, Command::Ban { user_id: EVE, duration_s: None, known: true });
    assert!(!hears(&world, OWNER), "taken back: who asks is banned");
}

#[test]
fn an_invitation_is_answered_once_and_alike() {
    let mut world = World::group(true);
    world.ok(ANN, invite(EVE));
    world.ok(ANN, invite(EVE));
    assert_eq!(world.inbox(EVE).len(), 1, "an invitation that stands is not sent again");
    world.ok(BOB, invite(EVE));
    world.ok(EVE, accept(ANN, false));
    world.ok(EVE, accept(ANN, false));
    world.refused(EVE, accept(ANN, true), ErrorCode::NotFound);
    world.ok(EVE, accept(BOB, true));
    world.ok(EVE, accept(BOB, true));
    assert!(matches!(
        world.inbox(BOB).last(),
        Some(NoticeBody::AcceptSessionNotification {
            invitee_id: EVE,
            accepted: true,
            public_key: Some(_),
            key_epoch: Some(KeyEpoch(1)),
            ..
        })
    ));
    assert!(world.inbox(EVE).is_empty(), "answered: taken back on all connections");
}

#[test]
fn an_invitation_lapses_with_its_time_its_inviter_or_a_ban() {
    let mut world = World::group(false);
    world.ok(ANN, invite(EVE));
    world.pass(604_800_000);
    world.refused(EVE, accept(ANN, true), ErrorCode::Expired);
    world.ok(ANN, invite(EVE));
    world.ok(ANN, Command::Leave { force: false });
    world.refused(EVE, accept(ANN, true), ErrorCode::Expired);
    world.refused(EVE, accept(ANN, false), ErrorCode::Expired);
    world.ok(BOB, invite(EVE));
    world.ok(OWNER, Command::Ban { user_id: EVE, duration_s: Some(60), known: true });
    world.refused(EVE, accept(BOB, true), ErrorCode::Banned);
    world.pass(60_000);
    world.refused(EVE, accept(BOB, true), ErrorCode::Expired);
    world.refused(BOB, invite(BOB), ErrorCode::AlreadyExists);
}

#[test]
fn ownership_goes_to_the_oldest_admin_else_to_the_oldest_member() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::SetRole { user_id: BOB, role: Role::Admin });
    let seen = world.model.events.len();
    world.ok(OWNER, Command::Leave { force: false });
    assert_eq!(world.events_since(seen), ["MemberLeft", "RoleChanged"]);
    assert_eq!(world.state.members[&ADMIN].role, Role::Owner);
    world.ok(ADMIN, Command::SetRole { user_id: BOB, role: Role::Member });
    world.task(ADMIN, TaskKind::Closed);
    assert_eq!(world.state.members[&ANN].role, Role::Owner, "the oldest member");
    world.ok(ANN, Command::Leave { force: false });
    world.ok(BOB, Command::Leave { force: false });
    assert!(world.state.ended());
    assert_eq!(world.model.events.last().unwrap().what.name(), "MemberLeft");
}

#[test]
fn ownership_is_handed_over_and_the_former_owner_is_admin() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Owner });
    assert_eq!((world.state.members[&ANN].role, world.state.members[&OWNER].role), (Role::Owner, Role::Admin));
    let seen = world.model.events.len();
    world.ok(ANN, Command::SetRole { user_id: OWNER, role: Role::Admin });
    assert_eq!(world.events_since(seen), [""; 0], "again: nothing new");
}

#[test]
fn restrictions_are_told_end_by_themselves_and_outlive_membership() {
    let mut world = World::group(false);
    let restricted = |world: &World| match &world.model.events.last().unwrap().what {
        Happening::MemberRestricted(one) => (one.muted, one.muted_until, one.banned, one.banned_until),
        other => panic!("{other:?}"),
    };
    world.ok(ADMIN, Command::Mute { user_id: ANN, duration_s: Some(60) });
    assert_eq!(restricted(&world), (true, Some(T0.plus_millis(60_000)), false, None));
    world.refused(ANN, say(), ErrorCode::Muted);
    world.ok(ANN, Command::Leave { force: false });
    world.admit(ANN);
    world.refused(ANN, say(), ErrorCode::Muted);
    world.pass(60_000);
    world.ok(ANN, say());
    let seen = world.model.events.len();
    world.ok(ADMIN, Command::Unmute(ANN));
    assert_eq!(world.events_since(seen), [""; 0], "it was over already");
    // A mute that is over is not told of again with something else.
    world.ok(ADMIN, Command::Ban { user_id: ANN, duration_s: None, known: true });
    let told: Vec<_> = world.events_since(seen);
    assert_eq!(told, ["MemberRestricted", "MemberLeft"], "and what one is told last is one's own leaving");
    let Happening::MemberRestricted(one) = &world.model.events[seen].what else { panic!() };
    assert_eq!((one.muted, one.banned, one.banned_until), (false, true, None));
    world.ok(ADMIN, Command::Ban { user_id: ANN, duration_s: None, known: true });
    assert_eq!(world.model.events.len(), seen + 2, "again: nothing new");
    world.ok(ADMIN, Command::Unban(ANN));
    assert_eq!(restricted(&world), (false, None, false, None));
    world.ok(ADMIN, Command::Unban(ANN));
    assert_eq!(world.model.events.len(), seen + 3);
    assert!(world.state.restrictions.is_empty());
}

#[test]
fn what_nobody_can_have_seen_ends_with_the_membership() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN, ADMIN, BOB]));
    let key = |world: &World| {
        world.inbox(ANN).iter().any(|notice| matches!(notice, NoticeBody::ReceiveRoomKeyNotification { .. }))
    };
    assert!(key(&world));
    let withdrawn = world.model.withdrawn.len();
    world.ok(OWNER, Command::Kick(ANN));
    assert!(!key(&world) && world.model.withdrawn.len() > withdrawn);
}

#[test]
fn a_message_with_an_id_is_stored_once_and_answered_alike() {
    let mut world = World::group(false);
    let first = world.ok(ANN, with_id("one"));
    world.pass(1_000);
    world.ok(OWNER, Command::Mute { user_id: ANN, duration_s: None });
    assert_eq!(world.ok(ANN, with_id("one")), first, "before every check but membership");
    world.refused(ANN, with_id("two"), ErrorCode::Muted);
    assert_ne!(world.ok(BOB, with_id("one")), first, "another sender's is another");
    world.restart();
    assert_eq!(world.ok(ANN, with_id("one")), first);
    world.ok(OWNER, Command::Kick(ANN));
    world.refused(ANN, with_id("one"), ErrorCode::NotAMember);
}

#[test]
fn remembered_ids_are_bounded_by_number_and_age() {
    let mut world = World::group(false);
    for number in 0..40 {
        world.ok(ANN, with_id(&format!("id {number}")));
    }
    assert_eq!(world.state.snapshot().recent.len(), 16);
    world.pass(86_400_001);
    world.ok(ANN, with_id("new"));
    assert_eq!(world.state.snapshot().recent.len(), 1);
}

#[test]
fn a_recall_takes_the_text_and_says_so_once() {
    let mut world = World::group(false);
    let seq = said(&mut world, ANN);
    let command = recall(&world, seq);
    world.ok(ANN, command.clone());
    let Happening::Msg(msg) = &world.model.events[usize::try_from(seq).unwrap() - 1].what else { panic!() };
    assert_eq!((msg.markdown_text.as_str(), msg.recalled), ("", true));
    let seen = world.model.events.len();
    // At once from another connection, and later.
    world.ok(ANN, command);
    let command = recall(&world, seq);
    world.restart();
    world.ok(OWNER, command);
    assert_eq!(world.model.events.len(), seen);
}

#[test]
fn who_may_recall_what() {
    let mut world = World::group(false);
    let (anns, admins, owners) = (said(&mut world, ANN), said(&mut world, ADMIN), said(&mut world, OWNER));
    let refused = |world: &mut World, caller, seq, code| {
        let command = recall(world, seq);
        world.refused(caller, command, code);
    };
    refused(&mut world, BOB, anns, ErrorCode::PermissionDenied);
    refused(&mut world, ADMIN, owners, ErrorCode::PermissionDenied);
    refused(&mut world, ANN, admins, ErrorCode::PermissionDenied);
    refused(&mut world, ANN, 1, ErrorCode::NotFound);
    world.admit(EVE);
    refused(&mut world, EVE, anns, ErrorCode::NotFound);
    world.pass(86_400_001);
    refused(&mut world, ANN, anns, ErrorCode::Expired);
    let command = recall(&world, anns);
    world.ok(ADMIN, command);
    let bobs = said(&mut world, BOB);
    world.ok(BOB, Command::Leave { force: false });
    let command = recall(&world, bobs);
    world.ok(ADMIN, command);
}

#[test]
fn only_what_changed_is_told_of_the_sessions_info() {
    let mut world = World::group(false);
    let change = SetSessionInfo { name: Some("a name".to_owned()), rotate_on_join: Some(false), ..info() };
    world.ok(ADMIN, Command::SetInfo(change.clone()));
    let Happening::SessionInfoChanged(changed) = &world.model.events.last().unwrap().what else { panic!() };
    assert_eq!((changed.name.as_deref(), changed.rotate_on_join), (Some("a name"), None));
    let seen = world.model.events.len();
    world.ok(ADMIN, Command::SetInfo(change));
    assert_eq!(world.model.events.len(), seen);
    world.ok(ADMIN, Command::SetInfo(SetSessionInfo { name: Some(String::new()), ..info() }));
    assert_eq!(world.state.head().name, None);
}

#[test]
fn a_closed_account_leaves_nothing_open() {
    let mut world = World::group(true);
    world.ok(EVE, join());
    world.ok(ANN, invite(EVE));
    world.task(EVE, TaskKind::Closed);
    assert!(world.state.join_requests.is_empty() && world.state.invitations.is_empty());
    world.ok(ANN, invite(EVE));
    world.task(ANN, TaskKind::Closed);
    world.refused(EVE, accept(ANN, true), ErrorCode::Expired);
    world.task(ANN, TaskKind::Closed);
}

#[test]
fn time_never_goes_back_within_a_session() {
    let mut world = World::group(false);
    world.pass(10_000);
    let late = world.ok(ANN, say())["time"].clone();
    world.pass(-60_000);
    assert_eq!(world.ok(ANN, say())["time"], late);
}
