//! Which worker thread listens to which session and user, and which channels of the bus the node listens to for them.
//! What goes that way is [`delivery`](super::delivery)'s and [`peers`](super::peers)' business.
//!
//! Invariant: a channel is listened to on the bus before anybody relies on it. It looks at no version: each hub does,
//! for the sessions that it has an audience of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::cluster::{Bus, BusError, Channel};
use crate::protocol::{NodeId, SessionId, UserId};
use crate::store::TokenHash;
use crate::telemetry::Metrics;

use super::hub::{CloseAll, HubHandle};
use super::peers::{Lanes, Missed};
use super::people::{People, Workers};
use super::shards::Shards;
use super::{ConnectionKey, Presence};

/// Locks that keep the order of listening and ceasing to listen to a channel.
const ORDERS: usize = 64;

/// The node's listeners. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) node: NodeId,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hubs: RwLock<Vec<Option<Arc<HubHandle>>>>,
    pub(super) sessions: Shards<SessionId, Listeners>,
    pub(super) people: Arc<People>,
    pub(super) bus: OnceLock<Arc<dyn Bus>>,
    pub(super) lanes: OnceLock<Lanes>,
    pub(super) missed: Missed,
    /// Whether newcomers are sent elsewhere.
    shut: AtomicBool,
    orders: Vec<tokio::sync::Mutex<()>>,
    serial: AtomicU64,
}

#[derive(Default)]
pub(super) struct Listeners {
    pub(super) workers: Workers,
    /// Whether the bus has confirmed the session's channel.
    confirmed: bool,
}

