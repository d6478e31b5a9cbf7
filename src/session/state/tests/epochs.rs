//! Room key epochs: the contract's nine rules, who is asked for keys, and what time does.

use super::harness::*;
use crate::protocol::*;
use crate::session::state::*;

fn big_group(members: u8) -> World {
    let mut world = World::new(Rules { max_open: 1_000, max_members: 1_000, ..rules() }, true);
    for number in 20..20 + members {
        world.admit(user(number));
    }
    world
}

#[test]
fn rule_1_a_session_made_encrypted_starts_at_epoch_1_held_by_its_creator() {
    let mut world = World::encrypted();
    assert_eq!((world.epoch(), world.has(OWNER, 1), world.is_steady()), (Some(1), true, true));
    world.ok(OWNER, say_encrypted(None));
    let stamped = &world.model.events.last().unwrap().what;
    assert!(matches!(stamped, Happening::Msg(Msg { key_epoch: Some(KeyEpoch(1)), .. })));
}

#[test]
fn rule_1_without_a_key_yet_encrypted_text_waits() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::E2eeize);
    assert_eq!(world.epoch(), None);
    world.refused(OWNER, say_encrypted(None), ErrorCode::RoomKeyPending);
    world.refused(ANN, say_encrypted(Some(1)), ErrorCode::RoomKeyPending);
    world.ok(ANN, say());
    world.ok(OWNER, send_keys(1, &[ADMIN, ANN, BOB]));
    world.ok(ANN, say_encrypted(Some(1)));
}

#[test]
fn rule_2_the_age_of_the_key_marks_by_the_timer_or_with_the_next_command() {
    let mut world = World::group(true);
    let due = T0.plus_millis(604_800_000);
    assert_eq!(world.state.next_wakeup(), Some(due));
    world.pass(604_799_999);
    world.tick();
    assert!(world.is_steady());
    world.pass(1);
    world.tick();
    assert_eq!(world.reasons(), [MarkReason::Age].into());
    assert_eq!(world.state.next_wakeup(), None);

    let mut world = World::group(true);
    world.pass(604_800_000);
    world.ok(ANN, say());
    assert_eq!(world.rotation(), (ANN, 2), "nobody's timer ran, and still the speaker is the rotator");
}

#[test]
fn rule_2_the_messages_are_counted_per_key_across_restarts() {
    let mut world = World::group(true);
    for _ in 0..4 {
        world.ok(ANN, say_encrypted(None));
    }
    world.ok(ANN, say());
    world.restart();
    assert!(world.is_steady());
    world.ok(ANN, say_encrypted(None));
    assert_eq!(world.reasons(), [MarkReason::Messages].into());
    world.ok(BOB, say());
    world.ok(BOB, send_keys(2, &[OWNER, ADMIN, ANN]));
    for _ in 0..4 {
        world.ok(ANN, say_encrypted(None));
    }
    assert!(world.is_steady());
}

#[test]
fn rule_2_who_joins_marks_only_where_that_is_set() {
    let mut world = World::group(true);
    world.admit(EVE);
    assert!(world.is_steady());
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { rotate_on_join: Some(true), ..info() }));
    world.admit(user(40));
    assert_eq!(world.reasons(), [MarkReason::Joined].into());
}

#[test]
fn rule_3_who_is_refused_for_plain_text_makes_the_key_where_nobody_has_one() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { require_encryption: Some(true), ..info() }));
    world.ok(OWNER, Command::E2eeize);
    world.pass(60_000);
    world.tick();
    world.refused(ANN, say(), ErrorCode::EncryptionRequired);
    assert_eq!(world.rotation(), (ANN, 2));
    assert_eq!(world.asks()[0], AskFor::NewKey { to: ANN, epoch: KeyEpoch(2) });
    assert_eq!(world.model.events.last().unwrap().what.name(), "SessionE2eeChanged", "but nothing was said");

    // Where somebody has it, the refusal is all.
    let mut world = World::group(true);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { require_encryption: Some(true), ..info() }));
    world.ok(OWNER, Command::Kick(BOB));
    world.refused(ANN, say(), ErrorCode::EncryptionRequired);
    assert!(world.is_marked());
}

