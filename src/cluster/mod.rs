//! What a node needs of its peers: the bus between nodes, and what travels on it.

mod bus;
mod call;
#[cfg(test)]
mod conformance;
mod envelope;
mod lease;
pub mod placement;
mod publication;
mod redis;
mod standing;
mod wire;

pub use bus::{Bus, BusError, Channel, Incoming, LocalBus, MAX_MESSAGE};
pub use call::{Asked, Call, CallAnswer, CallId, Caller, ConnectionKey, NodeMessage, NotTaken, Nudge};
pub use envelope::ClusterSecret;
pub use lease::{Lease, OnTime};
pub use publication::{Damaged, Effect, Publication, Row, UserSignal};
pub use redis::{RedisBus, RedisOptions, RedisTrouble};
pub use standing::{Own, Standing};
pub use wire::{Message, Range, Wire};
