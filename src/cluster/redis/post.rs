//! What all connections of a node share: the envelope's two sides, probes, and the way to whoever listens.
//!
//! Invariant: what is handed over was sealed by a node of this cluster for this channel, and comes once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::dial::{Address, Dialer, RedisTrouble};
use super::names::{Names, Place};
use crate::cluster::envelope::{ClusterSecret, Kind, Opened, Opener, Rejected, Sealer};
use crate::cluster::{Channel, Incoming, Message, Range, Wire};
use crate::protocol::NodeId;
use crate::telemetry::Metrics;

/// How long nothing more is said of the refused envelopes of one sender.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Senders that complaints are remembered of; more of them are counted and not named.
const COMPLAINTS: usize = 64;

/// See the file.
pub(super) struct Post {
    pub(super) me: NodeId,
    pub(super) names: Names,
    pub(super) dialer: Dialer,
    pub(super) metrics: Arc<Metrics>,
    /// Whether channels belong to the servers of a cluster.
    pub(super) sharded: bool,
    range: Range,
    /// The number of the version that is written.
    writes: AtomicU16,
    sealer: Sealer,
    opener: Mutex<Opener>,
    incoming: Arc<dyn Incoming>,
    probes: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    next_probe: AtomicU64,
    complaints: Mutex<HashMap<Option<NodeId>, Instant>>,
    troubles: Mutex<HashMap<(Side, Address), RedisTrouble>>,
    hears_everyone: AtomicBool,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Sending,
    Listening,
    /// Finding out who has which slot.
    Asking,
}

impl Side {
    /// For logs and metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Listening => "listening",
            Self::Asking => "asking",
        }
    }
}

/// What a message asks of the listener that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    /// All channels of this node missed something.
    EverythingMissed,
}

