//! A client that knows nothing but the wire: frames out, frames in, each wait with a deadline.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::contract::assert_frame;
use super::within;
use super::ws::{self, Ws};

/// What the contract says of the codes' `retryable`.
const RETRYABLE: &[&str] = &["room_key_pending", "rate_limited", "overloaded", "unavailable"];

/// A connection of one user.
pub(crate) struct Client {
    pub(crate) ws: Ws,
    pub(crate) user_id: String,
    /// The reply to `authenticate`.
    pub(crate) started: Value,
    /// The reply to `resume`.
    pub(crate) resumed: Value,
    /// Whether a ping of the server is left unanswered.
    pub(crate) mute_pongs: bool,
    next_id: u64,
    /// Everything that came, in order, replies too.
    pub(crate) log: Vec<Value>,
    /// What came and was not asked for yet.
    waiting: VecDeque<Value>,
    replies: Vec<Value>,
    closed: Option<u16>,
}

impl Client {
    /// Opens a WebSocket as most clients will.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let ws = Ws::open(address, &[("Sec-WebSocket-Protocol", "conclave.v1.json")]).await;
        Self::on(ws.unwrap_or_else(|answer| panic!("no upgrade: {} {}", answer.status, answer.text)))
    }

    /// Speaks over a WebSocket that is open.
    pub(crate) fn on(ws: Ws) -> Self {
        Self {
            ws,
            user_id: String::new(),
            started: Value::Null,
            resumed: Value::Null,
            mute_pongs: false,
            next_id: 1,
            log: Vec::new(),
            waiting: VecDeque::new(),
            replies: Vec::new(),
            closed: None,
        }
    }

    /// Sends a request and does not wait for its reply.
    pub(crate) async fn send(&mut self, name: &str, body: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.text(&json!({"id": id, "type": name, "body": body}).to_string()).await;
        id
    }

    /// Sends a text frame.
    pub(crate) async fn text(&mut self, text: &str) {
        self.ws.send(ws::TEXT, text.as_bytes()).await;
    }

    /// The answer to a request that was sent.
    pub(crate) async fn answer(&mut self, id: u64) -> Result<Value, Value> {
        let mut frame = self.reply_where(|frame| frame["reply_to"] == id).await;
        if frame["type"] == "error" { Err(frame["body"].take()) } else { Ok(frame["body"].take()) }
    }

    /// The same, or nothing where the connection ended before it.
    pub(crate) async fn try_answer(&mut self, id: u64) -> Option<Result<Value, Value>> {
        within("a reply or the connection's end", async {
            while !self.replies.iter().any(|frame| frame["reply_to"] == id) && self.closed.is_none() {
                self.read_one().await;
            }
        })
        .await;
        if self.replies.iter().any(|frame| frame["reply_to"] == id) { Some(self.answer(id).await) } else { None }
    }

    /// The first reply frame of which this holds.
    pub(crate) async fn reply_where(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.replies.iter().position(&holds) {
                return self.replies.remove(at);
            }
            self.read("a reply").await;
        }
    }

    pub(crate) async fn request(&mut self, name: &str, body: Value) -> Result<Value, Value> {
        let id = self.send(name, body).await;
        self.answer(id).await
    }

    /// A request that has to be done.
    pub(crate) async fn ok(&mut self, name: &str, body: Value) -> Value {
        let shown = body.to_string();
        self.request(name, body).await.unwrap_or_else(|error| panic!("{name} {shown} was refused: {error}"))
    }

    /// A request that has to be refused with this code, in the contract's shape.
    pub(crate) async fn refused(&mut self, name: &str, body: Value, code: &str) -> Value {
        self.refused_any(name, body, &[code]).await
    }

    /// The same, where the contract leaves the code open.
    pub(crate) async fn refused_any(&mut self, name: &str, body: Value, codes: &[&str]) -> Value {
        let shown = body.to_string();
        let error = match self.request(name, body).await {
            Err(error) => error,
            Ok(reply) => panic!("{name} {shown} was done instead of refused with {codes:?}: {reply}"),
        };
        assert_refusal(&error);
        let code = error["code"].as_str().unwrap_or_default();
        assert!(codes.contains(&code), "{name} {shown}: not one of {codes:?}: {error}");
        error
    }

    /// The body of the next frame of this type, and what comes before it stays.
    pub(crate) async fn expect(&mut self, name: &str) -> Value {
        self.expect_where(name, |_| true).await
    }

    /// The body of the next frame of this type whose body is so.
    pub(crate) async fn expect_where(&mut self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.expect_frame(name, holds).await["body"].take()
    }

    /// The same, as the whole frame.
    pub(crate) async fn expect_frame(&mut self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let at = self.waiting.iter().position(|frame| frame["type"] == name && holds(&frame["body"]));
            if let Some(frame) = at.and_then(|at| self.waiting.remove(at)) {
                return frame;
            }
            self.read(name).await;
        }
    }

    /// A round trip: what the node had for this connection before it is here afterwards.
    pub(crate) async fn barrier(&mut self) {
        self.ok("ping", json!({})).await;
    }

    /// Forgets what came so far.
    pub(crate) async fn clear(&mut self) {
        self.barrier().await;
        self.waiting.clear();
    }

    /// Asserts that nothing came that was not asked for.
    pub(crate) async fn quiet(&mut self) {
        self.barrier().await;
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
    }

    /// Asserts that no frame of this type came.
    pub(crate) async fn none(&mut self, name: &str) {
        self.none_where(name, |_| true).await;
    }

    /// Asserts that no frame of this type came whose body is so.
    pub(crate) async fn none_where(&mut self, name: &str, holds: impl Fn(&Value) -> bool) {
        self.barrier().await;
        let found = self.waiting.iter().find(|frame| frame["type"] == name && holds(&frame["body"]));
        assert!(found.is_none(), "{found:?}");
    }

    /// Whether a frame of this type has come and was not asked for.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.waiting.iter().any(|frame| frame["type"] == name)
    }

    /// What came and was not asked for, of this type.
    pub(crate) fn all(&self, name: &str) -> Vec<Value> {
        self.waiting.iter().filter(|frame| frame["type"] == name).map(|frame| frame["body"].clone()).collect()
    }

    /// The same, and then they have been asked for.
    pub(crate) fn take(&mut self, name: &str) -> Vec<Value> {
        let bodies = self.all(name);
        self.waiting.retain(|frame| frame["type"] != name);
        bodies
    }

    /// Acknowledges every inbox event that has come.
    pub(crate) async fn ack_inbox(&mut self) {
        let ids: Vec<Value> = self
            .log
            .iter()
            .filter(|frame| frame["inbox_id"].is_string())
            .map(|frame| frame["inbox_id"].clone())
            .collect();
        for ids in ids.chunks(50) {
            self.ok("ack_inbox", json!({"inbox_ids": ids})).await;
        }
    }

    /// Where in the log the first frame of which this holds stands.
    pub(crate) fn place(&self, holds: impl Fn(&Value) -> bool) -> usize {
        self.log.iter().position(holds).unwrap_or_else(|| panic!("no such frame: {:?}", self.log))
    }

    /// Waits until the server's clock is past a time of the wire, which sorts as text.
    pub(crate) async fn until_past(&mut self, time: &str) {
        within("a time to pass", async {
            while self.ok("ping", json!({})).await["time"].as_str().expect("a time") <= time {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// The code with which the server closes, whatever else still comes; 1006 where it sends no close frame.
    pub(crate) async fn closed(&mut self) -> u16 {
        within("the connection's end", async {
            while self.closed.is_none() {
                self.read_one().await;
            }
            self.closed.expect("the loop's condition")
        })
        .await
    }

    /// Ends the connection as a browser does, and waits for the other half of the handshake.
    pub(crate) async fn close(mut self) {
        self.ws.send(ws::CLOSE, &1000_u16.to_be_bytes()).await;
        assert_eq!(self.closed().await, 1000);
    }

    async fn read(&mut self, wanted: &str) {
        if let Some(code) = self.closed {
            panic!("waiting for {wanted}, closed with {code}; the last frames: {:?}", self.last());
        }
        if tokio::time::timeout(super::DEADLINE, self.read_one()).await.is_err() {
            panic!("waiting for {wanted}; the last frames: {:?}", self.last());
        }
    }

    fn last(&self) -> &[Value] {
        &self.log[self.log.len().saturating_sub(8)..]
    }

    async fn read_one(&mut self) {
        let Some(frame) = self.ws.next().await else {
            self.closed = self.closed.or(Some(1006));
            return;
        };
        match frame.opcode {
            ws::TEXT => {
                assert!(frame.fin, "the node's frames are whole");
                let frame: Value = serde_json::from_slice(&frame.payload).expect("the node's frames are JSON");
                assert_frame(&frame);
                self.log.push(frame.clone());
                if frame.get("reply_to").is_some() {
                    self.replies.push(frame);
                } else {
                    self.waiting.push_back(frame);
                }
            }
            ws::PING if !self.mute_pongs => self.ws.send(ws::PONG, &frame.payload).await,
            ws::PING | ws::PONG => {}
            ws::CLOSE => {
                self.closed = self.closed.or(Some(frame.close_code()));
                // The other half of the handshake, as any client answers.
                self.ws.send(ws::CLOSE, &frame.payload).await;
            }
            other => panic!("opcode {other}"),
        }
    }
}

/// Asserts that a refusal is of the contract's shape.
#[track_caller]
pub(crate) fn assert_refusal(error: &Value) {
    let code = error["code"].as_str().unwrap_or_default();
    assert_eq!(error["retryable"], RETRYABLE.contains(&code), "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.ends_with('.'), "{error}");
    if code == "rate_limited" {
        assert!(error["details"]["retry_after_ms"].is_u64(), "{error}");
    }
}
