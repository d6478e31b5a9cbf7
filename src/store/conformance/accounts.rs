//! Accounts and tokens.

use super::{NODE, Session, Subject, account, user};
use crate::protocol::{InboxId, LeftReason, Role, Timestamp, UserId};
use crate::session::state::{Change, Invitation, JoinRequest, TaskKind};
use crate::store::{Claim, NewPublicKey, StoreError, TokenHash, TokenOwner};

const NOW: Timestamp = Timestamp::from_millis(50_000);

pub(crate) async fn a_name_is_given_out_once(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let mut same = account(2);
    same.name = account(1).name;
    assert!(matches!(store.create_user(&same).await, Err(StoreError::Conflict(_))));
    store.close_account(user(1), NOW).await.unwrap();
    assert!(matches!(store.create_user(&same).await, Err(StoreError::Conflict(_))), "nor when it is closed");
    assert_eq!(store.user_by_id(user(2)).await.unwrap(), None);
}

pub(crate) async fn an_account_is_found_by_name_and_by_id_while_it_lives(Subject { store, .. }: &Subject) {
    for n in [1, 2] {
        store.create_user(&account(n)).await.unwrap();
    }
    assert_eq!(store.user_by_name("user-1").await.unwrap(), Some(account(1)));
    assert_eq!(store.user_by_id(user(2)).await.unwrap(), Some(account(2)));
    assert_eq!(store.user_by_name("user-3").await.unwrap(), None);
    store.close_account(user(1), NOW).await.unwrap();
    assert_eq!(store.user_by_name("user-1").await.unwrap(), None);
    assert_eq!(store.user_by_id(user(1)).await.unwrap(), None);
    let keys = store.public_keys(&[user(1), user(2), user(3)]).await.unwrap();
    assert_eq!(keys, [(user(2), "key of 2".to_owned())]);
}

pub(crate) async fn tokens_end_by_time_by_removal_and_by_number(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let now = store.now().await.unwrap();
    let owner = |after| TokenOwner { user_id: user(1), expires_at: now.plus_millis(after) };
    let hash = |n| TokenHash([n; 32]);
    store.add_token(hash(1), &owner(1_000), 3).await.unwrap();
    assert_eq!(store.token_owner(hash(1), now).await.unwrap(), Some(owner(1_000)));
    assert_eq!(store.token_owner(hash(1), now.plus_millis(1_000)).await.unwrap(), None, "its time is over");
    for n in 2..=4 {
        store.add_token(hash(n), &owner(5_000), 3).await.unwrap();
    }
    let all = [1, 2, 3, 4].map(hash);
    assert_eq!(store.dead_tokens(&all, now).await.unwrap(), [hash(1)], "the oldest beyond three");
    assert_eq!(store.remove_token(hash(3)).await.unwrap(), Some(user(1)));
    assert_eq!(store.remove_token(hash(3)).await.unwrap(), None);
    assert_eq!(store.dead_tokens(&all, now).await.unwrap(), [hash(1), hash(3)]);
    assert_eq!(store.dead_tokens(&all, now.plus_millis(5_000)).await.unwrap(), all);
}

pub(crate) async fn a_new_password_ends_the_other_tokens(Subject { store, .. }: &Subject) {
    let now = store.now().await.unwrap();
    for n in [1, 2] {
        store.create_user(&account(n)).await.unwrap();
        for token in [n, n + 10] {
            let owner = TokenOwner { user_id: user(n), expires_at: now.plus_secs(60) };
            store.add_token(TokenHash([token; 32]), &owner, 10).await.unwrap();
        }
    }
    store.set_password(user(1), "another hash", TokenHash([1; 32])).await.unwrap();
    let all = [1, 11, 2, 12].map(|n| TokenHash([n; 32]));
    assert_eq!(store.dead_tokens(&all, now).await.unwrap(), [TokenHash([11; 32])]);
    assert_eq!(store.user_by_id(user(1)).await.unwrap().unwrap().password_hash, "another hash");
    assert_eq!(store.user_by_id(user(2)).await.unwrap().unwrap().password_hash, "a hash");
}

