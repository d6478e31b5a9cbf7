//! The bus through real servers: the conformance suite, plain and sharded, and damage done to it.

#[path = "../../../tests/it/support/redis.rs"]
mod server;

mod plain;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;

use self::server::RedisServer;
use super::{RedisBus, RedisOptions};
use crate::cluster::conformance::{DEADLINE, Ear, Heard, Peer, Subject, session, user};
use crate::cluster::{Bus, ClusterSecret, Incoming};
use crate::protocol::NodeId;
use crate::telemetry::Metrics;

fn secret() -> ClusterSecret {
    ClusterSecret::new(b"all nodes of the tests know this one").expect("long enough")
}

/// A node's id, another one each time.
fn node_id() -> NodeId {
    NodeId::new(uuid::Uuid::now_v7())
}

/// A prefix that no other test has.
fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}:", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn options(server: &RedisServer) -> RedisOptions {
    RedisOptions { prefix: prefix(), ..RedisOptions::new(&server.url(), secret()) }
}

/// A bus whose nodes have these options.
fn subject(options: RedisOptions, keep: impl std::any::Any + Send + Sync) -> Subject {
    let join = move |incoming: Arc<dyn Incoming>| {
        let options = options.clone();
        async move {
            let bus = RedisBus::start(options, node_id(), incoming, Metrics::new()).expect("options");
            bus.connected(DEADLINE).await.expect("a server");
            Arc::new(bus) as Arc<dyn Bus>
        }
        .boxed()
    };
    Subject { join: Box::new(join), _keep: Box::new(keep) }
}
