//! The bus through real servers: the conformance suite, plain and sharded, and damage done to it.

#[path = "../../../tests/it/support/redis.rs"]
mod server;

mod access;
mod damage;
mod plain;
mod sharded;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;

use self::server::RedisServer;
use super::{RedisBus, RedisOptions};
use crate::cluster::conformance::{DEADLINE, Ear, Heard, Peer, Subject, session, user};
use crate::cluster::{Bus, Channel, ClusterSecret, Incoming, Message};
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

/// Fails where it takes longer than the deadline.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

async fn until_probes_come_through(peer: &Peer) {
    let come = async {
        while peer.bus.probe().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("probes to come through", come).await;
}

async fn until_probes_fail(peer: &Peer) {
    let fail = async {
        while peer.bus.probe().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("probes to fail", fail).await;
}
