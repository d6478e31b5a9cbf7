//! `conclave-load` against real nodes: a run that is whole passes, and each thing that goes wrong is reported as what
//! it is, with an exit status that is not 0. These are also the short verified runs of every change; they print their
//! counts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::load::{Ended, FAULTS, Load, output};
use crate::support::proxy::{Fault, Proxy};
use crate::support::relay::{Relay, Server, Way};
use crate::support::{DEADLINE, Node};

const ROOMS: &str = "rooms --sessions 3 --members 4 --rate 100 --duration 2s --warmup 200ms";

#[tokio::test]
async fn rooms_pass_on_a_node_that_keeps_its_promises() {
    let node = Node::shared().await;
    let ended = Load::run(ROOMS, &[node.address]).await;
    ended.passed();
    let latencies = ended.report["latencies"].as_array().expect("latencies");
    assert!(latencies.iter().any(|one| one["what"] == "delivery" && one["between"] == "same_node"), "{latencies:?}");
    ended.names_sessions(3);
}

#[tokio::test]
async fn every_plain_scenario_passes() {
    let node = Node::shared().await;
    for scenario in [
        "fanout --members 12 --speakers 2 --in-flight 4 --devices 2 --connections 24",
        "direct --sessions 4 --rate 100",
        "churn --sessions 2 --members 4 --rate 100 --drops 10 --storms 1",
    ] {
        let ended = Load::run(&format!("{scenario} --duration 2s --warmup 100ms"), &[node.address]).await;
        ended.passed();
        if scenario.starts_with("churn") {
            assert_eq!(ended.count("reconnects"), 0, "the scenario's own are no failures");
            let latencies = ended.report["latencies"].as_array().expect("latencies");
            let resume = latencies.iter().find(|one| one["what"] == "resume").expect("connections came back");
            // Far from --timeout, after which a connection is tried again.
            assert!(resume["p50_us"].as_u64().expect("a time") < 5_000_000, "{resume}");
        }
    }
}