impl Subscriptions {
    /// For the connections of `node`; before it is attached to a bus, they hear only their own node.
    pub fn new(node: NodeId, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            node,
            metrics,
            hubs: RwLock::default(),
            sessions: Shards::default(),
            people: Arc::default(),
            bus: OnceLock::new(),
            lanes: OnceLock::new(),
            missed: Missed::default(),
            shut: AtomicBool::new(false),
            orders: (0..ORDERS).map(|_| tokio::sync::Mutex::new(())).collect(),
            serial: AtomicU64::new(1),
        }))
    }

    pub(super) fn people(&self) -> &Arc<People> {
        &self.0.people
    }

    /// A number for a connection, never given twice.
    pub(super) fn next_serial(&self) -> u64 {
        self.0.serial.fetch_add(1, Ordering::Relaxed)
    }

    // Hubs.

    /// Adds a hub; its number, if there is one left.
    pub(super) fn register(&self, hub: &Arc<HubHandle>) -> Option<u16> {
        let mut hubs = self.0.hubs.write().unwrap_or_else(PoisonError::into_inner);
        let free = hubs.iter().position(Option::is_none).unwrap_or(hubs.len());
        if free >= Workers::MAX {
            return None;
        }
        if free == hubs.len() {
            hubs.push(None);
        }
        hubs[free] = Some(Arc::clone(hub));
        u16::try_from(free).ok()
    }

    /// Removes a hub, if it is still the one with this number.
    pub(super) fn unregister(&self, worker: u16, hub: &Arc<HubHandle>) {
        let mut hubs = self.0.hubs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = hubs.get_mut(usize::from(worker))
            && slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, hub))
        {
            *slot = None;
        }
    }

    pub(super) fn hub(&self, worker: u16) -> Option<Arc<HubHandle>> {
        let hubs = self.0.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.get(usize::from(worker)).cloned().flatten()
    }

    /// Ends all connections, by a path of its own.
    pub(super) fn close_all(&self, order: CloseAll) {
        let hubs = self.0.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.iter().flatten().for_each(|hub| hub.close_all(order));
    }

    /// Whether the node sends newcomers elsewhere: it cannot serve them as its peers do.
    pub fn set_shut(&self, shut: bool) {
        self.0.shut.store(shut, Ordering::Relaxed);
    }

    /// Whether newcomers are sent elsewhere.
    pub(super) fn is_shut(&self) -> bool {
        self.0.shut.load(Ordering::Relaxed)
    }

    // Listening.

    /// A hub has an audience of the session; whether the bus has confirmed its channel before.
    pub(super) fn listen(&self, session_id: SessionId, worker: u16) -> bool {
        let mut shard = self.0.sessions.of(&session_id);
        let listeners = shard.entry(session_id).or_default();
        listeners.workers.add(worker);
        listeners.confirmed
    }

    /// Waits until the bus has confirmed the session's channel.
    ///
    /// # Errors
    /// If the bus is not there.
    pub(super) async fn confirm_session(&self, session_id: SessionId) -> Result<(), BusError> {
        let confirmed = || self.0.sessions.of(&session_id).get(&session_id).is_none_or(|known| known.confirmed);
        if confirmed() {
            return Ok(());
        }
        let channel = Channel::Session(session_id);
        let _order = self.order(channel).lock().await;
        if let (false, Some(bus)) = (confirmed(), self.0.bus.get()) {
            self.subscribe(bus, channel).await?;
        }
        if let Some(listeners) = self.0.sessions.of(&session_id).get_mut(&session_id) {
            listeners.confirmed = true;
        }
        Ok(())
    }

    /// Listens. Where no node has the bus, the sweep is what delivers; the bus goes on trying, and says when it listens.
    async fn subscribe(&self, bus: &Arc<dyn Bus>, channel: Channel) -> Result<(), BusError> {
        match bus.subscribe(channel).await {
            Err(error) if self.0.shut.load(Ordering::Relaxed) => Err(error),
            Err(error) => {
                tracing::debug!(%error, %channel, "not listened to yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A hub's audience of the session is gone.
    pub(super) fn ignore(&self, session_id: SessionId, worker: u16) {
        let mut shard = self.0.sessions.of(&session_id);
        let Some(listeners) = shard.get_mut(&session_id) else { return };
        listeners.workers.remove(worker);
        if listeners.workers.is_empty() {
            shard.remove(&session_id);
            drop(shard);
            self.unsubscribe_later(Channel::Session(session_id));
        }
    }

    /// Waits until the bus has confirmed the channel of a user who is here.
    ///
    /// # Errors
    /// If the bus is not there.
    pub(super) async fn confirm_user(&self, user_id: UserId) -> Result<(), BusError> {
        if !self.0.people.is_unconfirmed(user_id) {
            return Ok(());
        }
        let channel = Channel::User(user_id);
        let _order = self.order(channel).lock().await;
        if let (true, Some(bus)) = (self.0.people.is_unconfirmed(user_id), self.0.bus.get()) {
            self.subscribe(bus, channel).await?;
        }
        self.0.people.confirm(user_id);
        Ok(())
    }

    /// A user's connection is over.
    pub(super) fn depart(&self, user_id: UserId, connection: ConnectionKey) {
        if self.0.people.depart(user_id, connection) {
            self.unsubscribe_later(Channel::User(user_id));
        }
    }

    fn order(&self, channel: Channel) -> &tokio::sync::Mutex<()> {
        let last = match channel {
            Channel::Session(id) => id.as_bytes()[15],
            Channel::User(id) => id.as_bytes()[15],
            Channel::Node(id) => id.as_bytes()[15],
        };
        &self.0.orders[usize::from(last) % ORDERS]
    }

    fn unsubscribe_later(&self, channel: Channel) {
        let (Some(_), Ok(runtime)) = (self.0.bus.get(), tokio::runtime::Handle::try_current()) else { return };
        let this = self.clone();
        runtime.spawn(async move {
            let _order = this.order(channel).lock().await;
            let wanted = match channel {
                Channel::Session(id) => this.0.sessions.of(&id).contains_key(&id),
                Channel::User(id) => this.0.people.is_here(id),
                // A node's own channel is listened to as long as the node lives.
                Channel::Node(_) => true,
            };
            if let (false, Some(bus)) = (wanted, this.0.bus.get()) {
                bus.unsubscribe(channel).await;
            }
        });
    }

    // For the sweep.

    /// All sessions that somebody here listens to.
    pub fn sessions_here(&self) -> Vec<SessionId> {
        self.0.sessions.all().flat_map(|shard| shard.keys().copied().collect::<Vec<_>>()).collect()
    }

    /// Everybody who is connected here, and the tokens that they came with.
    pub fn people_here(&self) -> Vec<(UserId, Vec<TokenHash>)> {
        self.0.people.everybody()
    }
}

impl Presence for Subscriptions {
    fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey> {
        self.0.people.youngest(user_id)
    }
}
