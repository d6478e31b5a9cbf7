//! Real Redis servers on loopback, each in a directory of its own. They end with the process that started them.

use std::io::{Read, Write};
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
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (dir, port) = (TempDir::new().expect("a directory"), free_port());
        let (child, watchdog) = spawn(&dir, port, &options);
        Self { child, watchdog, dir, port, options }
    }

    /// Where it is, for users without a name.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens to, below those that the kernel gives to clients. The next number is for the cluster bus.
fn free_port() -> u16 {
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
