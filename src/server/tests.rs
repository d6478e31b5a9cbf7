//! A whole node, over its own sockets: routes and their errors, listeners, TLS, and how it starts and stops.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A public key of 2048 bits that nobody has the other half of.
const PUBLIC_KEY: &str = include_str!("tests/public_key.pem");

/// A node of its own data directory, on ports of its own.
struct TestNode {
    address: SocketAddr,
    operations: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    ended: actix_web::rt::task::JoinHandle<io::Result<()>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn error_code(&self) -> String {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["retryable"].is_boolean(), "{error}");
        error["code"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(known, _)| *known == name).map(|(_, v)| v)
    }
}

fn config(dir: &TempDir) -> Config {
    let mut config = Config::default();
    config.http.listen.set_port(0);
    config.http.workers = 1;
    config.store.data_dir = dir.path().join("data");
    config.accounts.argon2_memory_kib = 8;
    config.accounts.argon2_passes = 1;
    config.connections.send_buffer_bytes = 65_536;
    config
}

async fn start(config: Config) -> TestNode {
    let server = Server::build(config).await.unwrap();
    let (address, operations) = (server.addr(), server.operations_addr());
    let (stop, stopped) = oneshot::channel();
    let ended = actix_web::rt::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    TestNode { address, operations, stop, ended }
}

