//! The way to sessions, wherever they live: a command goes to the session's actor if it lives here; else the session is
//! looked for ([`placement`](super::placement)), and the command waits in its order until it is found.
//!
//! Invariant: commands that one caller submits to one session are handled in the order of the calls, wherever it lives
//! and while it moves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use actix::prelude::*;
use uuid::{ContextV7, Timestamp as UuidTimestamp, Uuid};

use super::actor::{Envelope, SessionActor, creation_reply, unavailable};
use super::clock::Clock;
use super::registry::{At, Live, Parked, Permit, Place, Registry, Shard, lock};
use super::state::{Command, Rules};
use super::waiting::{Waiting, WaitingLimits};
use crate::cluster::Nudge;
use crate::connection::{ConnectionKey, Deliveries, Parcel, Peers, Presence, ReplySlot};
use crate::protocol::{ClientId, ErrorCode, NodeId, Refusal, SessionId, UserId};
use crate::store::{CommitOutcome, GroupCommit, SessionCommit, Store};
use crate::telemetry::Metrics;

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
#[derive(Clone, Debug)]
pub struct SessionsOptions {
    /// This node, as it stands in the store.
    pub node_id: NodeId,
    /// Threads that session actors run on.
    pub threads: usize,
    /// The most commands that wait for one session.
    pub mailbox: usize,
    /// How long a session stays live without a command.
    pub idle: Duration,
    /// How long a command waits for a session that moves, or that lives on another node.
    pub call_deadline: Duration,
    /// How much of that may wait.
    pub waiting: WaitingLimits,
    /// How often a session that wants keys asks all nodes who of its members is connected.
    pub roll_call_every: Duration,
    /// The rules' settings.
    pub rules: Rules,
}

/// Whether this node may take sessions over from nodes whose lease is over.
pub type MayTakeOver = Arc<dyn Fn() -> bool + Send + Sync>;

/// What sessions work with.
pub struct SessionParts {
    /// Loads, claims, looks up.
    pub store: Arc<dyn Store>,
    /// Takes commits.
    pub commits: Arc<dyn Commits>,
    /// Reaches connections and other nodes.
    pub deliveries: Arc<dyn Deliveries>,
    /// Tells who is connected here.
    pub presence: Arc<dyn Presence>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Whether this node has lived long enough.
    pub may_take_over: MayTakeOver,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

pub(super) struct Shared {
    pub(super) options: SessionsOptions,
    pub(super) store: Arc<dyn Store>,
    pub(super) commits: Arc<dyn Commits>,
    pub(super) deliveries: Arc<dyn Deliveries>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) may_take_over: MayTakeOver,
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
                self.deliveries.deliver(Parcel { answers, ..Parcel::default() }).await;
            }
            Ok(None) | Err(_) => reply.refuse_now(unavailable()),
        }
    }
}

/// The sessions of the cluster, as a node reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    arbiters: Vec<Arbiter>,
    next_arbiter: AtomicUsize,
    ids: Mutex<ContextV7>,
    /// What waits for sessions that are not here.
    waiting: Arc<Waiting>,
}

impl Sessions {
    /// Starts the session threads; call it inside the runtime. Sessions come to life as they are needed.
    pub fn start(options: SessionsOptions, parts: SessionParts) -> Self {
        let SessionParts { store, commits, deliveries, presence, clock, may_take_over, metrics } = parts;
        let shared = Shared { options, store, commits, deliveries, presence, clock, may_take_over, metrics };
        let inner = Arc::new(Inner {
            registry: Arc::new(Registry::new(shared.options.mailbox, Arc::clone(&shared.metrics))),
            arbiters: (0..shared.options.threads.max(1)).map(|_| Arbiter::new()).collect(),
            waiting: Waiting::new(shared.options.waiting, Arc::clone(&shared.metrics)),
            shared: Arc::new(shared),
            next_arbiter: AtomicUsize::new(0),
            ids: Mutex::new(ContextV7::new()),
        });
        inner.watch();
        Self { inner }
    }

    /// Hands a command to a session, waking it if need be. Never waits: what cannot be taken is refused through
    /// `reply`. Commands that one caller submits to one session are handled in the order of the calls.
    pub fn submit(&self, session_id: SessionId, command: Command, reply: ReplySlot) {
        let registry = &self.inner.registry;
        let mut shard = registry.shard(session_id);
        if let Err(refusal) = self.inner.admit(session_id) {
            return reply.refuse_now(refusal);
        }
        let place = shard.place(session_id, registry.millis());
        self.inner.tell_or_park(session_id, place, command, reply);
        shard.settle(session_id);
    }