impl Post {
    pub(super) fn new(
        me: NodeId,
        names: Names,
        dialer: Dialer,
        sharded: bool,
        (secret, range): (ClusterSecret, Range),
        incoming: Arc<dyn Incoming>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            me,
            names,
            dialer,
            metrics,
            sharded,
            range,
            writes: AtomicU16::new(range.oldest.number()),
            sealer: Sealer::new(&secret, me),
            opener: Mutex::new(Opener::new(secret, range)),
            incoming,
            probes: Mutex::default(),
            next_probe: AtomicU64::new(0),
            complaints: Mutex::default(),
            troubles: Mutex::default(),
            hears_everyone: AtomicBool::new(false),
        }
    }

    // Sending.

    /// No newer version than that of this number is written from now on, as far as this release has it.
    pub(super) fn set_wire(&self, number: u16) {
        self.writes.store(self.range.up_to(number).number(), Ordering::Relaxed);
    }

    /// The version that is written now.
    pub(super) fn wire(&self) -> Wire {
        self.range.up_to(self.writes.load(Ordering::Relaxed))
    }

    /// Nothing, in the version that is written now.
    pub(super) fn empty(&self) -> Message {
        Message { wire: self.wire(), bytes: Bytes::new() }
    }

    pub(super) fn seal(&self, counter: (u32, u64), place: Place, kind: Kind, message: &Message) -> (String, Vec<u8>) {
        let name = self.names.name(place);
        let sealed = self.sealer.seal(message.wire, counter, &name, kind, &message.bytes);
        (name, sealed)
    }

    // Receiving.

    /// Takes what came on a channel that this node listens to.
    pub(super) fn message(&self, place: Place, name: &str, message: Vec<u8>) -> Asks {
        let claimed = Opener::claimed(&message);
        let is_mine = claimed == Some(self.me);
        match place {
            // Redis sends a node its own messages too.
            Place::Channel(_) | Place::Everyone if is_mine => return Asks::Nothing,
            Place::Channel(_) | Place::Everyone | Place::Probe { .. } => {}
        }
        let opened = lock(&self.opener).open(name, message);
        match opened {
            Ok(opened) => self.opened(place, opened),
            Err(rejected) => {
                self.rejected(claimed, rejected);
                Asks::Nothing
            }
        }
    }

    fn opened(&self, place: Place, opened: Opened) -> Asks {
        let Opened { kind, message, sender: _ } = opened;
        match (place, kind) {
            (Place::Channel(channel), Kind::Message) => {
                self.metrics.bus_received.inc();
                self.incoming.message(channel, message);
            }
            (Place::Channel(channel), Kind::Missed) => self.missed(channel),
            (Place::Everyone, Kind::Missed) => return Asks::EverythingMissed,
            (Place::Probe { .. }, Kind::Probe) => self.probe_is_back(&message.bytes),
            (Place::Channel(_) | Place::Everyone, Kind::Probe)
            | (Place::Everyone, Kind::Message)
            | (Place::Probe { .. }, Kind::Message | Kind::Missed) => {
                self.rejected(Some(opened.sender), Rejected::Damaged)
            }
        }
        Asks::Nothing
    }

    /// Tells whoever listens that this channel may have lost something.
    pub(super) fn missed(&self, channel: Channel) {
        self.metrics.bus_missed.inc();
        self.incoming.missed(channel);
    }

    /// The channel of all nodes is confirmed; whether it ever was before, so that this node may have missed something
    /// on it. At a node's start nobody relies on it yet.
    pub(super) fn hears_everyone(&self) -> bool {
        self.hears_everyone.swap(true, Ordering::Relaxed)
    }

    fn rejected(&self, claimed: Option<NodeId>, rejected: Rejected) {
        self.metrics.bus_rejected.with_label_values(&[rejected.reason()]).inc();
        let mut complaints = lock(&self.complaints);
        complaints.retain(|_, at| at.elapsed() < COMPLAINT);
        if complaints.contains_key(&claimed) || complaints.len() >= COMPLAINTS {
            return;
        }
        complaints.insert(claimed, Instant::now());
        drop(complaints);
        // The sender is what it says of itself: nobody has proven anything.
        let sender = claimed.map(|id| id.to_string());
        tracing::warn!(sender, %rejected, "an envelope on the bus was refused");
    }

    // Probing.

    /// A probe's payload, and what resolves when it is back.
    pub(super) fn probe(this: &Arc<Self>) -> (Message, Probe) {
        let number = this.next_probe.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&this.probes).insert(number, sender);
        let message = Message { wire: this.wire(), bytes: Bytes::copy_from_slice(&number.to_be_bytes()) };
        (message, Probe { post: Arc::clone(this), number, waiting: receiver })
    }

    fn probe_is_back(&self, payload: &[u8]) {
        let number = payload.try_into().map(u64::from_be_bytes).ok();
        if let Some(waiting) = number.and_then(|number| lock(&self.probes).remove(&number)) {
            let _ = waiting.send(());
        }
    }

    // Trouble.

    /// Keeps a connection's trouble for who asks, and says it once.
    pub(super) fn say(&self, side: Side, at: &Address, trouble: RedisTrouble) {
        let last = lock(&self.troubles).insert((side, at.clone()), trouble.clone());
        if last.as_ref() != Some(&trouble) {
            tracing::warn!(side = side.name(), %trouble, "a connection to Redis is away");
        }
    }

    /// A connection does what it should.
    pub(super) fn well(&self, side: Side, at: &Address) {
        let mut troubles = lock(&self.troubles);
        if !troubles.is_empty() && troubles.remove(&(side, at.clone())).is_some() {
            tracing::info!(side = side.name(), %at, "a connection to Redis is back");
        }
    }

    /// There is no such server any more.
    pub(super) fn forget(&self, server: &Address) {
        lock(&self.troubles).retain(|(_, at), _| at != server);
    }

    /// What is in the way; first what a setting is wrong for.
    pub(super) fn trouble(&self) -> Option<RedisTrouble> {
        let troubles = lock(&self.troubles);
        troubles.values().find(|trouble| trouble.is_final()).or_else(|| troubles.values().next()).cloned()
    }
}

/// A probe under way; it is forgotten with this.
pub(super) struct Probe {
    post: Arc<Post>,
    number: u64,
    waiting: oneshot::Receiver<()>,
}

impl Probe {
    /// Whether it came back.
    pub(super) async fn back(mut self) -> bool {
        (&mut self.waiting).await.is_ok()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        lock(&self.post.probes).remove(&self.number);
    }
}

/// Locks; nothing that can panic runs under these locks, so a poisoned one is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
