//! House-keeping and figures.

use std::collections::BTreeSet;

use super::reads::encrypted;
use super::{NODE, Session, Subject, account, report, user};
use crate::protocol::{InboxId, KeyEpoch, LeftReason, Role, Timestamp};
use crate::session::state::{Change, E2ee, KeyState, MemberKeys, Phase, Rotation};
use crate::store::{Claim, EventRange, KeyCoverage, Retention, Store, TokenHash, TokenOwner};

const RETENTION: Retention = Retention { inbox_per_user: 2, ended_ms: 1_000, batch: 3 };

async fn prune(store: &dyn Store, now: Timestamp) -> usize {
    // A bound: what never ends fails here and not by a timeout.
    for calls in 1..50 {
        if !store.prune(now, &RETENTION).await.unwrap() {
            return calls;
        }
    }
    panic!("there is always more to remove");
}

pub(crate) async fn what_is_kept_no_longer_is_removed_in_parts(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let mut ended = Session::new(1, user(1)).made(&**store).await;
    let mut alive = Session::new(2, user(1)).made(&**store).await;
    for session in [&mut ended, &mut alive] {
        let said: Vec<_> = (0..7).map(|_| session.says(user(1), "x", None)).collect();
        let recall = session.recall(2, user(1));
        let member = Change::PutMember(session.member(user(2), Role::Member));
        session.put(&**store, said.into_iter().chain([recall, member])).await;
    }
    let mut kept = Vec::new();
    for _ in 0..6 {
        let (name, notice) = alive.notice(user(3), alive.invites(user(1)), None);
        alive.put(&**store, [notice]).await;
        kept.push(name);
    }
    let (of_another, notice) = alive.notice(user(4), alive.invites(user(1)), None);
    alive.put(&**store, [notice, Change::RemoveMember(user(2), LeftReason::Left)]).await;
    ended.put(&**store, [Change::End]).await;
    let now = store.now().await.unwrap();
    for (n, after) in [(1, 1), (2, 60_000)] {
        let owner = TokenOwner { user_id: user(1), expires_at: now.plus_millis(after) };
        store.add_token(TokenHash([n; 32]), &owner, 9).await.unwrap();
    }

    let young = ended.time.plus_millis(RETENTION.ended_ms - 1);
    prune(&**store, young).await;
    assert_eq!(store.position(ended.id()).await.unwrap(), Some((3, 8)), "not yet old enough");
    let inbox = |n| async move { store.inbox(user(n), 99, young).await.unwrap() };
    let names = |rows: Vec<crate::store::InboxRow>| rows.into_iter().map(|row| row.inbox_id).collect::<Vec<InboxId>>();
    assert_eq!((names(inbox(3).await), names(inbox(4).await)), (kept[4..].to_vec(), vec![of_another]), "the oldest go");

    let old = now.plus_millis(1).max(alive.time.plus_millis(RETENTION.ended_ms + 1));
    assert!(prune(&**store, old).await > 2, "a batch at a time");
    assert_eq!(store.position(ended.id()).await.unwrap(), None);
    let all = EventRange::After { after: 0, up_to: None };
    assert_eq!(store.events(ended.id(), all, 99, 1_000_000).await.unwrap().rows, []);
    assert_eq!(store.departures(user(1), &[ended.id()]).await.unwrap(), []);
    assert_eq!(store.departures(user(2), &[alive.id()]).await.unwrap(), []);
    assert_eq!(store.events(alive.id(), all, 99, 1_000_000).await.unwrap().rows.len(), 8);
    assert!(matches!(store.claim(alive.id(), super::NODE, true).await.unwrap(), Claim::Mine(_)));
    let tokens = [1, 2].map(|n| TokenHash([n; 32]));
    assert_eq!(store.dead_tokens(&tokens, now).await.unwrap(), [tokens[0]], "an expired one is gone");
}

pub(crate) async fn key_coverage_counts_who_is_without(Subject { store, .. }: &Subject) {
    let at = Timestamp::from_millis;
    assert_eq!(store.key_coverage(at(0)).await.unwrap(), KeyCoverage::default());
    let mut session = Session::new(1, user(1)).made(&**store).await;
    session.head.e2ee = encrypted(3);
    session.wants_keys = true;
    let members = [(1, Some(3)), (2, Some(2)), (3, None)].map(|(n, held)| {
        let mut member = session.member(user(n), Role::Member);
        member.keys = MemberKeys { held: held.map(KeyEpoch), ..MemberKeys::default() };
        Change::PutMember(member)
    });
    session.put(&**store, members).await;
    let plain = Session::new(2, user(1)).made(&**store).await;
    assert_eq!(plain.head.e2ee, E2ee::Off { last_epoch: 0 });
    let coverage = |without_key, rotations_open, oldest_ms| KeyCoverage { without_key, rotations_open, oldest_ms };
    assert_eq!(store.key_coverage(at(0)).await.unwrap(), coverage(2, 0, 0));

    // Without a current key nobody has it.
    let mut other = Session::new(3, user(1)).made(&**store).await;
    let rotation = Rotation {
        epoch: KeyEpoch(1),
        rotator: user(1),
        key_check: None,
        started: false,
        deadline: at(9_000),
        reasons: BTreeSet::new(),
        since: at(4_000),
    };
    other.head.e2ee = E2ee::On(KeyState { current: None, last_epoch: 1, phase: Phase::Rotating(rotation) });
    other.put(&**store, []).await;
    assert_eq!(store.key_coverage(at(5_500)).await.unwrap(), coverage(3, 1, 1_500));
    // Who owns it and does not live, or nobody, does not look after it.
    assert_eq!(store.rotations_unattended(10).await.unwrap(), [other.id()]);
    store.renew_lease(NODE, 600_000, &report()).await.unwrap();
    assert_eq!(store.rotations_unattended(10).await.unwrap(), []);
    store.release(other.id(), NODE, other.fence).await.unwrap();
    assert_eq!(store.rotations_unattended(10).await.unwrap(), [other.id()]);
    assert!(matches!(store.claim(other.id(), NODE, false).await.unwrap(), Claim::Mine(_)));
    other.fence += 1;
    session.put(&**store, [Change::End]).await;
    other.head.e2ee = E2ee::Off { last_epoch: 1 };
    other.put(&**store, []).await;
    assert_eq!(store.key_coverage(at(5_500)).await.unwrap(), KeyCoverage::default());
    store.end_lease(NODE).await.unwrap();
    assert_eq!(store.rotations_unattended(10).await.unwrap(), []);
}

pub(crate) async fn the_store_proves_that_it_commits(Subject { store, .. }: &Subject) {
    store.probe().await.unwrap();
    store.probe().await.unwrap();
    store.close().await;
    assert!(store.probe().await.is_err());
    assert!(store.user_by_name("anyone").await.is_err());
}
