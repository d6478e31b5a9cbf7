//! The node on the bus: what other nodes tell it, what it tells them, and notes of what may have been lost.
//!
//! Whoever calls in never waits: what comes is sorted into lanes, each with a task behind it. A full lane drops what
//! comes: calls are sent again, a lost publication shows as a gap, and the sweep finds the rest.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::cluster::{
    Bus, BusError, Channel, Incoming, Message, NodeMessage, Nudge, Publication, Row, UserSignal, Wire,
};
use crate::protocol::{NodeId, SessionId, UserId};

use super::bus_lane::{Held, LANE, Lane, lane};
use super::shards::lock;
use super::{Parcel, Peers, Subscriptions};

/// Messages to one node that travel together at most.
const BUNDLE: usize = 64;

/// The most answers to one roll call; there will be another.
const PRESENT: usize = 256;

/// The ways in and out.
pub(super) struct Lanes {
    /// Publications and signals, for the hubs.
    publications: Lane<(Channel, Message)>,
    /// What nodes tell this one.
    calls: Lane<Message>,
    /// What this node tells others.
    outgoing: Lane<(NodeId, Message)>,
    /// Whom calls go to; once it is there.
    peers: OnceLock<Weak<dyn Peers>>,
}

/// Channels on which something may have been lost. At most one note for each channel that is listened to.
#[derive(Default)]
pub(super) struct Missed {
    channels: Mutex<HashSet<Channel>>,
    bell: Notify,
}

impl Subscriptions {
    /// Joins the bus; once, before the first connection, on a runtime. `bytes`: how many may wait in each lane.
    pub fn attach(&self, bus: Arc<dyn Bus>, bytes: usize) {
        let (publications, from_publications) = lane(bytes);
        let (calls, from_calls) = lane(bytes);
        let (outgoing, from_outgoing) = lane(bytes);
        let lanes = Lanes { publications, calls, outgoing, peers: OnceLock::new() };
        if self.0.bus.set(Arc::clone(&bus)).is_ok() && self.0.lanes.set(lanes).is_ok() {
            tokio::spawn(hand_publications(self.clone(), from_publications));
            tokio::spawn(hand_calls(self.clone(), from_calls));
            tokio::spawn(send_all(self.clone(), bus, from_outgoing));
        }
    }

    /// Listens to what other nodes tell this one, for `peers`.
    ///
    /// # Errors
    /// If the bus is not there; it goes on trying by itself.
    pub async fn meet(&self, peers: Weak<dyn Peers>) -> Result<(), BusError> {
        let (Some(lanes), Some(bus)) = (self.0.lanes.get(), self.0.bus.get()) else { return Ok(()) };
        // The first ones stay.
        let _ = lanes.peers.set(peers);
        bus.subscribe(Channel::Node(self.0.node)).await
    }

    /// Waits until something may have been lost on some channels; which.
    pub async fn next_missed(&self) -> (Vec<SessionId>, Vec<UserId>) {
        loop {
            let channels = std::mem::take(&mut *lock(&self.0.missed.channels));
            if channels.is_empty() {
                self.0.missed.bell.notified().await;
                continue;
            }
            let (mut sessions, mut users) = (Vec::new(), Vec::new());
            for channel in channels {
                match channel {
                    Channel::Session(session_id) => sessions.push(session_id),
                    Channel::User(user_id) => users.push(user_id),
                    // Calls and answers that are missed are sent again.
                    Channel::Node(_) => {}
                }
            }
            return (sessions, users);
        }
    }

    /// Sends to another node, behind what was sent to it before.
    pub(super) fn send(&self, node: NodeId, encode: &dyn Fn(Wire) -> Bytes) {
        let (Some(lanes), Some(bus)) = (self.0.lanes.get(), self.0.bus.get()) else { return };
        let wire = bus.wire();
        let message = Message { wire, bytes: encode(wire) };
        let bytes = message.bytes.len();
        if !lanes.outgoing.push((node, message), bytes) {
            self.0.metrics.node_messages_dropped.inc();
        }
    }

    /// What this node has to tell itself.
    pub(super) fn receive_own(&self, message: NodeMessage) {
        if let Some(peers) = self.peers() {
            peers.receive(self.0.node, message);
        }
    }

    fn peers(&self) -> Option<Arc<dyn Peers>> {
        self.0.lanes.get()?.peers.get()?.upgrade()
    }

    /// Answers a session that asks who of these is connected.
    fn answer_roll_call(&self, session_id: SessionId, owner: NodeId, names: &[UserId]) {
        let here = names.iter().filter_map(|name| Some((*name, self.0.people.youngest(*name)?)));
        let present: Vec<_> = here.take(PRESENT).collect();
        if owner != self.0.node && !present.is_empty() {
            let message = NodeMessage::Nudge(session_id, Nudge::Present(present));
            self.send(owner, &|wire| message.encode(wire));
        }
    }

