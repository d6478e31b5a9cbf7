//! A Redis Cluster of three masters.

use std::sync::OnceLock;

use super::server::RedisCluster;
use super::*;
use crate::cluster::redis::slots::slot;

fn shared() -> &'static RedisCluster {
    static SHARED: OnceLock<RedisCluster> = OnceLock::new();
    SHARED.get_or_init(RedisCluster::start)
}

fn sharded(cluster: &RedisCluster) -> RedisOptions {
    RedisOptions { sharded: true, ..options(&cluster.servers[0]) }
}

async fn open() -> Subject {
    subject(sharded(shared()), ())
}

crate::cluster::conformance::suite!(open);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_tls_is_reached_by_the_names_that_it_announces() {
    // With the settings of Redis that OPERATIONS names.
    let file = |name: &str| format!("{}/src/server/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let cluster = RedisCluster::start_with(|| {
        let tls_port = server::free_port().to_string();
        let options = [
            ["--tls-port", &tls_port],
            ["--tls-cluster", "yes"],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &cert],
            ["--tls-auth-clients", "no"],
            ["--cluster-announce-hostname", "localhost"],
            ["--cluster-preferred-endpoint-type", "hostname"],
        ];
        options.concat().into_iter().map(str::to_owned).collect()
    });
    let url = format!("rediss://localhost:{}/", cluster.servers[0].tls_port().unwrap());
    let options = RedisOptions { url, ca: Some(std::fs::read(&cert).unwrap()), ..sharded(&cluster) };
    let subject = subject(options.clone(), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    let mut homes = std::collections::HashSet::new();
    for n in 0..30 {
        listener.subscribe(session(n)).await;
        sender.publish(session(n), vec![n]).await;
        listener.hears(session(n), &[n]).await;
        homes.insert(home(&options.prefix, n).0);
    }
    assert_eq!(homes.len(), 3, "all three servers were needed");
    let (ear, _heard) = Ear::new();
    let stranger = RedisOptions { ca: None, ..options };
    let bus = RedisBus::start(stranger, node_id(), ear, Metrics::new()).unwrap();
    let trouble = bus.connected(DEADLINE).await.unwrap_err();
    assert!(trouble.to_string().contains("cluster.redis.ca"), "{trouble}");
}

/// Which third of the slots a session's channel is in, and its slot.
fn home(prefix: &str, n: u8) -> (usize, usize) {
    let slot = slot(&format!("{prefix}{}", session(n)));
    (usize::from(slot > 5460) + usize::from(slot > 10_922), slot)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_goes_through_the_server_that_has_its_slot() {
    let cluster = shared();
    let options = sharded(cluster);
    let prefix = options.prefix.clone();
    let subject = subject(options, ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    for n in 0..30 {
        listener.subscribe(session(n)).await;
        sender.publish(session(n), vec![n]).await;
        listener.hears(session(n), &[n]).await;
    }
    let mut channels = 0;
    for (index, server) in cluster.servers.iter().enumerate() {
        let here = (0..30).filter(|n| home(&prefix, *n).0 == index).count();
        let listed = server.ask_all(&format!("PUBSUB SHARDCHANNELS {prefix}s:*"));
        assert_eq!(listed.len(), here);
        channels += here;
    }
    assert_eq!(channels, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_slot_moves_is_heard_where_it_went() {
    let cluster = RedisCluster::start();
    let options = sharded(&cluster);
    let (from, slot) = home(&options.prefix, 1);
    let subject = subject(options, ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    listener.subscribe(session(1)).await;
    sender.publish(session(1), "before").await;
    listener.hears(session(1), b"before").await;
    cluster.move_slot(slot, from, (from + 1) % 3);
    listener.hears_at_last(&Heard::Missed(session(1))).await;
    // The sender may learn of it by the refusal of its next message, which is then said to be missed.
    let after = Heard::Message(session(1), "after".into());
    let mut heard = Heard::Missed(session(1));
    while heard != after {
        sender.publish(session(1), "after").await;
        heard = listener.next().await;
        assert!(heard == after || heard == Heard::Missed(session(1)), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_of_its_servers_a_cluster_is_no_bus_and_comes_back() {
    let mut cluster = RedisCluster::start();
    let options = sharded(&cluster);
    let prefix = options.prefix.clone();
    let subject = subject(options, ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    let lost = (0..u8::MAX).find(|n| home(&prefix, *n).0 == 2).expect("a channel of the third server");
    listener.subscribe(session(lost)).await;
    cluster.servers[2].kill();
    until_probes_fail(&sender).await;
    cluster.servers[2].start_again();
    listener.hears_at_last(&Heard::Missed(session(lost))).await;
    until_probes_come_through(&sender).await;
    sender.publish(session(lost), "back").await;
    listener.hears_at_last(&Heard::Message(session(lost), "back".into())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_is_no_cluster_and_says_so() {
    let server = RedisServer::start(&[]);
    let options = RedisOptions { sharded: true, ..options(&server) };
    let (ear, _heard) = Ear::new();
    let bus = RedisBus::start(options, node_id(), ear, Metrics::new()).unwrap();
    let trouble = bus.connected(DEADLINE).await.unwrap_err();
    assert_eq!(
        trouble.to_string(),
        format!(
            "Redis at 127.0.0.1:{} is no Redis Cluster: set cluster.redis.sharded = false, or name a node of one",
            server.port
        )
    );
}
