//! Machines whose clocks are wrong: nodes that differ by minutes from each other and from the database, and a clock that
//! is set while its node runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::cluster::until_ready;
use crate::support::redis::RedisServer;
use crate::support::*;

/// How far the nodes' clocks are off, in minutes.
const OFF: [i64; 3] = [10, 0, -10];

/// What a busy machine may add to any time that is looked at here, in minutes.
const SLACK: i64 = 3;

/// Variables for a process whose clock is off, and whose timers are not.
fn wrong_clock() -> Vec<(&'static str, String)> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|folder| folder.path());
    let places: Vec<PathBuf> = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).collect();
    let library = places.iter().find(|place| place.is_file());
    let library = library.expect("libfaketime is missing: tests/run.sh installs it (Debian: apt install libfaketime)");
    let library = library.to_str().expect("a path").to_owned();
    vec![("LD_PRELOAD", library), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
}

/// How many minutes a time of the wire or of a log is ahead of the true one.
fn minutes_ahead(time: &str) -> i64 {
    let number = |from: usize| time[from..from + 2].parse::<i64>().unwrap_or_else(|_| panic!("no time: {time}"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let now = i64::try_from(now / 60 % 1440).expect("minutes of a day");
    // Half a day at most, to either side.
    (number(11) * 60 + number(14) - now + 720).rem_euclid(1440) - 720
}

fn is_true(time: &str) -> bool {
    minutes_ahead(time).abs() <= SLACK
}

/// When the last line of a node's log was written, by its own clock.
fn last_logged(node: &Node) -> String {
    let log = node.log();
    let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    line["timestamp"].as_str().expect("a time").to_owned()
}

struct Cluster {
    nodes: Vec<Node>,
    database: String,
    _redis: RedisServer,
}

impl Cluster {
    /// A node ahead, one that is right, and one behind. Whatever has a time lives for less than they differ; sessions stay
    /// in memory for so many seconds.
    async fn start(idle: &str) -> Self {
        let (redis, database) = (RedisServer::start(&[]), Postgres::shared().database().await);
        let mut nodes = Vec::new();
        for minutes in OFF {
            let (url, offset) = (redis.url(), format!("{minutes:+}m"));
            let clock = wrong_clock();
            let settings = [
                ("FAKETIME", offset.as_str()),
                ("telemetry.log_format", "json"),
                ("store.kind", "postgres"),
                ("store.postgres.url", &database),
                ("cluster.bus", "redis"),
                ("cluster.redis.url", &url),
                ("cluster.secret", "what only the nodes of the tests know"),
                ("cluster.lease_s", "3"),
                ("cluster.sweep_s", "2"),
                ("sessions.idle_s", idle),
                ("sessions.invitation_lifetime_s", "300"),
                ("accounts.token_lifetime_s", "300"),
                ("e2ee.room_key_lifetime_s", "300"),
                ("shutdown.reconnect_spread_ms", "1"),
            ];
            let clock = clock.iter().map(|(name, value)| (*name, value.as_str()));
            nodes.push(Node::start(&settings.into_iter().chain(clock).collect::<Vec<_>>()).await);
        }
        for (node, minutes) in nodes.iter().zip(OFF) {
            until_ready(node).await;
            let ahead = minutes_ahead(&last_logged(node));
            assert!((ahead - minutes).abs() <= SLACK, "{ahead} instead of {minutes}");
        }
        Self { nodes, database, _redis: redis }
    }

    /// Waits until no session is in any node's memory: the next one who speaks has it on their node.
    async fn until_idle(&self) {
        within("all sessions to be given up", async {
            for node in &self.nodes {
                while node.metric("conclave_sessions_live").await > 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await;
    }

    async fn admin(&self, arguments: &[&str]) -> Value {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
        command.args(["admin", "--json"]).args(arguments);
        command.env("CONCLAVE__STORE__KIND", "postgres").env("CONCLAVE__STORE__POSTGRES__URL", &self.database);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Members on all nodes, in the order of [`OFF`].
    async fn members(&self) -> [Client; 3] {
        let mut members = Vec::new();
        // Each token is used on another node than the one that made it.
        for (made, used) in [(1, 0), (2, 1), (0, 2)] {
            let user = self.nodes[made].user("member").await;
            let login = json!({"name": user.name, "password": PASSWORD});
            let token = self.nodes[made].post("/v1/login", &login).await.expect(200)["token"].take();
            let token = token.as_str().expect("a token").to_owned();
            members.push(User { address: self.nodes[used].address, token, ..user }.connect().await);
        }
        members.try_into().ok().expect("three")
    }
}

/// Speaks until it is taken: a session that moves may ask for patience. Its time.
async fn say(client: &mut Client, body: &Value) -> String {
    within("a message to be taken", async {
        loop {
            match client.request("send_msg", body.clone()).await {
                Ok(reply) => return reply["time"].as_str().expect("a time").to_owned(),
                Err(refusal) => assert_eq!(refusal["retryable"], true, "{refusal}"),
            }
        }
    })
    .await
}

/// The times of a session's events are true, and never go back; how many there are.
async fn times_are_true(client: &mut Client, sid: &str) -> usize {
    let page = client.ok("fetch_msgs", json!({"session_id": sid, "limit": 1000})).await;
    let events = page["events"].as_array().expect("events");
    let times: Vec<&str> = events.iter().map(|event| event["body"]["time"].as_str().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.iter().all(|time| is_true(time)), "{times:?}");
    events.len()
}

#[tokio::test]
async fn nodes_whose_clocks_differ_by_minutes_agree_on_every_time() {
    let cluster = Cluster::start("1").await;
    let mut members = cluster.members().await;
    for client in &mut members {
        let time = client.ok("ping", json!({})).await["time"].take();
        assert!(is_true(time.as_str().expect("a time")), "{time}");
    }
    let [ahead, right, behind] = &mut members;
    let sid = plain(ahead, &mut [right, behind]).await;
    let secret = encrypted(behind, &mut [ahead, right]).await;
    let (mut last, mut moves) = (String::new(), 0);
    for round in 0..2 {
        for (node, speaker) in [&mut *behind, &mut *ahead, &mut *right].into_iter().enumerate() {
            cluster.until_idle().await;
            let time = say(speaker, &text(&sid, &format!("{round}-{node}"))).await;
            assert!(last <= time && is_true(&time), "{time} after {last}");
            say(speaker, &cipher(&secret, 1)).await;
            (last, moves) = (time, moves + 1);
        }
    }
    assert_eq!(moves, 6);
    // No key was found to be old, and nothing to be over, by a clock that is wrong.
    for client in [&mut *ahead, right, behind] {
        client.none("UpdateRoomKeyNotification").await;
        times_are_true(client, &sid).await;
    }
    let newcomer = cluster.nodes[2].user("newcomer").await;
    let invite = json!({"session_id": sid, "invitee": newcomer.id});
    cluster.until_idle().await;
    behind.ok("invite_user_to_session", invite).await;
    cluster.until_idle().await;
    say(ahead, &text(&sid, "it lives there now")).await;
    let mut newcomer = newcomer.connect().await;
    let invitation = newcomer.expect("InviteUserToSession").await;
    let until = invitation["expire_timestamp"].as_str().expect("a time");
    assert!((minutes_ahead(until) - 5).abs() <= SLACK, "{until}");
    let accept = json!({"session_id": sid, "inviter_id": behind.user_id, "accepted": true});
    newcomer.ok("accept_join_session_approval", accept).await;
    times_are_true(&mut newcomer, &sid).await;
}

#[tokio::test]
async fn nobody_takes_a_session_over_because_of_a_clock_and_a_drained_one_goes_on_in_time() {
    let cluster = Cluster::start("300").await;
    let [mut ahead, mut right, mut behind] = cluster.members().await;
    let sid = plain(&mut ahead, &mut [&mut right, &mut behind]).await;
    // Longer than a lease: it lives where it was made, since that is renewed by the database's clock.
    let began = std::time::Instant::now();
    for number in 0.. {
        say(&mut behind, &text(&sid, &format!("before-{number}"))).await;
        say(&mut right, &text(&sid, &format!("beside-{number}"))).await;
        if began.elapsed() > Duration::from_secs(7) {
            break;
        }
    }
    let activations = |node: usize| cluster.nodes[node].metric("conclave_session_activations_total");
    assert_eq!([activations(1).await, activations(2).await], [0, 0]);
    let alive = cluster.admin(&["nodes"]).await;
    assert_eq!(alive.as_array().map(Vec::len), Some(3), "{alive}");
    for node in &cluster.nodes {
        assert_eq!(node.get("/readyz").await.status, 200);
    }

    let draining = ahead.started["node"].as_str().expect("an id").to_owned();
    cluster.admin(&["drain", &draining]).await;
    let speaking = async {
        for number in 0.. {
            say(&mut behind, &text(&sid, &format!("while-{number}"))).await;
            if cluster.nodes[0].metric("conclave_sessions_live").await == 0 {
                break;
            }
        }
        say(&mut behind, &text(&sid, "after")).await
    };
    let time = within("the session to move", speaking).await;
    assert!(is_true(&time), "{time}");
    assert_eq!(ahead.closed().await, 1012);
    let seen = times_are_true(&mut right, &sid).await;
    assert!(seen > 10, "{seen}");
}

#[tokio::test]
async fn a_clock_that_is_set_while_its_node_runs_moves_no_time() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("clock");
    let set = |offset: &str| std::fs::write(&file, offset).expect("a file");
    set("+0s");
    let database = Postgres::shared().database().await;
    let clock = wrong_clock();
    let settings = [
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path")),
        ("FAKETIME_NO_CACHE", "1"),
        ("telemetry.log_format", "json"),
        ("store.kind", "postgres"),
        ("store.postgres.url", &database),
        // So that the database's clock is not looked at meanwhile.
        ("cluster.lease_s", "3600"),
    ];
    let clock = clock.iter().map(|(name, value)| (*name, value.as_str()));
    let node = Node::start(&settings.into_iter().chain(clock).collect::<Vec<_>>()).await;
    until_ready(&node).await;
    let mut client = node.client("ann").await;
    let sid = plain(&mut client, &mut []).await;
    for offset in ["+20m", "-20m", "+0s"] {
        set(offset);
        for _ in 0..3 {
            let time = say(&mut client, &text(&sid, offset)).await;
            assert!(is_true(&time), "{time} with a clock at {offset}");
        }
    }
    times_are_true(&mut client, &sid).await;
}
