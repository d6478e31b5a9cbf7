//! One server without a cluster.

use std::sync::OnceLock;

use super::*;

/// The server of all tests that do it no harm.
fn shared() -> &'static RedisServer {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    SHARED.get_or_init(|| RedisServer::start(&[]))
}

async fn open() -> Subject {
    subject(options(shared()), ())
}

crate::cluster::conformance::suite!(open);
