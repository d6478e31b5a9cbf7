//! A node on PostgreSQL, over TLS too, and what happens to the database: killed, frozen, not there, not ours.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::support::cluster::until_ready;
use crate::support::*;
use crate::tls::{Certificates, certificates};

async fn node_on(server: &Postgres) -> Node {
    let url = server.database().await;
    Node::start(&[
        ("store.kind", "postgres"),
        ("store.postgres.url", &url),
        ("store.postgres.statement_timeout_ms", "1000"),
        ("store.postgres.acquire_timeout_ms", "1000"),
        ("cluster.lease_s", "3"),
    ])
    .await
}

/// Sends until the node has taken it, and says where; each answer in between has to be `unavailable`.
async fn sent_at_last(client: &mut Client, sid: &str, name: &str) -> u64 {
    within("the message to be taken", async {
        loop {
            let mut body = text(sid, name);
            body["client_msg_id"] = json!(name);
            match client.request("send_msg", body).await {
                Ok(reply) => return reply["seq"].as_u64().expect("a seq"),
                Err(error) => assert_eq!(error["code"], "unavailable", "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// All messages of a session by their own ids, with their places; each once, and the places dense.
async fn stored(client: &mut Client, sid: &str) -> HashMap<String, u64> {
    let (mut stored, mut after) = (HashMap::new(), 0);
    loop {
        let page = client.ok("fetch_msgs", json!({"session_id": sid, "after_seq": after, "limit": 1000})).await;
        for event in page["events"].as_array().expect("events") {
            let seq = event["body"]["seq"].as_u64().expect("a seq");
            assert_eq!(seq, after + 1, "dense and ascending");
            after = seq;
            if let Some(name) = event["body"]["client_msg_id"].as_str() {
                assert_eq!(stored.insert(name.to_owned(), seq), None, "{name} twice");
            }
        }
        if page["more"] == false {
            return stored;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_database_is_killed_again_and_again() {
    let server = Postgres::start();
    let node = node_on(&server).await;
    let mut senders = Vec::new();
    for who in 0..4 {
        let mut client = node.client("sender").await;
        let sid = plain(&mut client, &mut []).await;
        senders.push(tokio::spawn(async move {
            let (mut acknowledged, started) = (HashMap::new(), Instant::now());
            for number in 0.. {
                let name = format!("{who}-{number}");
                let seq = sent_at_last(&mut client, &sid, &name).await;
                acknowledged.insert(name, seq);
                if started.elapsed() > Duration::from_secs(6) {
                    break;
                }
            }
            let found = stored(&mut client, &sid).await;
            assert_eq!(found, acknowledged, "what was acknowledged, and nothing else, each in its place");
            acknowledged.len()
        }));
    }
    let damage = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            // Not waiting for a condition: the load has to run for a while between the blows.
            std::thread::sleep(Duration::from_millis(1200));
            server.kill();
            server.start_again();
        }
        server
    });
    let mut acknowledged = 0;
    for sender in senders {
        acknowledged += sender.await.expect("no panic");
    }
    damage.await.expect("no panic");
    assert!(acknowledged > 40, "only {acknowledged} messages were sent meanwhile");
}

#[tokio::test]
async fn a_database_that_hangs_makes_the_node_unready_and_hangs_nobody() {
    let server = Postgres::start();
    let node = node_on(&server).await;
    let mut client = node.client("alice").await;
    let sid = plain(&mut client, &mut []).await;
    let ready = async |status: u16| {
        within("readiness to change", async {
            while node.get("/readyz").await.status != status {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    ready(200).await;
    let before = info(&mut client, &sid).await["last_seq"].as_u64().expect("a seq");
    server.freeze();
    let asked = Instant::now();
    client.refused("send_msg", text(&sid, "into the void"), "unavailable").await;
    assert!(asked.elapsed() < Duration::from_secs(6), "it was told so in time");
    ready(503).await;
    server.thaw();
    ready(200).await;
    let seq = sent_at_last(&mut client, &sid, "after all").await;
    // The one that was not acknowledged may have been stored, or not.
    assert!(seq == before + 1 || seq == before + 2, "{seq} after {before}");
    assert_eq!(stored(&mut client, &sid).await.get("after all"), Some(&seq));
}

#[tokio::test]
async fn a_node_waits_for_its_database_and_says_what_is_missing() {
    let server = Postgres::start();
    let url = server.database().await;
    server.kill();
    let settings = [("store.kind", "postgres"), ("store.postgres.url", url.as_str())];
    let node = Node::start(&settings).await;
    let body = node.get("/readyz").await.refused(503, "unavailable");
    assert_eq!(body["message"], "the node is starting: missing store");
    assert_eq!(node.get("/livez").await.status, 200);
    assert_eq!(node.metric("conclave_ready").await, 0);
    node.post("/v1/login", &json!({"name": "ann", "password": PASSWORD})).await.refused(503, "unavailable");
    node.get("/v1/ws").await.refused(503, "unavailable");

    server.start_again();
    until_ready(&node).await;
    let mut client = node.client("alice").await;
    let sid = plain(&mut client, &mut []).await;
    client.ok("send_msg", text(&sid, "at last")).await;
}

#[tokio::test]
async fn a_node_whose_database_is_being_upgraded_waits_like_for_one_that_is_not_there() {
    let url = Postgres::shared().database().await;
    let settings = [("store.kind", "postgres"), ("store.postgres.url", url.as_str())];
    let mut node = Node::start(&settings).await;
    node.terminate();
    assert!(node.terminated().await.success());
    // Stands in for an upgrade that takes its time.
    let mut upgrade = PgConnection::connect(&url).await.expect("a connection");
    sqlx::raw_sql("BEGIN; LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE")
        .execute(&mut upgrade)
        .await
        .expect("a lock");
    node.restart().await;
    let body = node.get("/readyz").await.refused(503, "unavailable");
    assert_eq!(body["message"], "the node is starting: missing store");
    assert_eq!(node.get("/livez").await.status, 200);
    sqlx::raw_sql("COMMIT").execute(&mut upgrade).await.expect("an end");
    until_ready(&node).await;
    node.client("ann").await;
}

#[tokio::test]
async fn a_node_that_waits_for_its_database_stops_at_once_or_gives_up_in_time() {
    let server = Postgres::start();
    let url = server.database().await;
    server.kill();
    let settings = [("store.kind", "postgres"), ("store.postgres.url", url.as_str())];
    let mut stopped = Node::start(&settings).await;
    stopped.terminate();
    assert!(stopped.terminated().await.success());

    let mut gives_up = Node::start(&[&settings[..], &[("store.postgres.connect_within_s", "2")]].concat()).await;
    assert!(!gives_up.terminated().await.success());
    let said = gives_up.log();
    let expected = "conclave: store.postgres.url: the store is unavailable: waited 2 s in vain for the database ";
    assert!(said.lines().any(|line| line.starts_with(expected)), "{said}");
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_said_without_its_password() {
    let server = Postgres::shared();
    let good = server.database().await;
    let wrong_password = good.replace(postgres::PASSWORD, "a-wrong-password");
    let no_database = server.url("no_such_database");
    let not_there = good.replace("host=", "host=/nowhere");
    let cases = [
        (&wrong_password, "password authentication failed for user \"conclave\""),
        (&no_database, "database \"no_such_database\" does not exist"),
        (&not_there, "waited 1 s in vain for the database"),
    ];
    for (url, expected) in cases {
        let folder = tempfile::tempdir().expect("a directory");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
        command.args(["--listen", "127.0.0.1:0"]).current_dir(folder.path());
        command.env("CONCLAVE__STORE__KIND", "postgres").env("CONCLAVE__STORE__POSTGRES__URL", url);
        command.env("CONCLAVE__STORE__POSTGRES__CONNECT_WITHIN_S", "1");
        let ended = tokio::task::spawn_blocking(move || command.output().expect("the server's binary"));
        let output = within("the node to give up", ended).await.expect("no panic");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("store.postgres.url: ") && said.contains(expected), "{said}");
        assert!(!said.contains(postgres::PASSWORD) && !said.contains("a-wrong-password"), "{said}");
    }
}

#[tokio::test]
async fn what_is_stored_is_there_after_the_node_is_killed() {
    let mut node = node_on(Postgres::shared()).await;
    let user = node.user("alice").await;
    let mut a = user.connect().await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("set_session_info", json!({"session_id": sid, "name": "Tea\u{0}time"})).await;
    let seq = a.ok("send_msg", text(&sid, "with \u{0} in it")).await["seq"].take();
    let seen = info(&mut a, &sid).await;
    node.kill_and_restart().await;
    let mut a = User { address: node.address, ..user }.connect().await;
    // The dead node's lease has to run out first.
    let again = within("the session to be free", async {
        loop {
            match a.request("send_msg", text(&sid, "on")).await {
                Ok(reply) => return reply,
                Err(error) => assert_eq!(error["code"], "unavailable", "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(again["seq"], seq.as_u64().expect("a seq") + 1);
    let now = info(&mut a, &sid).await;
    assert_eq!((&now["name"], &now["members"]), (&seen["name"], &seen["members"]));
    assert_eq!(a.started["sessions"][0]["name"], Value::from("Tea\u{0}time"));
}

/// A database server that takes nobody over TCP without TLS, with certificates for these names.
fn postgres_with_tls(port: u16, certificates: &Certificates) -> Postgres {
    use std::os::unix::fs::PermissionsExt;

    Postgres::start_with(|dir| {
        let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        std::fs::copy(&certificates.chain, &chain).expect("a file");
        std::fs::copy(&certificates.key, &key).expect("a file");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        let rules = dir.join("hba.conf");
        std::fs::write(&rules, "hostssl all all all scram-sha-256\nlocal all all scram-sha-256\n").expect("a file");
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", chain.display()),
            format!("ssl_key_file={}", key.display()),
            format!("hba_file={}", rules.display()),
        ];
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
    })
}

#[tokio::test]
async fn a_node_reaches_its_database_over_tls_if_the_right_authority_vouches_for_the_right_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        folder
    };
    let (ours, theirs) = (certificates(&of("ours"), &["127.0.0.1"]), certificates(&of("theirs"), &["127.0.0.1"]));
    let port = redis::free_port();
    let server = postgres_with_tls(port, &ours);
    let url = |host: &str, mode: &str, authority: &Path| {
        let place = format!("postgres://conclave:{}@{host}:{port}/postgres", postgres::PASSWORD);
        format!("{place}?sslmode={mode}&sslrootcert={}", authority.display())
    };
    let good = url("127.0.0.1", "verify-full", &ours.authority);
    let node = Node::start(&[("store.kind", "postgres"), ("store.postgres.url", &good)]).await;
    let mut client = node.client("ann").await;
    let sid = plain(&mut client, &mut []).await;
    client.ok("send_msg", text(&sid, "under cover")).await;
    let mut operator = PgConnection::connect(&good).await.expect("a connection");
    let encrypted: Vec<bool> = sqlx::query_scalar(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'conclave'",
    )
    .fetch_all(&mut operator)
    .await
    .expect("rows");
    assert!(!encrypted.is_empty() && encrypted.iter().all(|ssl| *ssl), "{encrypted:?}");

    for (url, why) in [
        (url("127.0.0.1", "verify-full", &theirs.authority), "invalid peer certificate: "),
        (url("127.0.0.1", "verify-ca", &theirs.authority), "invalid peer certificate: "),
        // Listened to, and another name than the certificate has.
        (url("localhost", "verify-full", &ours.authority), "not valid for name"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
        command.args(["--listen", "127.0.0.1:0"]).current_dir(folder.path());
        command.env("CONCLAVE__STORE__KIND", "postgres").env("CONCLAVE__STORE__POSTGRES__URL", &url);
        let ended = tokio::task::spawn_blocking(move || command.output().expect("the server's binary"));
        // At once: waiting does not change it.
        let output = within("the node to end", ended).await.expect("no panic");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let start = "conclave: store.postgres.url: the store is unavailable: cannot use the database postgres at ";
        let line = said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(why) && line.contains("sslrootcert"), "{line}");
        assert!(!said.contains(postgres::PASSWORD), "{said}");
    }
    drop(server);
}
