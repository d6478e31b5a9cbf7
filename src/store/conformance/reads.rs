//! What connections read.

use super::accounts::{invitation, request};
use super::{Session, Subject, account, user};
use crate::protocol::{Base64Text, GoneReason, KeyEpoch, LeftReason, Role, SessionOverview, Timestamp};
use crate::session::state::{Change, CurrentKey, E2ee, KeyState, MemberKeys, Phase, Restriction, StoredKey, Until};
use crate::store::{Access, AckRow, EventRange, EventRow, Page, Store};

const ALL: usize = 1_000_000;

fn seqs(page: &Page<EventRow>) -> (Vec<u64>, bool) {
    (page.rows.iter().map(|row| row.seq).collect(), page.more)
}

pub(crate) async fn events_are_read_both_ways_within_limit_and_bytes(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let mut other = Session::new(2, user(1)).made(&**store).await;
    for _ in 0..3 {
        let said: Vec<_> = (0..3).map(|_| session.says(user(1), &"ü".repeat(100), None)).collect();
        session.put(&**store, said).await;
        let said = other.says(user(1), "elsewhere", None);
        other.put(&**store, [said]).await;
    }
    let id = session.id();
    let read = |range, limit, bytes| async move { store.events(id, range, limit, bytes).await.unwrap() };
    let after = |after, up_to| EventRange::After { after, up_to };
    let before = |before, from| EventRange::Before { before, from };
    assert_eq!(seqs(&read(after(0, None), 100, ALL).await), ((1..=10).collect(), false));
    assert_eq!(seqs(&read(after(2, None), 3, ALL).await), (vec![3, 4, 5], true));
    assert_eq!(seqs(&read(after(7, None), 3, ALL).await), (vec![8, 9, 10], false), "just so many");
    assert_eq!(seqs(&read(after(2, Some(4)), 10, ALL).await), (vec![3, 4], false));
    assert_eq!(seqs(&read(after(10, None), 10, ALL).await), (vec![], false));
    assert_eq!(seqs(&read(before(9, 1), 3, ALL).await), (vec![6, 7, 8], true));
    assert_eq!(seqs(&read(before(4, 2), 10, ALL).await), (vec![2, 3], false));
    assert_eq!(seqs(&read(before(u64::MAX, 1), 2, ALL).await), (vec![9, 10], true));

    let page = read(after(1, None), 100, ALL).await;
    assert_eq!(page.rows.iter().map(|row| row.version).collect::<Vec<_>>(), [2, 2, 2, 3, 3, 3, 4, 4, 4]);
    let one = page.rows[0].json.len();
    assert!(page.rows[0].json.contains("üüü") && page.rows[0].json.starts_with("{\"type\":\"Msg\""));
    assert_eq!(seqs(&read(after(1, None), 100, 3 * one).await), (vec![2, 3, 4], true), "bytes end a page");
    assert_eq!(seqs(&read(after(1, None), 100, 0).await), (vec![2], true), "one at least");
    assert_eq!(seqs(&read(before(11, 1), 100, 0).await), (vec![10], true));
}

pub(crate) async fn a_recalled_message_is_read_as_what_stands_in_for_it(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let said = [session.says(user(1), "first text", None), session.says(user(1), "second text", None)];
    session.put(&**store, said).await;
    // One that is stored, and one of the same commit.
    let said = session.says(user(1), "third text", None);
    let recalls = [session.recall(2, user(1)), said, session.recall(4, user(1))];
    session.put(&**store, recalls).await;
    let range = EventRange::After { after: 0, up_to: None };
    let page = store.events(session.id(), range, 10, ALL).await.unwrap();
    assert_eq!(seqs(&page), (vec![1, 2, 3, 4], false));
    let recalled: Vec<_> = page.rows.iter().map(|row| row.json.contains("\"recalled\":true")).collect();
    assert_eq!(recalled, [false, true, false, true]);
    assert!(page.rows[2].json.contains("second text"));
    for row in [&page.rows[1], &page.rows[3]] {
        assert!(!row.json.contains("text\":\"first") && row.json.contains("\"markdown_text\":\"\""), "{}", row.json);
    }
    assert_eq!(page.rows[1].version, 2, "it keeps the commit that it came with");
    let again = session.recall(2, user(1));
    session.put(&**store, [again]).await;
    let again = store.events(session.id(), range, 10, ALL).await.unwrap();
    assert_eq!(again, page, "again: nothing");
}

