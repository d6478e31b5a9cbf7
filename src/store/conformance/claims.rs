//! Ownership, and the guard of every commit.

use super::accounts::request;
use super::{NODE, OTHER, Session, Subject, account, report, user};
use crate::protocol::{ClientId, NodeId, SessionId};
use crate::session::state::Change;
use crate::store::{Claim, Claimed, CommitError, EventRange, Store};

const LEASE: i64 = 10_000;

async fn claimed(store: &dyn Store, session_id: SessionId, node: NodeId) -> Claimed {
    match store.claim(session_id, node, true).await.unwrap() {
        Claim::Mine(claimed) => *claimed,
        other @ (Claim::OwnedBy(_) | Claim::NoSession) => panic!("not claimed: {other:?}"),
    }
}

pub(crate) async fn a_claim_raises_the_fence_each_time(Subject { store, .. }: &Subject) {
    let session = Session::new(1, user(1)).made(&**store).await;
    store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    let first = claimed(&**store, session.id(), NODE).await;
    let second = claimed(&**store, session.id(), NODE).await;
    assert!(first.fence > session.fence && second.fence > first.fence);
    assert_eq!((second.version, second.snapshot.last_seq), (1, 1));
    assert_eq!(store.position(session.id()).await.unwrap(), Some((1, 1)));
    let unknown = Session::new(9, user(1)).id();
    assert_eq!(store.claim(unknown, NODE, true).await.unwrap(), Claim::NoSession);
    assert_eq!(store.position(unknown).await.unwrap(), None);
}

pub(crate) async fn a_live_owner_keeps_its_sessions_until_its_lease_is_over(subject: &Subject) {
    let Subject { store, advance, .. } = subject;
    let session = Session::new(1, user(1)).made(&**store).await;
    let lease = store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    assert_eq!(lease.expires_at, store.now().await.unwrap().plus_millis(LEASE));
    store.renew_lease(OTHER, LEASE * 10, &report()).await.unwrap();
    let owned = Claim::OwnedBy(NODE);
    assert_eq!(store.claim(session.id(), OTHER, true).await.unwrap(), owned);
    advance(LEASE - 1);
    assert_eq!(store.claim(session.id(), OTHER, true).await.unwrap(), owned, "a moment before its end");
    store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    advance(LEASE - 1);
    assert_eq!(store.claim(session.id(), OTHER, true).await.unwrap(), owned, "it was renewed");
    advance(1);
    assert!(claimed(&**store, session.id(), OTHER).await.fence > session.fence);
}

pub(crate) async fn a_node_that_holds_back_takes_nothing_from_a_dead_one(subject: &Subject) {
    let Subject { store, advance, .. } = subject;
    let session = Session::new(1, user(1)).made(&**store).await;
    store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    advance(LEASE);
    store.renew_lease(OTHER, LEASE, &report()).await.unwrap();
    assert_eq!(store.claim(session.id(), OTHER, false).await.unwrap(), Claim::OwnedBy(NODE));
    assert!(matches!(store.claim(session.id(), NODE, false).await.unwrap(), Claim::Mine(_)), "its own, at any time");
    let fence = claimed(&**store, session.id(), OTHER).await.fence;
    store.release(session.id(), OTHER, fence).await.unwrap();
    assert!(matches!(store.claim(session.id(), NODE, false).await.unwrap(), Claim::Mine(_)), "what nobody owns");
}

pub(crate) async fn a_session_given_up_is_free_at_once(Subject { store, .. }: &Subject) {
    store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    store.renew_lease(OTHER, LEASE, &report()).await.unwrap();
    let one = Session::new(1, user(1)).made(&**store).await;
    let two = Session::new(2, user(1)).made(&**store).await;
    let fence = claimed(&**store, one.id(), NODE).await.fence;
    store.release(one.id(), NODE, fence - 1).await.unwrap();
    assert_eq!(store.claim(one.id(), OTHER, true).await.unwrap(), Claim::OwnedBy(NODE), "by its fence only");
    store.release(one.id(), NODE, fence).await.unwrap();
    assert!(claimed(&**store, one.id(), OTHER).await.fence > fence);
    store.end_lease(NODE).await.unwrap();
    claimed(&**store, two.id(), OTHER).await;
    assert_eq!(store.claim(one.id(), NODE, true).await.unwrap(), Claim::OwnedBy(OTHER.to_owned()));
}

