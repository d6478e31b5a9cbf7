//! The session actor on a real embedded store, with commits that can be held, refused and lost on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};

use super::state::{Command, Rules};
use super::{Clock, Commits, Load, SessionParts, Sessions, SessionsOptions, WaitingLimits};
use crate::cluster::{Asked, Row, Wire};
use crate::connection::{Answer, Caller, ConnectionKey, Deliveries, Parcel, Presence, ReplySlot};
use crate::protocol::*;
use crate::store::{Claim, CommitError, CommitOutcome, SessionCommit, SqliteOptions, SqliteStore, Store, UserRow};
use crate::telemetry::Metrics;

const NODE: NodeId = NodeId::from_bytes([0x0a; 16]);
const ANOTHER: NodeId = NodeId::from_bytes([0x0b; 16]);
const OWNER: UserId = UserId::from_bytes([1; 16]);
const ANN: UserId = UserId::from_bytes([2; 16]);
const BOB: UserId = UserId::from_bytes([3; 16]);
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of the next commit.
enum Fate {
    /// Waits for the permission, then is stored.
    Held(oneshot::Receiver<()>),
    /// Is not stored.
    Fails(CommitError),
    /// Is stored, but nobody learns of it.
    Lost,
    /// Is given back.
    Rejected,
}

struct Gate {
    store: Arc<dyn Store>,
    fates: Mutex<VecDeque<Fate>>,
    last: Mutex<Option<u64>>,
}

impl Commits for Gate {
    fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>> {
        let fate = self.fates.lock().unwrap().pop_front();
        if matches!(fate, Some(Fate::Rejected)) {
            return Err(Box::new(commit));
        }
        *self.last.lock().unwrap() = Some(commit.version);
        let (answer, outcome) = oneshot::channel();
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let told = match fate {
                Some(Fate::Fails(error)) => Err(error),
                Some(Fate::Lost) => {
                    store.commit(NODE, &[commit]).await.remove(0).unwrap();
                    Err(CommitError::Unknown("the connection died".to_owned()))
                }
                Some(Fate::Held(permission)) => {
                    drop(permission.await);
                    store.commit(NODE, &[commit]).await.remove(0)
                }
                Some(Fate::Rejected) | None => store.commit(NODE, &[commit]).await.remove(0),
            };
            drop(answer.send(told));
        });
        Ok(outcome)
    }

    fn is_full(&self, _: SessionId) -> bool {
        false
    }
}

/// One thing that left a session, in order.
#[derive(Clone, Debug)]
enum Left {
    Answer(Value),
    Published(u64),
    Released(SessionId),
    Asked(ConnectionKey, Value),
}

#[derive(Default)]
struct Outside {
    left: Mutex<Vec<Left>>,
    changed: Notify,
}

fn json(frame: &Frame) -> Value {
    serde_json::from_slice(frame.json()).unwrap()
}

impl Outside {
    fn push(&self, what: impl IntoIterator<Item = Left>) {
        self.left.lock().unwrap().extend(what);
        self.changed.notify_waiters();
    }

    /// The first thing that `find` finds, in time.
    async fn wait<T>(&self, what: &str, find: impl Fn(&[Left]) -> Option<T>) -> T {
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = find(&self.left.lock().unwrap()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {what}"))
    }
}

impl Deliveries for Outside {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, ()> {
        let Parcel { answers, publication, signals: _, asks } = parcel;
        let answers = answers.into_iter().map(|answer| Left::Answer(json(&answer.frame)));
        let published = publication.and_then(|one| match one.rows[..] {
            [Row::Released(NODE)] => Some(Left::Released(one.session_id)),
            _ => Some(Left::Published(one.version)).filter(|_| one.version > 0),
        });
        let asks = asks.into_iter().flat_map(|Asked { connection, frames, .. }| {
            frames.into_iter().map(move |frame| Left::Asked(connection, json(&frame)))
        });
        self.push(answers.chain(published).chain(asks).collect::<Vec<_>>());
        Box::pin(std::future::ready(()))
    }

    fn answer_now(&self, answer: Answer) {
        self.push([Left::Answer(json(&answer.frame))]);
    }

