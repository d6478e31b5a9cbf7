//! Known failures of the system that this design comes from, each by the name of what must be true instead.

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

fn to(asks: &[AskFor], user_id: UserId) -> usize {
    asks.iter().filter(|ask| ask.to() == user_id).count()
}

#[test]
fn switching_encryption_on_sets_the_flag_and_says_so() {
    let mut world = World::group(false);
    let seen = world.model.events.len();
    assert_eq!(world.ok(OWNER, Command::E2eeize), serde_json::json!({ "key_epoch": 1 }));
    assert!(world.state.is_encrypted());
    assert_eq!(world.events_since(seen), ["SessionE2eeChanged"]);
    world.restart();
    assert!(world.state.is_encrypted(), "the flag was not stored");
    assert_eq!(world.asks()[0], AskFor::NewKey { to: OWNER, epoch: KeyEpoch(1) });
}

#[test]
fn kick_ban_and_a_closed_account_mark_the_session_like_leaving() {
    let goings: [fn(&mut World); 4] = [
        |world| drop(world.ok(BOB, Command::Leave { force: false })),
        |world| drop(world.ok(ADMIN, Command::Kick(BOB))),
        |world| drop(world.ok(ADMIN, Command::Ban { user_id: BOB, duration_s: Some(9), known: true })),
        |world| world.task(BOB, TaskKind::Closed),
    ];
    for going in goings {
        let mut world = World::group(true);
        going(&mut world);
        assert!(!world.state.is_member(BOB));
        assert_eq!(world.reasons(), [MarkReason::Left].into());
    }
}

#[test]
fn the_mark_is_cleared_when_the_rotation_is_finished_and_not_when_it_is_asked_for() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::Kick(BOB));
    world.ok(ANN, say());
    world.pass(60_000);
    world.tick();
    assert_eq!(world.reasons(), [MarkReason::Left, MarkReason::Void].into());
    world.pass(60_000);
    world.ok(ADMIN, say());
    assert_eq!(world.rotation(), (ADMIN, 3));
    world.ok(ADMIN, send_keys(3, &[OWNER, ANN]));
    assert!(world.is_steady());
    assert_eq!(world.epoch(), Some(3));
}

#[test]
fn two_who_speak_at_once_are_one_rotation() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::Kick(BOB));
    world.ok(ANN, say());
    world.ok(ADMIN, say());
    assert_eq!(world.rotation(), (ANN, 2));
    let asks = world.asks();
    assert_eq!((to(&asks, ANN), to(&asks, ADMIN)), (3, 0));
    assert!(world.asks().is_empty(), "nobody is asked twice");
}

#[test]
fn who_leaves_during_a_rotation_gets_no_new_key_and_the_mark_stays() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.ok(ANN, Command::Leave { force: false });
    assert_eq!(world.reasons(), [MarkReason::Left, MarkReason::Void].into());
    assert!(world.model.keys.keys().all(|(user_id, epoch)| *user_id != ANN && *epoch == KeyEpoch(1)));
    // The number is spent: nobody can go on with it.
    world.refused(OWNER, send_keys(2, &[BOB]), ErrorCode::StaleRoomKey);

    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(BOB, Command::Leave { force: false });
    let told = world.ok(OWNER, send_keys(2, &[ADMIN, ANN, BOB]));
    assert_eq!(told["failed_members"][0]["reason"], "not_found");
    assert!(world.is_steady());
    assert!(world.inbox(BOB).is_empty());
}

#[test]
fn an_outsider_plants_neither_keys_nor_invitations() {
    for outsider in [EVE, BOB] {
        let mut world = World::group(true);
        if outsider == BOB {
            world.ok(BOB, Command::Leave { force: false });
        }
        for command in [send_key(ANN, 1), send_keys(1, &[ANN]), invite(user(40)), allow_with_key(user(40), 1)] {
            world.refused(outsider, command, ErrorCode::NotAMember);
        }
    }
    // Nor does a member who holds no key and was not asked for one.
    let mut world = World::group(true);
    world.admit(EVE);
    world.ok(ANN, lost());
    world.refused(EVE, send_key(ANN, 1), ErrorCode::PermissionDenied);
    world.refused(EVE, send_keys(1, &[]), ErrorCode::PermissionDenied);
}