    /// Makes a session and hands it its first command, [`Command::Create`].
    pub fn create(&self, command: Command, reply: ReplySlot) {
        let id = match &command {
            Command::Create { body, .. } => body.client_session_id.clone(),
            _ => None,
        };
        let Some(id) = id else { return self.create_new(command, reply) };
        let sessions = self.clone();
        self.inner.spawn(async move {
            let shared = Arc::clone(&sessions.inner.shared);
            match shared.store.made_before(reply.caller().user_id, &id).await {
                Ok(None) => sessions.create_new(command, reply),
                Ok(Some(_)) => shared.answer_made_before(reply, &id).await,
                Err(_) => reply.refuse_now(unavailable()),
            }
        });
    }

    fn create_new(&self, command: Command, reply: ReplySlot) {
        let inner = &self.inner;
        let session_id = inner.new_id();
        let mut shard = inner.registry.shard(session_id);
        if inner.registry.is_closed() {
            return reply.refuse_now(unavailable());
        }
        let (shared, registration) = (Arc::clone(&inner.shared), inner.registry.register(session_id));
        let (pending, token) = (Arc::clone(&registration.pending), registration.token);
        let Some(permit) = inner.permit(&pending) else {
            return reply.refuse_now(overloaded());
        };
        let addr =
            inner.start_actor(move || SessionActor::make(session_id, shared, registration, command, reply, permit));
        shard.place(session_id, inner.registry.millis()).at = At::Here(Live { addr, pending, token });
    }

    /// Tells a session that wants keys that one of its members has a new connection, which may be asked.
    pub fn member_connected(&self, session_id: SessionId, user_id: UserId, connection: ConnectionKey) {
        self.inner.nudge(session_id, Nudge::MemberConnected(user_id, connection), None);
    }

    /// Wakes a session that has tasks waiting in the store.
    pub fn wake(&self, session_id: SessionId) {
        self.inner.nudge(session_id, Nudge::Tasks, None);
    }

    /// Wakes a session that, as the store says, no living node owns: wherever it was when it was last heard of.
    pub fn take_up(&self, session_id: SessionId) {
        // Not woken then, and so not to be forgotten where it is.
        if self.inner.admit(session_id).is_err() {
            return;
        }
        let mut shard = self.inner.registry.shard(session_id);
        if let Some(place) = shard.get(session_id)
            && matches!(place.at, At::Away(_))
        {
            place.at = At::Nowhere;
        }
        drop(shard);
        self.wake(session_id);
    }

