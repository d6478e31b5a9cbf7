//! A node with its store, its sessions and its server, and a WebSocket client that is nothing but bytes.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::connection::{ConnectionParts, Connections, Recovery, Subscriptions, prepare_socket, upgrade};
use crate::protocol::{NodeId, SessionId, Timestamp, UserId};
use crate::session::{Clock, Commits, SessionParts, Sessions, SessionsOptions, SystemClock};
use crate::store::{
    CommitOutcome, GroupCommit, GroupCommitOptions, NodeReport, SessionCommit, SqliteOptions, SqliteStore, Store,
    TokenHash, TokenOwner, UserRow, WireVersions,
};
use crate::telemetry::Metrics;

use super::wire::Wire;

/// Nothing in these tests takes longer, unless it never comes.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// What the nodes of one cluster share.
pub(super) struct Ground {
    pub(super) store: Arc<dyn Store>,
    pub(super) wire: Wire,
    users: AtomicU8,
    _dir: TempDir,
}

impl Ground {
    pub(super) async fn new() -> Arc<Self> {
        let dir = TempDir::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap());
        Arc::new(Self { store, wire: Wire::default(), users: AtomicU8::new(1), _dir: dir })
    }

    pub(super) async fn user(&self) -> TestUser {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        let id = UserId::from_bytes([number; 16]);
        let now = self.store.now().await.unwrap();
        let row = UserRow {
            user_id: id,
            name: format!("user-{number}"),
            display_name: None,
            password_hash: "-".into(),
            public_key: "AAAA".into(),
            fingerprint: format!("{number:064x}"),
            created_at: now,
        };
        self.store.create_user(&row).await.unwrap();
        let token = format!("token-{number}");
        self.token(id, &token, now.plus_secs(3600)).await;
        TestUser { id, token }
    }

    pub(super) async fn token(&self, user_id: UserId, token: &str, expires_at: Timestamp) {
        let owner = TokenOwner { user_id, expires_at };
        self.store.add_token(hash_of(token).unwrap(), &owner, 100).await.unwrap();
    }
}

/// A node.
pub(super) struct TestNode {
    pub(super) ground: Arc<Ground>,
    pub(super) store: Arc<dyn Store>,
    pub(super) id: NodeId,
    pub(super) sessions: Sessions,
    pub(super) connections: Arc<Connections>,
    pub(super) subscriptions: Subscriptions,
    pub(super) recovery: Recovery,
    pub(super) metrics: Arc<Metrics>,
    pub(super) addr: SocketAddr,
    server: actix_web::dev::ServerHandle,
    pub(super) poison: Poison,
}

/// A user with a token.
#[derive(Clone, Debug)]
pub(super) struct TestUser {
    pub(super) id: UserId,
    pub(super) token: String,
}

pub(super) fn hash_of(token: &str) -> Option<TokenHash> {
    let mut hash = [0; 32];
    hash.get_mut(..token.len())?.copy_from_slice(token.as_bytes());
    Some(TokenHash(hash))
}

async fn handler(node: web::Data<Arc<Connections>>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let address = request.peer_addr().map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip());
    match upgrade(&request, payload, &node, address).await {
        Ok(response) => response,
        Err(refusal) => {
            let status = actix_web::http::StatusCode::from_u16(refusal.code.status()).unwrap();
            HttpResponse::build(status).json(refusal)
        }
    }
}

pub(super) fn report() -> NodeReport {
    let wire = WireVersions { oldest: 1, newest: 1 };
    NodeReport { program: "test".to_owned(), wire, connections: 0, sessions: 0, bus_ok: true }
}

fn serve(config: &Config, connections: &Arc<Connections>) -> (SocketAddr, actix_web::dev::ServerHandle) {
    let shared = Arc::clone(connections);
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(Arc::clone(&shared))).route("/v1/ws", web::get().to(handler))
    })
    .on_connect(prepare_socket(&config.connections))
    .workers(2)
    .disable_signals()
    .shutdown_timeout(1)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let addr = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (addr, handle)
}

/// The session whose actor panics at its next command.
#[derive(Clone, Default)]
pub(super) struct Poison(Arc<Mutex<Option<SessionId>>>);

impl Poison {
    pub(super) fn give(&self, session_id: SessionId) {
        *self.0.lock().unwrap() = Some(session_id);
    }
}

