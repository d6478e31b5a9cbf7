//! What commits change, as a later claim brings it back.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{invitation, request};
use super::{NODE, Session, Subject, user};
use crate::protocol::{Base64Text, ClientId, InboxId, KeyEpoch, LeftReason, Role, SessionId, Timestamp};
use crate::session::state::{
    Change, CurrentKey, Declined, E2ee, KeyState, MarkReason, MemberKeys, PassedOver, Phase, RecentMsg, Restriction,
    Rotation, Snapshot, Until,
};
use crate::store::{AckRow, Claim, Store};

async fn snapshot(store: &dyn Store, session_id: SessionId) -> Snapshot {
    let Claim::Mine(claimed) = store.claim(session_id, NODE, true).await.unwrap() else { panic!("not claimed") };
    let mut snapshot = claimed.snapshot;
    snapshot.members.sort_by_key(|member| member.user_id);
    snapshot.restrictions.sort_by_key(|(user_id, _)| *user_id);
    snapshot.invitations.sort_by_key(|invitation| (invitation.invitee, invitation.inviter));
    snapshot.join_requests.sort_by_key(|request| request.user_id);
    snapshot
}

fn rotating() -> E2ee {
    let at = Timestamp::from_millis;
    let rotation = Rotation {
        epoch: KeyEpoch(4),
        rotator: user(1),
        key_check: Some(Base64Text::encode(b"new")),
        started: true,
        deadline: at(90_000),
        reasons: BTreeSet::from([MarkReason::Left, MarkReason::Age]),
        since: at(60_000),
    };
    let current = CurrentKey { epoch: KeyEpoch(3), key_check: Some(Base64Text::encode(b"now")), since: at(5) };
    E2ee::On(KeyState { current: Some(current), last_epoch: 4, phase: Phase::Rotating(rotation) })
}

pub(crate) async fn every_record_comes_back_with_a_claim(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    session.head.description = Some("all \"of\" it\n\u{0} ü".to_owned());
    session.head.passed_over = BTreeMap::from([(user(3), PassedOver { until: session.time, times: 2 })]);
    session.head.declined = vec![Declined { user_id: user(4), inviter_id: Some(user(1)) }];
    session.head.e2ee = rotating();
    let mut owner = session.member(user(1), Role::Owner);
    owner.keys = MemberKeys {
        held: Some(KeyEpoch(3)),
        sent: Some(KeyEpoch(4)),
        exposed: Some(KeyEpoch(2)),
        withheld: Some(KeyEpoch(1)),
        withheld_by: vec![user(7), user(8)],
        notice: Some(InboxId("n".to_owned())),
    };
    let admin = session.member(user(2), Role::Admin);
    let forever = Restriction { muted: Some(Until::Forever), banned: None };
    let passing = Restriction { muted: None, banned: Some(Until::At(session.time)) };
    let mut lapsed = invitation(user(6), user(1));
    lapsed.lapsed = true;
    let mut bare = request(user(9));
    (bare.leave_message, bare.notices) = (None, Vec::new());
    let said = session.says(user(1), "hel\u{0}lo", Some("an\u{0}id"));
    let unnamed = session.says(user(1), "hello", None);
    let mut commit = session.commit([
        Change::PutMember(owner.clone()),
        Change::PutMember(admin.clone()),
        Change::PutRestriction(user(2), forever),
        Change::PutRestriction(user(3), passing),
        Change::PutJoinRequest(request(user(5))),
        Change::PutJoinRequest(bare.clone()),
        Change::PutInvitation(invitation(user(6), user(2))),
        Change::PutInvitation(lapsed.clone()),
        said,
        unnamed,
    ]);
    commit.key_messages = 17;
    commit.head = Some(session.head.clone());
    assert_eq!(store.commit(NODE, &[commit]).await, [Ok(())]);
    let time = session.time.plus_millis(-1);
    let found = snapshot(&**store, session.id()).await;
    assert_eq!(
        found,
        Snapshot {
            head: session.head.clone(),
            last_seq: 3,
            last_time: session.time,
            key_messages: 17,
            members: vec![owner, admin],
            restrictions: vec![(user(2), forever), (user(3), passing)],
            join_requests: vec![request(user(5)), bare],
            invitations: vec![lapsed, invitation(user(6), user(2))],
            recent: vec![RecentMsg { sender: user(1), client_msg_id: ClientId("an\u{0}id".into()), seq: 2, time }],
        }
    );
}

