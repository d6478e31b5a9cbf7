//! What a node needs of its peers: the bus between nodes, and what travels on it.

mod bus;
mod lease;
mod publication;

pub use bus::{Bus, BusError, Channel, Incoming, LocalBus};
pub use lease::{Lease, OnTime};
pub use publication::{Damaged, Effect, Publication, Row, UserSignal};
