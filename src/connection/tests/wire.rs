//! A bus between the nodes of one test that loses, doubles and delays on purpose, and that nodes can be cut from.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::cluster::{self, Bus, BusError, Channel, Incoming, LocalBus, Message};
use crate::protocol::NodeId;

/// How ill the wire is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Illness {
    /// Of a hundred messages, so many are lost.
    pub(super) lost: u64,
    /// So many come twice.
    pub(super) doubled: u64,
    /// So many come late, behind others.
    pub(super) late: u64,
}

#[derive(Default)]
struct State {
    illness: Mutex<Illness>,
    cut: Mutex<HashSet<NodeId>>,
    dice: AtomicU64,
}

/// The wire.
#[derive(Clone, Default)]
pub(super) struct Wire {
    bus: LocalBus,
    state: Arc<State>,
}

impl Wire {
    pub(super) fn join(&self, node: NodeId, incoming: Arc<dyn Incoming>) -> WireEnd {
        let ear = Arc::new(Ear { node, incoming, state: Arc::clone(&self.state) });
        WireEnd { node, bus: self.bus.join(ear), state: Arc::clone(&self.state) }
    }

    /// From now on.
    pub(super) fn falls_ill(&self, illness: Illness) {
        *self.state.illness.lock().unwrap() = illness;
    }

    /// A node hears and says nothing any more.
    pub(super) fn cut(&self, node: NodeId) {
        self.state.cut.lock().unwrap().insert(node);
    }
}

struct Ear {
    node: NodeId,
    incoming: Arc<dyn Incoming>,
    state: Arc<State>,
}

impl Incoming for Ear {
    fn message(&self, channel: Channel, message: Message) {
        if !self.state.cut.lock().unwrap().contains(&self.node) {
            self.incoming.message(channel, message);
        }
    }

    fn missed(&self, channel: Channel) {
        self.incoming.missed(channel);
    }
}

/// One node's end.
pub(super) struct WireEnd {
    node: NodeId,
    bus: LocalBus,
    state: Arc<State>,
}

impl WireEnd {
    /// Numbers that look random, and are the same in each run as long as messages come in the same order.
    fn roll(&self) -> u64 {
        let seed = self.state.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % 100
    }
}

#[async_trait]
impl Bus for WireEnd {
    fn wire(&self) -> cluster::Wire {
        self.bus.wire()
    }

    async fn publish(&self, channel: Channel, message: Message) -> Result<(), BusError> {
        if self.state.cut.lock().unwrap().contains(&self.node) {
            return Err(BusError("cut off".to_owned()));
        }
        let Illness { lost, doubled, late } = *self.state.illness.lock().unwrap();
        if self.roll() < lost {
            return Ok(());
        }
        if self.roll() < doubled {
            self.bus.publish(channel, message.clone()).await?;
        }
        if self.roll() < late {
            let bus = self.bus.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(bus.publish(channel, message).await);
            });
            return Ok(());
        }
        self.bus.publish(channel, message).await
    }

    async fn subscribe(&self, channel: Channel) -> Result<(), BusError> {
        self.bus.subscribe(channel).await
    }

    async fn unsubscribe(&self, channel: Channel) {
        self.bus.unsubscribe(channel).await;
    }

    async fn probe(&self) -> Result<(), BusError> {
        self.bus.probe().await
    }
}
