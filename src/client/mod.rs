//! The reference client: a Conclave server's WebSocket and HTTP, and the end-to-end encryption that it never sees.
//!
//! ```text
//! crypto, identity   the contract's cryptography, pure
//! vault, ring, profile   keys on this device: sealed files, room keys, pinned fingerprints
//! address, dial, http    where the server is; register, log in, look people up
//! connection/   one WebSocket: requests in flight, events as they come. Cheap; the load tester uses it alone
//! e2ee/         PURE: who is given which key, which key is believed, what can be read
//! client        the two joined: reconnects, resumes, acknowledges, runs what e2ee decides
//! terminal/     conclave-chat
//! ```
//! Knows the wire's types (`crate::protocol`) and no other room of the house.

pub mod crypto;
pub mod identity;
pub mod profile;
pub mod ring;
pub mod secret;
pub mod vault;
