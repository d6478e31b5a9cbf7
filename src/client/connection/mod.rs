//! One WebSocket to a node: requests with their replies, many in flight, and events as they come.
//!
//! Owns the socket and the matching of replies. Does not reconnect, knows no keys and keeps no cursors: the
//! [`Client`](super::Client) does. Cheap enough to have thousands of: two tasks, one bounded queue each way.
//!
//! Invariants: every request that was accepted is answered exactly once, at the latest when the connection ends;
//! events come in the order in which the node sent them. What is full waits: if nobody reads [`Incoming`], the socket
//! is not read either, replies included, and the node ends the connection as too slow. So whoever reads [`Incoming`]
//! should not wait for replies meanwhile.

mod backoff;
mod cursors;
mod link;
mod pending;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

pub use backoff::Backoff;
pub use cursors::{Arrival, Cursors};

use super::calls::Call;
use super::dial::dial;
use super::secret::Secret;
use super::{ClientError, ServerAddress};
use crate::protocol::{Authenticate, Authenticated, Request, SUB_PROTOCOL, ServerFrame};
use pending::Pending;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long to try to connect.
    pub connect_timeout: Duration,
    /// Without any frame for so long (the node pings), the node counts as gone.
    pub silence: Duration,
    /// Events waiting for [`Incoming::next`].
    pub event_queue: usize,
    /// The largest frame that is taken.
    pub frame_bytes: usize,
    /// Whose certificates to believe; the public authorities where left out.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(15),
            silence: Duration::from_secs(100),
            event_queue: 1024,
            frame_bytes: 16 << 20,
            tls: None,
        }
    }
}

/// Requests waiting for the socket.
const OUTGOING_QUEUE: usize = 256;

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The close code, where there was one.
    pub code: Option<u16>,
    /// When the node asked to be called again.
    pub reconnect_after: Option<Duration>,
}

/// A handle to a connection; clones share it. The connection closes when the last one is dropped.
#[derive(Clone)]
pub struct Connection {
    outgoing: mpsc::Sender<Message>,
    pending: Arc<Pending>,
    ended: watch::Receiver<Option<End>>,
    request_timeout: Duration,
}

/// What the node sends by itself, in order.
pub struct Incoming {
    events: mpsc::Receiver<ServerFrame>,
    ended: watch::Receiver<Option<End>>,
}

impl Connection {
    /// Connects; the caller goes on with [`Connection::authenticate`].
    ///
    /// # Errors
    /// Where the server cannot be reached or does not speak version 1.
    pub async fn open(server: &ServerAddress, options: &ConnectionOptions) -> Result<(Self, Incoming), ClientError> {
        let connecting = async {
            let stream = dial(server, options.tls.as_ref()).await?;
            let mut request = server.websocket_uri().into_client_request().map_err(|_| ClientError::Address)?;
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUB_PROTOCOL));
            let config = WebSocketConfig::default()
                .max_message_size(Some(options.frame_bytes))
                .max_frame_size(Some(options.frame_bytes));
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.map_err(connect_error)
        };
        let (socket, _) = match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(connected) => connected?,
            Err(_) => return Err(ClientError::Timeout),
        };
        let (outgoing, to_send) = mpsc::channel(OUTGOING_QUEUE);
        let (events, received) = mpsc::channel(options.event_queue);
        let (tell_end, ended) = watch::channel(None);
        let pending = Arc::new(Pending::default());
        link::start(socket, to_send, link::Inward { events, pending: Arc::clone(&pending), tell_end }, options.silence);
        let connection = Self { outgoing, pending, ended: ended.clone(), request_timeout: options.request_timeout };
        Ok((connection, Incoming { events: received, ended }))
    }

    /// Says who this connection is.
    ///
    /// # Errors
    /// `unauthenticated` for a dead token.
    pub async fn authenticate(&self, token: &Secret) -> Result<Authenticated, ClientError> {
        self.call(Authenticate { token: Some(token.expose().to_owned()) }).await
    }

    /// Sends a request and waits for its reply, which is read as the request's own type.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where the server says no, [`ClientError::Timeout`] and [`ClientError::Closed`] where
    /// nobody knows.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        let body = self.request(request).await?;
        serde_json::from_str(body.get()).map_err(|error| ClientError::Contract(error.to_string()))
    }

    /// Sends a request and waits for its reply's body.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn request(&self, request: impl Into<Request>) -> Result<Box<RawValue>, ClientError> {
        self.submit(request).await?.outcome().await
    }

    /// Sends a request without waiting for its reply: requests submitted one after the other are sent in that order.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the connection is over.
    pub async fn submit(&self, request: impl Into<Request>) -> Result<InFlight, ClientError> {
        let deadline = Instant::now() + self.request_timeout;
        // A place in the queue first: what is numbered is sent.
        let reserved = tokio::time::timeout_at(deadline, self.outgoing.reserve()).await;
        let place = match reserved {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(ClientError::Closed(self.end_code())),
            Err(_) => return Err(ClientError::Timeout),
        };
        let (id, answer) = self.pending.register().map_err(ClientError::Closed)?;
        let text = encode(id, &request.into())?;
        place.send(Message::text(text));
        Ok(InFlight { id, answer, pending: Arc::clone(&self.pending), deadline })
    }

    /// Says goodbye with 1000 and waits until the connection has ended.
    pub async fn close(self) -> End {
        let _ = self.outgoing.send(Message::Close(None)).await;
        self.ended().await
    }

    /// Waits until the connection has ended.
    pub async fn ended(&self) -> End {
        wait_for_end(self.ended.clone()).await
    }

    fn end_code(&self) -> Option<u16> {
        self.ended.borrow().as_ref().and_then(|end| end.code)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

impl Incoming {
    /// The next event, ask or notification; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<ServerFrame> {
        self.events.recv().await
    }

    /// What has come already.
    pub fn try_next(&mut self) -> Option<ServerFrame> {
        self.events.try_recv().ok()
    }

    /// How the connection ended; waits until it has.
    pub async fn end(&self) -> End {
        wait_for_end(self.ended.clone()).await
    }
}

async fn wait_for_end(mut ended: watch::Receiver<Option<End>>) -> End {
    match ended.wait_for(Option::is_some).await {
        Ok(end) => end.unwrap_or_default(),
        Err(_) => End::default(),
    }
}

/// A request under way. Dropping it forgets the reply, not the request.
#[derive(Debug)]
pub struct InFlight {
    id: u64,
    answer: oneshot::Receiver<pending::Outcome>,
    pending: Arc<Pending>,
    deadline: Instant,
}

impl InFlight {
    /// Waits for the reply.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn outcome(mut self) -> Result<Box<RawValue>, ClientError> {
        match tokio::time::timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ClientError::Closed(None)),
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// Waits for the reply, read as `T`.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn typed<T: serde::de::DeserializeOwned>(self) -> Result<T, ClientError> {
        let body = self.outcome().await?;
        serde_json::from_str(body.get()).map_err(|error| ClientError::Contract(error.to_string()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.pending.forget(self.id);
    }
}

fn encode(id: u64, request: &Request) -> Result<String, ClientError> {
    #[derive(serde::Serialize)]
    struct Wire<'a> {
        id: u64,
        r#type: &'static str,
        body: &'a RawValue,
    }
    let broken = |error: serde_json::Error| ClientError::Contract(error.to_string());
    let body = request.body().map_err(broken)?;
    serde_json::to_string(&Wire { id, r#type: request.name(), body: &body }).map_err(broken)
}

fn connect_error(error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Http(response) => ClientError::Connect(format!("status {}", response.status())),
        other => ClientError::Connect(other.to_string()),
    }
}