pub(crate) async fn a_new_public_key_tells_every_session_of_the_user(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let own = Session::new(1, user(1)).made(&**store).await;
    let other = Session::new(2, user(2)).made(&**store).await;
    let key = NewPublicKey { public_key: "new".to_owned(), fingerprint: "print".to_owned() };
    assert_eq!(store.set_public_key(user(1), &key).await.unwrap(), [own.id()]);
    let tasks = store.tasks(own.id()).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].user_id, &tasks[0].kind), (user(1), &TaskKind::PublicKeyChanged("print".to_owned())));
    assert_eq!(store.tasks(other.id()).await.unwrap(), []);
    assert_eq!(store.public_keys(&[user(1)]).await.unwrap(), [(user(1), "new".to_owned())]);
}

pub(crate) fn request(user_id: UserId) -> JoinRequest {
    let (time, notices) = (Timestamp::from_millis(20_000), vec![(user(1), InboxId("n".to_owned()))]);
    JoinRequest { user_id, leave_message: Some("hel\u{0}lo".to_owned()), public_key: "key".to_owned(), time, notices }
}

pub(crate) fn invitation(invitee: UserId, inviter: UserId) -> Invitation {
    let expires_at = Timestamp::from_millis(30_000);
    Invitation { invitee, inviter, expires_at, lapsed: false, notice: InboxId("i".to_owned()) }
}

pub(crate) async fn closing_an_account_tells_every_session_once(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let now = store.now().await.unwrap();
    let owner = TokenOwner { user_id: user(1), expires_at: now.plus_secs(60) };
    store.add_token(TokenHash([1; 32]), &owner, 10).await.unwrap();
    let member = Session::new(1, user(1)).made(&**store).await;
    let mut asked = Session::new(2, user(2)).made(&**store).await;
    asked.put(&**store, [Change::PutJoinRequest(request(user(1)))]).await;
    let mut invited = Session::new(3, user(2)).made(&**store).await;
    invited.put(&**store, [Change::PutInvitation(invitation(user(1), user(2)))]).await;
    let stranger = Session::new(4, user(2)).made(&**store).await;

    let mut told = store.close_account(user(1), now).await.unwrap();
    told.sort();
    assert_eq!(told, [member.id(), asked.id(), invited.id()]);
    for session in [&member, &asked, &invited] {
        let tasks = store.tasks(session.id()).await.unwrap();
        assert_eq!(tasks.len(), 1);
        assert_eq!((tasks[0].user_id, &tasks[0].kind), (user(1), &TaskKind::Closed));
    }
    assert_eq!(store.tasks(stranger.id()).await.unwrap(), []);
    assert_eq!(store.sessions_with_tasks(10).await.unwrap(), told);
    assert_eq!(store.sessions_with_tasks(2).await.unwrap().len(), 2);
    assert_eq!(store.token_owner(TokenHash([1; 32]), now).await.unwrap(), None);
    assert_eq!(store.close_account(user(1), now).await.unwrap(), [], "again: nothing");
    assert_eq!(store.tasks(member.id()).await.unwrap().len(), 1);
}

pub(crate) async fn a_row_written_for_a_closed_account_tells_the_session(Subject { store, .. }: &Subject) {
    for n in 1..=4 {
        store.create_user(&account(n)).await.unwrap();
    }
    let mut session = Session::new(1, user(1)).made(&**store).await;
    for n in 2..=4 {
        assert_eq!(store.close_account(user(n), NOW).await.unwrap(), []);
    }
    let member = session.member(user(2), Role::Member);
    let passing = session.member(user(4), Role::Member);
    session
        .put(
            &**store,
            [
                Change::PutMember(member.clone()),
                Change::PutInvitation(invitation(user(3), user(1))),
                Change::PutMember(passing),
                Change::RemoveMember(user(4), LeftReason::Left),
            ],
        )
        .await;
    // Written again before the session has taken it in: still one task.
    session.put(&**store, [Change::PutMember(member)]).await;
    let mut told: Vec<_> = store.tasks(session.id()).await.unwrap().into_iter().map(|task| task.user_id).collect();
    told.sort();
    assert_eq!(told, [user(2), user(3)], "nobody for whom no row is left");
    let Claim::Mine(claimed) = store.claim(session.id(), NODE, true).await.unwrap() else { panic!("not claimed") };
    assert_eq!(claimed.tasks, store.tasks(session.id()).await.unwrap());
}

