//! What belongs to one user.

use super::{Session, Subject, user};
use crate::protocol::{Base64Text, InboxId, KeyEpoch, NoticeBody, Role, Timestamp, UserId};
use crate::session::state::Change;
use crate::store::{AckRow, Store};

const NOW: Timestamp = Timestamp::from_millis(50_000);

async fn names(store: &dyn Store, user_id: UserId, now: Timestamp) -> Vec<InboxId> {
    store.inbox(user_id, 100, now).await.unwrap().into_iter().map(|row| row.inbox_id).collect()
}

fn key(session: &Session, epoch: u64) -> NoticeBody {
    NoticeBody::ReceiveRoomKeyNotification {
        session_id: session.id(),
        user_id: user(1),
        room_key: Base64Text::encode(b"wrapped"),
        key_epoch: KeyEpoch(epoch),
        key_check: None,
        signature: None,
    }
}

fn admitted(session: &Session, room_key: Option<Base64Text>) -> NoticeBody {
    NoticeBody::AllowUserJoinSessionNotification {
        session_id: session.id(),
        user_id: user(1),
        accepted: true,
        room_key,
        key_epoch: None,
        key_check: None,
        signature: None,
    }
}

pub(crate) async fn inbox_events_stay_in_order_until_acknowledged(Subject { store, .. }: &Subject) {
    let mut one = Session::new(1, user(1)).made(&**store).await;
    let mut two = Session::new(2, user(1)).made(&**store).await;
    let (a, first) = one.notice(user(2), one.invites(user(1)), None);
    let (b, second) = two.notice(user(2), two.invites(user(1)), None);
    let (c, third) = one.notice(user(2), key(&one, 1), None);
    let (d, other) = one.notice(user(3), one.invites(user(1)), None);
    one.put(&**store, [first]).await;
    two.put(&**store, [second]).await;
    one.put(&**store, [third, other]).await;
    let rows = store.inbox(user(2), 2, NOW).await.unwrap();
    assert_eq!(rows.iter().map(|row| &row.inbox_id).collect::<Vec<_>>(), [&a, &b]);
    assert_eq!((rows[1].session_id, rows[1].version, rows[1].holds_key), (two.id(), 2, false));
    assert!(rows[0].json.contains(&a.0) && rows[0].json.contains("InviteUserToSession"), "{}", rows[0].json);
    assert_eq!(names(&**store, user(2), NOW).await, [a.clone(), b.clone(), c.clone()]);
    store
        .ack_inbox(user(2), &[a, d.clone(), InboxId("unknown".to_owned()), InboxId("un\u{0}known".to_owned())])
        .await
        .unwrap();
    assert_eq!(names(&**store, user(2), NOW).await, [b, c]);
    assert_eq!(names(&**store, user(3), NOW).await, [d], "others' are none of one's own");
}

pub(crate) async fn inbox_events_lapse_and_are_withdrawn(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let (a, first) = session.notice(user(2), session.invites(user(1)), Some(NOW));
    let (b, second) = session.notice(user(2), session.invites(user(1)), Some(NOW.plus_millis(1)));
    let (c, third) = session.notice(user(2), session.invites(user(1)), None);
    session.put(&**store, [first, second, third]).await;
    assert_eq!(names(&**store, user(2), NOW.plus_millis(-1)).await, [a.clone(), b.clone(), c.clone()]);
    assert_eq!(names(&**store, user(2), NOW).await, [b.clone(), c.clone()], "a lapsed one is not delivered");
    assert_eq!(store.lapse_inbox(NOW.plus_millis(9), 1).await.unwrap(), [(user(2), a)], "the first to lapse");
    assert_eq!(store.lapse_inbox(NOW, 9).await.unwrap(), []);
    assert_eq!(store.lapse_inbox(NOW.plus_millis(9), 9).await.unwrap(), [(user(2), b)]);
    let (d, fourth) = session.notice(user(2), session.invites(user(1)), None);
    let withdraw = Change::Withdraw(user(2), vec![c, InboxId("unknown".to_owned())]);
    session.put(&**store, [fourth, withdraw]).await;
    assert_eq!(names(&**store, user(2), NOW).await, [d]);
}

pub(crate) async fn keys_in_the_inbox_are_read_up_to_a_version_and_go_with_their_user(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let mut other = Session::new(2, user(1)).made(&**store).await;
    let members = [2, 3].map(|n| Change::PutMember(session.member(user(n), Role::Member)));
    session.put(&**store, members).await;
    let (bare, no_key) = session.notice(user(2), admitted(&session, None), None);
    let (a, first) = session.notice(user(2), admitted(&session, Some(Base64Text::encode(b"key"))), None);
    session.put(&**store, [no_key, first]).await;
    let (b, second) = session.notice(user(2), key(&session, 2), None);
    let (c, theirs) = session.notice(user(3), key(&session, 2), None);
    session.put(&**store, [second, theirs]).await;
    let (d, elsewhere) = other.notice(user(2), key(&other, 1), None);
    other.put(&**store, [elsewhere]).await;
    let keys = |up_to| {
        let session_id = session.id();
        async move {
            let rows = store.inbox_keys(user(2), session_id, up_to).await.unwrap();
            rows.into_iter().map(|row| row.inbox_id).collect::<Vec<_>>()
        }
    };
    assert_eq!((keys(2).await, keys(3).await, keys(4).await), (vec![], vec![a.clone()], vec![a, b]));
    session.put(&**store, [Change::DropKeysOf(user(2))]).await;
    assert_eq!(names(&**store, user(2), NOW).await, [bare.clone(), d.clone()], "its keys of this session alone");
    assert_eq!(names(&**store, user(3), NOW).await, [c]);
    session.put(&**store, [Change::End]).await;
    assert_eq!(names(&**store, user(3), NOW).await, [], "an ended session's keys are gone");
    assert_eq!(names(&**store, user(2), NOW).await, [bare, d]);
}

pub(crate) async fn acks_never_move_back_and_those_of_strangers_are_dropped(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let said: Vec<_> = (0..9).map(|_| session.says(user(1), "x", None)).collect();
    session.put(&**store, said).await;
    let ack = |n, seq| AckRow { session_id: session.id(), user_id: user(n), seq };
    let acked = || async { store.sessions_of(user(1)).await.unwrap()[0].overview.acked_seq };
    assert_eq!(acked().await, 0);
    store.ack(&[ack(1, 3), ack(1, 7), ack(1, 5), ack(2, 9)]).await.unwrap();
    assert_eq!(acked().await, 7);
    store.ack(&[ack(1, 6)]).await.unwrap();
    assert_eq!(acked().await, 7);
    assert_eq!(store.sessions_of(user(2)).await.unwrap(), []);
}