pub(crate) async fn what_is_removed_does_not_come_back(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let muted = Restriction { muted: Some(Until::Forever), banned: None };
    let member = session.member(user(2), Role::Member);
    session
        .put(
            &**store,
            [
                Change::PutMember(member.clone()),
                Change::PutRestriction(user(2), muted),
                Change::PutJoinRequest(request(user(3))),
                Change::PutInvitation(invitation(user(4), user(1))),
                Change::PutInvitation(invitation(user(4), user(2))),
            ],
        )
        .await;
    // In one commit, in the order decided: what is put after its removal stays, what is removed after it does not.
    let changed = Restriction { muted: None, banned: Some(Until::Forever) };
    let owner = session.member(user(1), Role::Owner);
    session
        .put(
            &**store,
            [
                Change::RemoveMember(user(2), LeftReason::Banned),
                Change::PutRestriction(user(2), Restriction::default()),
                Change::PutRestriction(user(2), changed),
                Change::PutMember(session_member(&member)),
                Change::RemoveMember(user(5), LeftReason::Left),
                Change::RemoveJoinRequest(user(3)),
                Change::RemoveInvitation(user(4), user(1)),
                Change::PutRestriction(user(1), muted),
                Change::PutRestriction(user(1), Restriction::default()),
            ],
        )
        .await;
    let found = snapshot(&**store, session.id()).await;
    assert_eq!(found.members.iter().map(|member| member.user_id).collect::<Vec<_>>(), [owner.user_id]);
    assert_eq!(found.restrictions, [(user(2), changed)]);
    assert_eq!(found.join_requests, []);
    assert_eq!(found.invitations, [invitation(user(4), user(2))]);
}

/// Somebody who comes in and leaves within one commit.
fn session_member(member: &crate::session::state::Member) -> crate::session::state::Member {
    crate::session::state::Member { user_id: user(5), ..member.clone() }
}

pub(crate) async fn a_forgotten_message_id_may_come_again(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let mut other = Session::new(2, user(1)).made(&**store).await;
    let forget = |sender: u8, id: &str, seq: u64, time: Timestamp| {
        Change::Forget(RecentMsg { sender: user(sender), client_msg_id: ClientId(id.into()), seq, time })
    };
    let said = [session.says(user(1), "one", Some("a")), session.says(user(2), "two", Some("a"))];
    let time = session.time;
    session.put(&**store, said).await;
    let said = other.says(user(1), "elsewhere", Some("a"));
    other.put(&**store, [said]).await;
    let remembered = async |session: &mut Session| {
        let Claim::Mine(claimed) = store.claim(session.id(), NODE, true).await.unwrap() else { panic!("not claimed") };
        session.fence = claimed.fence;
        let recent = claimed.snapshot.recent;
        recent.into_iter().map(|msg| (msg.sender, msg.client_msg_id.0, msg.seq)).collect::<Vec<_>>()
    };
    let a = || "a".into();

    // Forgotten and taken again in one commit.
    let again = session.says(user(1), "three", Some("a"));
    session.remembered_from = 3;
    session.put(&**store, [forget(1, "a", 2, time.plus_millis(-1)), again]).await;
    assert_eq!(remembered(&mut session).await, [(user(2), a(), 3), (user(1), a(), 4)]);

    // More than are remembered, in one commit.
    let (time_of_4, passing) = (session.time, session.says(user(1), "four", Some("b")));
    session.remembered_from = 6;
    let forgotten = [forget(2, "a", 3, time), forget(1, "a", 4, time_of_4), forget(1, "b", 5, session.time)];
    session.put(&**store, [passing].into_iter().chain(forgotten)).await;
    assert_eq!(remembered(&mut session).await, []);
    assert_eq!(remembered(&mut other).await, [(user(1), a(), 2)]);
}

pub(crate) async fn a_rejoin_starts_its_acks_anew(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let said: Vec<_> = (0..5).map(|_| session.says(user(1), "x", None)).collect();
    let mut member = session.member(user(2), Role::Member);
    session.put(&**store, said.into_iter().chain([Change::PutMember(member.clone())])).await;
    let acked = || async { store.sessions_of(user(2)).await.unwrap().remove(0).overview.acked_seq };
    assert_eq!(acked().await, 5, "just before the own joining");
    store.ack(&[AckRow { session_id: session.id(), user_id: user(2), seq: 6 }]).await.unwrap();
    member.role = Role::Admin;
    session.put(&**store, [Change::PutMember(member.clone())]).await;
    assert_eq!(acked().await, 6, "another role is no rejoin");
    let said: Vec<_> = (0..4).map(|_| session.says(user(1), "x", None)).collect();
    member.first_seq = session.seq;
    let rejoin = [Change::RemoveMember(user(2), LeftReason::Left), Change::PutMember(member)];
    session.put(&**store, said.into_iter().chain(rejoin)).await;
    assert_eq!(acked().await, 9);
}
