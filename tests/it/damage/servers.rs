//! What all nodes need: restarted, frozen, and out of patience.

use std::time::Duration;

use super::{Damaged, scale};
use crate::support::cluster::{Cluster, LEASE};
use crate::support::within;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_delivered() {
    let mut damaged = Damaged::new(Cluster::start().await);
    damaged
        .suffers("Redis dropped all its subscribers, three times", 8, async |cluster| {
            for _ in 0..3 {
                within("all nodes to listen", async {
                    while cluster.redis.ask("CLIENT LIST TYPE pubsub").lines().count() < 3 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                })
                .await;
                cluster.redis.ask("CLIENT KILL TYPE pubsub");
                cluster.until_all_are_spoken_in().await;
            }
        })
        .await;
    damaged
        .suffers("Redis was killed, and started again with its memory lost", 5, async |cluster| {
            let mut failed = Vec::new();
            for node in &cluster.nodes {
                failed.push(node.sum("conclave_probe_failures_total").await);
            }
            cluster.redis.kill();
            for (node, before) in cluster.nodes.iter().zip(failed) {
                within("a node to miss Redis", async {
                    while node.sum("conclave_probe_failures_total").await == before {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
                .await;
            }
            cluster.redis.start_again();
            cluster.until_ready().await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_database_for_a_time() {
    let mut damaged = Damaged::new(Cluster::start_apart().await);
    let postgres = |cluster: &Cluster| cluster.postgres.clone().expect("its own");
    let blocking = async |work: Box<dyn FnOnce() + Send>| tokio::task::spawn_blocking(work).await.expect("no panic");
    let felt = damaged
        .suffers("PostgreSQL was killed and started again", 6, async |cluster| {
            let server = postgres(cluster);
            blocking(Box::new(move || {
                server.kill();
                server.start_again();
            }))
            .await;
            cluster.until_all_are_spoken_in().await;
        })
        .await;
    assert!(felt.others < LEASE + Duration::from_secs(1) + scale().slack, "{felt}");
    damaged
        .suffers("PostgreSQL hung until no node had a lease", 10, async |cluster| {
            postgres(cluster).freeze();
            for node in &cluster.nodes {
                within("a node without a lease", async {
                    while !node.get("/readyz").await.text.contains("lease") {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
                .await;
            }
            postgres(cluster).thaw();
            cluster.until_all_are_spoken_in().await;
        })
        .await;
}