/// Where commits go, with what makes a session panic on the way.
struct Poisoned {
    commits: GroupCommit,
    poison: Poison,
}

impl Commits for Poisoned {
    fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>> {
        self.commits.submit(commit)
    }

    fn is_full(&self, session_id: SessionId) -> bool {
        let poisoned = self.poison.0.lock().unwrap().take_if(|poisoned| *poisoned == session_id);
        assert!(poisoned.is_none(), "poison");
        self.commits.is_full(session_id)
    }
}

impl TestNode {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(&Ground::new().await, 0x0a, change).await
    }

    /// One more node on common ground.
    pub(super) async fn on(ground: &Arc<Ground>, number: u8, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let id = NodeId::from_bytes([number; 16]);
        let store = Arc::clone(&ground.store);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let metrics = Metrics::new();
        store.renew_lease(id, 3_600_000, &report()).await.unwrap();
        let commits = GroupCommit::start(Arc::clone(&store), id, GroupCommitOptions::default(), None);
        let subscriptions = Subscriptions::new(id, Arc::clone(&metrics));
        let end = ground.wire.join(id, Arc::new(subscriptions.clone()));
        subscriptions.attach(Arc::new(end), config.cluster.lane_bytes);
        let options = SessionsOptions {
            node_id: id,
            threads: 1,
            mailbox: 1024,
            idle: Duration::from_secs(config.sessions.idle_s),
            call_deadline: Duration::from_millis(config.cluster.call_deadline_ms),
            waiting: config.waiting(),
            roll_call_every: Duration::from_millis(config.cluster.roll_call_ms),
            rules: config.rules(),
        };
        let poison = Poison::default();
        let parts = SessionParts {
            store: Arc::clone(&store),
            commits: Arc::new(Poisoned { commits, poison: poison.clone() }),
            deliveries: Arc::new(subscriptions.clone()),
            presence: Arc::new(subscriptions.clone()),
            clock: Arc::clone(&clock),
            may_take_over: Arc::new(|| true),
            metrics: Arc::clone(&metrics),
        };
        let sessions = Sessions::start(options, parts);
        subscriptions.meet(sessions.peers()).await.unwrap();
        let time: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(move || clock.now());
        let recovery = Recovery::new(Arc::clone(&store), subscriptions.clone(), Arc::clone(&time));
        let connections = Connections::new(ConnectionParts {
            store: Arc::clone(&store),
            sessions: Arc::new(sessions.clone()),
            subscriptions: subscriptions.clone(),
            settings: config.connections.clone(),
            limits: config.limits.clone(),
            node: id,
            clock: time,
            token_hash: hash_of,
            metrics: Arc::clone(&metrics),
        });
        let (addr, server) = serve(&config, &connections);
        let ground = Arc::clone(ground);
        Self { ground, store, id, sessions, connections, subscriptions, recovery, metrics, addr, server, poison }
    }

    pub(super) async fn user(&self) -> TestUser {
        self.ground.user().await
    }

    pub(super) async fn token(&self, user_id: UserId, token: &str, expires_at: Timestamp) {
        self.ground.token(user_id, token, expires_at).await;
    }

    /// A connection that has authenticated.
    pub(super) async fn enter(&self, user: &TestUser) -> Raw {
        let mut raw = Raw::open(self.addr).await;
        raw.call("authenticate", json!({"token": user.token})).await;
        raw
    }

    /// A connection whose events flow.
    pub(super) async fn resume(&self, user: &TestUser) -> Raw {
        let mut raw = self.enter(user).await;
        raw.call("resume", json!({})).await;
        raw
    }

    pub(super) async fn stop(self) {
        self.server.stop(false).await;
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Got {
    Text(Value),
    Ping,
    Pong(Vec<u8>),
    /// The code and the reason's length.
    Close(Option<u16>),
    End,
}

/// A client.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    input: Vec<u8>,
    next_id: u64,
    /// Text frames that came while something else was waited for.
    kept: std::collections::VecDeque<Value>,
}

/// A masked frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

