//! What the tests stand on: real nodes, and clients that know nothing but the wire.

pub(crate) mod chat;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod contract;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod screen;
pub(crate) mod sessions;
pub(crate) mod ws;

use std::future::Future;
use std::time::Duration;

pub(crate) use client::{Client, assert_refusal};
pub(crate) use node::{Node, PASSWORD, User, unique};
pub(crate) use postgres::Postgres;
pub(crate) use sessions::*;

/// How long anything may take that has to happen. No test waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails where it takes longer than the deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}