pub(crate) async fn an_older_fence_or_version_commits_nothing(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let said = session.says(user(1), "in vain", None);
    let mut commit = session.commit([said]);
    assert_eq!(store.commit(OTHER, std::slice::from_ref(&commit)).await, [Err(CommitError::NotOwner)], "another node");
    commit.previous_version = 5;
    commit.version = 6;
    assert_eq!(
        store.commit(NODE, std::slice::from_ref(&commit)).await,
        [Err(CommitError::NotOwner)],
        "a version ahead"
    );
    commit.previous_version = 1;
    commit.version = 2;
    let fence = claimed(&**store, session.id(), NODE).await.fence;
    assert_eq!(store.commit(NODE, std::slice::from_ref(&commit)).await, [Err(CommitError::NotOwner)], "an older fence");
    assert_eq!(store.position(session.id()).await.unwrap(), Some((1, 1)));
    let all = EventRange::After { after: 1, up_to: None };
    assert_eq!(store.events(session.id(), all, 10, 1_000_000).await.unwrap().rows, []);
    commit.fence = fence;
    assert_eq!(store.commit(NODE, std::slice::from_ref(&commit)).await, [Ok(())]);
    assert_eq!(store.commit(NODE, &[commit]).await, [Err(CommitError::NotOwner)], "the same again");
    assert_eq!(store.position(session.id()).await.unwrap(), Some((2, 2)));
}

pub(crate) async fn a_session_of_a_batch_that_is_refused_leaves_the_others_alone(Subject { store, .. }: &Subject) {
    let mut good = Session::new(1, user(1)).made(&**store).await;
    let mut lost = Session::new(2, user(1)).made(&**store).await;
    let mut bad = Session::new(3, user(1)).made(&**store).await;
    let mut new = Session::new(4, user(1));
    let said = good.says(user(1), "one", Some("a"));
    let good_commit = good.commit([said]);
    let said = lost.says(user(1), "two", None);
    let lost_commit = crate::store::SessionCommit { fence: 7, ..lost.commit([said]) };
    let (said, notice) = (bad.says(user(1), "three", None), bad.notice(user(1), bad.invites(user(2)), None).1);
    let bad_commit = bad.commit([said, notice.clone(), notice]);
    let outcomes = store.commit(NODE, &[lost_commit, bad_commit, good_commit, new.making()]).await;
    assert_eq!(outcomes[0], Err(CommitError::NotOwner));
    assert!(matches!(outcomes[1], Err(CommitError::Refused(_))), "{:?}", outcomes[1]);
    assert_eq!(outcomes[2..], [Ok(()), Ok(())]);
    let mut positions = Vec::new();
    for session in [&good, &lost, &bad, &new] {
        positions.push(store.position(session.id()).await.unwrap().unwrap());
    }
    assert_eq!(positions, [(2, 2), (1, 1), (1, 1), (1, 1)]);
}

pub(crate) async fn a_session_is_made_once_per_id_of_its_creator(Subject { store, .. }: &Subject) {
    let id = ClientId("mine".into());
    let making = |n: u8, creator: u8| {
        let mut commit = Session::new(n, user(creator)).making();
        commit.client_session_id = Some(id.clone());
        commit.creation_reply = Some(format!("{{\"reply\":{n}}}"));
        commit
    };
    assert_eq!(store.made_before(user(1), &id).await.unwrap(), None);
    assert_eq!(store.commit(NODE, &[making(1, 1)]).await, [Ok(())]);
    let outcomes = store.commit(NODE, &[making(2, 1), making(3, 2)]).await;
    assert_eq!(outcomes, [Err(CommitError::AlreadyMade), Ok(())]);
    assert_eq!(store.made_before(user(1), &id).await.unwrap().as_deref(), Some("{\"reply\":1}"));
    assert_eq!(store.made_before(user(2), &id).await.unwrap().as_deref(), Some("{\"reply\":3}"));
    assert_eq!(store.position(Session::new(2, user(1)).id()).await.unwrap(), None);
    // A later change of the record leaves the answer as it was given.
    let mut session = Session::new(1, user(1));
    (session.version, session.seq) = (1, 1);
    session.head.name = Some("another".to_owned());
    session.put(&**store, []).await;
    assert_eq!(store.made_before(user(1), &id).await.unwrap().as_deref(), Some("{\"reply\":1}"));
}

pub(crate) async fn an_ended_session_is_not_claimed_and_takes_no_commit(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    session.head.ended = true;
    session.put(&**store, [Change::End]).await;
    assert_eq!(store.claim(session.id(), NODE, true).await.unwrap(), Claim::NoSession);
    assert_eq!(session.try_put(&**store, []).await, Err(CommitError::NotOwner));
}

pub(crate) async fn tasks_go_with_the_commit_that_takes_them_in(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let mut session = Session::new(1, user(2)).made(&**store).await;
    session.put(&**store, [Change::PutJoinRequest(request(user(1)))]).await;
    let now = store.now().await.unwrap();
    store.close_account(user(1), now).await.unwrap();
    let [task] = &store.tasks(session.id()).await.unwrap()[..] else { panic!("not one task") };
    let mut other = Session::new(2, user(2)).made(&**store).await;
    other.put(&**store, [Change::TaskDone(task.id)]).await;
    assert_eq!(store.tasks(session.id()).await.unwrap().len(), 1, "another session cannot take it in");
    session.put(&**store, [Change::RemoveJoinRequest(user(1)), Change::TaskDone(task.id)]).await;
    assert_eq!(store.tasks(session.id()).await.unwrap(), []);
    assert_eq!(store.sessions_with_tasks(10).await.unwrap(), []);
}