    fn tell(&self, _: NodeId, _: &dyn Fn(Wire) -> Bytes) {}
}

#[derive(Default)]
struct People {
    connected: Mutex<BTreeMap<UserId, ConnectionKey>>,
    broken: AtomicBool,
}

impl Presence for People {
    fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey> {
        assert!(!self.broken.load(Ordering::SeqCst), "broken on purpose");
        self.connected.lock().unwrap().get(&user_id).copied()
    }
}

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct Bench {
    sessions: Sessions,
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
    outside: Arc<Outside>,
    people: Arc<People>,
    clock: Arc<Hands>,
    next_request: AtomicU64,
    _dir: TempDir,
}

fn connection(user_id: UserId) -> ConnectionKey {
    ConnectionKey { node: NODE, worker: 0, serial: u64::from(user_id.as_bytes()[0]) }
}

async fn bench() -> Bench {
    bench_with(Duration::from_secs(600), 604_800_000).await
}

async fn bench_with(idle: Duration, room_key_lifetime_ms: i64) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap());
    store.renew_lease(NODE, 600_000, &crate::store::conformance::report()).await.unwrap();
    let now = store.now().await.unwrap();
    for (user_id, name) in [(OWNER, "owner"), (ANN, "ann"), (BOB, "bob")] {
        let row = UserRow {
            user_id,
            name: name.to_owned(),
            display_name: None,
            password_hash: "none".to_owned(),
            public_key: format!("key of {name}"),
            fingerprint: "ff".to_owned(),
            created_at: now,
        };
        store.create_user(&row).await.unwrap();
    }
    let gate = Arc::new(Gate { store: Arc::clone(&store), fates: Mutex::default(), last: Mutex::default() });
    let (outside, people) = (Arc::new(Outside::default()), Arc::new(People::default()));
    let clock = Arc::new(Hands(AtomicI64::new(now.as_millis())));
    for user_id in [OWNER, ANN, BOB] {
        people.connected.lock().unwrap().insert(user_id, connection(user_id));
    }
    let rules = Rules {
        room_key_lifetime_ms,
        room_key_messages: 100_000,
        rotation_deadline_ms: 30_000,
        rotation_deadline_per_member_ms: 20,
        invitation_lifetime_ms: 604_800_000,
        recall_window_ms: 86_400_000,
        max_members: 100,
        max_open: 100,
        remembered_msgs: 100,
        remembered_ms: 86_400_000,
        key_requests_per_minute: 10,
    };
    let load = Load { count: 1000, bytes: 1 << 20 };
    let options = SessionsOptions {
        node_id: NODE,
        threads: 1,
        mailbox: 64,
        idle,
        call_deadline: Duration::from_millis(500),
        waiting: WaitingLimits { all: load, node: load },
        roll_call_every: Duration::from_secs(3),
        rules,
    };
    let parts = SessionParts {
        store: Arc::clone(&store),
        commits: Arc::clone(&gate) as Arc<dyn Commits>,
        deliveries: Arc::clone(&outside) as Arc<dyn Deliveries>,
        presence: Arc::clone(&people) as Arc<dyn Presence>,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        may_take_over: Arc::new(|| true),
        metrics: Metrics::new(),
    };
    let sessions = Sessions::start(options, parts);
    Bench { sessions, store, gate, outside, people, clock, next_request: AtomicU64::new(1), _dir: dir }
}

impl Bench {
    fn slot(&self, user_id: UserId) -> (u64, ReplySlot) {
        let request_id = self.next_request.fetch_add(1, Ordering::SeqCst);
        let caller = Caller { user_id, connection: connection(user_id), request_id, request: "request" };
        (request_id, ReplySlot::new(caller, Arc::clone(&self.outside) as Arc<dyn Deliveries>))
    }

    fn submit(&self, session_id: SessionId, user_id: UserId, command: Command) -> u64 {
        let (request_id, slot) = self.slot(user_id);
        self.sessions.submit(session_id, command, slot);
        request_id
    }

    /// The answer's body, or the refusal's code.
    async fn answer(&self, request_id: u64) -> Result<Value, String> {
        let answer = self.outside.wait("answer", |left| {
            left.iter().find_map(|one| match one {
                Left::Answer(frame) if frame["reply_to"] == request_id => Some(frame.clone()),
                Left::Answer(..) | Left::Published(_) | Left::Released(_) | Left::Asked(..) => None,
            })
        });
        let answer = answer.await;
        match answer["type"].as_str() {
            Some("error") => Err(answer["body"]["code"].as_str().unwrap().to_owned()),
            _ => Ok(answer["body"].clone()),
        }
    }