#[test]
fn a_recall_is_of_a_message_of_this_session() {
    let mut world = World::group(false);
    world.ok(ANN, say());
    let mut event = world.model.events.last().unwrap().clone();
    let seq = event.seq;
    event.session_id = SessionId::from_bytes([0xBB; 16]);
    world.refused(ANN, Command::Recall { seq, original: Some(Box::new(event)) }, ErrorCode::NotFound);
    let mut event = world.model.events.last().unwrap().clone();
    event.seq = seq + 1;
    world.refused(ANN, Command::Recall { seq, original: Some(Box::new(event)) }, ErrorCode::NotFound);
}

#[test]
fn a_decision_reaches_the_applicant_and_all_who_might_have_decided() {
    let mut world = World::group(false);
    world.ok(EVE, join());
    for approver in [OWNER, ADMIN] {
        assert!(matches!(world.inbox(approver)[..], [.., NoticeBody::JoinSessionApproval { user_id: EVE, .. }]));
    }
    let withdrawn = world.model.withdrawn.len();
    world.ok(ADMIN, Command::Allow(allow(EVE, true)));
    assert!(matches!(
        world.inbox(EVE)[..],
        [NoticeBody::AllowUserJoinSessionNotification { user_id: ADMIN, accepted: true, .. }]
    ));
    assert_eq!(world.model.withdrawn.len(), withdrawn + 2);
    let open = |notice: &&NoticeBody| matches!(notice, NoticeBody::JoinSessionApproval { .. });
    assert!(!world.inbox(OWNER).iter().any(open) && !world.inbox(ADMIN).iter().any(open));
}

#[test]
fn keys_are_never_events_of_the_session() {
    let mut world = World::group(true);
    let seen = world.model.events.len();
    world.ok(ANN, lost());
    world.ok(OWNER, send_key(ANN, 1));
    assert_eq!(world.events_since(seen), [""; 0]);
    assert!(matches!(world.inbox(ANN)[..], [.., NoticeBody::ReceiveRoomKeyNotification { user_id: OWNER, .. }]));
}

#[test]
fn who_joins_an_encrypted_session_gets_a_key_from_any_holder() {
    let mut world = World::group(true);
    world.admit(EVE);
    // Neither inviter nor anybody who decided is there; a holder is enough.
    world.online = [BOB, EVE].into();
    assert_eq!(world.asks(), [AskFor::Key { to: BOB, member: EVE, epoch: KeyEpoch(1) }]);
    world.ok(BOB, send_key(EVE, 1));
    assert!(world.has(EVE, 1));
}

#[test]
fn who_was_removed_has_no_role_any_more_and_can_come_back() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::Kick(ADMIN));
    world.refused(ADMIN, Command::Kick(ANN), ErrorCode::NotAMember);
    world.ok(ADMIN, join());
    world.ok(OWNER, Command::Allow(allow(ADMIN, true)));
    assert_eq!(world.state.members[&ADMIN].role, Role::Member);
    world.refused(ADMIN, Command::Kick(ANN), ErrorCode::PermissionDenied);

    world.ok(OWNER, Command::Ban { user_id: ANN, duration_s: Some(60), known: true });
    world.refused(ANN, join(), ErrorCode::Banned);
    world.pass(60_000);
    world.ok(ANN, join());
}

