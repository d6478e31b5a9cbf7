//! What the sweep asks in bulk, and what operators see.

use super::accounts::invitation;
use super::reads::encrypted;
use super::{NODE, Session, Subject, account, user};
use crate::protocol::{KeyEpoch, Role, Timestamp};
use crate::session::state::{Change, MemberKeys};
use crate::store::{Page, Position, SessionSummary, Standing, TokenHash, TokenOwner, UserSummary};

const NOW: Timestamp = Timestamp::from_millis(50_000);

pub(crate) async fn positions_leave_out_what_ended(Subject { store, .. }: &Subject) {
    let mut one = Session::new(1, user(1)).made(&**store).await;
    let mut ended = Session::new(2, user(1)).made(&**store).await;
    let other = Session::new(3, user(1)).made(&**store).await;
    let said = [one.says(user(1), "a", None), one.says(user(1), "b", None)];
    one.put(&**store, said).await;
    ended.put(&**store, [Change::End]).await;
    let asked = [one.id(), ended.id(), other.id(), Session::new(9, user(1)).id()];
    let mut found = store.positions(&asked).await.unwrap();
    found.sort_by_key(|position| position.session_id);
    let position = |session_id, version, last_seq| Position { session_id, version, last_seq };
    assert_eq!(found, [position(one.id(), 2, 3), position(other.id(), 1, 1)]);
    assert_eq!(store.positions(&[]).await.unwrap(), []);
}

pub(crate) async fn memberships_of_many_users_are_paged(Subject { store, .. }: &Subject) {
    let mut sessions = Vec::new();
    for n in 1..=3 {
        let mut session = Session::new(n, user(1)).made(&**store).await;
        let second = session.member(user(2), Role::Member);
        session.put(&**store, [Change::PutMember(second)]).await;
        sessions.push(session.id());
    }
    let users = [user(2), user(1), user(3), user(2)];
    let (mut after, mut all) = (None, Vec::new());
    for (rows, more) in [(2, true), (2, true), (2, false)] {
        let page = store.memberships_of(&users, after, 2).await.unwrap();
        assert_eq!((page.rows.len(), page.more), (rows, more));
        after = page.rows.last().copied();
        all.extend(page.rows);
    }
    assert_eq!(store.memberships_of(&users, after, 2).await.unwrap(), Page { rows: Vec::new(), more: false });
    let of = |n: u8| sessions.iter().map(move |session| (user(n), *session));
    assert_eq!(all, of(1).chain(of(2)).collect::<Vec<_>>(), "by user and session, each once");
    assert_eq!(store.memberships_of(&[user(3)], None, 9).await.unwrap().rows, []);
}

pub(crate) async fn an_inbox_counts_while_something_in_it_has_not_lapsed(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let (_, lapses) = session.notice(user(2), session.invites(user(1)), Some(NOW));
    let (acked, stays) = session.notice(user(3), session.invites(user(1)), None);
    session.put(&**store, [lapses, stays]).await;
    let asked = [user(1), user(2), user(3), user(3)];
    let waiting = |now: Timestamp| async move {
        let mut found = store.users_with_inbox(&asked, now).await.unwrap();
        found.sort();
        found
    };
    assert_eq!(waiting(NOW.plus_millis(-1)).await, [user(2), user(3)]);
    assert_eq!(waiting(NOW).await, [user(3)]);
    store.ack_inbox(user(3), &[acked]).await.unwrap();
    assert_eq!(waiting(NOW).await, []);
}

pub(crate) async fn operators_see_sessions_page_by_page(Subject { store, .. }: &Subject) {
    let mut one = Session::new(1, user(1)).made(&**store).await;
    one.head.e2ee = encrypted(3);
    let members = [(1, Some(3)), (2, Some(2)), (3, None)].map(|(n, held)| {
        let mut member = one.member(user(n), Role::Member);
        member.keys = MemberKeys { held: held.map(KeyEpoch), ..MemberKeys::default() };
        Change::PutMember(member)
    });
    one.put(&**store, members).await;
    let mut ended = Session::new(2, user(1)).made(&**store).await;
    ended.put(&**store, [Change::End]).await;
    let three = Session::new(3, user(1)).made(&**store).await;
    store.release(three.id(), NODE, three.fence).await.unwrap();
    let summary = SessionSummary {
        session_id: one.id(),
        name: Some("session 1".to_owned()),
        members: 3,
        without_key: 2,
        owner: Some(NODE),
        version: 2,
        last_seq: 1,
        last_time: one.time,
        e2ee: encrypted(3),
    };
    let page = store.sessions_overview(None, 1).await.unwrap();
    assert_eq!(page, Page { rows: vec![summary.clone()], more: true });
    let rest = store.sessions_overview(Some(one.id()), 5).await.unwrap();
    let ids = |page: &Page<SessionSummary>| page.rows.iter().map(|row| row.session_id).collect::<Vec<_>>();
    assert_eq!((ids(&rest), rest.more), (vec![three.id()], false));
    assert_eq!((rest.rows[0].owner, rest.rows[0].members, rest.rows[0].without_key), (None, 1, 0));
    assert_eq!(store.session_overview(one.id()).await.unwrap(), Some(summary));
    assert_eq!(store.session_overview(ended.id()).await.unwrap(), None);
}

pub(crate) async fn operators_see_an_account_whatever_its_standing(Subject { store, .. }: &Subject) {
    store.create_user(&account(1)).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let (_, notice) = session.notice(user(1), session.invites(user(2)), None);
    session.put(&**store, [Change::PutInvitation(invitation(user(1), user(2))), notice]).await;
    let now = store.now().await.unwrap();
    let owner = TokenOwner { user_id: user(1), expires_at: now.plus_secs(60) };
    store.add_token(TokenHash([1; 32]), &owner, 10).await.unwrap();
    let live = UserSummary {
        user_id: user(1),
        name: "user-1".to_owned(),
        created_at: account(1).created_at,
        standing: Standing::Live,
        sessions: 1,
        tokens: 1,
        inbox: 1,
    };
    let seen = || async { store.user_overview("user-1").await.unwrap() };
    assert_eq!(seen().await, Some(live.clone()));
    assert_eq!(store.user_overview("user-2").await.unwrap(), None);
    store.disable_user(user(1), NOW).await.unwrap();
    let disabled = UserSummary { standing: Standing::Disabled(NOW), tokens: 0, ..live };
    assert_eq!(seen().await, Some(disabled), "the inbox waits");
    store.close_account(user(1), NOW.plus_millis(1)).await.unwrap();
    let closed = seen().await.unwrap();
    assert_eq!((closed.standing, closed.inbox), (Standing::Closed(NOW.plus_millis(1)), 0));
}
