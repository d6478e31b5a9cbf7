//! The way to sessions, wherever they live: who is alive on this node, and how to wake who is not.
//!
//! Invariants: at most one actor per session on this node is reachable; removing one compares it with what is removed;
//! a session is given up only while no command is on its way to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use uuid::{ContextV7, Timestamp as UuidTimestamp, Uuid};

use super::actor::{Envelope, Nudge, SessionActor, creation_reply, unavailable};
use super::clock::Clock;
use super::state::{Command, Rules};
use crate::connection::{ConnectionKey, Deliveries, Presence, ReplySlot};
use crate::protocol::{ClientId, ErrorCode, NodeId, Refusal, SessionId, UserId};
use crate::store::{CommitOutcome, GroupCommit, SessionCommit, Store};
use crate::telemetry::Metrics;

/// Shards of the map of live sessions.
const SHARDS: usize = 64;

/// Panics within [`PANIC_WINDOW`] after which a session is left alone for as long.
const PANICS: u32 = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Where commits go.
pub trait Commits: Send + Sync + 'static {
    /// Queues a commit; its outcome comes later.
    ///
    /// # Errors
    /// Gives the commit back where the queue is full; nothing was taken.
    fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>>;

    /// Whether commands of this session should be refused before they change anything.
    fn is_full(&self, session_id: SessionId) -> bool;
}

impl Commits for GroupCommit {
    fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>> {
        Self::submit(self, commit)
    }

    fn is_full(&self, session_id: SessionId) -> bool {
        Self::is_full(self, session_id)
    }
}

/// What a node's sessions are made with.
pub struct SessionsOptions {
    /// This node, as it stands in the store.
    pub node_id: NodeId,
    /// Threads that session actors run on.
    pub threads: usize,
    /// The most commands that wait for one session.
    pub mailbox: usize,
    /// How long a session stays live without a command.
    pub idle: Duration,
    /// The rules' settings.
    pub rules: Rules,
}

