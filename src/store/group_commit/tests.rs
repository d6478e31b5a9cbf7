//! Batches, order, bounds, and a store that fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::{BatchReport, CommitOutcome, GroupCommit, GroupCommitOptions};
use crate::store::conformance::{NODE, Session, user};
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::{CommitError, SessionCommit, SqliteOptions, SqliteStore, Store};

struct Bench {
    store: Arc<FaultyStore>,
    commits: GroupCommit,
    reports: Arc<Mutex<Vec<BatchReport>>>,
    _dir: TempDir,
}

async fn bench(options: GroupCommitOptions) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(sqlite)));
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reports);
    let observer = move |report| seen.lock().unwrap().push(report);
    let inner: Arc<dyn Store> = Arc::clone(&store) as _;
    let commits = GroupCommit::start(inner, NODE, options, Some(Arc::new(observer)));
    Bench { store, commits, reports, _dir: dir }
}

impl Bench {
    fn submit(&self, commit: SessionCommit) -> CommitOutcome {
        self.commits.submit(commit).expect("the queue has room")
    }

    /// Submits one that then waits in the store, with nothing behind it.
    async fn submit_and_hold(&self, commit: SessionCommit) -> CommitOutcome {
        self.store.hold_commits();
        let outcome = self.submit(commit);
        let taken = async {
            while self.commits.waiting_rows() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), taken).await.expect("the writer takes it");
        outcome
    }

    /// Sessions in each batch, in order.
    fn batches(&self) -> Vec<usize> {
        self.reports.lock().unwrap().iter().map(|report| report.sessions).collect()
    }
}

fn says(session: &mut Session, text: &str) -> SessionCommit {
    let said = session.says(user(1), text, None);
    session.commit([said])
}

#[tokio::test]
async fn what_queues_up_meanwhile_is_one_batch_with_a_session_once() {
    let bench = bench(GroupCommitOptions::default()).await;
    let [mut one, mut two, mut three] = [1, 2, 3].map(|n| Session::new(n, user(1)));
    let mut outcomes = vec![bench.submit_and_hold(one.making()).await];
    outcomes.push(bench.submit(two.making()));
    outcomes.push(bench.submit(says(&mut two, "second of its session")));
    outcomes.push(bench.submit(three.making()));
    outcomes.push(bench.submit(says(&mut one, "another")));
    outcomes.push(bench.submit(says(&mut two, "third of its session")));
    bench.store.go_on();
    for outcome in outcomes {
        assert_eq!(outcome.await, Ok(Ok(())));
    }
    bench.commits.shutdown().await;
    assert_eq!(bench.batches(), [1, 3, 1, 1]);
    assert_eq!(bench.store.position(two.id()).await.unwrap(), Some((3, 3)));
}

#[tokio::test]
async fn batches_are_bounded_and_a_commit_that_exceeds_the_bound_goes_alone() {
    let options = GroupCommitOptions { batch_rows: 8, ..GroupCommitOptions::default() };
    let bench = bench(options).await;
    let mut sessions = [1, 2, 3, 4].map(|n| Session::new(n, user(1)));
    let mut outcomes = vec![bench.submit_and_hold(sessions[0].making()).await];
    let many: Vec<_> = (0..20).map(|_| sessions[1].says(user(1), "x", None)).collect();
    let mut large = sessions[1].making();
    large.writes.splice(0..0, many.into_iter().map(|change| crate::store::Write { change, frame: None }));
    large.last_seq = sessions[1].seq;
    outcomes.push(bench.submit(large));
    // Four rows each: the session, its record, its member, its event.
    outcomes.extend(sessions[2..].iter_mut().map(|session| bench.submit(session.making())));
    bench.store.go_on();
    for outcome in outcomes {
        assert_eq!(outcome.await, Ok(Ok(())));
    }
    bench.commits.shutdown().await;
    assert_eq!(bench.batches(), [1, 1, 2]);
}

#[tokio::test]
async fn a_full_queue_gives_the_commit_back() {
    let options = GroupCommitOptions { queue_rows: 8, ..GroupCommitOptions::default() };
    let bench = bench(options).await;
    let mut sessions = [1, 2, 3, 4].map(|n| Session::new(n, user(1)));
    let first = bench.submit_and_hold(sessions[0].making()).await;
    assert!(!bench.commits.is_full(sessions[0].id()));
    let waiting = [bench.submit(sessions[1].making()), bench.submit(sessions[2].making())];
    assert!(bench.commits.is_full(sessions[0].id()));
    let commit = sessions[3].making();
    let back = bench.commits.submit(commit.clone()).expect_err("the queue is full");
    assert_eq!(*back, commit);
    bench.store.go_on();
    for outcome in [first].into_iter().chain(waiting) {
        assert_eq!(outcome.await, Ok(Ok(())));
    }
    assert_eq!(bench.submit(*back).await, Ok(Ok(())), "there is room again");
}

#[tokio::test]
async fn a_commit_that_fails_is_told_so_and_the_next_one_goes_on() {
    let bench = bench(GroupCommitOptions::default()).await;
    let mut session = Session::new(1, user(1));
    assert_eq!(bench.submit(session.making()).await, Ok(Ok(())));
    for fault in [Fault::Refused, Fault::LostBefore, Fault::Panic] {
        bench.store.fail_commits(Some(session.id()), fault, 1);
        let commit = says(&mut session, "in vain");
        let outcome = bench.submit(commit).await.expect("it is answered");
        match fault {
            Fault::Refused => assert!(matches!(outcome, Err(CommitError::Refused(_))), "{outcome:?}"),
            Fault::LostBefore | Fault::LostAfter | Fault::Panic => {
                assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
            }
        }
        assert_eq!(bench.store.position(session.id()).await.unwrap(), Some((1, 1)));
        (session.version, session.seq) = (1, 1);
    }
    bench.store.fail_commits(None, Fault::LostAfter, 1);
    let outcome = bench.submit(says(&mut session, "stored all the same")).await.expect("it is answered");
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    assert_eq!(bench.store.position(session.id()).await.unwrap(), Some((2, 2)));
    assert_eq!(bench.submit(says(&mut session, "and on")).await, Ok(Ok(())));
    bench.store.set_unavailable(true);
    let outcome = bench.submit(says(&mut session, "not there")).await.expect("it is answered");
    assert!(matches!(outcome, Err(CommitError::Refused(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_shutdown_answers_what_was_taken_and_takes_no_more() {
    let bench = bench(GroupCommitOptions::default()).await;
    let mut sessions = [1, 2, 3].map(|n| Session::new(n, user(1)));
    let first = bench.submit_and_hold(sessions[0].making()).await;
    let second = bench.submit(sessions[1].making());
    let go_on = async {
        while bench.commits.submit(sessions[2].making()).is_ok_and(|mut late| late.try_recv().is_err()) {
            tokio::task::yield_now().await;
        }
        bench.store.go_on();
    };
    tokio::join!(bench.commits.shutdown(), go_on);
    assert_eq!((first.await, second.await), (Ok(Ok(())), Ok(Ok(()))));
    let late = bench.submit(Session::new(4, user(1)).making()).await;
    assert!(matches!(late, Ok(Err(CommitError::Refused(_)))), "{late:?}");
}