pub(crate) async fn access_says_what_a_user_is_at_a_moment(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let at = Timestamp::from_millis;
    let banned = Restriction { muted: None, banned: Some(Until::At(at(100))) };
    let barred = Restriction { muted: None, banned: Some(Until::Forever) };
    let muted = Restriction { muted: Some(Until::Forever), banned: None };
    let changes = [
        Change::PutRestriction(user(2), banned),
        Change::PutRestriction(user(3), barred),
        Change::PutRestriction(user(4), muted),
    ];
    session.put(&**store, changes).await;
    let id = session.id();
    let access = |n, now| async move { store.access(id, user(n), at(now)).await.unwrap() };
    let owner = Access::Member { role: Role::Owner, first_seq: 1, last_seq: 1, key_epoch: None };
    assert_eq!(access(1, 0).await, owner);
    assert_eq!((access(2, 99).await, access(2, 100).await), (Access::Banned, Access::Stranger));
    assert_eq!((access(3, i64::MAX - 1).await, access(4, 0).await), (Access::Banned, Access::Stranger));
    let unknown = Session::new(9, user(1)).id();
    assert_eq!(store.access(unknown, user(1), at(0)).await.unwrap(), Access::NoSession);

    let mut keyed = Session::new(2, user(1)).made(&**store).await;
    keyed.head.e2ee = encrypted(3);
    keyed.put(&**store, []).await;
    let key_epoch = Some(KeyEpoch(3));
    let member = Access::Member { role: Role::Owner, first_seq: 1, last_seq: 1, key_epoch };
    assert_eq!(store.access(keyed.id(), user(1), at(0)).await.unwrap(), member);
    keyed.head.e2ee = E2ee::Off { last_epoch: 3 };
    keyed.put(&**store, []).await;
    assert_eq!(store.access(keyed.id(), user(1), at(0)).await.unwrap(), owner);
    keyed.put(&**store, [Change::End]).await;
    assert_eq!(store.access(keyed.id(), user(1), at(0)).await.unwrap(), Access::NoSession);
}

/// Encrypted, with this epoch in use.
pub(super) fn encrypted(epoch: u64) -> E2ee {
    let current = CurrentKey { epoch: KeyEpoch(epoch), key_check: None, since: Timestamp::from_millis(1) };
    E2ee::On(KeyState { current: Some(current), last_epoch: epoch, phase: Phase::Steady })
}

/// Members 1 to 4: the first holds epoch 3, the second was sent it, the third has another, the fourth none.
async fn keyed(store: &dyn Store) -> Session {
    for n in 1..=3 {
        store.create_user(&account(n)).await.unwrap();
    }
    let mut session = Session::new(1, user(1)).made(store).await;
    session.head.e2ee = encrypted(3);
    session.wants_keys = true;
    let mut changes = Vec::new();
    for (n, held, sent) in [(4, None, None), (3, Some(2), Some(4)), (2, None, Some(3)), (1, Some(3), Some(4))] {
        let role = if n == 1 { Role::Owner } else { Role::Member };
        let mut member = session.member(user(n), role);
        member.first_seq = 10 - u64::from(n);
        member.keys = MemberKeys { held: held.map(KeyEpoch), sent: sent.map(KeyEpoch), ..MemberKeys::default() };
        changes.push(Change::PutMember(member));
    }
    session.put(store, changes).await;
    session
}

