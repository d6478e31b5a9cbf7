//! A server that is killed or stops answering: what was acknowledged is there, once, and the store comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server::Postgres;
use crate::store::conformance::{NODE, Session, report, user};
use crate::store::{
    Claim, CommitError, EventRange, GroupCommit, GroupCommitOptions, PostgresOptions, PostgresStore, Store, StoreError,
};

const SESSIONS: u8 = 8;

/// Options that give up soon.
fn impatient(url: String) -> PostgresOptions {
    let soon = Duration::from_millis(500);
    PostgresOptions { acquire_within: soon, statement_within: soon, ..PostgresOptions::new(url) }
}

/// The session as the store has it, claimed anew.
async fn claimed(store: &dyn Store, n: u8) -> Session {
    let mut session = Session::new(n, user(n));
    loop {
        match store.claim(session.id(), NODE, true).await {
            Ok(Claim::Mine(claimed)) => {
                (session.fence, session.version) = (claimed.fence, claimed.version);
                (session.seq, session.time) = (claimed.snapshot.last_seq, claimed.snapshot.last_time);
                return session;
            }
            Ok(other) => panic!("{other:?}"),
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Speaks until `end`; where each acknowledged text is.
async fn speak(store: Arc<dyn Store>, commits: GroupCommit, n: u8, end: Instant) -> BTreeMap<u64, String> {
    let mut acknowledged = BTreeMap::new();
    let mut session = claimed(&*store, n).await;
    while Instant::now() < end {
        let text = format!("{n} says {} at {:?}", session.seq + 1, Instant::now());
        let said = session.says(user(n), &text, None);
        let commit = session.commit([said]);
        match commits.submit(commit).unwrap().await.unwrap() {
            Ok(()) => drop(acknowledged.insert(session.seq, text)),
            Err(CommitError::Refused(_) | CommitError::Unknown(_)) => session = claimed(&*store, n).await,
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

#[tokio::test]
async fn after_the_server_is_killed_everything_acknowledged_is_there_once() {
    let server = Postgres::start();
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&impatient(server.database().await)).await.unwrap());
    store.renew_lease(NODE, 3_600_000, &report()).await.unwrap();
    for n in 0..SESSIONS {
        Session::new(n, user(n)).made(&*store).await;
    }
    let options = GroupCommitOptions { shards: 4, ..GroupCommitOptions::default() };
    let commits = GroupCommit::start(Arc::clone(&store), NODE, options, None);
    let end = Instant::now() + Duration::from_secs(4);
    let speakers: Vec<_> =
        (0..SESSIONS).map(|n| tokio::spawn(speak(Arc::clone(&store), commits.clone(), n, end))).collect();
    let damage = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            // Not waiting for a condition: the load has to run for a while between the blows.
            std::thread::sleep(Duration::from_millis(700));
            server.kill();
            server.start_again();
        }
        server
    });
    let mut total = 0;
    for (n, speaker) in (0..SESSIONS).zip(speakers) {
        let acknowledged = speaker.await.unwrap();
        let id = Session::new(n, user(n)).id();
        // It may be down just now.
        let (_, last_seq) = loop {
            match store.position(id).await {
                Ok(position) => break position.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let all = EventRange::After { after: 0, up_to: None };
        let events = loop {
            match store.events(id, all, 1_000_000, usize::MAX).await {
                Ok(page) => break page.rows,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=last_seq).collect::<Vec<_>>(), "dense, and up to what the session says");
        for (seq, text) in &acknowledged {
            let event = &events[usize::try_from(*seq).unwrap() - 1];
            assert!(event.json.contains(text), "acknowledged, and in its place");
        }
        total += acknowledged.len();
    }
    damage.await.unwrap();
    assert!(total > 50, "only {total} were acknowledged meanwhile");
}

#[tokio::test]
async fn a_server_that_stops_answering_hangs_no_call_and_is_used_again_when_it_answers() {
    let server = Postgres::start();
    let store = PostgresStore::open(&impatient(server.database().await)).await.unwrap();
    let mut session = Session::new(1, user(1)).made(&store).await;
    server.freeze();
    let asked = Instant::now();
    let said = session.says(user(1), "into the void", None);
    let outcome = store.commit(NODE, &[session.commit([said])]).await.remove(0);
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    assert!(matches!(store.probe().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.user_by_name("anyone").await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.renew_lease(NODE, 1_000, &report()).await, Err(StoreError::Unavailable(_))));
    // More calls than there are connections: none is used up by what hangs.
    let calls = (0..40).map(|_| store.position(session.id()));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_err));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    server.thaw();
    let again = Instant::now();
    while store.probe().await.is_err() {
        assert!(again.elapsed() < Duration::from_secs(10), "it answers again");
    }
    let mut session = claimed(&store, 1).await;
    let said = session.says(user(1), "after all", None);
    assert_eq!(store.commit(NODE, &[session.commit([said])]).await, [Ok(())]);
}

#[tokio::test]
async fn a_connection_outlives_the_thread_that_first_needed_it() {
    let options = PostgresOptions { connections: 4, ..PostgresOptions::new(Postgres::shared().database().await) };
    let store = Arc::new(PostgresStore::open(&options).await.unwrap());
    // More at once than rest: connections are made.
    let all_at_once = async |store: &PostgresStore| {
        let ask = || store.position(Session::new(1, user(1)).id());
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        assert_eq!([a, b, c, d].map(Result::unwrap), [None; 4]);
    };
    let theirs = Arc::clone(&store);
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(all_at_once(&theirs));
    });
    thread.await.unwrap();
    all_at_once(&store).await;
}