#[test]
fn rule_4_one_epoch_is_accepted_at_a_time() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    for (epoch, code) in [(2, ErrorCode::StaleRoomKey), (7, ErrorCode::StaleRoomKey)] {
        world.refused(ANN, say_encrypted(Some(epoch)), code);
    }
    world.ok(ANN, say_encrypted(None));
    world.ok(OWNER, send_keys(2, &[ADMIN, ANN, BOB]));
    world.refused(ANN, say_encrypted(Some(1)), ErrorCode::StaleRoomKey);
    world.ok(ANN, say_encrypted(None));
    let stamped = &world.model.events.last().unwrap().what;
    assert!(matches!(stamped, Happening::Msg(Msg { key_epoch: Some(KeyEpoch(2)), .. })));
}

#[test]
fn rule_5_a_rotation_alone_is_over_with_one_empty_send() {
    let mut world = World::encrypted();
    world.ok(OWNER, Command::E2eeize);
    assert_eq!(world.asks(), [AskFor::NewKey { to: OWNER, epoch: KeyEpoch(2) }]);
    world.tick();
    assert_eq!(world.epoch(), Some(1));
    world.ok(OWNER, send_keys(2, &[]));
    assert_eq!(world.epoch(), Some(2));
    assert!(matches!(
        &world.model.events.last().unwrap().what,
        Happening::RoomKeyRotated(RoomKeyRotated { key_epoch: KeyEpoch(2), key_check: Some(_) })
    ));
}

#[test]
fn rule_5_a_rotation_that_nobody_is_left_to_wait_for_is_over_only_once_it_has_started() {
    let mut world = World::encrypted();
    world.admit(ANN);
    world.ok(OWNER, Command::E2eeize);
    world.ok(ANN, Command::Leave { force: false });
    assert_eq!(world.rotation(), (OWNER, 2));
    world.ok(OWNER, send_keys(2, &[]));
    assert!(world.is_steady());
}

#[test]
fn rule_7_a_holder_is_asked_for_whoever_lacks_the_key_and_another_if_none_answers() {
    let mut world = World::group(true);
    world.admit(EVE);
    let key = |to| AskFor::Key { to, member: EVE, epoch: KeyEpoch(1) };
    let first = world.asks();
    assert_eq!(first, [key(OWNER)]);
    world.pass(14_999);
    assert!(world.asks().is_empty());
    assert_eq!(world.state.next_wakeup(), Some(world.now.plus_millis(1)));
    world.pass(1);
    assert_eq!(world.asks(), [key(ADMIN)], "another holder, in time");
    world.online = [OWNER].into();
    assert_eq!(world.asks(), [key(OWNER)], "another, as the one who was asked is gone");
    world.online.clear();
    world.pass(15_000);
    assert!(world.asks().is_empty());
    world.online.insert(BOB);
    world.state.member_connected(BOB);
    assert_eq!(world.asks(), [key(BOB)], "whoever comes back first");
}

#[test]
fn rule_7_the_only_holder_is_asked_again_if_they_do_not_answer() {
    let mut world = World::group(true);
    world.admit(EVE);
    world.online = [BOB].into();
    let key = [AskFor::Key { to: BOB, member: EVE, epoch: KeyEpoch(1) }];
    assert_eq!(world.asks(), key);
    for _ in 0..3 {
        world.pass(14_999);
        assert!(world.asks().is_empty());
        world.pass(1);
        assert_eq!(world.asks(), key, "the ask may have gone to a connection that was just ending");
    }
    world.ok(BOB, send_keys(1, &[EVE]));
    world.pass(15_000);
    assert!(world.asks().is_empty());
}

#[test]
fn the_asks_of_holders_are_spread_and_go_elsewhere_when_a_holder_loses_the_key() {
    let mut world = World::group(true);
    for member in [EVE, user(40), user(41), user(42)] {
        world.admit(member);
    }
    let asks = world.asks();
    for holder in [OWNER, ADMIN, ANN, BOB] {
        assert_eq!(asks.iter().filter(|ask| ask.to() == holder).count(), 1, "{asks:?}");
    }
    world.ok(ANN, lost());
    let asks = world.asks();
    assert_eq!(asks.len(), 2, "for ann, and for whom she was asked");
    assert!(asks.iter().all(|ask| ask.to() != ANN));
}

