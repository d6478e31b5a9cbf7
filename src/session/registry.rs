//! Where each session is, as this node knows: here, on another node, or not known yet; what waits for it meanwhile; and
//! which sessions are left alone because they panic.
//!
//! Invariants: at most one actor per session on this node is reachable; removing one compares it with what is removed;
//! a session is given up only while no command is on its way to it; a place that holds nothing is not kept.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::actor::SessionActor;
use super::state::Command;
use super::waiting::Charge;
use crate::cluster::placement::{Calls, Line};
use crate::cluster::{Asked, CallAnswer, CallId, Nudge};
use crate::connection::ReplySlot;
use crate::protocol::{NodeId, SessionId};
use crate::telemetry::Metrics;

/// Shards of the map of places.
const SHARDS: usize = 64;

/// Panics within [`PANIC_WINDOW`] after which a session is left alone for as long.
const PANICS: u32 = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Milliseconds that a way to another node is remembered without being used.
const ROUTE_MS: u64 = 60_000;

/// Nudges that wait for a session to be found; more are dropped: they are lossy.
const NUDGES: usize = 16;

/// A session that lives here.
pub(super) struct Live {
    pub(super) addr: Addr<SessionActor>,
    pub(super) pending: Arc<AtomicUsize>,
    pub(super) token: u64,
}

/// Where a session is.
pub(super) enum At {
    /// Not known: the store has to be asked.
    Nowhere,
    /// An actor of this node.
    Here(Live),
    /// Another node, when it was last heard of.
    Away(NodeId),
}

/// A command that waits for its session to be found, or for an answer from another node.
pub(super) struct Parked {
    pub(super) command: Command,
    pub(super) reply: ReplySlot,
    /// Asks that came ahead of the answer.
    pub(super) asks: Vec<Asked>,
    /// Held as long as it waits.
    pub(super) charge: Charge,
}

/// All that this node knows of where one session is.
pub(super) struct Place {
    pub(super) at: At,
    /// Whether the store is being asked.
    pub(super) looking: bool,
    /// How often in a row looking came to nothing: an owner who takes nothing, a store that does not answer.
    pub(super) in_vain: u32,
    pub(super) calls: Calls<Parked>,
    nudges: Vec<Nudge>,
    /// Milliseconds of the registry's clock.
    pub(super) used: u64,
}

impl Place {
    fn is_empty(&self) -> bool {
        matches!(self.at, At::Nowhere) && !self.looking && self.calls.is_empty() && self.nudges.is_empty()
    }

    /// Keeps a nudge until the session is found.
    pub(super) fn park_nudge(&mut self, nudge: Nudge) {
        if self.nudges.len() < NUDGES && !self.nudges.contains(&nudge) {
            self.nudges.push(nudge);
        }
    }

    pub(super) fn take_nudges(&mut self) -> Vec<Nudge> {
        std::mem::take(&mut self.nudges)
    }
}

/// One node's calls to one session of this node.
pub(super) type CallLine = Arc<Mutex<Line<CallAnswer>>>;

/// A part of the map, behind one lock.
#[derive(Default)]
pub(super) struct Shard {
    places: HashMap<SessionId, Place>,
    /// Sessions for which something waits.
    busy: HashSet<SessionId>,
    lines: HashMap<(SessionId, NodeId), CallLine>,
}

impl Shard {
    pub(super) fn get(&mut self, session_id: SessionId) -> Option<&mut Place> {
        self.places.get_mut(&session_id)
    }

    /// The session's place, made if need be.
    pub(super) fn place(&mut self, session_id: SessionId, now: u64) -> &mut Place {
        let place = self.places.entry(session_id).or_insert_with(|| Place {
            at: At::Nowhere,
            looking: false,
            in_vain: 0,
            calls: Calls::default(),
            nudges: Vec::new(),
            used: now,
        });
        place.used = now;
        place
    }

    /// To be called after something was parked or taken out.
    pub(super) fn settle(&mut self, session_id: SessionId) {
        let Some(place) = self.places.get(&session_id) else {
            self.busy.remove(&session_id);
            return;
        };
        if place.calls.is_empty() {
            self.busy.remove(&session_id);
        } else {
            self.busy.insert(session_id);
        }
        if place.is_empty() {
            self.places.remove(&session_id);
        }
    }

    /// Sessions for which something waits.
    pub(super) fn busy(&self) -> Vec<SessionId> {
        self.busy.iter().copied().collect()
    }

    /// The line of a node's calls to a session, made if need be.
    pub(super) fn line(&mut self, session_id: SessionId, from: NodeId) -> CallLine {
        Arc::clone(self.lines.entry((session_id, from)).or_default())
    }

    /// Forgets ways and lines that have not been used for long; nothing of theirs can be under way any more.
    pub(super) fn forget_unused(&mut self, now: u64, deadline: u64) {
        let unused = |since: u64| now.saturating_sub(since) > ROUTE_MS.max(2 * deadline);
        self.places.retain(|_, place| {
            let away = matches!(place.at, At::Away(_)) && !place.looking && place.calls.is_empty();
            !(away && unused(place.used))
        });
        self.lines.retain(|_, line| !unused(lock(line).heard));
    }

    fn here(&self) -> impl Iterator<Item = &Live> {
        self.places.values().filter_map(|place| match &place.at {
            At::Here(live) => Some(live),
            At::Nowhere | At::Away(_) => None,
        })
    }