#[test]
fn a_number_never_means_two_keys() {
    // A rotator that dies half-way.
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.online.clear();
    world.pass(60_000);
    world.tick();
    world.online.extend([OWNER, ADMIN, ANN, BOB]);
    assert_eq!(world.ok(OWNER, Command::E2eeize), serde_json::json!({ "key_epoch": 3 }));
    world.refused(OWNER, send_keys(2, &[BOB]), ErrorCode::StaleRoomKey);

    // Two devices.
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    let other = SendRoomKeys { key_check: Some(b64("another key")), ..keys(2, &[BOB], &[]) };
    world.refused(OWNER, Command::SendRoomKeys(other), ErrorCode::KeyMismatch);

    // Off and on again.
    let mut world = World::group(true);
    world.ok(OWNER, Command::Dee2eeize);
    assert_eq!(world.ok(OWNER, Command::E2eeize), serde_json::json!({ "key_epoch": 2 }));
    world.ok(OWNER, Command::Dee2eeize);
    assert_eq!(world.ok(OWNER, Command::E2eeize), serde_json::json!({ "key_epoch": 3 }));
    assert!(!world.has(ANN, 2) && !world.has(ANN, 3));
}

#[test]
fn no_ciphertext_of_an_epoch_before_all_have_been_sent_its_key() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN, BOB]));
    for sender in [OWNER, ANN] {
        world.refused(sender, say_encrypted(Some(2)), ErrorCode::StaleRoomKey);
        world.ok(sender, say_encrypted(Some(1)));
    }
    let seen = world.model.events.len();
    world.ok(OWNER, send_keys(2, &[ADMIN]));
    assert_eq!(world.events_since(seen), ["RoomKeyRotated"]);
    world.refused(ANN, say_encrypted(Some(1)), ErrorCode::StaleRoomKey);
    world.ok(ANN, say_encrypted(Some(2)));
}

#[test]
fn a_rotation_ends_though_one_member_is_withheld_the_key() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, Command::SendRoomKeys(keys(2, &[ADMIN, ANN], &[BOB])));
    assert!(world.is_steady());
    assert!(!world.has(BOB, 2));
    // The rotator is not asked for them again; another holder, who may think otherwise, is.
    let asks = world.asks();
    assert!(matches!(asks[..], [AskFor::Key { to, member: BOB, epoch: KeyEpoch(2) }] if to != OWNER), "{asks:?}");
}

#[test]
fn a_rotation_ends_though_a_bot_spoke_first() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::Kick(ANN));
    world.ok(BOB, say());
    world.asks();
    // The bot makes no key, ever, and speaks all the time.
    for (round, wait) in [30, 60, 120].into_iter().enumerate() {
        world.pass(31_000);
        world.ok(BOB, say());
        assert!(world.is_marked(), "round {round}: a bot who let it lapse is not the rotator again at once");
        world.pass(wait * 1_000);
        world.ok(BOB, say());
        assert_eq!(world.rotation().0, BOB, "but later");
    }
    world.pass(31_000);
    world.ok(BOB, say());
    world.ok(ADMIN, say());
    let (rotator, epoch) = world.rotation();
    assert_eq!(rotator, ADMIN);
    world.ok(ADMIN, send_keys(epoch, &[OWNER, BOB]));
    assert!(world.is_steady());
}

#[test]
fn a_newcomer_is_not_let_in_with_a_key_that_was_just_replaced() {
    let mut world = World::group(true);
    world.ok(EVE, join());
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ADMIN, ANN, BOB]));
    world.refused(ADMIN, allow_with_key(EVE, 1), ErrorCode::StaleRoomKey);
    assert!(!world.state.is_member(EVE));
    world.ok(ADMIN, allow_with_key(EVE, 2));
    assert!(world.has(EVE, 2));

    // And who is let in with the old key while the new one is on its way is waited for.
    let mut world = World::group(true);
    world.ok(EVE, join());
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ADMIN, ANN]));
    world.ok(ADMIN, allow_with_key(EVE, 1));
    world.ok(OWNER, send_keys(2, &[BOB]));
    assert_eq!(world.rotation(), (OWNER, 2));
    world.ok(OWNER, send_keys(2, &[EVE]));
    assert!(world.is_steady() && world.has(EVE, 2));
}