async fn call_at(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A refusal may come, and the connection end, before all of a large body is sent.
        let _ = socket.read_to_string(&mut answer).await;
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl TestNode {
    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        call_at(self.address, method, path, &headers, &body).await
    }

    /// Registers, and tells user id and token.
    async fn register(&self, name: &str) -> (String, String) {
        let body = json!({"name": name, "password": "a fine password", "public_key": PUBLIC_KEY});
        let answer = self.call("POST", "/v1/register", None, body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let body = answer.json();
        (body["user_id"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    }

    async fn connect(&self, token: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let url = format!("ws://{}/v1/ws", self.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let request = json!({"id": 1, "type": "authenticate", "body": {"token": token}});
        socket.send(Message::text(request.to_string())).await.unwrap();
        let reply = next(&mut socket).await;
        assert_eq!(reply["type"], "authenticate");
        socket
    }

    async fn until_ready(&self, address: SocketAddr) {
        let ready = async { while call_at(address, "GET", "/readyz", &[], "").await.status != 200 {} };
        timeout(PATIENCE, ready).await.unwrap();
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.ended).await.unwrap().unwrap().unwrap();
    }
}

async fn next(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Value {
    match timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn close_code(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> u16 {
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Close(Some(frame)) => return frame.code.into(),
            Message::Close(None) => panic!("closed without a code"),
            _ => {}
        }
    }
}

#[actix_web::test]
async fn an_account_lives_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    let (user_id, token) = node.register("ann").await;
    let token = Some(token.as_str());
    let by_id = node.call("GET", &format!("/v1/users/{user_id}"), token, Value::Null).await;
    let by_name = node.call("GET", "/v1/users?name=ann", token, Value::Null).await;
    assert_eq!((by_id.status, by_id.json()), (200, by_name.json()));
    assert_eq!(by_id.json()["fingerprint"].as_str().unwrap().len(), 64);
    assert!(by_id.json().get("display_name").is_none());

    let login = json!({"name": "ann", "password": "a fine password"});
    let other = node.call("POST", "/v1/login", None, login).await;
    assert_eq!(other.status, 200);
    let other = other.json()["token"].as_str().unwrap().to_owned();
    let key = json!({"public_key": PUBLIC_KEY, "password": "a fine password"});
    assert_eq!(node.call("PUT", "/v1/me/public_key", token, key).await.status, 204);
    let password = json!({"password": "a fine password", "new_password": "a better password"});
    assert_eq!(node.call("PUT", "/v1/me/password", token, password).await.status, 204);
    assert_eq!(node.call("GET", "/v1/users?name=ann", Some(&other), Value::Null).await.status, 401);
    let wrong = node.call("DELETE", "/v1/me", token, json!({"password": "a fine password"})).await;
    assert_eq!((wrong.status, wrong.error_code().as_str()), (403, "permission_denied"));
    assert_eq!(node.call("DELETE", "/v1/me", token, json!({"password": "a better password"})).await.status, 204);
    assert_eq!(node.call("POST", "/v1/logout", token, Value::Null).await.status, 401);
    node.stop().await;
}

#[actix_web::test]
async fn every_refusal_has_the_contracts_body() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    let (_, token) = node.register("ann").await;
    let token = Some(token.as_str());
    let nobody = json!({"name": "ben", "password": "a fine password"});
    let twice = json!({"name": "ann", "password": "a fine password", "public_key": PUBLIC_KEY});
    let large = json!({"name": "x".repeat(20_000)});
    let unknown_user = "/v1/users/01890a5d-ac96-774b-bcce-b302099a8057";
    let cases = [
        ("GET", "/", None, Value::Null, 404, "not_found"),
        ("GET", "/v1/nothing", None, Value::Null, 404, "not_found"),
        ("GET", "/v1/register", None, Value::Null, 405, "invalid_argument"),
        ("PATCH", "/v1/me", token, Value::Null, 405, "invalid_argument"),
        ("POST", "/v1/register", None, json!({}), 400, "invalid_argument"),
        ("POST", "/v1/register", None, json!([1]), 400, "invalid_argument"),
        ("POST", "/v1/register", None, twice, 409, "already_exists"),
        ("POST", "/v1/register", None, large, 413, "too_large"),
        ("POST", "/v1/login", None, nobody, 401, "unauthenticated"),
        ("POST", "/v1/logout", None, Value::Null, 401, "unauthenticated"),
        ("POST", "/v1/logout", Some("no token"), Value::Null, 401, "unauthenticated"),
        ("GET", unknown_user, token, Value::Null, 404, "not_found"),
        ("GET", "/v1/users/ann", token, Value::Null, 400, "invalid_argument"),
        ("GET", "/v1/users", token, Value::Null, 400, "invalid_argument"),
        ("GET", "/v1/users?name=ben", token, Value::Null, 404, "not_found"),
        ("GET", "/v1/ws", None, Value::Null, 400, "invalid_argument"),
    ];
    for (method, path, token, body, status, code) in cases {
        let answer = node.call(method, path, token, body).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{method} {path}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{method} {path}");
    }
    node.stop().await;
}

#[actix_web::test]
async fn failed_logins_are_limited_per_address_behind_a_trusted_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.limits.failed_logins_per_minute = 1;
    config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let node = start(config).await;
    let login = async |name: &str, address: &str| {
        let body = json!({"name": name, "password": "not the password"}).to_string();
        call_at(node.address, "POST", "/v1/login", &[("forwarded", &format!("for={address}"))], &body).await
    };
    for number in 0..10 {
        assert_eq!(login(&format!("name{number}"), "192.0.2.1").await.status, 401);
    }
    let limited = login("name10", "192.0.2.1").await;
    assert_eq!((limited.status, limited.error_code().as_str()), (429, "rate_limited"));
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    assert!(limited.json()["error"]["details"]["retry_after_ms"].is_u64());
    assert_eq!(login("name10", "192.0.2.2").await.status, 401);
    node.stop().await;
}

#[actix_web::test]
async fn health_and_metrics_can_have_a_listener_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    node.until_ready(node.address).await;
    assert_eq!(call_at(node.address, "GET", "/livez", &[], "").await.status, 200);
    assert!(call_at(node.address, "GET", "/metrics", &[], "").await.body.contains("\nconclave_ready 1\n"));
    node.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.http.operations_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let node = start(config).await;
    let operations = node.operations.unwrap();
    node.until_ready(operations).await;
    assert_eq!(call_at(operations, "GET", "/metrics", &[], "").await.status, 200);
    assert_eq!(call_at(operations, "POST", "/v1/login", &[], "{}").await.status, 404);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(call_at(node.address, "GET", path, &[], "").await.status, 404, "{path}");
    }
    node.stop().await;
}

#[actix_web::test]
async fn a_node_that_waits_for_its_store_tells_operators_and_clients_each_at_their_door() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.http.operations_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.store.kind = crate::config::StoreKind::Postgres;
    let nowhere = format!("postgres://nobody@localhost/nothing?host={}", dir.path().display());
    config.store_postgres.url = crate::config::Setting::from_text(&nowhere);
    let node = start(config).await;
    let operations = node.operations.unwrap();
    assert_eq!(call_at(operations, "GET", "/livez", &[], "").await.status, 200);
    assert!(call_at(operations, "GET", "/metrics", &[], "").await.body.contains("\nconclave_ready 0\n"));
    for (address, path) in
        [(operations, "/readyz"), (operations, "/v1/me"), (node.address, "/livez"), (node.address, "/v1/ws")]
    {
        let answer = call_at(address, "GET", path, &[], "").await;
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "unavailable"), "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    node.stop().await;
}