#[test]
fn at_most_256_asks_are_open_and_the_next_come_as_these_are_answered() {
    let mut world = big_group(230);
    for number in 0..70_u8 {
        let member = UserId::from_bytes([number, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        world.admit(member);
    }
    let first = world.asks();
    assert_eq!(first.len(), 256);
    assert!(world.asks().is_empty());
    let answered: Vec<UserId> = first
        .iter()
        .take(10)
        .filter_map(|ask| match ask {
            AskFor::Key { member, .. } => Some(*member),
            AskFor::NewKey { .. } => None,
        })
        .collect();
    world.ok(OWNER, send_keys(1, &answered));
    assert_eq!(world.asks().len(), 10);
    // Full and unanswered, the timer still has a moment to wait for.
    world.pass(15_000);
    world.asks();
    assert!(world.state.next_wakeup().is_some_and(|due| due > world.now), "no timer without end");

    let mut world = big_group(230);
    world.ok(OWNER, Command::E2eeize);
    let asks = world.asks();
    assert_eq!(asks.iter().filter(|ask| matches!(ask, AskFor::NewKey { .. })).count(), 1);
    let next = asks.iter().filter(|ask| matches!(ask, AskFor::Key { epoch: KeyEpoch(2), .. }));
    assert_eq!(next.count(), 128, "each behind one for the current key, which they all lack too");
    assert_eq!(asks.len(), 257);
    world.pass(20_000);
    world.asks();
    assert!(world.state.next_wakeup().is_some_and(|due| due > world.now), "the rotator has until the deadline");
}

#[test]
fn a_newcomer_is_given_the_key_that_is_being_replaced_by_the_rotator_too() {
    let mut world = World::group(true);
    world.admit(EVE);
    let key = |to, member, epoch| AskFor::Key { to, member, epoch: KeyEpoch(epoch) };
    assert_eq!(world.asks(), [key(OWNER, EVE, 1)]);
    world.ok(BOB, Command::Leave { force: false });
    world.ok(ANN, say());
    let new = AskFor::NewKey { to: ANN, epoch: KeyEpoch(2) };
    assert_eq!(world.asks(), [new, key(ANN, OWNER, 2), key(ANN, ADMIN, 2), key(ANN, EVE, 2)]);
    world.pass(1_000);
    assert_eq!(world.asks(), [key(ANN, EVE, 1)], "the owner is slow");
    let dan = user(40);
    world.admit(dan);
    assert_eq!(world.asks(), [key(ANN, dan, 1), key(ANN, dan, 2)], "before it can be given no more");
    world.pass(1_000);
    assert!(world.asks().is_empty());
    world.ok(ANN, send_keys(1, &[EVE, dan]));
    world.ok(OWNER, send_keys(1, &[EVE]));
    world.ok(ANN, send_keys(2, &[OWNER, ADMIN, EVE, dan]));
    assert_eq!(world.epoch(), Some(2));
    let given: Vec<_> = world.inbox(EVE).into_iter().filter_map(key_epoch).collect();
    assert_eq!(given, [KeyEpoch(1), KeyEpoch(2)]);
}

#[test]
fn a_rotator_without_the_current_key_is_not_asked_for_it() {
    let mut world = World::group(true);
    world.ok(ANN, lost());
    world.admit(EVE);
    world.ok(BOB, Command::Leave { force: false });
    world.ok(ANN, say());
    let asks = world.asks();
    let is_of = |ask: &&AskFor, epoch| matches!(ask, AskFor::Key { epoch: KeyEpoch(of), .. } if *of == epoch);
    assert_eq!(asks.iter().filter(|ask| is_of(ask, 1)).count(), 2, "Ann and Eve lack it");
    assert!(asks.iter().filter(|ask| is_of(ask, 1)).all(|ask| ask.to() != ANN));
}

#[test]
fn what_the_rotator_was_asked_is_asked_again_on_the_next_connection() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    let asks = world.asks();
    assert_eq!(asks.len(), 4);
    world.state.member_connected(OWNER);
    assert_eq!(world.asks(), asks);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.state.member_connected(OWNER);
    assert_eq!(world.asks().len(), 2, "the key is made; two members lack it");
    world.restart();
    assert_eq!(world.asks().len(), 2, "whoever wakes the session asks the same");
}

#[test]
fn rule_8_the_first_check_value_stands_and_is_passed_on() {
    let body = NewSession {
        name: None,
        members: None,
        e2ee_on: true,
        room_key: None,
        key_check: None,
        leave_message: None,
        client_session_id: None,
    };
    let mut world = World::made(rules(), body);
    world.admit(ANN);
    world.admit(BOB);
    world.ok(OWNER, send_key(ANN, 1));
    let Command::SendRoomKey(body) = send_key(BOB, 1) else { unreachable!() };
    let lie = SendRoomKey { key_check: Some(b64("a lie")), ..body.clone() };
    world.refused(OWNER, Command::SendRoomKey(lie), ErrorCode::KeyMismatch);
    world.ok(OWNER, Command::SendRoomKey(SendRoomKey { key_check: None, ..body }));
    assert!(world.inbox(BOB).iter().any(|notice| matches!(
        notice,
        NoticeBody::ReceiveRoomKeyNotification { key_check: Some(check), .. } if *check == b64("check 1")
    )));
    world.ok(EVE, join());
    let lie =
        AllowUserJoinSession { room_key: Some(b64("wrapped")), key_check: Some(b64("a lie")), ..allow(EVE, true) };
    world.refused(OWNER, Command::Allow(lie), ErrorCode::KeyMismatch);
}

#[test]
fn rule_8_a_bad_key_is_asked_for_again_at_a_bounded_rate() {
    let mut world = World::group(true);
    for _ in 0..3 {
        world.ok(ANN, Command::RequestRoomKey(LostReason::Bad));
        assert!(!world.has(ANN, 1));
        assert_eq!(world.asks().len(), 1);
        world.ok(OWNER, send_key(ANN, 1));
    }
    let refusal = world.act(ANN, lost()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    assert_eq!(refusal.details.unwrap().retry_after_ms, Some(60_000));
    world.ok(BOB, lost());
    world.pass(60_000);
    world.ok(ANN, lost());
}

#[test]
fn rule_9_each_message_chooses_unless_the_session_requires_encryption() {
    let mut world = World::group(true);
    world.ok(ANN, say());
    world.ok(ANN, say_encrypted(None));
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { require_encryption: Some(true), ..info() }));
    world.refused(ANN, say(), ErrorCode::EncryptionRequired);
    world.ok(OWNER, Command::Dee2eeize);
    world.ok(ANN, say());
    world.refused(ANN, say_encrypted(None), ErrorCode::E2eeNotOn);
}