    /// Sessions that are not here, and that something waits for.
    pub(super) fn elsewhere(&self) -> Vec<SessionId> {
        let elsewhere = self.places.iter().filter(|(_, place)| !matches!(place.at, At::Here(_)));
        elsewhere.map(|(session_id, _)| *session_id).collect()
    }
}

/// The places of all sessions that this node has to do with.
pub(super) struct Registry {
    shards: Vec<Mutex<Shard>>,
    panics: Mutex<HashMap<SessionId, (Instant, u32)>>,
    tokens: AtomicU64,
    calls: AtomicU64,
    closed: AtomicBool,
    /// Sessions that nobody reaches here any more, and that are not given up yet.
    leaving: AtomicUsize,
    mailbox: usize,
    began: Instant,
    metrics: Arc<Metrics>,
}

impl Registry {
    pub(super) fn new(mailbox: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            panics: Mutex::new(HashMap::new()),
            tokens: AtomicU64::new(1),
            calls: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            leaving: AtomicUsize::new(0),
            mailbox,
            began: Instant::now(),
            metrics,
        }
    }

    /// Milliseconds since this node began.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The ids are version 7: their last byte is random.
    pub(super) fn shard(&self, session_id: SessionId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(session_id.as_bytes()[15]) % SHARDS])
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(lock)
    }

    /// The next call's number. Taken under the lock of the session's shard, so that they grow in the order of commands.
    pub(super) fn next_call(&self) -> CallId {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn register(self: &Arc<Self>, session_id: SessionId) -> Registration {
        Registration {
            session_id,
            token: self.tokens.fetch_add(1, Ordering::Relaxed),
            pending: Arc::new(AtomicUsize::new(0)),
            registry: Arc::clone(self),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether the node takes commands at all.
    pub(super) fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
    }

    /// Whether the session is left alone now, because it panics again and again.
    pub(super) fn is_poisoned(&self, session_id: SessionId) -> bool {
        self.is_poisoned_at(session_id, Instant::now())
    }

    fn is_poisoned_at(&self, session_id: SessionId, now: Instant) -> bool {
        let mut panics = lock(&self.panics);
        if panics.is_empty() {
            return false;
        }
        panics.retain(|_, (since, _)| now.saturating_duration_since(*since) < PANIC_WINDOW);
        panics.get(&session_id).is_some_and(|(_, count)| *count >= PANICS)
    }

    /// How many sessions live here.
    pub(super) fn live(&self) -> usize {
        self.shards().map(|shard| shard.here().count()).sum()
    }

    /// Asks every session that lives here to stop; how many there are, those included that are at it.
    pub(super) fn stop_all(&self) -> usize {
        let mut left = 0;
        for shard in self.shards() {
            for live in shard.here() {
                left += 1;
                // One that is too busy for it now is asked again in a moment.
                drop(live.addr.try_send(super::actor::Stop));
            }
        }
        // Looked at last: a session leaves its place after it has begun to be counted here.
        left + self.leaving.load(Ordering::SeqCst)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An actor's place in the registry.
pub(super) struct Registration {
    session_id: SessionId,
    pub(super) token: u64,
    pub(super) pending: Arc<AtomicUsize>,
    registry: Arc<Registry>,
}

impl Registration {
    /// Commands that are on their way to the actor or in its hands.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Begins to give the session up; it is counted as being at it until this is dropped.
    pub(super) fn leaving(&self) -> Leaving {
        self.registry.leaving.fetch_add(1, Ordering::SeqCst);
        Leaving(Arc::clone(&self.registry))
    }

    /// Makes the session unreachable here: the next command starts a new life of it.
    pub(super) fn close(&self) {
        self.leave(&mut self.registry.shard(self.session_id));
    }

    /// The same, but only if no command is on its way.
    pub(super) fn close_if_unused(&self) -> bool {
        let mut shard = self.registry.shard(self.session_id);
        if self.pending() > 0 {
            return false;
        }
        self.leave(&mut shard);
        true
    }

    fn leave(&self, shard: &mut Shard) {
        if let Some(place) = shard.get(self.session_id)
            && matches!(&place.at, At::Here(live) if live.token == self.token)
        {
            place.at = At::Nowhere;
            shard.settle(self.session_id);
        }
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

/// A session on its way out: given up in the store, and then said to be.
pub(super) struct Leaving(Arc<Registry>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place in a session's mailbox, taken before the command is sent and given back when it was handled.
pub(super) struct Permit {
    pending: Arc<AtomicUsize>,
}

impl Permit {
    pub(super) fn take(pending: &Arc<AtomicUsize>, bound: usize) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_left_alone_is_tried_again_after_a_minute() {
        let registry = Arc::new(Registry::new(8, Metrics::new()));
        let [one, other] = [1, 2].map(|n| SessionId::from_bytes([n; 16]));
        for panics in 1..=PANICS {
            registry.register(one).panicked();
            assert_eq!(registry.is_poisoned(one), panics == PANICS);
        }
        assert!(!registry.is_poisoned(other));
        let later = Instant::now() + PANIC_WINDOW;
        assert!(!registry.is_poisoned_at(one, later));
        registry.register(one).panicked();
        assert!(!registry.is_poisoned(one), "it begins anew");
    }
}
