//! The bus: lossy fan-out between nodes. What it loses, the store gives back.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;

use super::wire::{Message, Wire};
use crate::protocol::{NodeId, SessionId, UserId};

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Commits of a session.
    Session(SessionId),
    /// Signals to a user's connections.
    User(UserId),
    /// Calls to one node, and answers to its calls.
    Node(NodeId),
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "s:{id}"),
            Self::User(id) => write!(f, "u:{id}"),
            Self::Node(id) => write!(f, "n:{id}"),
        }
    }
}

/// The longest message, in bytes. What is longer is not sent: whoever misses it reads the store.
pub const MAX_MESSAGE: usize = 32 << 20;

/// The bus is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bus is unavailable: {0}")]
pub struct BusError(pub String);

impl BusError {
    /// A message is longer than [`MAX_MESSAGE`].
    pub fn too_large(bytes: usize) -> Self {
        Self(format!("a message of {bytes} bytes is longer than the bus takes"))
    }
}

/// Takes what comes from other nodes.
pub trait Incoming: Send + Sync {
    /// A message on a channel that this node listens to. Must not block.
    fn message(&self, channel: Channel, message: Message);

    /// Something on this channel may be lost: the bus was away, here or at a sender, or too much came at once. The
    /// channel is listened to again, so what is read from the store from now on and what comes next leave no gap. Must
    /// not block, and must not be lost: whoever listens has a note to keep for each channel, not a queue.
    fn missed(&self, channel: Channel);
}

/// Fan-out between nodes. A node does not hear itself: it hands its own messages to itself directly.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// The version that is written now: all nodes that live read it.
    fn wire(&self) -> Wire;

    /// Sends to all other nodes that listen; lossy. What one node sends on one channel comes in its order. Does not wait
    /// for the bus: `Ok` says that it is on its way.
    ///
    /// # Errors
    /// If the bus is not there, or more waits for it than may. Who listens is told that it missed something.
    async fn publish(&self, channel: Channel, message: Message) -> Result<(), BusError>;

    /// Listens; confirmed when this returns: what is published from now on comes, or [`Incoming::missed`] does.
    ///
    /// # Errors
    /// If the bus is not there. It goes on trying until [`Bus::unsubscribe`]: [`Incoming::missed`] says when it listens.
    async fn subscribe(&self, channel: Channel) -> Result<(), BusError>;

    /// Listens no longer.
    async fn unsubscribe(&self, channel: Channel);

    /// Proves that a message comes through.
    ///
    /// # Errors
    /// If none does.
    async fn probe(&self) -> Result<(), BusError>;
}

/// The embedded kind: nodes of one process. With one node there is nobody to send to.
#[derive(Clone, Default)]
pub struct LocalBus {
    nodes: Arc<RwLock<Vec<Peer>>>,
    me: usize,
}

struct Peer {
    incoming: Arc<dyn Incoming>,
    channels: HashSet<Channel>,
}

impl LocalBus {
    /// Joins the bus as one more node.
    pub fn join(&self, incoming: Arc<dyn Incoming>) -> Self {
        let mut nodes = self.nodes.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        nodes.push(Peer { incoming, channels: HashSet::new() });
        Self { nodes: Arc::clone(&self.nodes), me: nodes.len() - 1 }
    }

    fn mine(&self, change: impl FnOnce(&mut HashSet<Channel>)) {
        let mut nodes = self.nodes.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(peer) = nodes.get_mut(self.me) {
            change(&mut peer.channels);
        }
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn wire(&self) -> Wire {
        Wire::RANGE.newest
    }

    async fn publish(&self, channel: Channel, message: Message) -> Result<(), BusError> {
        let is_too_large = message.bytes.len() > MAX_MESSAGE;
        let nodes = self.nodes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (index, peer) in nodes.iter().enumerate() {
            if index == self.me || !peer.channels.contains(&channel) {
                continue;
            }
            if is_too_large {
                peer.incoming.missed(channel);
            } else {
                peer.incoming.message(channel, message.clone());
            }
        }
        if is_too_large { Err(BusError::too_large(message.bytes.len())) } else { Ok(()) }
    }

    async fn subscribe(&self, channel: Channel) -> Result<(), BusError> {
        self.mine(|channels| {
            channels.insert(channel);
        });
        Ok(())
    }

    async fn unsubscribe(&self, channel: Channel) {
        self.mine(|channels| {
            channels.remove(&channel);
        });
    }

    async fn probe(&self) -> Result<(), BusError> {
        Ok(())
    }
}
