//! Real Redis servers on loopback, each in a directory of its own. They end with the process that started them.
//!
//! The library's own tests use this file too, so it knows nothing but the standard library. A machine without Redis is
//! one clear failure of each test that needs it.

#![allow(dead_code, reason = "the library's tests and those from outside each use a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running server. It is killed when this is dropped.
pub(crate) struct RedisServer {
    child: Child,
    /// Kills the server when this process ends, however it ends: then its pipe is closed.
    watchdog: Child,
    dir: TempDir,
    pub(crate) port: u16,
    options: Vec<String>,
}

impl RedisServer {
    /// Starts a server with options of its command line, such as `["--requirepass", "sesame"]`.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(|_| options.iter().map(|option| (*option).to_owned()).collect())
    }

    /// Starts a server with options that depend on its port. The next port is free too.
    pub(crate) fn start_with(options: impl FnOnce(u16) -> Vec<String>) -> Self {
        let (dir, port) = (TempDir::new().expect("a directory"), free_port());
        let options = options(port);
        let (child, watchdog) = spawn(&dir, port, &options);
        Self { child, watchdog, dir, port, options }
    }

    /// Where it is, for users without a name.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Where it speaks TLS, if it does.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        let at = self.options.iter().position(|option| option == "--tls-port")?;
        Some(self.options.get(at + 1)?.parse().expect("a port"))
    }

    /// Gives it a command and reads the answer: one text, or the texts of a list.
    pub(crate) fn ask_all(&self, command: &str) -> Vec<String> {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let answer = self.told(&words).answer();
        answer.into_iter().map(|text| String::from_utf8(text).expect("text")).collect()
    }

    /// Gives it a command, words with spaces between, and reads the answer.
    pub(crate) fn ask(&self, command: &str) -> String {
        self.ask_all(command).remove(0)
    }

    /// Publishes as a stranger; how many listen.
    pub(crate) fn publish(&self, channel: &str, message: &[u8]) -> u32 {
        let answer = self.told(&[b"PUBLISH", channel.as_bytes(), message]).answer().remove(0);
        String::from_utf8(answer).ok().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Listens as a stranger.
    pub(crate) fn tap(&self, channel: &str) -> Tap {
        let mut tap = Tap(self.told(&[b"SUBSCRIBE", channel.as_bytes()]));
        assert_eq!(tap.0.answer().remove(0), b"subscribe");
        tap
    }

    fn told(&self, words: &[&[u8]]) -> Talk {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a server");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time");
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        stream.write_all(&command).expect("a server that listens");
        Talk(BufReader::new(stream))
    }

    /// Ends it as a power cut would: what it had in memory is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, at the same place.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.watchdog) = spawn(&self.dir, self.port, &self.options);
    }
}

/// A stranger who listens.
pub(crate) struct Tap(Talk);

impl Tap {
    /// The next message.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.0.answer().remove(2)
    }
}

/// A connection that has been told something.
pub(crate) struct Talk(BufReader<TcpStream>);

impl Talk {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// One answer: the texts of a list, or one text.
    fn answer(&mut self) -> Vec<Vec<u8>> {
        let line = self.line();
        let Some(count) = line.strip_prefix('*') else { return vec![self.text(&line)] };
        let mut texts = Vec::new();
        for _ in 0..count.parse().expect("a count") {
            let line = self.line();
            texts.push(self.text(&line));
        }
        texts
    }

    fn text(&mut self, line: &str) -> Vec<u8> {
        assert!(!line.starts_with('-'), "{line}");
        let Some(length) = line.strip_prefix('$') else { return line.as_bytes()[1..].to_vec() };
        let mut text = vec![0; length.parse::<usize>().expect("a length") + 2];
        self.0.read_exact(&mut text).expect("the whole answer");
        text.truncate(text.len() - 2);
        text
    }
}

/// A Redis Cluster of masters alone.
pub(crate) struct RedisCluster {
    pub(crate) servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three masters with a third of the slots each, and waits until all know of each other.
    pub(crate) fn start() -> Self {
        Self::start_with(Vec::new)
    }

    /// The same with more options for each. If they speak TLS, that is how they are known to each other.
    pub(crate) fn start_with(options: impl Fn() -> Vec<String>) -> Self {
        let start = |_| {
            let basic = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            basic.into_iter().map(str::to_owned).chain(options()).collect()
        };
        let servers: Vec<RedisServer> = (0..3).map(|_| RedisServer::start_with(start)).collect();
        for (n, (from, to)) in [(0, 5460), (5461, 10_922), (10_923, 16_383)].into_iter().enumerate() {
            servers[n].ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
            servers[n].ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        }
        for other in &servers[1..] {
            servers[0].ask(&format!(
                "CLUSTER MEET 127.0.0.1 {} {}",
                other.tls_port().unwrap_or(other.port),
                other.port + 1
            ));
        }
        let this = Self { servers };
        this.wait_until("all servers know all slots", || {
            let is_whole = |server: &RedisServer| {
                let info = server.ask("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            this.servers.iter().all(is_whole)
        });
        this
    }

    /// Moves a slot to another master, as an operator would.
    pub(crate) fn move_slot(&self, slot: usize, from: usize, to: usize) {
        let [from, to] = [from, to].map(|n| &self.servers[n]);
        let [from_id, to_id] = [from, to].map(|server| server.ask("CLUSTER MYID"));
        to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        to.ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        from.ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < until, "waited too long until {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens to, below those that the kernel gives to clients. The next number is for the cluster bus.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 1000).expect("below 1000");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < 5000, "no free port");
        let port = 20_000 + (first * 10 + step * 2) % 12_000;
        if [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}

fn spawn(dir: &TempDir, port: u16, options: &[String]) -> (Child, Child) {
    let log = dir.path().join("redis.log");
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--cluster-port", &(port + 1).to_string()])
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--logfile"])
        .arg(&log)
        .arg("--dir")
        .arg(dir.path())
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is missing: tests/run.sh installs it");
    let script = format!("read -r _; kill -9 {}; rm -rf '{}'", child.id(), dir.path().display());
    let watchdog = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
    let until = Instant::now() + DEADLINE;
    while !answers(port) {
        let ended = child.try_wait().expect("a child");
        assert!(
            ended.is_none() && Instant::now() < until,
            "redis-server does not answer: {}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, watchdog)
}

/// Whether something there speaks Redis. A server that wants a password or TLS says so too.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut first = [0; 1];
    stream.set_read_timeout(Some(DEADLINE)).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read(&mut first).is_ok_and(|read| read <= 1)
}
