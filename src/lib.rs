//! Conclave: an actor-based, distributed, end-to-end-encrypted chat backend.

pub mod accounts;
pub mod client;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod http;
pub mod protocol;
pub mod server;
pub mod session;
pub mod store;
pub mod telemetry;
