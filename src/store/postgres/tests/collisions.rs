//! Transactions that meet: deadlocks, two owners of one session, an account that closes while its user comes in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::server::Postgres;
use super::{connect, fresh, until};
use crate::protocol::{NodeId, Role, SessionId, Timestamp};
use crate::session::state::Change;
use crate::store::conformance::{NODE, OTHER, Session, account, report, user};
use crate::store::{Claim, CommitError, EventRange, PostgresOptions, PostgresStore, Store};

const LOCK: &str = "SELECT 1 FROM sessions WHERE session_id = $1 FOR UPDATE";

async fn lock(connection: &mut PgConnection, session_id: SessionId) -> Result<(), sqlx::Error> {
    sqlx::query(LOCK).bind(session_id.uuid()).fetch_all(connection).await.map(drop)
}

/// Whether somebody in this database waits for a lock.
async fn somebody_waits(database: &str) -> bool {
    let sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).bind(database).fetch_one(&mut connect("postgres").await).await.unwrap()
}

#[tokio::test]
async fn a_batch_in_a_deadlock_goes_again() {
    let (store, database) = fresh().await;
    store.close().await;
    // The database looks for a deadlock once, so long after somebody began to wait: the batch is the one that finds it.
    Postgres::shared().execute("postgres", &format!("ALTER DATABASE {database} SET deadlock_timeout = '3s'")).await;
    let statement_within = Duration::from_secs(30);
    let options = PostgresOptions { statement_within, ..PostgresOptions::new(Postgres::shared().url(&database)) };
    let store = PostgresStore::open(&options).await.unwrap();
    let mut one = Session::new(1, user(1)).made(&store).await;
    let mut two = Session::new(2, user(1)).made(&store).await;
    let (said, replied) = (one.says(user(1), "a", Some("a")), two.says(user(1), "b", Some("b")));
    // In the wrong order: the store sorts it.
    let batch = [two.commit([replied]), one.commit([said])];
    let mut other = connect(&database).await;
    sqlx::raw_sql("SET deadlock_timeout = '60s'").execute(&mut other).await.unwrap();
    let mut holder = other.begin().await.unwrap();
    lock(&mut holder, two.id()).await.unwrap();
    let commit = store.commit(NODE, &batch);
    let meet = async {
        until("the batch waits for the second session", || somebody_waits(&database)).await;
        // The batch has the first one. It is ended, goes again, and waits for this one.
        lock(&mut holder, one.id()).await.unwrap();
        holder.rollback().await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(commit, meet);
    assert_eq!(outcomes, [Ok(()), Ok(())]);
    assert_eq!(store.position(one.id()).await.unwrap(), Some((2, 2)));
}

#[tokio::test]
async fn a_row_that_stays_locked_ends_the_wait_in_time_and_stores_nothing() {
    let (store, database) = fresh().await;
    let mut session = Session::new(1, user(1)).made(&store).await;
    store.close().await;
    let statement_within = Duration::from_millis(300);
    let options = PostgresOptions { statement_within, ..PostgresOptions::new(Postgres::shared().url(&database)) };
    let store = PostgresStore::open(&options).await.unwrap();
    let mut other = connect(&database).await;
    let mut holder = other.begin().await.unwrap();
    lock(&mut holder, session.id()).await.unwrap();
    let said = session.says(user(1), "a", None);
    let batch = [session.commit([said])];
    let asked = Instant::now();
    let outcome = store.commit(NODE, &batch).await.remove(0);
    assert!(matches!(outcome, Err(CommitError::Refused(_))), "{outcome:?}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    holder.rollback().await.unwrap();
    assert_eq!(store.commit(NODE, &batch).await, [Ok(())]);
}

async fn own_and_speak(store: Arc<PostgresStore>, node: NodeId, session_id: SessionId) -> u64 {
    let mut stored = 0;
    for _ in 0..40 {
        let Claim::Mine(claimed) = store.claim(session_id, node, true).await.unwrap() else { continue };
        let mut session = Session::new(1, user(1));
        (session.fence, session.version) = (claimed.fence, claimed.version);
        session.seq = claimed.snapshot.last_seq;
        for _ in 0..3 {
            let said = session.says(user(1), "x", None);
            let commit = session.commit([said]);
            match store.commit(node, &[commit]).await.remove(0) {
                Ok(()) => stored += 1,
                Err(CommitError::NotOwner) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
    stored
}

#[tokio::test]
async fn of_two_that_think_they_own_a_session_one_writes_at_a_time() {
    let (store, database) = fresh().await;
    let session = Session::new(1, user(1)).made(&store).await;
    let other = PostgresStore::open(&PostgresOptions::new(Postgres::shared().url(&database))).await.unwrap();
    // Neither has a lease: each takes the session from the other whenever it likes.
    let one = tokio::spawn(own_and_speak(Arc::new(store), NODE, session.id()));
    let two = own_and_speak(Arc::new(other), OTHER, session.id()).await;
    let stored = one.await.unwrap() + two;
    let store = PostgresStore::open(&PostgresOptions::new(Postgres::shared().url(&database))).await.unwrap();
    assert_eq!(store.position(session.id()).await.unwrap(), Some((1 + stored, 1 + stored)), "each counted once");
    let all = EventRange::After { after: 0, up_to: None };
    let events = store.events(session.id(), all, 1_000, 1_000_000).await.unwrap().rows;
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=1 + stored).collect::<Vec<_>>());
    // How often each gets to speak before the other takes the session away is the machine's affair.
    assert!(stored > 0, "somebody spoke");
}

#[tokio::test]
async fn who_comes_in_while_their_account_closes_is_told_to_the_session() {
    let (store, _) = fresh().await;
    let mut sessions = Vec::new();
    for n in 2..42 {
        store.create_user(&account(n)).await.unwrap();
        sessions.push((n, Session::new(n, user(1)).made(&store).await));
    }
    let at = Timestamp::from_millis(50_000);
    for (n, session) in &mut sessions {
        let member = Change::PutMember(session.member(user(*n), Role::Member));
        let batch = [session.commit([member])];
        let (outcome, told) = tokio::join!(store.commit(NODE, &batch), async {
            if *n % 2 == 0 { store.close_account(user(*n), at).await } else { store.disable_user(user(*n), at).await }
        });
        assert_eq!(outcome, [Ok(())]);
        told.unwrap();
        let tasks = store.tasks(session.id()).await.unwrap();
        assert_eq!(tasks.iter().map(|task| task.user_id).collect::<Vec<_>>(), [user(*n)], "once, whoever was first");
    }
}

#[tokio::test]
async fn acks_and_commits_on_the_same_members_both_come_through() {
    let (store, _) = fresh().await;
    let mut session = Session::new(1, user(1)).made(&store).await;
    store.renew_lease(NODE, 60_000, &report()).await.unwrap();
    let members = |session: &Session| {
        (1..20).rev().map(|n| Change::PutMember(session.member(user(n), Role::Member))).collect::<Vec<_>>()
    };
    let all = members(&session);
    session.put(&store, all).await;
    let acks: Vec<_> =
        (1..20).map(|n| crate::store::AckRow { session_id: session.id(), user_id: user(n), seq: 1 }).collect();
    for _ in 0..10 {
        let all = members(&session);
        let batch = [session.commit(all)];
        let (outcome, acked) = tokio::join!(store.commit(NODE, &batch), store.ack(&acks));
        assert_eq!(outcome, [Ok(())]);
        acked.unwrap();
    }
}