#[actix_web::test]
async fn a_web_page_of_another_origin_opens_no_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.http.allowed_origins = vec!["https://chat.example.org".to_owned()];
    let node = start(config).await;
    let upgrade = async |origin: &str| {
        let headers = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("origin", origin),
        ];
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET /v1/ws HTTP/1.1\r\nhost: node\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(PATIENCE, socket.read_exact(&mut status)).await.unwrap().unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    assert_eq!(upgrade("https://evil.example").await, "403");
    assert_eq!(upgrade("https://chat.example.org").await, "101");
    assert_eq!(upgrade("http://node").await, "101");
    node.stop().await;
}

#[actix_web::test]
async fn a_token_that_dies_takes_its_connections_along() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    let (_, token) = node.register("ann").await;
    let mut socket = node.connect(&token).await;
    assert_eq!(node.call("POST", "/v1/logout", Some(&token), Value::Null).await.status, 204);
    assert_eq!(close_code(&mut socket).await, 4001);
    node.stop().await;
}

#[actix_web::test]
async fn a_stop_sends_everybody_away_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    let (_, token) = node.register("ann").await;
    let mut socket = node.connect(&token).await;
    let request = json!({"id": 2, "type": "new_session", "body": {"e2ee_on": false}});
    socket.send(Message::text(request.to_string())).await.unwrap();
    let session_id = next(&mut socket).await["body"]["session_id"].clone();
    let request = json!({"id": 3, "type": "send_msg",
        "body": {"session_id": session_id, "markdown_text": "kept", "is_encrypted": false}});
    socket.send(Message::text(request.to_string())).await.unwrap();
    assert_eq!(next(&mut socket).await["body"]["seq"], 2);
    node.stop.send(()).unwrap();
    let going_away = next(&mut socket).await;
    assert_eq!(going_away["type"], "GoingAway");
    assert!(going_away["body"]["reconnect_after_ms"].as_u64().unwrap() <= 5000);
    assert_eq!(close_code(&mut socket).await, 1012);
    timeout(PATIENCE, node.ended).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(node.address).await.is_err(), "the door is shut");

    let node = start(config(&dir)).await;
    let mut socket = node.connect(&token).await;
    let request = json!({"id": 2, "type": "fetch_msgs", "body": {"session_id": session_id}});
    socket.send(Message::text(request.to_string())).await.unwrap();
    let page = next(&mut socket).await;
    assert_eq!(page["body"]["events"][1]["body"]["markdown_text"], "kept");
    node.stop().await;
}

#[actix_web::test]
async fn a_data_directory_has_one_node_and_an_address_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(&dir)).await;
    let refused = Server::build(config(&dir)).await.err().unwrap();
    assert!(refused.to_string().starts_with("store.data_dir: "), "{refused}");
    let other = tempfile::tempdir().unwrap();
    let mut taken = config(&other);
    taken.http.listen = node.address;
    let refused = Server::build(taken).await.err().unwrap();
    assert!(refused.to_string().starts_with("http.listen: cannot listen on "), "{refused}");
    assert!(!other.path().join("data").exists(), "nothing was made for a node that cannot listen");
    node.stop().await;
}

#[actix_web::test]
async fn tls_is_spoken_where_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let pem = |name| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/tests").join(name);
    let mut config = config(&dir);
    config.http_tls.cert = Some(pem("cert.pem"));
    config.http_tls.key = Some(pem("key.pem"));
    let server = Server::build(config).await.unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));
    let address = server.addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = actix_web::rt::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    let answer = tokio::task::spawn_blocking(move || get_over_tls(address, &pem("cert.pem"))).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    stop.send(()).unwrap();
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
}

fn get_over_tls(address: SocketAddr, trust: &std::path::Path) -> String {
    use std::io::{Read, Write};

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trust).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The peer may end the connection without a close_notify.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}