#[test]
fn one_may_send_oneself_the_key_for_ones_other_devices() {
    let mut world = World::group(true);
    world.ok(ANN, send_key(ANN, 1));
    assert!(world.model.keys.contains_key(&(ANN, KeyEpoch(1))));
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_key(OWNER, 2));
    world.ok(OWNER, send_key(OWNER, 2));
    let newest: Vec<_> = world.inbox(OWNER).into_iter().filter(|notice| is_key_of(notice, 2)).collect();
    assert_eq!(newest.len(), 1, "the later copy stands for the earlier one");
    world.ok(OWNER, Command::Dee2eeize);
    assert!(!world.inbox(OWNER).into_iter().any(|notice| is_key_of(notice, 2)), "and goes with the epoch");
}

fn is_key_of(notice: &NoticeBody, epoch: u64) -> bool {
    matches!(notice, NoticeBody::ReceiveRoomKeyNotification { key_epoch, .. } if key_epoch.0 == epoch)
}

#[test]
fn a_void_takes_back_the_new_key_and_leaves_the_current_one() {
    let mut world = World::group(true);
    world.admit(EVE);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[EVE]));
    // The current key comes after the new one.
    world.ok(ANN, send_key(EVE, 1));
    world.ok(OWNER, Command::Kick(ADMIN));
    world.ok(OWNER, Command::SetRole { user_id: ANN, role: Role::Owner });
    world.ok(ANN, Command::E2eeize);
    let inbox = world.inbox(EVE);
    assert!(inbox.iter().any(|notice| is_key_of(notice, 1)) && !inbox.iter().any(|notice| is_key_of(notice, 2)));
    assert!(world.has(EVE, 1));
}

#[test]
fn who_lapses_after_a_void_number_still_has_the_current_key() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.ok(BOB, Command::Leave { force: false });
    world.ok(OWNER, Command::Dee2eeize);
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.online.clear();
    world.pass(60_000);
    world.tick();
    world.online.extend([OWNER, ADMIN, ANN, BOB]);
    world.ok(ANN, say());
    world.ok(ANN, send_keys(3, &[BOB]));
    world.pass(60_000);
    world.tick();
    assert_eq!(world.rotation(), (BOB, 3));
    assert!(world.has(ANN, 1) && world.has(ANN, 3));
    assert!(world.state.without_key.is_empty());
}

