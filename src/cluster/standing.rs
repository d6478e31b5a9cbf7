//! Whether a node should serve clients, from what it knows of itself and of its peers. PURE.
//!
//! Invariant: a node that cannot be told from a dead one, by the store or by its peers, serves nobody; a bus that nobody
//! reaches is no reason to send clients to another node.

use crate::protocol::{NodeId, Timestamp};
use crate::store::NodeRow;

/// Milliseconds that a peer's word of the bus must be younger than this node's loss of it: what it tells with a renewal
/// it has seen a moment before.
const WORD_MS: i64 = 3000;

/// How a node stands among its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves clients.
    Serves,
    /// No node reaches the bus: it serves its clients; between nodes the sweep delivers.
    BusIsGone,
    /// The bus is there, but not for this node.
    CutOff,
    /// The store counts it as dead, or is about to.
    LeaseIsOver,
    /// An operator wants it empty.
    Drains,
}

/// What a node knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Which it is.
    pub node_id: NodeId,
    /// Whether its lease is held.
    pub lease: bool,
    /// Whether it was asked to drain.
    pub drain: bool,
    /// Since when, by the store's clock, it does not reach the bus, if it does not.
    pub bus_lost: Option<Timestamp>,
    /// The nodes that live, as the store has them; looked at only while the bus is lost.
    pub nodes: &'a [NodeRow],
}

impl Standing {
    /// Judges.
    pub fn of(own: &Own<'_>) -> Self {
        if own.drain {
            return Self::Drains;
        }
        if !own.lease {
            return Self::LeaseIsOver;
        }
        let Some(lost) = own.bus_lost else { return Self::Serves };
        let since = lost.plus_millis(WORD_MS);
        let others = own.nodes.iter().filter(|node| node.node_id != own.node_id);
        if others.clone().any(|node| node.bus_ok_at.is_some_and(|at| at > since)) {
            Self::CutOff
        } else {
            Self::BusIsGone
        }
    }

    /// Whether clients are served.
    pub const fn serves(self) -> bool {
        match self {
            Self::Serves | Self::BusIsGone => true,
            Self::CutOff | Self::LeaseIsOver | Self::Drains => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NodeReport, WireVersions};

    const ME: NodeId = NodeId::from_bytes([1; 16]);

    fn node(number: u8, bus_ok_at: i64) -> NodeRow {
        let wire = WireVersions { oldest: 1, newest: 1 };
        let at = Timestamp::from_millis;
        NodeRow {
            node_id: NodeId::from_bytes([number; 16]),
            started_at: at(0),
            expires_at: at(1_000_000),
            bus_ok_at: Some(at(bus_ok_at)),
            drain: false,
            report: NodeReport { program: String::new(), wire, connections: 0, sessions: 0, bus_ok: true },
        }
    }

    #[test]
    fn a_node_serves_unless_it_is_cut_off_dead_or_draining() {
        let (before, after) = ([node(1, 9000), node(2, 10_000)], [node(1, 9000), node(2, 14_000)]);
        let (me_only, lost) = ([node(1, 20_000)], Some(Timestamp::from_millis(10_000)));
        let none: &[NodeRow] = &[];
        let table = [
            (true, false, None, none, Standing::Serves),
            (true, false, lost, &before, Standing::BusIsGone),
            (true, false, lost, &after, Standing::CutOff),
            (true, false, lost, &me_only, Standing::BusIsGone),
            (false, false, None, &[], Standing::LeaseIsOver),
            (false, false, lost, &after, Standing::LeaseIsOver),
            (true, true, None, &[], Standing::Drains),
            (false, true, lost, &after, Standing::Drains),
        ];
        for (lease, drain, bus_lost, nodes, expected) in table {
            let own = Own { node_id: ME, lease, drain, bus_lost, nodes };
            assert_eq!(Standing::of(&own), expected, "{lease} {drain} {bus_lost:?}");
            assert_eq!(expected.serves(), matches!(expected, Standing::Serves | Standing::BusIsGone));
        }
    }
}