pub(crate) async fn a_disabled_account_is_out_until_it_is_enabled(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let now = store.now().await.unwrap();
    let owner = TokenOwner { user_id: user(1), expires_at: now.plus_secs(60) };
    let [early, late] = [1, 2].map(|n| TokenHash([n; 32]));
    store.add_token(early, &owner, 10).await.unwrap();
    let member = Session::new(1, user(1)).made(&**store).await;
    let mut invited = Session::new(2, user(2)).made(&**store).await;
    invited.put(&**store, [Change::PutInvitation(invitation(user(1), user(2)))]).await;
    Session::new(3, user(2)).made(&**store).await;
    let mut told = store.disable_user(user(1), now).await.unwrap();
    told.sort();
    assert_eq!(told, [member.id(), invited.id()]);
    assert_eq!(store.sessions_with_tasks(10).await.unwrap(), told);
    let tasks = store.tasks(member.id()).await.unwrap();
    assert_eq!((tasks.len(), &tasks[0].kind), (1, &TaskKind::Closed));
    assert_eq!(store.disable_user(user(1), now).await.unwrap(), [], "again: nothing");

    // A login that was under way.
    store.add_token(late, &owner, 10).await.unwrap();
    assert_eq!(store.token_owner(late, now).await.unwrap(), None);
    assert_eq!(store.dead_tokens(&[early, late], now).await.unwrap(), [early, late]);
    assert_eq!(store.user_by_name("user-1").await.unwrap(), None);
    assert_eq!(store.user_by_id(user(1)).await.unwrap(), None);
    assert_eq!(store.public_keys(&[user(1)]).await.unwrap(), []);
    let same = crate::store::UserRow { name: account(1).name, ..account(2) };
    assert!(matches!(store.create_user(&same).await, Err(StoreError::Conflict(_))), "the name stays taken");

    assert!(store.enable_user(user(1)).await.unwrap());
    assert!(!store.enable_user(user(1)).await.unwrap(), "again: nothing");
    assert_eq!(store.user_by_name("user-1").await.unwrap(), Some(account(1)));
    assert_eq!(store.dead_tokens(&[early, late], now).await.unwrap(), [early, late], "no token comes back");
    store.disable_user(user(1), now).await.unwrap();
    store.close_account(user(1), now).await.unwrap();
    assert!(!store.enable_user(user(1)).await.unwrap(), "closed for good");
    assert_eq!(store.user_by_id(user(1)).await.unwrap(), None);
}

pub(crate) async fn a_row_written_for_a_disabled_account_tells_the_session(Subject { store, .. }: &Subject) {
    store.create_user(&account(2)).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&**store).await;
    assert_eq!(store.disable_user(user(2), NOW).await.unwrap(), []);
    let member = session.member(user(2), Role::Member);
    session.put(&**store, [Change::PutMember(member)]).await;
    let told: Vec<_> = store.tasks(session.id()).await.unwrap().into_iter().map(|task| task.user_id).collect();
    assert_eq!(told, [user(2)]);
}

pub(crate) async fn all_tokens_of_a_user_are_revoked_at_once(Subject { store, .. }: &Subject) {
    let now = store.now().await.unwrap();
    let all = [1, 2, 3].map(|n| TokenHash([n; 32]));
    for (n, hash) in [(1, all[0]), (1, all[1]), (2, all[2])] {
        if n == 2 || hash == all[0] {
            store.create_user(&account(n)).await.unwrap();
        }
        store.add_token(hash, &TokenOwner { user_id: user(n), expires_at: now.plus_secs(60) }, 10).await.unwrap();
    }
    assert_eq!(store.revoke_tokens(user(1)).await.unwrap(), 2);
    assert_eq!(store.dead_tokens(&all, now).await.unwrap(), all[..2]);
    assert_eq!(store.revoke_tokens(user(1)).await.unwrap(), 0);
    assert_eq!(store.user_by_id(user(1)).await.unwrap(), Some(account(1)), "the account stays");
}