#[tokio::test]
async fn users_are_kept_for_the_next_run() {
    let node = Node::shared().await;
    let dir = TempDir::new().expect("a directory");
    let users = dir.path().join("kept.json");
    let arguments = format!("direct --sessions 1 --rate 50 --duration 1s --warmup 0s --users {}", users.display());
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-load"));
        command.args(arguments.split_whitespace()).args(["--url", &format!("ws://{}/v1/ws", node.address)]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tester's binary");
        let output = output(child).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kept: Value = serde_json::from_slice(&std::fs::read(&users).expect("the file")).expect("JSON");
        names
            .push(kept["plain"].as_array().expect("users").iter().map(|user| user["name"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(names[0].len(), 2);
    assert_eq!(names[0], names[1]);
}

#[tokio::test]
async fn what_a_network_does_to_a_delivery_is_called_by_its_name() {
    let node = Node::shared().await;
    for (fault, name) in [
        (Fault::Drop, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Swap, "disordered"),
        (Fault::AlterText, "undecryptable"),
        (Fault::AlterSender, "misattributed"),
    ] {
        let proxy = Proxy::start(node.address, fault).await;
        let ended = Load::run(ROOMS, &[proxy.address]).await;
        assert!(proxy.has_struck(), "{}", ended.said());
        ended.failed_with(name, 1);
    }
}

#[tokio::test]
async fn a_proxy_that_does_nothing_changes_nothing() {
    let node = Node::shared().await;
    let proxy = Proxy::start(node.address, Fault::Nothing).await;
    let ended = Load::run(ROOMS, &[proxy.address]).await;
    assert!(proxy.has_struck(), "{}", ended.said());
    ended.passed();
}

#[tokio::test]
async fn members_who_are_far_away_are_given_keys_like_others() {
    let node = Node::shared().await;
    let far = Relay::start(Server::Tcp(node.address)).await;
    far.set(Way::Slow(Duration::from_millis(300)));
    // Each owner is far: keys that it was asked for are often replaced, by others, before its answer comes.
    let arguments = "rotation --sessions 2 --members 4 --rate 40 --rotate-every 0s --change-every 100ms";
    let arguments = format!("{arguments} --duration 6s --warmup 0s");
    Load::run(&arguments, &[far.address, node.address]).await.passed();
}

const ROTATION: &str = "rotation --sessions 2 --members 4 --rate 40 --duration 4s --warmup 0s";

#[tokio::test]
async fn rotation_passes_while_members_and_keys_change() {
    let settings = [("e2ee.room_key_lifetime_s", "2"), ("e2ee.room_key_messages", "40")];
    let node = Node::start(&settings).await;
    let ended = Load::run(&format!("{ROTATION} --rotate-every 1s --change-every 500ms"), &[node.address]).await;
    ended.passed();
    let latencies = ended.report["latencies"].as_array().expect("latencies");
    assert!(latencies.iter().any(|one| one["what"] == "rotation"), "{latencies:?}");
    let notes = ended.report["notes"].to_string();
    assert!(!notes.contains("replaced 0 times") && !notes.contains(" 0 memberships"), "{notes}");
    ended.names_sessions(2);
}

#[tokio::test]
async fn what_happens_to_ciphertext_is_called_by_its_name() {
    let node = Node::shared().await;
    for (fault, name) in [(Fault::AlterText, "undecryptable"), (Fault::Duplicate, "duplicated")] {
        let proxy = Proxy::start(node.address, fault).await;
        let arguments = format!("{ROTATION} --rotate-every 0s --change-every 0s");
        let ended = Load::run(&arguments, &[proxy.address]).await;
        assert!(proxy.has_struck(), "{}", ended.said());
        ended.failed_with(name, 1);
    }
}

#[tokio::test]
async fn soak_passes_round_by_round() {
    let node = Node::shared().await;
    let arguments = "soak --duration 5s --round 2s --warmup 0s --members 5 --sessions 2 --drops 4 \
                     --encrypted-sessions 1 --encrypted-members 3";
    let ended = Load::run(arguments, &[node.address]).await;
    ended.passed();
    assert!(ended.stderr.contains("round 2, after"), "{}", ended.said());
    let timeline = ended.report["timeline"].as_array().expect("a timeline");
    assert!((0..).zip(timeline).all(|(nth, second)| second["at_s"] == nth), "{timeline:?}");
}

#[tokio::test]
async fn a_run_that_says_much_is_verified_in_rounds() {
    let node = Node::shared().await;
    let arguments = "rooms --sessions 2 --members 3 --in-flight 2 --verify-every 50 --duration 4s --warmup 0s";
    let ended = Load::run(arguments, &[node.address]).await;
    ended.passed();
    assert!(ended.stderr.contains("verified after "), "{}", ended.said());
    let notes = ended.report["notes"].to_string();
    let rounds = notes.split_once("verified in ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
    let rounds = rounds.filter(|rounds| *rounds >= 2).unwrap_or_else(|| panic!("{}", ended.said()));
    let timeline = ended.report["timeline"].as_array().expect("a timeline");
    assert!((0..).zip(timeline).all(|(nth, second)| second["at_s"] == nth), "{timeline:?}");
    ended.names_sessions(2 * rounds);
}

#[tokio::test]
async fn the_yardstick_measures() {
    let ended = Load::run_alone("yardstick --members 20 --duration 500ms").await;
    assert_eq!(ended.status, 0, "{}", ended.said());
    assert!(ended.stdout.contains("deliveries for each second of the writer's processor time"), "{}", ended.said());
}

#[tokio::test]
async fn connections_go_to_another_url_when_one_does_not_answer() {
    let node = Node::shared().await;
    let (going, staying) =
        (Proxy::start(node.address, Fault::Nothing).await, Proxy::start(node.address, Fault::Nothing).await);
    let load = Load::start(&format!("{KILLED} --expect-restarts"), &[going.address, staying.address]);
    until_passed(&going, 50).await;
    going.go_away();
    let ended = load.ended().await;
    ended.passed();
    assert!(ended.count("reconnects") >= 4, "{}", ended.said());
}

#[tokio::test]
async fn members_who_encrypt_go_to_another_url_too() {
    let node = Node::shared().await;
    let (going, staying) =
        (Proxy::start(node.address, Fault::Nothing).await, Proxy::start(node.address, Fault::Nothing).await);
    let arguments = ROTATION.replace("--duration 4s", "--duration 6s --rotate-every 1s --change-every 1s");
    let load = Load::start(&format!("{arguments} --expect-restarts"), &[going.address, staying.address]);
    until_passed(&going, 30).await;
    going.go_away();
    let ended = load.ended().await;
    ended.passed();
    assert!(ended.count("reconnects") >= 4, "{}", ended.said());
}

#[tokio::test]
async fn a_server_that_stays_away_is_told_with_what_was_measured() {
    let node = Node::shared().await;
    let proxy = Proxy::start(node.address, Fault::Nothing).await;
    let arguments = "rooms --sessions 1 --members 3 --rate 100 --duration 1h --patience 2s --expect-restarts";
    let load = Load::start(arguments, &[proxy.address]);
    until_passed(&proxy, 50).await;
    proxy.go_away();
    let ended = load.ended().await;
    assert_eq!(ended.status, 1, "{}", ended.said());
    assert!(ended.count("delivered") >= 50, "{}", ended.said());
    assert!(ended.stdout.contains("did not come back"), "{}", ended.said());
}

/// Waits until so many messages went through a proxy to members.
async fn until_passed(proxy: &Proxy, messages: u64) {
    let until = Instant::now() + 2 * DEADLINE;
    while proxy.passed() < messages {
        assert!(Instant::now() < until, "messages flow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Kills a node twice while messages flow through a proxy.
async fn killed_twice(arguments: &str) -> Ended {
    let mut node = Node::start(&[]).await;
    let proxy = Proxy::start(node.address, Fault::Nothing).await;
    let load = Load::start(arguments, &[proxy.address]);
    for kill in 1..=2 {
        until_passed(&proxy, 100 * kill).await;
        node.kill_and_restart().await;
        proxy.point_at(node.address);
    }
    load.ended().await
}

const KILLED: &str = "rooms --sessions 2 --members 4 --rate 100 --duration 6s --warmup 0s";

#[tokio::test]
async fn announced_kills_lose_nothing_and_pass() {
    let ended = killed_twice(&format!("{KILLED} --expect-restarts")).await;
    ended.passed();
    // All eight felt the first kill; of the second, those that were back by then.
    assert!(ended.count("reconnects") > 8, "{}", ended.said());
    // Every message was measured, so who waited longest is the slowest acknowledgement too.
    let slowest = ended.report["latencies"].as_array().expect("a list").iter();
    let slowest = slowest.filter(|latency| latency["what"] == "ack").filter_map(|latency| latency["max_us"].as_f64());
    let slowest = slowest.fold(0.0, f64::max) / 1000.0;
    let without_service = ended.report["longest_without_service_ms"].as_f64().expect("a time");
    assert!(slowest > 0.0 && (without_service / slowest - 1.0).abs() < 0.01, "{slowest}: {}", ended.said());
    let worst = &ended.report["sessions"][0];
    let waited = worst["longest_wait_us"].as_f64().expect("a time") / 1000.0;
    assert!((waited / without_service - 1.0).abs() < 0.001, "{waited}: {}", ended.said());
    let id = worst["session_id"].as_str().expect("an id");
    assert!(ended.stdout.contains(&format!("The session that waited longest: {id}, ")), "{}", ended.said());
}

#[tokio::test]
async fn announced_kills_leave_encrypted_sessions_whole() {
    let arguments =
        ROTATION.replace("--duration 4s", "--duration 8s --expect-restarts --rotate-every 2s --change-every 2s");
    let ended = killed_twice(&arguments).await;
    ended.passed();
    assert!(ended.count("reconnects") >= 8, "{}", ended.said());
}

#[tokio::test]
async fn setting_up_goes_on_after_connections_broke() {
    let node = Node::shared().await;
    let proxy = Proxy::start(node.address, Fault::CutAt(&[5, 30, 70, 130, 200, 300])).await;
    let rooms = "rooms --sessions 12 --members 4 --rate 100 --duration 2s --warmup 0s --expect-restarts";
    let ended = Load::run(rooms, &[proxy.address]).await;
    assert!(proxy.cuts() >= 4, "{} cuts: {}", proxy.cuts(), ended.said());
    ended.passed();

    let proxy = Proxy::start(node.address, Fault::CutAt(&[3, 12, 30, 50, 70])).await;
    let ended = Load::run(&format!("{ROTATION} --expect-restarts"), &[proxy.address]).await;
    assert!(proxy.cuts() >= 3, "{} cuts: {}", proxy.cuts(), ended.said());
    ended.passed();
}

#[tokio::test]
async fn setting_up_waits_for_a_node_that_refuses_for_now() {
    // Four users make eighty sessions: far more than they may in the time of a few repetitions.
    let node = Node::start(&[("limits.requests_per_s", "20")]).await;
    let rooms = "rooms --sessions 80 --members 4 --connections 4 --rate 20 --duration 2s --warmup 0s";
    let ended = Load::run(rooms, &[node.address]).await;
    ended.passed();
}

#[tokio::test]
async fn kills_that_nobody_announced_fail_though_nothing_is_lost() {
    let ended = killed_twice(KILLED).await;
    assert_eq!(ended.status, 1, "{}", ended.said());
    FAULTS.iter().for_each(|fault| assert_eq!(ended.count(fault), 0, "{fault}: {}", ended.said()));
    assert!(
        ended.stdout.contains("a connection broke") || ended.stdout.contains("A connection broke"),
        "{}",
        ended.said()
    );
}

#[tokio::test]
async fn an_interrupted_run_tells_what_it_measured_so_far() {
    let node = Node::shared().await;
    let proxy = Proxy::start(node.address, Fault::Nothing).await;
    let load = Load::start("rooms --sessions 1 --members 3 --rate 50 --duration 1h", &[proxy.address]);
    until_passed(&proxy, 100).await;
    load.interrupt();
    let ended = load.ended().await;
    assert_eq!(ended.status, 130, "{}", ended.said());
    assert_eq!(ended.report["interrupted"], true);
    assert!(ended.count("delivered") >= 100, "{}", ended.said());
    FAULTS.iter().for_each(|fault| assert_eq!(ended.count(fault), 0, "{fault}: {}", ended.said()));
}

/// A server that answers each connection with the same bytes.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_a_clear_line() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("its address");
    Load::run(ROOMS, &[gone]).await.refused("no server at ws://");
    let old = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    Load::run(ROOMS, &[old]).await.refused("another version");
    let other = answering("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: chat\r\n\r\n").await;
    Load::run(ROOMS, &[other]).await.refused("another version");
    let web = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    Load::run(ROOMS, &[web]).await.refused("404 Not Found");
    let mail = answering("220 mail.example ESMTP\r\n\r\n").await;
    Load::run(ROOMS, &[mail]).await.refused("did not open a WebSocket");
}

#[tokio::test]
async fn what_cannot_be_run_is_a_clear_line() {
    for (arguments, why) in [
        ("rooms --url ftp://127.0.0.1:1/v1/ws", "expected ws://"),
        ("rooms --ca /nowhere.pem", "--ca: no certificates to believe: /nowhere.pem"),
        ("rooms --url nonsense", "expected ws://"),
        ("rooms --connections 1000000 --members 2", "limit of open files"),
        ("rooms --members 20 --connections 10", "too few"),
        ("rooms --payload 0", "--payload"),
        ("rotation --rate 100000 --duration 10h", "shorter --duration"),
        ("rooms --server-pid 999999999", "no such process"),
        ("rooms --html /proc/report.html", "/proc/report.html"),
    ] {
        let node = Node::shared().await;
        let urls = if arguments.contains("--url") { &[][..] } else { &[node.address] };
        Load::run(arguments, urls).await.refused(why);
    }
}

#[tokio::test]
async fn a_full_disk_does_not_pass() {
    let node = Node::shared().await;
    let full = PathBuf::from("/dev/full");
    assert!(full.exists());
    let arguments = "direct --sessions 1 --rate 50 --duration 1s --warmup 0s --html /dev/full";
    let ended = Load::run(arguments, &[node.address]).await;
    ended.refused("/dev/full");
    assert!(ended.stdout.contains("PASSED"), "what was measured is told: {}", ended.said());
}