impl Raw {
    /// Opens a connection and upgrades it.
    pub(super) async fn open(addr: SocketAddr) -> Self {
        let (raw, head) = Self::handshake(addr, "").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    /// Sends an upgrade with further headers; the answer's head.
    pub(super) async fn handshake(addr: SocketAddr, headers: &str) -> (Self, String) {
        Self::handshake_over(TcpStream::connect(addr).await.unwrap(), headers).await
    }

    pub(super) async fn handshake_over(stream: TcpStream, headers: &str) -> (Self, String) {
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { stream, input: Vec::new(), next_id: 1, kept: std::collections::VecDeque::new() };
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        raw.send(request.as_bytes()).await;
        let end = loop {
            if let Some(at) = raw.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(raw.more().await, "the connection ended in the handshake");
        };
        let head = String::from_utf8(raw.input.drain(..end).collect()).unwrap();
        (raw, head)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        match timeout(SOON, self.stream.read(&mut buffer)).await.expect("nothing came in time") {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.input.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }

    fn parse(&mut self) -> Option<Got> {
        let (first, second) = (*self.input.first()?, *self.input.get(1)?);
        let (header, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.input.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        let payload = self.input.get(header..header + len)?.to_vec();
        self.input.drain(..header + len);
        Some(match first {
            0x81 => Got::Text(serde_json::from_slice(&payload).unwrap()),
            0x88 => Got::Close(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))),
            0x89 => Got::Ping,
            0x8A => Got::Pong(payload),
            other => panic!("a frame that begins with {other:#x}"),
        })
    }

    /// The next frame, whatever it is.
    pub(super) async fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.parse() {
                return got;
            }
            if !self.more().await {
                return Got::End;
            }
        }
    }

    /// The next text frame; pings are answered on the way.
    pub(super) async fn text(&mut self) -> Option<Value> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        self.fresh_text().await
    }

    async fn fresh_text(&mut self) -> Option<Value> {
        loop {
            match self.next().await {
                Got::Text(value) => return Some(value),
                Got::Ping => self.send(&frame(0x8A, b"")).await,
                Got::Pong(_) => {}
                Got::Close(_) | Got::End => return None,
            }
        }
    }

    /// What has come and was kept, without waiting for more: to be called behind an answer.
    pub(super) async fn text_now(&mut self) -> Option<Value> {
        self.call("ping", json!({})).await;
        self.kept.pop_front()
    }

    /// Up to the close frame; its code.
    pub(super) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Got::Close(code) => return code,
                Got::End => return None,
                Got::Text(_) | Got::Ping | Got::Pong(_) => {}
            }
        }
    }

    /// Sends a request without waiting; its id.
    pub(super) async fn ask(&mut self, name: &str, body: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let text = json!({"id": id, "type": name, "body": body}).to_string();
        self.send(&frame(0x81, text.as_bytes())).await;
        id
    }

    /// The answer to a request; other frames are kept.
    pub(super) async fn answer(&mut self, id: u64) -> Value {
        if let Some(at) = self.kept.iter().position(|frame| frame["reply_to"] == id) {
            return self.kept.remove(at).unwrap();
        }
        loop {
            let frame = self.fresh_text().await.expect("the connection ended before the answer");
            if frame["reply_to"] == id {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// Sends a request; the body of its reply.
    pub(super) async fn call(&mut self, name: &str, body: Value) -> Value {
        let id = self.ask(name, body).await;
        let mut answer = self.answer(id).await;
        assert_eq!(answer["type"], name, "{answer}");
        answer["body"].take()
    }

    /// Sends a request; the code of its refusal.
    pub(super) async fn refused(&mut self, name: &str, body: Value) -> String {
        let id = self.ask(name, body).await;
        let answer = self.answer(id).await;
        assert_eq!(answer["type"], "error", "{answer}");
        answer["body"]["code"].as_str().unwrap().to_owned()
    }

    /// The next event of a type, dropping what comes before.
    pub(super) async fn event(&mut self, name: &str) -> Value {
        loop {
            let mut frame = self.text().await.expect("the connection ended before the event");
            if frame["type"] == name {
                return frame["body"].take();
            }
        }
    }
}

/// A plain session of `owner` that `others` are in.
pub(super) async fn plain_session(owner: &mut Raw, others: &mut [&mut Raw]) -> Value {
    let session = owner.call("new_session", json!({"e2ee_on": false, "name": "test"})).await["session_id"].clone();
    owner.call("set_session_info", json!({"session_id": session, "join_policy": "open"})).await;
    for other in others {
        let joined = other.call("join_session", json!({"session_id": session})).await;
        assert_eq!(joined["status"], "joined");
    }
    session
}