    async fn ask(&self, session_id: SessionId, user_id: UserId, command: Command) -> Result<Value, String> {
        let request_id = self.submit(session_id, user_id, command);
        self.answer(request_id).await
    }

    fn create(&self, e2ee_on: bool, id: Option<&str>) -> u64 {
        let body = NewSession {
            name: None,
            members: Some(vec![ANN, BOB]),
            e2ee_on,
            room_key: None,
            key_check: None,
            leave_message: None,
            client_session_id: id.map(|id| ClientId(id.into())),
        };
        let (request_id, slot) = self.slot(OWNER);
        self.sessions.create(Command::Create { body, failed: Vec::new() }, slot);
        request_id
    }

    async fn session(&self, e2ee_on: bool) -> SessionId {
        let request = self.create(e2ee_on, None);
        let session_id = self.answer(request).await.unwrap()["session_id"].as_str().unwrap().parse().unwrap();
        for user_id in [ANN, BOB] {
            let body = AcceptJoinSessionApproval { session_id, inviter_id: OWNER, accepted: true };
            self.ask(session_id, user_id, Command::Accept { body, public_key: "key".to_owned() }).await.unwrap();
        }
        session_id
    }

    fn next_commit(&self, fate: Fate) {
        self.gate.fates.lock().unwrap().push_back(fate);
    }

    fn hold(&self) -> oneshot::Sender<()> {
        let (release, permission) = oneshot::channel();
        self.next_commit(Fate::Held(permission));
        release
    }

    /// Until the gate has a commit that was to be held, so that no other session's is taken for it.
    async fn until_held(&self) {
        let held = async {
            while !self.gate.fates.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, held).await.expect("nothing was committed");
    }

    fn pass(&self, millis: i64) {
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }

    fn answered(&self, request_id: u64) -> bool {
        let left = self.outside.left.lock().unwrap();
        left.iter().any(|one| matches!(one, Left::Answer(frame) if frame["reply_to"] == request_id))
    }

