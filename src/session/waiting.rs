//! How much waits for sessions that are not here: counted in all, and for each node that it waits for, so that one that
//! does not answer leaves room for the others.
//!
//! Invariant: whatever was let in is counted until its [`Charge`] is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::registry::lock;
use crate::protocol::NodeId;
use crate::telemetry::Metrics;

/// So many commands, and about so many bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Commands.
    pub count: usize,
    /// About how many bytes they hold.
    pub bytes: usize,
}

impl Load {
    const fn has_room(self, weight: usize, limit: Self) -> bool {
        self.count < limit.count && self.bytes.saturating_add(weight) <= limit.bytes
    }

    const fn add(&mut self, weight: usize) {
        self.count += 1;
        self.bytes += weight;
    }

    const fn sub(&mut self, weight: usize) {
        self.count -= 1;
        self.bytes -= weight;
    }
}

/// The most that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingLimits {
    /// In all.
    pub all: Load,
    /// For one node.
    pub node: Load,
}

/// What waits on this node.
pub(super) struct Waiting {
    limits: WaitingLimits,
    counts: Mutex<Counts>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Counts {
    all: Load,
    nodes: HashMap<NodeId, Load>,
}

impl Counts {
    /// Counts something that waits for a node no longer as that.
    fn leave(&mut self, node: NodeId, weight: usize) {
        if let Some(load) = self.nodes.get_mut(&node) {
            load.sub(weight);
            if load.count == 0 {
                self.nodes.remove(&node);
            }
        }
    }
}

impl Waiting {
    pub(super) fn new(limits: WaitingLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default(), metrics })
    }

    /// Lets a command wait, for this node if it is known which; nothing where too much waits already.
    pub(super) fn let_in(self: &Arc<Self>, weight: usize, node: Option<NodeId>) -> Option<Charge> {
        let mut counts = lock(&self.counts);
        let counts = &mut *counts;
        let of_node = node.and_then(|node| counts.nodes.get(&node)).copied().unwrap_or_default();
        if !counts.all.has_room(weight, self.limits.all) || !of_node.has_room(weight, self.limits.node) {
            return None;
        }
        counts.all.add(weight);
        if let Some(node) = node {
            counts.nodes.entry(node).or_default().add(weight);
        }
        self.metrics.calls_waiting.inc();
        Some(Charge { waiting: Arc::clone(self), weight, node })
    }
}

/// A command that was let in.
pub(super) struct Charge {
    waiting: Arc<Waiting>,
    weight: usize,
    node: Option<NodeId>,
}

impl Charge {
    /// It waits for this node now. What was let in stays, whatever waits for the node already.
    pub(super) fn waits_for(&mut self, node: NodeId) {
        if self.node == Some(node) {
            return;
        }
        let mut counts = lock(&self.waiting.counts);
        if let Some(before) = self.node.replace(node) {
            counts.leave(before, self.weight);
        }
        counts.nodes.entry(node).or_default().add(self.weight);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut counts = lock(&self.waiting.counts);
        counts.all.sub(self.weight);
        if let Some(node) = self.node {
            counts.leave(node, self.weight);
        }
        self.waiting.metrics.calls_waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId::from_bytes([1; 16]);
    const OTHER: NodeId = NodeId::from_bytes([2; 16]);

    fn waiting() -> Arc<Waiting> {
        let limits = WaitingLimits { all: Load { count: 5, bytes: 500 }, node: Load { count: 3, bytes: 300 } };
        Waiting::new(limits, Metrics::new())
    }

    fn let_in<const N: usize>(
        waiting: &Arc<Waiting>,
        weights: [usize; N],
        node: Option<NodeId>,
    ) -> [Option<Charge>; N] {
        weights.map(|weight| waiting.let_in(weight, node))
    }

    #[test]
    fn one_node_fills_its_own_share_and_no_more() {
        let waiting = waiting();
        for weights in [[1, 1, 1], [100, 100, 100], [0, 0, 300]] {
            let charges = let_in(&waiting, weights, Some(ONE));
            assert!(charges.iter().all(Option::is_some), "{weights:?}");
            assert!(waiting.let_in(1, Some(ONE)).is_none(), "{weights:?}");
            assert!(waiting.let_in(1, Some(OTHER)).is_some());
        }
        assert_eq!(waiting.metrics.calls_waiting.get(), 0);
    }

    #[test]
    fn all_of_it_has_a_bound_too() {
        for (weights, count) in [([1, 1, 1], 5), ([150, 100, 50], 5), ([200, 200, 50], 4)] {
            let waiting = waiting();
            let nodes = [Some(ONE), Some(OTHER), None];
            let charges: Vec<_> =
                nodes.into_iter().flat_map(|node| let_in(&waiting, weights, node)).flatten().collect();
            assert_eq!(charges.len(), count, "{weights:?}");
            assert_eq!(waiting.metrics.calls_waiting.get(), count as i64);
        }
    }

    #[test]
    fn what_waits_for_another_node_leaves_room_for_the_first() {
        let waiting = waiting();
        let mut charges: Vec<Charge> = let_in(&waiting, [1, 1, 1], Some(ONE)).into_iter().flatten().collect();
        charges[0].waits_for(OTHER);
        let mut fourth = waiting.let_in(1, Some(ONE)).expect("there is room");
        // Let in is let in, beyond the share.
        charges.iter_mut().for_each(|charge| charge.waits_for(OTHER));
        fourth.waits_for(OTHER);
        assert!(waiting.let_in(1, Some(OTHER)).is_none());
        assert!(waiting.let_in(1, Some(ONE)).is_some());
        drop((charges, fourth));
        let counts = lock(&waiting.counts);
        assert_eq!((counts.all, counts.nodes.len()), (Load::default(), 0));
    }
}
