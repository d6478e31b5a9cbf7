//! Which worker thread listens to which session and user, and the way of everything that leaves a session: one message
//! to each hub that has listeners, whatever their number, and one to the bus for all other nodes.
//!
//! Invariants: a hub's batches arrive in the order in which they were handed over; whoever hands over waits while a hub
//! lags; a channel is listened to on the bus before anybody relies on it. It looks at no version: each hub does, for
//! the sessions that it has an audience of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::cluster::{Bus, BusError, Channel, Effect, Incoming, Publication, Row, UserSignal};
use crate::protocol::{SessionId, UserId};

use super::hub::{Batch, CloseAll, HubHandle};
use super::people::{People, Workers};
use super::shards::Shards;
use super::{Answer, ConnectionKey, Deliveries, Parcel, Presence};

/// Messages of the bus that may wait for the hubs; beyond, they are dropped, and found missing by their versions.
const INCOMING: usize = 4096;

/// Locks that keep the order of listening and ceasing to listen to a channel.
const ORDERS: usize = 64;

/// The node's listeners. Cheap to clone.
#[derive(Clone, Default)]
pub struct Subscriptions(Arc<Inner>);

struct Inner {
    hubs: RwLock<Vec<Option<Arc<HubHandle>>>>,
    sessions: Shards<SessionId, Listeners>,
    people: Arc<People>,
    bus: OnceLock<Arc<dyn Bus>>,
    incoming: OnceLock<mpsc::Sender<(Channel, Bytes)>>,
    orders: Vec<tokio::sync::Mutex<()>>,
    serial: AtomicU64,
}

#[derive(Default)]
struct Listeners {
    workers: Workers,
    /// Whether the bus has confirmed the session's channel.
    confirmed: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            hubs: RwLock::default(),
            sessions: Shards::default(),
            people: Arc::default(),
            bus: OnceLock::new(),
            incoming: OnceLock::new(),
            orders: (0..ORDERS).map(|_| tokio::sync::Mutex::new(())).collect(),
            serial: AtomicU64::new(1),
        }
    }
}

