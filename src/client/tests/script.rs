//! A node that says what the test tells it to.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::in_time;
use crate::client::ServerAddress;

/// The session of the tests.
pub(super) const S: &str = "01927c3e-7b1a-7c4e-9a53-2f6f0f9f1a01";
/// The user of the tests.
pub(super) const ME: &str = "01927c3e-7b1a-7c4e-9a53-2f6f0f9f1a02";

pub(super) struct Node {
    listener: TcpListener,
    pub(super) address: ServerAddress,
}

/// One accepted connection.
pub(super) struct Peer(WebSocketStream<TcpStream>);

impl Node {
    pub(super) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        Self { listener, address }
    }

    pub(super) fn address(&self) -> ServerAddress {
        self.address.clone()
    }

    pub(super) async fn accept(&self) -> Peer {
        let (socket, _) = in_time(self.listener.accept()).await.unwrap();
        Peer(in_time(tokio_tungstenite::accept_hdr_async(socket, speak_version_1)).await.unwrap())
    }

    /// Answers one call with this status and "ok", and tells its head.
    pub(super) async fn answer_a_call(&self, status: &str) -> String {
        let (mut socket, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    }
}

impl Peer {
    /// The next request, whatever it is.
    pub(super) async fn any_request(&mut self) -> (u64, String, Value) {
        loop {
            match in_time(self.0.next()).await.expect("the client is gone").unwrap() {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    let name = frame["type"].as_str().unwrap().to_owned();
                    return (frame["id"].as_u64().unwrap(), name, frame["body"].clone());
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    /// The next request, acknowledgements of events aside; it has to be this one.
    pub(super) async fn request(&mut self, expected: &str) -> (u64, Value) {
        loop {
            let (id, name, body) = self.any_request().await;
            if name == "ack" && expected != "ack" {
                self.reply(id, &json!({})).await;
                continue;
            }
            assert_eq!(name, expected);
            return (id, body);
        }
    }

    pub(super) async fn reply(&mut self, id: u64, body: &Value) {
        self.event(&json!({"reply_to": id, "type": "whatever", "body": body})).await;
    }

    pub(super) async fn refuse(&mut self, id: u64, code: &str) {
        let body = json!({"code": code, "message": "no", "retryable": code == "rate_limited"});
        self.event(&json!({"reply_to": id, "type": "error", "body": body})).await;
    }

    pub(super) async fn event(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(super) async fn role_changed(&mut self, seq: u64) {
        self.event(&role_changed(seq)).await;
    }

    /// Answers `authenticate` for a user who is in S, which is plain.
    pub(super) async fn authenticated(&mut self, last_seq: u64) {
        self.authenticated_in(last_seq, None).await;
    }

    /// The same where S is encrypted with this epoch, whose key the user does not have.
    pub(super) async fn authenticated_in(&mut self, last_seq: u64, key_epoch: Option<u64>) {
        let (id, body) = self.request("authenticate").await;
        assert_eq!(body, json!({"token": "token"}));
        let session = json!({
            "session_id": S, "e2ee_on": key_epoch.is_some(), "key_epoch": key_epoch, "has_key": false, "role": "owner",
            "first_seq": 1, "last_seq": last_seq, "acked_seq": 0, "log": "the-log",
        });
        let limits = json!({"frame_bytes": 1048576, "requests_in_flight": 64, "requests_per_s": 5000});
        self.reply(id, &json!({"user_id": ME, "node": "n", "limits": limits, "sessions": [session]})).await;
    }

    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = in_time(self.0.next()).await {}
    }

    /// Whether the client closes with a frame.
    pub(super) async fn until_closed(mut self) -> bool {
        while let Some(Ok(message)) = in_time(self.0.next()).await {
            if message.is_close() {
                return true;
            }
        }
        false
    }
}

#[expect(clippy::result_large_err, reason = "the type is the WebSocket library's")]
fn speak_version_1(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.headers()["sec-websocket-protocol"], "conclave.v1.json");
    let protocol = request.headers()["sec-websocket-protocol"].clone();
    response.headers_mut().insert("sec-websocket-protocol", protocol);
    Ok(response)
}

pub(super) fn role_changed(seq: u64) -> Value {
    let body = json!({
        "session_id": S, "seq": seq, "time": "2026-01-31T12:00:00.000Z", "user_id": ME, "role": "admin",
    });
    json!({"type": "RoleChanged", "body": body})
}