/// What sessions work with.
pub struct SessionParts {
    /// Loads, claims, looks up.
    pub store: Arc<dyn Store>,
    /// Takes commits.
    pub commits: Arc<dyn Commits>,
    /// Reaches connections.
    pub deliveries: Arc<dyn Deliveries>,
    /// Tells who is connected.
    pub presence: Arc<dyn Presence>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

pub(super) struct Shared {
    pub(super) node_id: NodeId,
    pub(super) mailbox: usize,
    pub(super) idle: Duration,
    pub(super) rules: Rules,
    pub(super) store: Arc<dyn Store>,
    pub(super) commits: Arc<dyn Commits>,
    pub(super) deliveries: Arc<dyn Deliveries>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

impl Shared {
    /// Answers a repeated `new_session` like the first one.
    pub(super) async fn answer_made_before(&self, reply: ReplySlot, id: &ClientId) {
        let creator = reply.caller().user_id;
        match self.store.made_before(creator, id).await {
            Ok(Some(json)) => {
                let outcome = creation_reply(&json)
                    .ok_or_else(|| Refusal::new(ErrorCode::Internal, "what was answered cannot be read"));
                let answers = vec![reply.answer(&outcome)];
                self.deliveries.deliver(crate::connection::Parcel { answers, ..Default::default() }).await;
            }
            Ok(None) | Err(_) => reply.refuse_now(unavailable()),
        }
    }
}

/// The sessions of the cluster, as a node reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    arbiters: Vec<Arbiter>,
    next_arbiter: AtomicUsize,
    ids: Mutex<ContextV7>,
}

impl Inner {
    /// A place in a session's mailbox, if there is one.
    fn permit(&self, pending: &Arc<AtomicUsize>) -> Option<Permit> {
        let metrics = &self.shared.metrics;
        metrics.mailbox_depth.observe(pending.load(Ordering::Relaxed) as f64);
        let permit = Permit::take(pending, self.shared.mailbox);
        if permit.is_none() {
            metrics.mailbox_full.inc();
        }
        permit
    }
}

impl Sessions {
    /// Starts the session threads; call it inside the runtime. Sessions come to life as they are needed.
    pub fn start(options: SessionsOptions, parts: SessionParts) -> Self {
        let SessionsOptions { node_id, threads, mailbox, idle, rules } = options;
        let SessionParts { store, commits, deliveries, presence, clock, metrics } = parts;
        let shared = Shared { node_id, mailbox, idle, rules, store, commits, deliveries, presence, clock, metrics };
        let inner = Inner {
            registry: Arc::new(Registry::new(mailbox, Arc::clone(&shared.metrics))),
            shared: Arc::new(shared),
            arbiters: (0..threads.max(1)).map(|_| Arbiter::new()).collect(),
            next_arbiter: AtomicUsize::new(0),
            ids: Mutex::new(ContextV7::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Hands a command to a session, waking it if need be. Never waits: what cannot be taken is refused through
    /// `reply`. Commands that one caller submits to one session are handled in the order of the calls.
    pub fn submit(&self, session_id: SessionId, command: Command, reply: ReplySlot) {
        let mut shard = self.inner.registry.shard(session_id);
        match self.reach(&mut shard, session_id) {
            Ok(live) => match self.inner.permit(&live.pending) {
                Some(permit) => match live.addr.try_send(Envelope { command, reply, permit }) {
                    Ok(()) => {}
                    Err(SendError::Full(envelope)) => envelope.reply.refuse_now(overloaded()),
                    // Its actor died with its place kept: the next command starts a new life.
                    Err(SendError::Closed(envelope)) => {
                        shard.remove(&session_id);
                        envelope.reply.refuse_now(unavailable());
                    }
                },
                None => reply.refuse_now(overloaded()),
            },
            Err(refusal) => reply.refuse_now(refusal),
        }
    }

    /// Makes a session and hands it its first command, [`Command::Create`].
    pub fn create(&self, command: Command, reply: ReplySlot) {
        let id = match &command {
            Command::Create { body, .. } => body.client_session_id.clone(),
            _ => None,
        };
        let Some(id) = id else { return self.create_new(command, reply) };
        let sessions = self.clone();
        let look_up = async move {
            let shared = Arc::clone(&sessions.inner.shared);
            match shared.store.made_before(reply.caller().user_id, &id).await {
                Ok(None) => sessions.create_new(command, reply),
                Ok(Some(_)) => shared.answer_made_before(reply, &id).await,
                Err(_) => reply.refuse_now(unavailable()),
            }
        };
        if !self.arbiter().spawn(look_up) {
            tracing::debug!("a session was asked for while the node stops");
        }
    }

    fn create_new(&self, command: Command, reply: ReplySlot) {
        let session_id = self.new_id();
        let registry = &self.inner.registry;
        let mut shard = registry.shard(session_id);
        if registry.closing() {
            return reply.refuse_now(unavailable());
        }
        let (shared, registration) = (Arc::clone(&self.inner.shared), registry.register(session_id));
        let pending = Arc::clone(&registration.pending);
        let Some(permit) = self.inner.permit(&pending) else {
            return reply.refuse_now(overloaded());
        };
        let token = registration.token;
        let addr =
            self.start_actor(move || SessionActor::make(session_id, shared, registration, command, reply, permit));
        shard.insert(session_id, Live { addr, pending, token });
    }

    /// Tells a session that wants keys that one of its members has a new connection, which may be asked.
    pub fn member_connected(&self, session_id: SessionId, user_id: UserId, connection: ConnectionKey) {
        self.nudge(session_id, Nudge::MemberConnected(user_id, connection));
    }

    /// Wakes a session that has tasks waiting in the store.
    pub fn wake(&self, session_id: SessionId) {
        self.nudge(session_id, Nudge::Tasks);
    }

    /// Has every session finish what is under way and give itself up; resolves when none is left, or with how many
    /// are after `within`. Commands from now on are refused with `unavailable`.
    pub async fn stop(&self, within: Duration) -> usize {
        let registry = &self.inner.registry;
        registry.closing.store(1, Ordering::SeqCst);
        let deadline = Instant::now() + within;
        loop {
            let left = registry.nudge_all();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many sessions are live here.
    pub fn live(&self) -> usize {
        self.inner.registry.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn nudge(&self, session_id: SessionId, nudge: Nudge) {
        let mut shard = self.inner.registry.shard(session_id);
        if let Ok(live) = self.reach(&mut shard, session_id)
            && live.addr.try_send(nudge).is_err()
        {
            tracing::debug!(session = %session_id, "a session is too busy to be nudged");
        }
    }

    fn reach<'a>(&self, shard: &'a mut Shard, session_id: SessionId) -> Result<&'a Live, Refusal> {
        let registry = &self.inner.registry;
        if registry.closing() {
            return Err(unavailable());
        }
        if registry.is_poisoned(session_id) {
            return Err(Refusal::new(
                ErrorCode::Internal,
                "the session fails again and again, and is left alone for now",
            ));
        }
        Ok(shard.entry(session_id).or_insert_with(|| {
            let (shared, registration) = (Arc::clone(&self.inner.shared), registry.register(session_id));
            let (pending, token) = (Arc::clone(&registration.pending), registration.token);
            let addr = self.start_actor(move || SessionActor::load(session_id, shared, registration));
            Live { addr, pending, token }
        }))
    }

    /// Starts an actor on the next session thread. Its mailbox has its bound from the first envelope on: what actix
    /// makes holds 16 until the actor runs, and a burst on a sleeping session would find it full.
    fn start_actor(&self, make: impl FnOnce() -> SessionActor + Send + 'static) -> Addr<SessionActor> {
        let (sender, receiver) = actix::dev::channel::channel(self.inner.shared.mailbox);
        let run = move || drop(actix_web::rt::spawn(Context::with_receiver(receiver).into_future(make())));
        if !self.arbiter().spawn_fn(run) {
            tracing::debug!("a session was asked for while the node stops");
        }
        Addr::new(sender)
    }

    fn arbiter(&self) -> ArbiterHandle {
        let next = self.inner.next_arbiter.fetch_add(1, Ordering::Relaxed);
        self.inner.arbiters[next % self.inner.arbiters.len()].handle()
    }

    fn new_id(&self) -> SessionId {
        let millis = self.inner.shared.clock.now().as_millis().unsigned_abs();
        let (secs, nanos) = (millis / 1000, u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000);
        let context = lock(&self.inner.ids);
        SessionId::new(Uuid::new_v7(UuidTimestamp::from_unix(&*context, secs, nanos)))
    }
}

fn overloaded() -> Refusal {
    Refusal::new(ErrorCode::Overloaded, "more commands wait for this session than it takes")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Shard = HashMap<SessionId, Live>;

struct Live {
    addr: Addr<SessionActor>,
    pending: Arc<AtomicUsize>,
    token: u64,
}

/// Which sessions are live on this node, and which are left alone because they panic.
struct Registry {
    shards: Vec<Mutex<Shard>>,
    panics: Mutex<HashMap<SessionId, (Instant, u32)>>,
    tokens: AtomicU64,
    closing: AtomicUsize,
    mailbox: usize,
    metrics: Arc<Metrics>,
}

impl Registry {
    fn new(mailbox: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            panics: Mutex::new(HashMap::new()),
            tokens: AtomicU64::new(1),
            closing: AtomicUsize::new(0),
            mailbox,
            metrics,
        }
    }

    /// The ids are version 7: their last byte is random.
    fn shard(&self, session_id: SessionId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(session_id.as_bytes()[15]) % SHARDS])
    }

    fn register(self: &Arc<Self>, session_id: SessionId) -> Registration {
        Registration {
            session_id,
            token: self.tokens.fetch_add(1, Ordering::Relaxed),
            pending: Arc::new(AtomicUsize::new(0)),
            registry: Arc::clone(self),
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst) != 0
    }

    fn is_poisoned(&self, session_id: SessionId) -> bool {
        let mut panics = lock(&self.panics);
        if panics.is_empty() {
            return false;
        }
        panics.retain(|_, (since, _)| since.elapsed() < PANIC_WINDOW);
        panics.get(&session_id).is_some_and(|(_, count)| *count >= PANICS)
    }

    fn nudge_all(&self) -> usize {
        let mut left = 0;
        for shard in &self.shards {
            for live in lock(shard).values() {
                left += 1;
                // One that is too busy for it now is asked again in a moment.
                drop(live.addr.try_send(Nudge::Stop));
            }
        }
        left
    }
}

/// An actor's place in the registry.
pub(super) struct Registration {
    session_id: SessionId,
    token: u64,
    pending: Arc<AtomicUsize>,
    registry: Arc<Registry>,
}

impl Registration {
    /// Commands that are on their way to the actor or in its hands.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Makes the session unreachable here: the next command starts a new life of it.
    pub(super) fn close(&self) {
        let mut shard = self.registry.shard(self.session_id);
        if shard.get(&self.session_id).is_some_and(|live| live.token == self.token) {
            shard.remove(&self.session_id);
        }
    }

    /// The same, but only if no command is on its way.
    pub(super) fn close_if_unused(&self) -> bool {
        let mut shard = self.registry.shard(self.session_id);
        if self.pending() > 0 {
            return false;
        }
        if shard.get(&self.session_id).is_some_and(|live| live.token == self.token) {
            shard.remove(&self.session_id);
        }
        true
    }

    /// The session's rules panicked.
    pub(super) fn panicked(&self) {
        self.registry.metrics.session_panics.inc();
        let mut panics = lock(&self.registry.panics);
        if panics.len() < self.registry.mailbox {
            panics.entry(self.session_id).or_insert((Instant::now(), 0)).1 += 1;
        }
    }
}

/// A place in a session's mailbox, taken before the command is sent and given back when it was handled.
pub(super) struct Permit {
    pending: Arc<AtomicUsize>,
}

impl Permit {
    fn take(pending: &Arc<AtomicUsize>, bound: usize) -> Option<Self> {
        let before = pending.fetch_add(1, Ordering::SeqCst);
        let permit = Self { pending: Arc::clone(pending) };
        // Dropped on the way out, the permit gives its place back.
        (before < bound).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pending.fetch_sub(1, Ordering::SeqCst);
    }
}