pub(crate) async fn members_are_paged_by_id_with_key_and_mute(Subject { store, .. }: &Subject) {
    let mut session = keyed(&**store).await;
    let at = Timestamp::from_millis;
    let until = Restriction { muted: Some(Until::At(at(500))), banned: None };
    let forever = Restriction { muted: Some(Until::Forever), banned: None };
    session.put(&**store, [Change::PutRestriction(user(1), until), Change::PutRestriction(user(2), forever)]).await;
    let first = store.members(session.id(), None, 3, at(499)).await.unwrap();
    assert!(first.more);
    let views: Vec<_> =
        first.rows.iter().map(|view| (view.user_id, &*view.name, view.has_key, view.muted, view.muted_until)).collect();
    assert_eq!(
        views,
        [
            (user(1), "user-1", true, true, Some(at(500))),
            (user(2), "user-2", true, true, None),
            (user(3), "user-3", false, false, None),
        ]
    );
    let rest = store.members(session.id(), Some(user(3)), 3, at(500)).await.unwrap();
    assert_eq!((rest.rows.len(), rest.rows[0].user_id, rest.rows[0].has_key, rest.more), (1, user(4), false, false));
    let later = store.members(session.id(), None, 1, at(500)).await.unwrap();
    assert!(!later.rows[0].muted, "its time is over");
    session.head.e2ee = E2ee::Off { last_epoch: 3 };
    session.put(&**store, []).await;
    let plain = store.members(session.id(), None, 9, at(0)).await.unwrap();
    assert!(plain.rows.iter().all(|view| !view.has_key), "no key without encryption");
}

pub(crate) async fn session_info_tells_what_is_open(Subject { store, .. }: &Subject) {
    let mut session = keyed(&**store).await;
    let now = Timestamp::from_millis(29_999);
    let mut lapsed = invitation(user(8), user(1));
    lapsed.lapsed = true;
    session
        .put(
            &**store,
            [
                Change::PutJoinRequest(request(user(6))),
                Change::PutInvitation(invitation(user(7), user(1))),
                Change::PutInvitation(lapsed),
            ],
        )
        .await;
    let info = store.session_info(session.id(), 2, now).await.unwrap().unwrap();
    assert_eq!((info.name.as_deref(), info.e2ee_on, info.key_epoch), (Some("session 1"), true, Some(KeyEpoch(3))));
    assert_eq!((info.rotate_on_join, info.created_at, info.last_seq), (true, session.head.created_at, 1));
    let members: Vec<_> = info.members.iter().map(|member| member.user_id).collect();
    assert_eq!((info.member_count, members), (4, vec![user(4), user(3)]), "the first by joining");
    let requests: Vec<_> =
        info.join_requests.unwrap().into_iter().map(|open| (open.user_id, open.leave_message)).collect();
    assert_eq!(requests, [(user(6), Some("hel\u{0}lo".to_owned()))]);
    let invitations: Vec<_> =
        info.invitations.unwrap().into_iter().map(|open| (open.user_id, open.inviter_id)).collect();
    assert_eq!(invitations, [(user(7), user(1))]);
    let later = store.session_info(session.id(), 2, now.plus_millis(1)).await.unwrap().unwrap();
    assert_eq!(later.invitations, Some(vec![]), "their time is over");
    session.put(&**store, [Change::End]).await;
    assert_eq!(store.session_info(session.id(), 2, now).await.unwrap(), None);
}

pub(crate) async fn an_overview_tells_where_its_user_stands(Subject { store, .. }: &Subject) {
    let mut session = keyed(&**store).await;
    let plain = Session::new(2, user(1)).made(&**store).await;
    let said: Vec<_> = (0..9).map(|_| session.says(user(1), "x", None)).collect();
    session.put(&**store, said).await;
    store.ack(&[AckRow { session_id: session.id(), user_id: user(1), seq: 9 }]).await.unwrap();
    let [first, second] = &store.sessions_of(user(1)).await.unwrap()[..] else { panic!("not two sessions") };
    assert_eq!(
        first.overview,
        SessionOverview {
            session_id: session.id(),
            name: Some("session 1".to_owned()),
            e2ee_on: true,
            key_epoch: Some(KeyEpoch(3)),
            has_key: true,
            role: Role::Owner,
            first_seq: 9,
            last_seq: 10,
            acked_seq: 9,
            log: second.overview.log.clone(),
        }
    );
    assert!(!first.overview.log.is_empty());
    assert_eq!((first.version, first.wants_keys, second.wants_keys), (session.version, true, false));
    assert_eq!((second.overview.session_id, second.overview.key_epoch), (plain.id(), None));
    assert!(!store.sessions_of(user(4)).await.unwrap()[0].overview.has_key);
    session.wants_keys = false;
    session.put(&**store, []).await;
    assert!(!store.sessions_of(user(1)).await.unwrap()[0].wants_keys);
    session.put(&**store, [Change::End]).await;
    assert_eq!(store.sessions_of(user(1)).await.unwrap().len(), 1);
}

