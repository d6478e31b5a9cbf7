//! Who is let in, and what is said to who is not: users with few rights, wrong passwords, nobody there, TLS.

use std::time::Duration;

use super::*;
use crate::cluster::redis::RedisTrouble;

fn start(options: RedisOptions) -> RedisBus {
    let (ear, _heard) = Ear::new();
    RedisBus::start(options, node_id(), ear, Metrics::new()).expect("options")
}

/// A server whose only user that can do anything has these rights, and the URL for that user.
fn guarded(rights: &str) -> (RedisServer, RedisOptions) {
    let user = ["--user", "default", "off", "--user", "bus", "on", ">sesame"];
    let server = RedisServer::start(&user.into_iter().chain(rights.split(' ')).collect::<Vec<_>>());
    let url = format!("redis://bus:sesame@127.0.0.1:{}/", server.port);
    let options = RedisOptions::new(&url, secret());
    (server, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_named_are_enough() {
    let (server, options) = guarded("resetchannels &conclave:* +publish +subscribe +unsubscribe +ping");
    let subject = subject(options, server);
    let (sender, listener) = (subject.node().await, subject.node().await);
    listener.subscribe(session(1)).await;
    sender.publish(session(1), "hello").await;
    listener.hears(session(1), b"hello").await;
    listener.bus.unsubscribe(session(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_rights_are_named_at_once() {
    for rights in [
        "resetchannels &conclave:* +publish +unsubscribe +ping",
        "resetchannels &conclave:* +subscribe +unsubscribe +ping",
        "resetchannels &other:* +publish +subscribe +unsubscribe +ping",
    ] {
        let (_server, options) = guarded(rights);
        let trouble = start(options).connected(DEADLINE).await.unwrap_err();
        assert!(matches!(trouble, RedisTrouble::Rights { .. }), "{rights}: {trouble}");
        assert!(trouble.to_string().ends_with("it needs &conclave:* +publish +subscribe +unsubscribe +ping"));
        assert!(!trouble.to_string().contains("sesame"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_none_are_named_at_once() {
    let (server, options) = guarded("allchannels +@all");
    for user in ["bus:wrong@", "nobody:sesame@", ""] {
        let url = format!("redis://{user}127.0.0.1:{}/", server.port);
        let trouble = start(RedisOptions { url, ..options.clone() }).connected(DEADLINE).await.unwrap_err();
        let expected =
            format!("Redis at 127.0.0.1:{} refuses the user or the password in cluster.redis.url", server.port);
        assert_eq!(trouble.to_string(), expected, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = RedisServer::start(&[]);
    server.kill();
    let bus = start(options(&server));
    let trouble = bus.connected(Duration::from_millis(200)).await.unwrap_err();
    assert!(trouble.to_string().starts_with(&format!("no answer from Redis at 127.0.0.1:{}: ", server.port)));
    server.start_again();
    assert_eq!(bus.connected(DEADLINE).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_who_shows_the_right_certificate() {
    let file = |name: &str| format!("{}/src/server/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let server = RedisServer::start_with(|port| {
        let tls_port = (port + 1).to_string();
        ["--tls-port", &tls_port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert]
            .into_iter()
            .chain(["--tls-auth-clients", "no"])
            .map(str::to_owned)
            .collect()
    });
    let ca = std::fs::read(&cert).unwrap();
    let url = format!("rediss://localhost:{}/", server.port + 1);
    let options = RedisOptions { url, ca: Some(ca.clone()), ..options(&server) };
    let subject = subject(options.clone(), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    listener.subscribe(session(1)).await;
    sender.publish(session(1), "hello").await;
    listener.hears(session(1), b"hello").await;
    // Nobody vouches for it, which does not change by waiting.
    let trouble = start(RedisOptions { ca: None, ..options.clone() }).connected(DEADLINE).await.unwrap_err();
    assert!(matches!(&trouble, RedisTrouble::Certificate { why, .. } if why.contains("invalid peer certificate")));
    let said = trouble.to_string();
    let place = format!("the certificate of Redis at localhost:{} is not trusted: ", server.port + 1);
    assert!(said.starts_with(&place) && said.contains("cluster.redis.ca"), "{said}");
    let plain = RedisOptions { url: server.url().replace("redis:", "rediss:"), ..options };
    let trouble = start(plain).connected(Duration::from_secs(1)).await.unwrap_err();
    assert!(trouble.to_string().starts_with("no answer from Redis at "), "{trouble}");
}

#[tokio::test]
async fn a_certificate_authority_that_is_none_is_refused_at_once() {
    let options = RedisOptions {
        ca: Some(b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n".to_vec()),
        ..RedisOptions::new("rediss://localhost:1/", secret())
    };
    let (ear, _heard) = Ear::new();
    let trouble = RedisBus::start(options, node_id(), ear, Metrics::new()).err().unwrap();
    assert!(matches!(trouble, RedisTrouble::Ca(_)), "{trouble}");
}
