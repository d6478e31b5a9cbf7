//! Users' connections: the WebSocket actor, its outbox, the hub of its worker thread, and catching up.
//!
//! A frame comes in through [`frame_guard`] and [`actor`], becomes a request that [`dispatch`] sends on its way in the
//! order of its lane ([`lanes`]), and is answered through the hub. What sessions tell comes in through
//! [`Subscriptions`], goes to one [`hub`] per worker thread, from there to the [`outbox`] of each connection, and
//! through its [`body`] to the socket. [`members`] is how a connection begins, [`reader`] how it catches up,
//! [`recovery`] how what the bus has lost is found, [`peers`] what nodes tell each other.

mod acks;
mod actor;
mod address;
mod body;
mod bus_lane;
mod catch_up;
mod delivery;
mod dispatch;
mod frame_guard;
mod hub;
mod inbox;
mod lanes;
mod link;
mod lookups;
mod members;
mod node;
mod outbox;
mod peers;
mod people;
mod pulse;
mod reader;
mod reads;
mod recovery;
mod shards;
mod socket;
mod subscriptions;
mod throttle;

pub use crate::cluster::{Caller, ConnectionKey};
pub use actor::upgrade;
pub use address::{Answer, Deliveries, Origin, Parcel, Peers, Presence, ReplySlot};
pub use hub::Found;
pub use node::{ConnectionParts, Connections, SessionPort};
pub use recovery::Recovery;
pub use socket::prepare_socket;
pub use subscriptions::Subscriptions;

#[cfg(test)]
mod tests;
