//! Nodes that are cut off from what they need, with a word and in silence.

use std::time::Duration;

use super::{Damaged, scale};
use crate::support::cluster::{Cluster, LEASE};
use crate::support::relay::Way;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_gives_its_sessions_up_and_sends_its_clients_elsewhere() {
    let mut damaged = Damaged::new(Cluster::start().await);
    for (nth, (redis, postgres)) in [(true, false), (false, true), (true, true)].into_iter().enumerate() {
        for (node, way) in [(nth, Way::Ended), ((nth + 1) % 3, Way::Silent)] {
            let from = match (redis, postgres) {
                (true, false) => "Redis",
                (false, _) => "PostgreSQL",
                (true, true) => "Redis and PostgreSQL",
            };
            let how = if way == Way::Ended { "with a word" } else { "in silence" };
            let felt = damaged
                .node_suffers(node, &format!("was cut off from {from} {how}"), 10, async |cluster, id| {
                    let set = |way| {
                        if redis {
                            cluster.to_redis[node].set(way);
                        }
                        if postgres {
                            cluster.to_postgres[node].set(way);
                        }
                    };
                    set(way);
                    cluster.until_owns_nothing(id).await;
                    set(Way::Open);
                    cluster.until_ready().await;
                })
                .await;
            assert!(felt.its.max(felt.others) < 2 * (LEASE + Duration::from_secs(1)) + scale().slack, "{felt}");
        }
    }
}