impl Subscriptions {
    /// Joins the bus; once, before the first connection, on a runtime.
    pub fn attach(&self, bus: Arc<dyn Bus>) {
        let (sender, receiver) = mpsc::channel(INCOMING);
        if self.0.bus.set(bus).is_ok() && self.0.incoming.set(sender).is_ok() {
            tokio::spawn(pump(self.clone(), receiver));
        }
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

    fn hub(&self, worker: u16) -> Option<Arc<HubHandle>> {
        let hubs = self.0.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.get(usize::from(worker)).cloned().flatten()
    }

    /// Ends all connections, by a path of its own.
    pub(super) fn close_all(&self, order: CloseAll) {
        let hubs = self.0.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.iter().flatten().for_each(|hub| hub.close_all(order));
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
            bus.subscribe(channel).await?;
        }
        if let Some(listeners) = self.0.sessions.of(&session_id).get_mut(&session_id) {
            listeners.confirmed = true;
        }
        Ok(())
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
            bus.subscribe(channel).await?;
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

    // Delivering.

    /// The hubs that a publication concerns: the session's listeners, and those of users whom it names.
    fn concerned(&self, publication: &Publication) -> Workers {
        let id = publication.session_id;
        let mut workers = self.0.sessions.of(&id).get(&id).map_or_else(Workers::default, |known| known.workers);
        for row in &publication.rows {
            let user_id = match row {
                Row::Notice { user_id, .. } | Row::Withdrawn { user_id, .. } => *user_id,
                Row::Event { effect: Effect::Joined(user_id) | Effect::Left(user_id), .. } => *user_id,
                Row::Event { effect: Effect::None | Effect::Ended, .. } | Row::Typing { .. } => continue,
            };
            workers = workers.and(self.0.people.workers_of(user_id));
        }
        workers
    }

    fn sort(&self, parcel: Parcel) -> Vec<(u16, Batch)> {
        let Parcel { answers, publication, signals, asks } = parcel;
        let mut batches = Vec::new();
        for answer in answers {
            batch_for(&mut batches, answer.connection.worker).answers.push(answer);
        }
        if let Some(publication) = publication.map(Arc::new) {
            let concerned = self.concerned(&publication);
            for worker in (0..Workers::MAX as u16).filter(|worker| concerned.contains(*worker)) {
                batch_for(&mut batches, worker).publication = Some(Arc::clone(&publication));
            }
        }
        for (user_id, signal) in signals {
            let workers = self.0.people.workers_of(user_id);
            for worker in (0..Workers::MAX as u16).filter(|worker| workers.contains(*worker)) {
                batch_for(&mut batches, worker).signals.push((user_id, signal.clone()));
            }
        }
        for (connection, frames) in asks {
            batch_for(&mut batches, connection.worker).asks.push((connection, frames));
        }
        batches
    }

    /// To the hubs of this node.
    async fn deliver_here(&self, parcel: Parcel) {
        for (worker, batch) in self.sort(parcel) {
            if let Some(hub) = self.hub(worker) {
                hub.hand(batch).await;
            }
        }
    }

    async fn publish(&self, channel: Channel, payload: Bytes) {
        if let Some(bus) = self.0.bus.get()
            && let Err(error) = bus.publish(channel, payload).await
        {
            // The store has it: whoever misses it finds a gap, or the sweep does.
            tracing::debug!(%error, "not published");
        }
    }

    /// Tells a user's connections, here and elsewhere.
    pub async fn signal(&self, user_id: UserId, signal: UserSignal) {
        self.deliver(Parcel { signals: vec![(user_id, signal)], ..Parcel::default() }).await;
    }

    async fn deliver_everywhere(self, parcel: Parcel) {
        let publication = parcel
            .publication
            .as_ref()
            .map(|publication| (Channel::Session(publication.session_id), publication.encode()));
        let signals: Vec<_> =
            parcel.signals.iter().map(|(user_id, signal)| (Channel::User(*user_id), signal.encode(*user_id))).collect();
        self.deliver_here(parcel).await;
        for (channel, payload) in publication.into_iter().chain(signals) {
            self.publish(channel, payload).await;
        }
    }
}

fn batch_for(batches: &mut Vec<(u16, Batch)>, worker: u16) -> &mut Batch {
    let index = batches.iter().position(|(known, _)| *known == worker).unwrap_or_else(|| {
        batches.push((worker, Batch::default()));
        batches.len() - 1
    });
    &mut batches[index].1
}

/// Hands what comes from the bus to the hubs, one after the other.
async fn pump(subscriptions: Subscriptions, mut incoming: mpsc::Receiver<(Channel, Bytes)>) {
    while let Some((channel, payload)) = incoming.recv().await {
        let parcel = match channel {
            Channel::Session(id) => match Publication::decode(payload) {
                Ok(publication) if publication.session_id == id => {
                    Parcel { publication: Some(publication), ..Parcel::default() }
                }
                Ok(_) | Err(_) => continue,
            },
            Channel::User(id) => match UserSignal::decode(payload) {
                Ok((user_id, signal)) if user_id == id => {
                    Parcel { signals: vec![(user_id, signal)], ..Parcel::default() }
                }
                Ok(_) | Err(_) => continue,
            },
            // Nodes do not call each other yet, and none listens.
            Channel::Node(_) => continue,
        };
        subscriptions.deliver_here(parcel).await;
    }
}

impl Deliveries for Subscriptions {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, ()> {
        self.clone().deliver_everywhere(parcel).boxed()
    }

    fn answer_now(&self, answer: Answer) {
        if let Some(hub) = self.hub(answer.connection.worker) {
            hub.answer_now(answer);
        }
    }
}

impl Presence for Subscriptions {
    fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey> {
        self.0.people.youngest(user_id)
    }
}

impl Incoming for Subscriptions {
    fn message(&self, channel: Channel, payload: Bytes) {
        if let Some(incoming) = self.0.incoming.get()
            && incoming.try_send((channel, payload)).is_err()
        {
            tracing::debug!("a message from the bus was dropped: the hubs are behind");
        }
    }

    fn missed(&self, _channel: Channel) {
        // The bus inside the process, the only one that there is yet, loses nothing.
    }
}
