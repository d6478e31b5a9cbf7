//! The reference client: a Conclave server's WebSocket and HTTP, and the end-to-end encryption that it never sees.
//!
//! ```text
//! crypto, identity       the contract's cryptography, pure
//! vault, ring, profile   keys on this device: sealed files, room keys, pinned fingerprints
//! address, servers, dial, http
//!                        where the server is; register, log in, look people up
//! connection/            one WebSocket: requests in flight, events as they come. The load tester uses it alone
//! e2ee/                  PURE: who is given which key, which key is believed, what can be read
//! handle, driver         the two joined: reconnects, resumes, acknowledges, runs what e2ee decides
//! ```
//! Knows the wire's types (`crate::protocol`) and no other room of the house.

mod address;
pub mod calls;
pub mod connection;
pub mod crypto;
mod dial;
mod driver;
pub mod e2ee;
mod error;
mod handle;
pub mod http;
pub mod identity;
pub mod profile;
pub mod ring;
pub mod secret;
mod servers;
pub mod vault;

pub use address::ServerAddress;
pub use connection::{Connection, ConnectionOptions, Incoming};
pub use dial::{tls_config, tls_public, tls_trusting};
pub use error::{ClientError, reconnect_after};
pub use handle::{Client, ClientConfig, NewsStream, Past};
pub use http::HttpClient;
pub use servers::Servers;

#[cfg(test)]
mod tests;