    /// Has every session finish what is under way and give itself up; resolves when none is left, or with how many
    /// are after `within`. Commands from now on are refused with `unavailable`, those of other nodes sent back to them.
    pub async fn stop(&self, within: Duration) -> usize {
        let registry = &self.inner.registry;
        registry.set_closed(true);
        self.inner.turn_away();
        let deadline = Instant::now() + within;
        loop {
            let left = registry.stop_all();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes commands again, after [`Sessions::stop`].
    pub fn open(&self) {
        self.inner.registry.set_closed(false);
    }

    /// Has every session give itself up that nothing is under way in; the next command brings it back.
    #[cfg(test)]
    pub(crate) fn let_go(&self) {
        self.inner.registry.stop_all();
    }

    /// The other node that this one takes for the session's owner.
    #[cfg(test)]
    pub(crate) fn way_to(&self, session_id: SessionId) -> Option<NodeId> {
        match self.inner.registry.shard(session_id).get(session_id)?.at {
            At::Away(owner) => Some(owner),
            At::Nowhere | At::Here(_) => None,
        }
    }

    /// For what other nodes tell this one. Held weakly: it reaches connections, which reach it.
    pub fn peers(&self) -> Weak<dyn Peers> {
        Arc::<Inner>::downgrade(&self.inner)
    }

    /// How many sessions are live here.
    pub fn live(&self) -> usize {
        self.inner.registry.live()
    }
}

impl Inner {
    /// Whether the session may be told anything at all.
    pub(super) fn admit(&self, session_id: SessionId) -> Result<(), Refusal> {
        if self.registry.is_closed() {
            return Err(unavailable());
        }
        if self.registry.is_poisoned(session_id) {
            let why = "the session fails again and again, and is left alone for now";
            return Err(Refusal::new(ErrorCode::Internal, why));
        }
        Ok(())
    }

    /// Hands a command to a session that lives here; it comes back if its actor is gone.
    pub(super) fn tell(&self, live: &Live, command: Command, reply: ReplySlot) -> Option<(Command, ReplySlot)> {
        let Some(permit) = self.permit(&live.pending) else {
            reply.refuse_now(overloaded());
            return None;
        };
        match live.addr.try_send(Envelope { command, reply, permit }) {
            Ok(()) => None,
            Err(SendError::Full(envelope)) => {
                envelope.reply.refuse_now(overloaded());
                None
            }
            Err(SendError::Closed(Envelope { command, reply, .. })) => Some((command, reply)),
        }
    }

    /// Hands a command to its session if it lives here, or else keeps it until it is found.
    pub(super) fn tell_or_park(
        self: &Arc<Self>,
        session_id: SessionId,
        place: &mut Place,
        command: Command,
        reply: ReplySlot,
    ) {
        let left = match &place.at {
            At::Here(live) => self.tell(live, command, reply),
            At::Nowhere | At::Away(_) => Some((command, reply)),
        };
        if let Some((command, reply)) = left {
            // An actor that has died without a word: the session begins a new life.
            if matches!(place.at, At::Here(_)) {
                place.at = At::Nowhere;
            }
            self.park(session_id, place, command, reply);
        }
    }

    /// Keeps a command until its session is found, or sends it on its way to where it lives.
    fn park(self: &Arc<Self>, session_id: SessionId, place: &mut Place, command: Command, reply: ReplySlot) {
        if place.calls.len() >= self.shared.options.mailbox {
            self.shared.metrics.mailbox_full.inc();
            return reply.refuse_now(overloaded());
        }
        let node = match place.at {
            At::Away(owner) => Some(owner),
            At::Nowhere | At::Here(_) => None,
        };
        let Some(charge) = self.waiting.let_in(command.weight(), node) else {
            self.shared.metrics.mailbox_full.inc();
            let why = "more commands wait for other nodes than this one keeps";
            return reply.refuse_now(Refusal::new(ErrorCode::Overloaded, why));
        };
        let parked = Parked { command, reply, asks: Vec::new(), charge };
        place.calls.push(self.registry.next_call(), parked, self.registry.millis());
        match place.at {
            At::Away(owner) => self.forward(session_id, place, owner),
            At::Nowhere | At::Here(_) => self.look(session_id, place, Duration::ZERO),
        }
    }

    /// A place in a session's mailbox, if there is one.
    fn permit(&self, pending: &Arc<AtomicUsize>) -> Option<Permit> {
        let metrics = &self.shared.metrics;
        metrics.mailbox_depth.observe(pending.load(Ordering::Relaxed) as f64);
        let permit = Permit::take(pending, self.shared.options.mailbox);
        if permit.is_none() {
            metrics.mailbox_full.inc();
        }
        permit
    }

    /// Starts an actor on the next session thread. Its mailbox has its bound from the first envelope on: what actix
    /// makes holds 16 until the actor runs, and a burst on a sleeping session would find it full.
    pub(super) fn start_actor(&self, make: impl FnOnce() -> SessionActor + Send + 'static) -> Addr<SessionActor> {
        let (sender, receiver) = actix::dev::channel::channel(self.shared.options.mailbox);
        let run = move || drop(actix_web::rt::spawn(Context::with_receiver(receiver).into_future(make())));
        if !self.arbiter().spawn_fn(run) {
            tracing::debug!("a session was asked for while the node stops");
        }
        Addr::new(sender)
    }

    /// Runs something on a session thread.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if !self.arbiter().spawn(work) {
            tracing::debug!("a session was asked for while the node stops");
        }
    }

    fn arbiter(&self) -> ArbiterHandle {
        let next = self.next_arbiter.fetch_add(1, Ordering::Relaxed);
        self.arbiters[next % self.arbiters.len()].handle()
    }

    fn new_id(&self) -> SessionId {
        let millis = self.shared.clock.now().as_millis().unsigned_abs();
        let (secs, nanos) = (millis / 1000, u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000);
        let context = lock(&self.ids);
        SessionId::new(Uuid::new_v7(UuidTimestamp::from_unix(&*context, secs, nanos)))
    }

    /// Lets go of everything that waits for sessions that are not here.
    fn turn_away(self: &Arc<Self>) {
        for mut shard in self.registry.shards() {
            for session_id in shard.elsewhere() {
                self.refuse_all(session_id, &mut shard, &unavailable());
            }
        }
    }

    /// Refuses everything that waits for a session; what other nodes sent goes back to them.
    pub(super) fn refuse_all(&self, session_id: SessionId, shard: &mut Shard, refusal: &Refusal) {
        let Some(place) = shard.get(session_id) else { return };
        place.take_nudges();
        let waiting = place.calls.drain();
        for parked in waiting {
            if refusal.code == ErrorCode::Unavailable && parked.reply.is_from_afar() {
                self.give_back(session_id, shard, parked.reply);
            } else {
                parked.reply.refuse_now(refusal.clone());
            }
        }
        shard.settle(session_id);
    }
}

pub(super) fn overloaded() -> Refusal {
    Refusal::new(ErrorCode::Overloaded, "more commands wait for this session than it takes")
}
