//! What happens to Redis and to its connections: listeners are told, and nothing is accepted that should not be.

use bytes::Bytes;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_found_again_and_listeners_are_told() {
    let mut server = RedisServer::start(&[]);
    let subject = subject(options(&server), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    let channels = [session(1), user(1), session(2)];
    for channel in channels {
        listener.subscribe(channel).await;
    }
    server.kill();
    until_probes_fail(&sender).await;
    assert!(sender.try_publish(session(1), "lost").await.is_err());
    assert!(listener.bus.subscribe(session(3)).await.is_err());
    server.start_again();
    let mut missed = std::collections::HashSet::new();
    while missed.len() < 4 {
        match listener.next().await {
            Heard::Missed(channel) => missed.insert(channel),
            Heard::Message(..) => panic!("nothing was sent"),
        };
    }
    // Whoever was refused is listening by now, too.
    assert!(missed.contains(&session(3)));
    until_probes_come_through(&sender).await;
    for channel in channels.into_iter().chain([session(3)]) {
        sender.publish(channel, "again").await;
        listener.hears_at_last(&Heard::Message(channel, Bytes::from_static(b"again"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_connection_is_killed_listens_again_and_is_told() {
    let server = RedisServer::start(&[]);
    let subject = subject(options(&server), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    listener.subscribe(session(1)).await;
    server.ask("CLIENT KILL TYPE pubsub");
    assert_eq!(listener.next().await, Heard::Missed(session(1)));
    sender.publish(session(1), "again").await;
    listener.hears(session(1), b"again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sender_lost_with_its_connection_is_said_to_be_missed() {
    let server = RedisServer::start(&[]);
    let subject = subject(options(&server), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    listener.subscribe(session(1)).await;
    server.ask("CLIENT KILL TYPE normal");
    // The first message finds out, at the latest.
    let found_out = async {
        while sender.try_publish(session(1), "x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the connection to be found dead", found_out).await;
    listener.hears_at_last(&Heard::Missed(session(1))).await;
}

#[expect(
    clippy::await_holding_lock,
    reason = "another thread is to stand still at it, and no task of this one waits for it"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_redis_drops_for_being_slow_listens_again_and_is_told() {
    let limit = ["--client-output-buffer-limit", "pubsub", "1mb", "1mb", "0"];
    let server = RedisServer::start(&limit);
    let options = options(&server);
    let name = format!("{}{}", options.prefix, session(1));
    let sender = subject(options.clone(), ()).node().await;
    let (ear, mut heard) = Ear::new();
    let slow = Arc::new(Slow { ear, gate: std::sync::Mutex::new(()) });
    let (listens, listening) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let incoming = Arc::clone(&slow);
    // On a thread of its own, which stands still as a whole.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bus = RedisBus::start(options, node_id(), incoming, Metrics::new()).unwrap();
            bus.connected(DEADLINE).await.unwrap();
            bus.subscribe(session(1)).await.unwrap();
            listens.send(()).unwrap();
            let _ = ended.await;
        });
    });
    within("listening", listening).await.unwrap();
    let stuck = slow.gate.lock().unwrap();
    sender.publish(session(1), "stands still with this").await;
    // Until the sockets' buffers are full, and the limit is reached.
    let flood = vec![0; 1 << 20];
    while server.publish(&name, &flood) > 0 {}
    drop(stuck);
    let told = async { while heard.recv().await != Some(Heard::Missed(session(1))) {} };
    within("being told", told).await;
    end.send(()).unwrap();
    thread.join().unwrap();
}

/// A node that stands still while somebody holds its gate.
struct Slow {
    ear: Arc<Ear>,
    gate: std::sync::Mutex<()>,
}

impl Incoming for Slow {
    fn message(&self, channel: Channel, message: Message) {
        drop(self.gate.lock().unwrap());
        self.ear.message(channel, message);
    }

    fn missed(&self, channel: Channel) {
        self.ear.missed(channel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_send_is_counted_and_not_heard() {
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let subject = subject(options.clone(), ());
    let sender = subject.node().await;
    let metrics = Metrics::new();
    let (ear, mut heard) = Ear::new();
    let bus = RedisBus::start(options.clone(), node_id(), ear, Arc::clone(&metrics)).unwrap();
    bus.connected(DEADLINE).await.unwrap();
    bus.subscribe(session(1)).await.unwrap();
    let foreign = RedisOptions { secret: ClusterSecret::new(&[9; 32]).unwrap(), ..options.clone() };
    let stranger = super::subject(foreign, ()).node().await;
    stranger.publish(session(1), "not of this cluster").await;
    let name = format!("{}{}", options.prefix, session(1));
    let other_version = "\u{0}\u{7} and what follows is long enough to be an envelope";
    for garbage in ["", "garbage", other_version] {
        assert_eq!(server.publish(&name, garbage.as_bytes()), 1);
    }
    sender.publish(session(1), "genuine").await;
    let first = within("a message", heard.recv()).await;
    assert_eq!(first, Some(Heard::Message(session(1), Bytes::from_static(b"genuine"))));
    let text = String::from_utf8(metrics.text()).unwrap();
    for (reason, count) in [("damaged", 2), ("version", 1), ("signature", 1)] {
        let line = format!("conclave_bus_rejected_total{{reason=\"{reason}\"}} {count}");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

/// Writes log lines down.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// All of it on this thread, whose log is written down.
#[tokio::test]
async fn what_strangers_send_is_said_once_in_a_while() {
    let log = Log::default();
    let writer = log.clone();
    // What is said is remembered as of no interest to anybody where another test says it first and nobody listens.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish(),
    );
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let (ear, mut heard) = Ear::new();
    let bus = RedisBus::start(options.clone(), node_id(), ear, Metrics::new()).unwrap();
    bus.connected(DEADLINE).await.unwrap();
    bus.subscribe(session(1)).await.unwrap();
    let foreign = RedisOptions { secret: ClusterSecret::new(&[9; 32]).unwrap(), ..options.clone() };
    let (one, other) = (super::subject(foreign.clone(), ()).node().await, super::subject(foreign, ()).node().await);
    let sender = super::subject(options.clone(), ()).node().await;
    for stranger in [&one, &one, &other, &one] {
        stranger.publish(session(1), "not of this cluster").await;
    }
    let name = format!("{}{}", options.prefix, session(1));
    let of_another_version = [&[0, 7][..], &[0xee; 60]].concat();
    for _ in 0..3 {
        assert_eq!(server.publish(&name, &of_another_version), 1);
    }
    // From two connections nothing is in order: until all of it has come.
    let rejected = |reason| bus.post.metrics.bus_rejected.with_label_values(&[reason]).get();
    let all = async {
        while (rejected("signature"), rejected("version")) != (4, 3) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within("all of it to come", all).await;
    sender.publish(session(1), "genuine").await;
    let first = within("a message", heard.recv()).await;
    assert_eq!(first, Some(Heard::Message(session(1), Bytes::from_static(b"genuine"))));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("an envelope on the bus was refused")).collect();
    let of = |why: &str| said.iter().filter(|line| line.contains(why)).count();
    assert_eq!(said.len(), 3, "{log}");
    assert_eq!((of("its signature is wrong"), of("this release does not read its version")), (2, 1), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_played_again_is_not_heard_again() {
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let subject = subject(options.clone(), ());
    let (sender, listener) = (subject.node().await, subject.node().await);
    let name = format!("{}{}", options.prefix, session(1));
    let mut tap = server.tap(&name);
    listener.subscribe(session(1)).await;
    listener.subscribe(session(2)).await;
    sender.publish(session(1), "once").await;
    listener.hears(session(1), b"once").await;
    let recorded = tap.next();
    // To the same channel, and to another one.
    assert_eq!(server.publish(&name, &recorded), 2);
    assert_eq!(server.publish(&format!("{}{}", options.prefix, session(2)), &recorded), 1);
    sender.publish(session(1), "twice").await;
    listener.hears(session(1), b"twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_server_reads_what_nodes_say() {
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let subject = subject(options.clone(), ());
    let sender = subject.node().await;
    let mut tap = server.tap(&format!("{}{}", options.prefix, session(1)));
    sender.publish(session(1), "a plain session's text").await;
    let seen = tap.next();
    assert_eq!(seen.len(), "a plain session's text".len() + 47);
    assert!(!seen.windows(5).any(|part| b"a plain session's text".windows(5).any(|word| word == part)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_and_counted() {
    let server = RedisServer::start(&[]);
    let options = RedisOptions { waiting_bytes: 100_000, ..options(&server) };
    let subject = subject(options.clone(), ());
    let listener = subject.node().await;
    listener.subscribe(session(1)).await;
    let metrics = Metrics::new();
    let (ear, _heard) = Ear::new();
    let bus = RedisBus::start(options, node_id(), ear, Arc::clone(&metrics)).unwrap();
    bus.connected(DEADLINE).await.unwrap();
    let mut refused = 0;
    while refused == 0 {
        // No turn for the bus in between.
        for _ in 0..100 {
            refused += u32::from(
                bus.publish(session(1), Message { wire: bus.wire(), bytes: vec![0; 10_000].into() }).await.is_err(),
            );
        }
    }
    assert!(metrics.bus_waiting_bytes.get() <= 100_000);
    listener.hears_at_last(&Heard::Missed(session(1))).await;
    let dropped = format!("conclave_bus_dropped_total{{reason=\"full\"}} {refused}");
    assert!(String::from_utf8(metrics.text()).unwrap().contains(&dropped));
    until_probes_come_through(&listener).await;
    let empty = async {
        while metrics.bus_waiting_bytes.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("all to be sent", empty).await;
}