#[test]
fn the_deadline_grows_with_the_members_and_with_what_is_sent_to_others() {
    let deadline = |world: &World| match world.phase() {
        Some(Phase::Rotating(rotation)) => rotation.deadline.millis_since(T0),
        other => panic!("{other:?}"),
    };
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    assert_eq!(deadline(&world), 30_000 + 3 * 20);
    world.ok(OWNER, send_keys(2, &[ANN, BOB]));
    assert_eq!(deadline(&world), 30_000 + 5 * 20);
    world.ok(OWNER, send_keys(2, &[ANN, BOB, EVE]));
    world.ok(OWNER, send_keys(2, &[OWNER]));
    world.ok(OWNER, send_keys(2, &[]));
    assert_eq!(deadline(&world), 30_000 + 5 * 20, "nothing that brings it nearer to its end, no more time");
    world.admit(EVE);
    assert_eq!(deadline(&world), 30_000 + 6 * 20);
    world.pass(30_119);
    world.tick();
    assert_eq!(world.rotation(), (OWNER, 2));
    world.pass(1);
    world.tick();
    assert_eq!(world.rotation(), (ANN, 2), "who was sent the key goes on");
    assert_eq!(deadline(&world), 30_120 + 30_000 + 2 * 20);
    let asks = world.asks();
    assert!(asks.iter().all(|ask| matches!(ask, AskFor::Key { .. })), "nobody is asked to make it again");
    world.ok(ANN, send_keys(2, &[ADMIN, EVE]));
    assert!(world.is_steady());
    assert!(world.has(OWNER, 2), "who made it has it");
}

#[test]
fn a_new_public_key_is_told_and_what_was_wrapped_for_the_old_one_is_taken_back() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, send_keys(2, &[ANN]));
    world.task(ANN, TaskKind::PublicKeyChanged("ff00".to_owned()));
    assert!(matches!(
        &world.model.events.last().unwrap().what,
        Happening::PublicKeyChanged(changed) if changed.user_id == ANN && changed.fingerprint == "ff00"
    ));
    assert!(!world.has(ANN, 1) && !world.has(ANN, 2));
    assert!(!world.inbox(ANN).into_iter().any(|notice| is_key_of(notice, 2)));
    assert!(!world.model.keys.contains_key(&(ANN, KeyEpoch(2))));
    let again = AskFor::Key { to: OWNER, member: ANN, epoch: KeyEpoch(2) };
    assert!(world.asks().contains(&again));
    // They may know the new key all the same.
    world.ok(ANN, Command::Leave { force: false });
    assert!(world.is_marked());
}

#[test]
fn the_last_holder_leaves_only_by_force() {
    let mut world = World::encrypted();
    world.admit(ANN);
    world.refused(OWNER, Command::Leave { force: false }, ErrorCode::LastKeyHolder);
    world.ok(ANN, Command::Leave { force: false });
    world.admit(ANN);
    world.ok(OWNER, Command::Leave { force: true });
    assert_eq!(world.reasons(), [MarkReason::Left].into());
    // Alone, nobody needs the key any more.
    world.ok(ANN, Command::Leave { force: false });
    assert!(world.state.ended());
}

#[test]
fn switching_encryption_on_closes_an_open_session() {
    let mut world = World::group(false);
    world.ok(OWNER, Command::SetInfo(SetSessionInfo { join_policy: Some(JoinPolicy::Open), ..info() }));
    let seen = world.model.events.len();
    world.ok(OWNER, Command::E2eeize);
    assert_eq!(world.events_since(seen), ["SessionE2eeChanged", "SessionInfoChanged"]);
    assert_eq!(world.ok(EVE, join()), serde_json::json!({ "status": "pending" }));
    world.refused(
        OWNER,
        Command::SetInfo(SetSessionInfo { join_policy: Some(JoinPolicy::Open), ..info() }),
        ErrorCode::InvalidArgument,
    );
}

#[test]
fn e2ee_off_again_is_answered_as_if_just_done() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::Dee2eeize);
    let seen = world.model.events.len();
    world.ok(OWNER, Command::Dee2eeize);
    assert_eq!(world.events_since(seen), [""; 0]);
}

#[test]
fn an_ended_session_leaves_nothing_to_wait_for() {
    let mut world = World::group(true);
    world.ok(OWNER, Command::E2eeize);
    world.ok(OWNER, Command::Delete);
    assert!(world.state.is_quiet() && world.asks().is_empty() && world.state.next_wakeup().is_none());
}
