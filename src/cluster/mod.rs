//! What a node needs of its peers: the bus between nodes, and what travels on it.

mod bus;
mod call;
mod lease;
pub mod placement;
mod publication;

pub use bus::{Bus, BusError, Channel, Incoming, LocalBus};
pub use call::{Asked, Call, CallAnswer, CallId, Caller, ConnectionKey, NodeMessage, NotTaken, Nudge};
pub use lease::{Lease, OnTime};
pub use publication::{Damaged, Effect, Publication, Row, UserSignal};
