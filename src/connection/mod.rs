//! Users' connections: the WebSocket actor, its outbox, the hub of its worker thread, and catching up.

mod address;

pub use address::{Answer, Caller, ConnectionKey, Deliveries, Parcel, Presence, ReplySlot};