    fn read(&self, channel: Channel, message: Message) -> Option<Parcel> {
        match channel {
            Channel::Session(id) => {
                let publication = Publication::decode(message).ok().filter(|one| one.session_id == id)?;
                match publication.rows.first() {
                    Some(Row::RollCall { owner, names }) => {
                        self.answer_roll_call(id, *owner, names);
                        return None;
                    }
                    Some(Row::Released(node)) => {
                        if let Some(peers) = self.peers() {
                            peers.released(id, *node);
                        }
                        return None;
                    }
                    Some(
                        Row::Notice { .. }
                        | Row::Withdrawn { .. }
                        | Row::Event { .. }
                        | Row::Typing { .. }
                        | Row::Head(_),
                    )
                    | None => {}
                }
                Some(Parcel { publication: Some(publication), ..Parcel::default() })
            }
            Channel::User(id) => {
                let (user_id, signal) = UserSignal::decode(message).ok().filter(|(user_id, _)| *user_id == id)?;
                Some(Parcel { signals: vec![(user_id, signal)], ..Parcel::default() })
            }
            Channel::Node(_) => None,
        }
    }
}

/// Hands what comes from the bus to the hubs, one after the other.
async fn hand_publications(subscriptions: Subscriptions, mut incoming: mpsc::Receiver<Held<(Channel, Message)>>) {
    while let Some(held) = incoming.recv().await {
        let (channel, message) = held.item.clone();
        if let Some(parcel) = subscriptions.read(channel, message) {
            subscriptions.deliver_here(parcel).await;
        }
    }
}

/// Hands what other nodes say to the sessions, and what comes of it, by a lane of its own, to the hubs.
async fn hand_calls(subscriptions: Subscriptions, mut incoming: mpsc::Receiver<Held<Message>>) {
    let (parcels, mut from_parcels) = mpsc::channel::<Parcel>(LANE);
    let to_hubs = subscriptions.clone();
    tokio::spawn(async move {
        while let Some(parcel) = from_parcels.recv().await {
            to_hubs.deliver_here(parcel).await;
        }
    });
    while let Some(held) = incoming.recv().await {
        let Ok((from, messages)) = NodeMessage::unbundle(held.item.clone()) else { continue };
        let Some(peers) = subscriptions.peers() else { continue };
        for parcel in messages.into_iter().flat_map(|message| Arc::clone(&peers).receive(from, message)) {
            // An answer that was taken in has to be given: no more of them than requests in flight.
            if parcels.send(parcel).await.is_err() {
                return;
            }
        }
    }
}

/// Sends what goes to other nodes: what waits for the same one travels together.
async fn send_all(
    subscriptions: Subscriptions,
    bus: Arc<dyn Bus>,
    mut outgoing: mpsc::Receiver<Held<(NodeId, Message)>>,
) {
    let mut waiting = Vec::with_capacity(BUNDLE);
    while outgoing.recv_many(&mut waiting, BUNDLE).await > 0 {
        let mut bundles: Vec<(NodeId, Wire, Vec<Bytes>)> = Vec::new();
        for (node, Message { wire, bytes }) in waiting.drain(..).map(|held: Held<_>| held.item) {
            // Behind the last bundle for this node, if that is of another version.
            match bundles.iter_mut().rfind(|(known, ..)| *known == node) {
                Some((_, version, messages)) if *version == wire => messages.push(bytes),
                Some(_) | None => bundles.push((node, wire, vec![bytes])),
            }
        }
        for (node, wire, messages) in bundles {
            let message = NodeMessage::bundle(wire, subscriptions.0.node, &messages);
            if let Err(error) = bus.publish(Channel::Node(node), message).await {
                // Calls are sent again, until their deadline.
                tracing::debug!(%error, "another node was not told");
            }
        }
    }
}

impl Incoming for Subscriptions {
    fn message(&self, channel: Channel, message: Message) {
        let Some(lanes) = self.0.lanes.get() else { return };
        let bytes = message.bytes.len();
        let taken = match channel {
            Channel::Session(_) | Channel::User(_) => lanes.publications.push((channel, message), bytes),
            Channel::Node(_) => lanes.calls.push(message, bytes),
        };
        if !taken {
            self.0.metrics.node_messages_dropped.inc();
            self.missed(channel);
        }
    }

    fn missed(&self, channel: Channel) {
        lock(&self.0.missed.channels).insert(channel);
        self.0.missed.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::LocalBus;
    use crate::telemetry::Metrics;

    const NODE: NodeId = NodeId::from_bytes([1; 16]);

    #[tokio::test]
    async fn what_finds_a_lane_full_is_said_to_be_missed() {
        let metrics = Metrics::new();
        let subscriptions = Subscriptions::new(NODE, Arc::clone(&metrics));
        let incoming = Arc::new(subscriptions.clone());
        subscriptions.attach(Arc::new(LocalBus::default().join(incoming)), 1000);
        let message = Message { wire: Wire::V1, bytes: Bytes::from(vec![0; 400]) };
        let [one, other] = [1, 2].map(|n| SessionId::from_bytes([n; 16]));
        // No turn for who works on them in between.
        for session_id in [one, one, other] {
            subscriptions.message(Channel::Session(session_id), message.clone());
        }
        assert_eq!(subscriptions.next_missed().await, (vec![other], Vec::new()));
        assert_eq!(metrics.node_messages_dropped.get(), 1);
    }
}
