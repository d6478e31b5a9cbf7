//! Real nodes: the server's own binary, each with a data directory of its own.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::client::Client;
use super::http::{self, Answer};
use super::{DEADLINE, Postgres, keys, within};

/// The password of every user that the tests do not give another.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The kind of store of all nodes that the tests do not give one themselves: embedded, if it is not `postgres`.
const STORE: &str = "CONCLAVE_TEST_STORE";

/// The name of its log.
const LOG: &str = "node.log";

/// A running node. It is killed when this is dropped.
pub(crate) struct Node {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    data: TempDir,
    settings: Vec<(String, String)>,
    /// Whether it got a database by [`STORE`].
    shares_a_store: bool,
}

/// Kills the shared node when this process ends, however it ends: a static is never dropped, but its pipe is closed.
struct Watchdog {
    _shell: Child,
}

impl Node {
    /// The node of all tests that need no settings of their own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<(Node, Watchdog)> = OnceCell::const_new();
        let (node, _) = SHARED
            .get_or_init(|| async {
                let node = Self::start(&[]).await;
                let script = format!("read -r _; kill -9 {}; rm -rf '{}'", node.child.id(), node.data.path().display());
                let shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn();
                (node, Watchdog { _shell: shell.expect("a shell") })
            })
            .await;
        node
    }

    /// Starts a node with settings, such as `("limits.page", "10")`.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut settings: Vec<_> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let shares_a_store = std::env::var(STORE).is_ok_and(|kind| kind == "postgres")
            && !settings.iter().any(|(key, _)| key == "store.kind");
        if shares_a_store {
            settings.push(("store.kind".to_owned(), "postgres".to_owned()));
            settings.push(("store.postgres.url".to_owned(), Postgres::shared().database().await));
        }
        let data = TempDir::new().expect("a directory");
        let (child, address) = spawn(&data, &settings).await;
        Self { child, address, data, settings, shares_a_store }
    }

    /// Ends it as a power cut would, and starts it again with the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.child.kill().expect("a running node");
        self.child.wait().expect("its end");
        if self.shares_a_store {
            // Stands in for the time until the dead node's lease is over.
            let url = self.settings.iter().find(|(key, _)| key == "store.postgres.url").expect("it has one");
            Postgres::execute_at(&url.1, "UPDATE sessions SET owner_node = NULL; DELETE FROM nodes").await;
        }
        (self.child, self.address) = spawn(&self.data, &self.settings).await;
    }

    /// Starts it again after [`Node::terminated`].
    pub(crate) async fn restart(&mut self) {
        (self.child, self.address) = spawn(&self.data, &self.settings).await;
    }

    /// Where clients connect, as a URL.
    pub(crate) fn url(&self) -> String {
        let secure = self.settings.iter().any(|(key, _)| key == "http.tls.cert");
        format!("{}://{}", if secure { "https" } else { "http" }, self.address)
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// All that it has logged, over its restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join(LOG)).expect("its log")
    }

    /// Lets no file of the node grow beyond so many bytes, as a full disk does; `None`: there is room again.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let pid = Pid::from_child(&self.child);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).expect("a child's limits can be set");
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, such as `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for its end.
    pub(crate) async fn terminated(&mut self) -> ExitStatus {
        let until = Instant::now() + 2 * DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "the node did not end in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls with a JSON body and no token.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        http::call(self.address, "POST", path, &[], Some(body.to_string().as_bytes())).await
    }

    /// Calls without body and token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::call(self.address, "GET", path, &[], None).await
    }

    /// Waits until the operators' word on its readiness is this.
    pub(crate) async fn until_ready_is(&self, status: u16) -> Answer {
        within("readiness to change", async {
            loop {
                let answer = self.get("/readyz").await;
                if answer.status == status {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }

    /// What a metric without labels says now.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// What a metric says now, over all its labels.
    pub(crate) async fn sum(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.text;
        let values = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// A new user, whose name starts with `name`.
    pub(crate) async fn user(&self, name: &str) -> User {
        self.user_with_key(name, keys::SPKI).await
    }

    /// A new user with this public key.
    pub(crate) async fn user_with_key(&self, name: &str, public_key: &str) -> User {
        let name = unique(name);
        let body = json!({"name": name, "password": PASSWORD, "public_key": public_key});
        let answer = self.post("/v1/register", &body).await.expect(201);
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("{field}: {answer}")).to_owned();
        User { address: self.address, id: text("user_id"), token: text("token"), name }
    }

    /// A new user, connected.
    pub(crate) async fn client(&self, name: &str) -> Client {
        self.user(name).await.connect().await
    }

    /// Three new users, connected.
    pub(crate) async fn three(&self) -> [Client; 3] {
        [self.client("alice").await, self.client("bob").await, self.client("carol").await]
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn spawn(data: &TempDir, settings: &Vec<(String, String)>) -> (Child, SocketAddr) {
    let log = data.path().join(LOG);
    let lines = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
    // A write that a limit forbids is to fail, as on a full disk, and not to end the process. Of open files there are
    // as few at first as many systems give.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -S -n 1024; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_conclave")])
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path().join("data"))
        .current_dir(data.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(lines);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CONCLAVE__")) {
        command.env_remove(name);
    }
    for (key, value) in settings {
        // What has no dot in it is no setting but a variable for the whole process.
        let is_setting = key.contains('.');
        let name =
            if is_setting { format!("CONCLAVE__{}", key.to_uppercase().replace('.', "__")) } else { key.clone() };
        command.env(name, value);
    }
    let mut child = command.spawn().expect("the server's binary");
    let stdout = child.stdout.take().expect("a pipe");
    let (found, address) = mpsc::channel();
    // Reads to the end, so that the node never waits for a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ").and_then(|(_, url)| url.split_once("://")) {
                let address = rest.split_whitespace().next().and_then(|address| address.parse().ok());
                let _ = found.send(address);
            }
        }
    });
    let address = tokio::task::spawn_blocking(move || address.recv_timeout(DEADLINE)).await.expect("no panic");
    match address {
        Ok(Some(address)) => (child, address),
        Ok(None) | Err(_) => {
            let _ = child.kill();
            panic!("the node did not say where it listens: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
    }
}

/// A registered user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) name: String,
}

impl User {
    /// Connects, authenticates and resumes from nothing.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = self.authenticated().await;
        client.resumed = client.ok("resume", json!({})).await;
        client
    }

    /// Connects and authenticates.
    pub(crate) async fn authenticated(&self) -> Client {
        let mut client = self.unauthenticated().await;
        client.started = client.ok("authenticate", json!({"token": self.token})).await;
        client
    }

    /// Connects.
    pub(crate) async fn unauthenticated(&self) -> Client {
        let mut client = Client::open(self.address).await;
        client.user_id.clone_from(&self.id);
        client
    }

    /// Calls with this user's token.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let body = body.map(|body| body.to_string());
        let headers = [("Authorization", bearer.as_str())];
        http::call(self.address, method, path, &headers, body.as_deref().map(str::as_bytes)).await
    }
}