    async fn until_none_lives(&self) {
        let gone = async {
            while self.sessions.live() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("a session stays live");
    }
}

fn say(id: &str) -> Command {
    Command::SendMsg(SendMsg {
        session_id: SessionId::from_bytes([0; 16]),
        markdown_text: "hello".to_owned(),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: Some(ClientId(id.into())),
        content_type: None,
    })
}

#[actix_web::test]
async fn after_a_commit_that_failed_nobody_was_told_and_the_session_works_again() {
    let failures = [
        CommitError::NotOwner,
        CommitError::Refused("a full disk".to_owned()),
        CommitError::Unknown("the connection died".to_owned()),
        CommitError::Overloaded,
    ];
    for failure in failures {
        let bench = bench().await;
        let session_id = bench.session(false).await;
        let first = bench.ask(session_id, ANN, say("first")).await.unwrap();
        let published = bench.outside.left.lock().unwrap().len();
        bench.next_commit(Fate::Fails(failure));
        assert_eq!(bench.ask(session_id, ANN, say("second")).await.unwrap_err(), "unavailable");
        let left = bench.outside.left.lock().unwrap()[published..].to_vec();
        assert!(!left.iter().any(|one| matches!(one, Left::Published(_))), "{left:?}");
        let second = bench.ask(session_id, ANN, say("second")).await.unwrap();
        assert_eq!(second["seq"].as_u64(), first["seq"].as_u64().map(|seq| seq + 1));
    }
}

#[actix_web::test]
async fn a_commit_whose_outcome_was_lost_is_found_again() {
    let bench = bench().await;
    let session_id = bench.session(false).await;
    bench.next_commit(Fate::Lost);
    assert_eq!(bench.ask(session_id, ANN, say("once")).await.unwrap_err(), "unavailable");
    let (_, last_seq) = bench.store.position(session_id).await.unwrap().unwrap();
    let again = bench.ask(session_id, ANN, say("once")).await.unwrap();
    assert_eq!(again["seq"].as_u64(), Some(last_seq), "stored once, answered alike");
}

#[actix_web::test]
async fn answers_wait_for_the_commits_they_were_decided_on() {
    let bench = bench().await;
    let session_id = bench.session(false).await;
    let release = bench.hold();
    let first = bench.submit(session_id, ANN, say("first"));
    bench.until_held().await;
    // A refusal and a repeat, decided on what is not durable yet.
    let refused = bench.submit(session_id, ANN, Command::Delete);
    let repeat = bench.submit(session_id, ANN, say("first"));
    // Another session's answer shows that the thread has been through the mailbox meanwhile.
    let other = bench.session(false).await;
    bench.ask(other, OWNER, say("other")).await.unwrap();
    assert!(!bench.answered(first) && !bench.answered(refused) && !bench.answered(repeat));
    release.send(()).unwrap();
    assert_eq!(bench.answer(refused).await.unwrap_err(), "permission_denied");
    assert_eq!(bench.answer(repeat).await.unwrap(), bench.answer(first).await.unwrap());
    let left = bench.outside.left.lock().unwrap().clone();
    let order: Vec<u64> = left
        .iter()
        .filter_map(|one| match one {
            Left::Answer(frame) => frame["reply_to"].as_u64(),
            Left::Published(_) | Left::Released(_) | Left::Asked(..) => None,
        })
        .filter(|id| [first, refused, repeat].contains(id))
        .collect();
    assert_eq!(order, [first, refused, repeat]);
}

#[actix_web::test]
async fn a_commit_that_finds_the_queue_full_is_offered_again() {
    let bench = bench().await;
    let session_id = bench.session(false).await;
    for _ in 0..3 {
        bench.next_commit(Fate::Rejected);
    }
    let requests: Vec<u64> = (0..5).map(|n| bench.submit(session_id, ANN, say(&format!("{n}")))).collect();
    let mut seqs = Vec::new();
    for request in requests {
        seqs.push(bench.answer(request).await.unwrap()["seq"].as_u64().unwrap());
    }
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
}

#[actix_web::test]
async fn a_session_is_made_once_however_often_it_is_asked_for() {
    let bench = bench().await;
    let first = bench.create(true, Some("mine"));
    let at_once = bench.create(true, Some("mine"));
    let (first, at_once) = (bench.answer(first).await.unwrap(), bench.answer(at_once).await.unwrap());
    assert_eq!(first, at_once);
    let later = bench.create(true, Some("mine"));
    assert_eq!(bench.answer(later).await.unwrap(), first);
    assert_eq!(bench.store.sessions_of(OWNER).await.unwrap().len(), 1);
    let other = bench.create(true, Some("another"));
    assert_ne!(bench.answer(other).await.unwrap(), first);
}

#[actix_web::test]
async fn an_idle_session_is_given_up_and_wakes_as_it_was() {
    let bench = bench_with(Duration::from_millis(20), 604_800_000).await;
    let session_id = bench.session(false).await;
    let first = bench.ask(session_id, ANN, say("once")).await.unwrap();
    bench.until_none_lives().await;
    assert_eq!(bench.ask(session_id, ANN, say("once")).await.unwrap(), first);
    // Given up, it can be claimed by another node at once; from then on nothing is committed here.
    bench.until_none_lives().await;
    let claimed = async {
        bench.store.renew_lease(ANOTHER, 600_000, &crate::store::conformance::report()).await.unwrap();
        loop {
            if let Claim::Mine(_) = bench.store.claim(session_id, ANOTHER, true).await.unwrap() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, claimed).await.expect("it was not released");
    assert_eq!(bench.ask(session_id, ANN, say("late")).await.unwrap_err(), "unavailable");
}

#[actix_web::test]
async fn a_sleeping_session_takes_a_burst_as_large_as_its_mailbox() {
    let bench = bench_with(Duration::from_millis(20), 604_800_000).await;
    let session_id = bench.session(false).await;
    bench.until_none_lives().await;
    let burst: Vec<_> = (0..64).map(|n| bench.submit(session_id, ANN, say(&format!("m{n}")))).collect();
    for request_id in burst {
        bench.answer(request_id).await.unwrap();
    }
}

#[actix_web::test]
async fn the_timer_marks_the_session_when_its_key_has_lived() {
    let bench = bench_with(Duration::from_secs(600), 300).await;
    let session_id = bench.session(true).await;
    let before = bench.gate.last.lock().unwrap().unwrap();
    bench.pass(300);
    // Nobody commands anything: what is committed next is the timer's.
    bench
        .outside
        .wait("mark", |left| left.iter().find(|one| matches!(one, Left::Published(v) if *v > before)).cloned())
        .await;
    let request = bench.submit(session_id, ANN, say("first to speak"));
    bench.answer(request).await.unwrap();
    bench
        .outside
        .wait("ask", |left| {
            left.iter()
                .find(|one| {
                    matches!(one, Left::Asked(to, frame)
                    if *to == connection(ANN) && frame["type"] == "UpdateRoomKeyNotification")
                })
                .cloned()
        })
        .await;
    // The asks are behind the answer.
    let left = bench.outside.left.lock().unwrap().clone();
    let answer = left.iter().position(|one| matches!(one, Left::Answer(frame) if frame["reply_to"] == request));
    let ask = left
        .iter()
        .position(|one| matches!(one, Left::Asked(_, frame) if frame["type"] == "UpdateRoomKeyNotification"));
    assert!(answer < ask);
    let for_bob = left.iter().any(|one| {
        matches!(one, Left::Asked(to, frame) if *to == connection(ANN)
            && frame["type"] == "SendRoomKeyNotification"
            && frame["body"]["user_id"] == BOB.to_string()
            && frame["body"]["public_key"] == "key of bob"
            && frame["body"]["key_epoch"] == 2)
    });
    assert!(for_bob, "{left:?}");
}

#[actix_web::test]
async fn tasks_are_taken_in_when_the_session_is_woken() {
    let bench = bench().await;
    let session_id = bench.session(false).await;
    assert_eq!(bench.store.close_account(BOB, bench.clock.now()).await.unwrap(), [session_id]);
    let (version, _) = bench.store.position(session_id).await.unwrap().unwrap();
    bench.sessions.wake(session_id);
    bench
        .outside
        .wait("task", |left| left.iter().find(|one| matches!(one, Left::Published(v) if *v > version)).cloned())
        .await;
    assert!(bench.store.tasks(session_id).await.unwrap().is_empty());
    assert_eq!(bench.ask(session_id, BOB, say("still here")).await.unwrap_err(), "not_a_member");
}

#[actix_web::test]
async fn a_session_that_panics_again_and_again_is_left_alone_and_others_are_not_touched() {
    let bench = bench().await;
    let session_id = bench.session(true).await;
    let other = bench.session(false).await;
    bench.ask(session_id, OWNER, Command::E2eeize).await.unwrap();
    let body = SendRoomKeys {
        session_id,
        key_epoch: Some(KeyEpoch(2)),
        key_check: None,
        signature: None,
        room_keys: vec![WrappedKey { user_id: ANN, room_key: Base64Text::encode(b"wrapped") }],
        withheld: None,
    };
    bench.ask(session_id, OWNER, Command::SendRoomKeys(body)).await.unwrap();
    // The deadline makes the rules look who is connected, and that panics.
    bench.pass(60_000);
    bench.people.broken.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let told = bench.ask(session_id, ANN, say("again")).await.unwrap_err();
        assert_eq!(told, "internal");
        assert!(bench.ask(other, ANN, say("fine")).await.is_ok());
    }
    bench.people.broken.store(false, Ordering::SeqCst);
    assert_eq!(bench.ask(session_id, ANN, say("again")).await.unwrap_err(), "internal", "left alone for a while");
}

#[actix_web::test]
async fn stopping_waits_for_what_is_under_way_and_refuses_the_rest() {
    let bench = bench().await;
    let session_id = bench.session(false).await;
    let release = bench.hold();
    let request = bench.submit(session_id, ANN, say("last"));
    let (left, ()) = tokio::join!(bench.sessions.stop(PATIENCE), async {
        assert_eq!(bench.ask(session_id, ANN, say("too late")).await.unwrap_err(), "unavailable");
        release.send(()).unwrap();
    });
    assert_eq!(left, 0);
    assert!(bench.answer(request).await.is_ok());
}

#[actix_web::test]
async fn a_node_whose_sessions_have_stopped_has_given_them_all_up_and_said_so() {
    let bench = bench().await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(bench.session(false).await);
    }
    assert_eq!(bench.sessions.stop(PATIENCE).await, 0);
    let left = bench.outside.left.lock().unwrap().clone();
    bench.store.renew_lease(ANOTHER, 600_000, &crate::store::conformance::report()).await.unwrap();
    for session_id in sessions {
        assert!(left.iter().any(|one| matches!(one, Left::Released(of) if *of == session_id)), "it was not said");
        assert!(matches!(bench.store.claim(session_id, ANOTHER, false).await.unwrap(), Claim::Mine(_)));
    }
}