pub(crate) async fn departures_tell_why(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let members: Vec<_> = (2..=6).map(|n| Change::PutMember(session.member(user(n), Role::Member))).collect();
    session.put(&**store, members).await;
    let removals = [(2, LeftReason::Left), (3, LeftReason::Kicked), (4, LeftReason::Banned), (5, LeftReason::Left)];
    session.put(&**store, removals.map(|(n, reason)| Change::RemoveMember(user(n), reason))).await;
    let rejoined = session.member(user(5), Role::Member);
    session.put(&**store, [Change::PutMember(rejoined)]).await;
    let unknown = Session::new(9, user(1)).id();
    let asked = [session.id(), unknown];
    let why = |n| async move {
        let gone = store.departures(user(n), &asked).await.unwrap();
        gone.into_iter().map(|(_, why)| why).collect::<Vec<_>>()
    };
    assert_eq!((why(2).await, why(3).await), (vec![GoneReason::Left], vec![GoneReason::Kicked]));
    assert_eq!((why(4).await, why(5).await, why(6).await), (vec![GoneReason::Banned], vec![], vec![]));
    let ended = [Change::RemoveMember(user(6), LeftReason::Left), Change::End];
    session.put(&**store, ended).await;
    assert_eq!((why(1).await, why(5).await), (vec![GoneReason::Deleted], vec![GoneReason::Deleted]));
    assert_eq!(
        (why(6).await, why(3).await),
        (vec![GoneReason::Left], vec![GoneReason::Kicked]),
        "gone before it ended"
    );
}

pub(crate) async fn room_keys_are_read_replaced_and_dropped(Subject { store, .. }: &Subject) {
    let mut session = Session::new(1, user(1)).made(&**store).await;
    let key = |to: u8, epoch, bytes: &[u8]| {
        Change::PutRoomKey(StoredKey {
            user_id: user(to),
            epoch: KeyEpoch(epoch),
            sender: user(1),
            room_key: Base64Text::encode(bytes),
            key_check: (epoch == 1).then(|| Base64Text::encode(b"check")),
            signature: (epoch == 2).then(|| Base64Text::encode(b"signed")),
        })
    };
    let keys = [key(2, 1, b"a"), key(2, 2, b"b"), key(2, 3, b"c"), key(3, 3, b"d"), key(2, 3, b"e")];
    session.put(&**store, keys).await;
    let id = session.id();
    let read = |n: u8, after, limit| async move { store.room_keys(id, user(n), after, limit).await.unwrap() };
    let page = read(2, 0, 2).await;
    assert!(page.more);
    assert_eq!(page.rows.iter().map(|key| key.key_epoch.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((page.rows[0].user_id, &page.rows[0].room_key), (user(1), &Base64Text::encode(b"a")));
    assert_eq!((&page.rows[0].key_check, &page.rows[0].signature), (&Some(Base64Text::encode(b"check")), &None));
    assert_eq!((&page.rows[1].key_check, &page.rows[1].signature), (&None, &Some(Base64Text::encode(b"signed"))));
    let page = read(2, 2, 2).await;
    assert_eq!((page.rows.len(), page.more, &page.rows[0].room_key), (1, false, &Base64Text::encode(b"e")), "replaced");

    session.put(&**store, [Change::DropRoomKey(user(2), KeyEpoch(2))]).await;
    assert_eq!(read(2, 0, 9).await.rows.len(), 2);
    session.put(&**store, [Change::DropEpoch(KeyEpoch(3)), key(3, 4, b"f")]).await;
    assert_eq!((read(2, 0, 9).await.rows.len(), read(3, 0, 9).await.rows.len()), (1, 1));
    session.put(&**store, [key(2, 5, b"g"), Change::DropKeysOf(user(2))]).await;
    assert_eq!((read(2, 0, 9).await.rows.len(), read(3, 0, 9).await.rows.len()), (0, 1));
    session.put(&**store, [Change::End]).await;
    assert_eq!(read(3, 0, 9).await.rows.len(), 0);
}
