//! The WebSocket as an actor: the upgrade, and what a client's frames amount to. The only file that names
//! actix_web_actors.
//!
//! The actor reads; everything that is written goes through the outbox, so that it waits in one place and in one
//! order. It is made with the upgrade and ends with the connection; should it panic, the server drops the connection
//! and its body lets the hub know.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::{Actor, ActorContext, StreamHandler};
use actix_http::ws::{Codec, Item};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use crate::protocol::{CloseCode, ErrorCode, Refusal, SUB_PROTOCOL, decode_request};

use super::body::Body;
use super::frame_guard::FrameGuard;
use super::hub::Hub;
use super::link::{Link, LinkParts, Stage, unauthenticated};
use super::outbox::pong_frame;
use super::socket::Socket;
use super::{Connections, dispatch, members};

/// Unreadable frames in a row that end a connection.
const UNREADABLE: u32 = 20;

/// Makes a request a WebSocket. `address` is the client's, as far as proxies are trusted.
///
/// # Errors
/// `invalid_argument` where only other sub-protocols are offered, `unauthenticated` for a bearer token that is no good,
/// `rate_limited` for too many connections from one address, `overloaded` where the node cannot have more threads,
/// `unavailable` where it is stopping.
/// A request that is no WebSocket handshake is answered as the handshake's own rules ask.
pub async fn upgrade(
    request: &HttpRequest,
    payload: web::Payload,
    connections: &Arc<Connections>,
    address: IpAddr,
) -> Result<HttpResponse, Refusal> {
    let mut response = match ws::handshake(request) {
        Ok(response) => response,
        Err(error) => return Ok(error.error_response()),
    };
    match offer(request) {
        Offer::Nothing => {}
        Offer::Ours => {
            response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, SUB_PROTOCOL));
        }
        Offer::Others => {
            return Err(Refusal::invalid("sec-websocket-protocol", &format!("expected {SUB_PROTOCOL}, or none")));
        }
    }
    let slot = connections.come_from(address)?;
    let bearer = match bearer(request)? {
        Some(token) => Some(members::owner_of(connections, token).await?),
        None => None,
    };
    let hub = Hub::here(connections)
        .ok_or_else(|| Refusal::new(ErrorCode::Overloaded, "the node has more threads than it can tell apart"))?;
    // Nothing is waited for between this and the hub's books: whoever passes is there when all are sent away.
    if connections.is_shut() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the node is stopping, try again"));
    }
    let link = Rc::new(Link::new(LinkParts {
        key: hub.next_key(),
        socket: Socket::of(request),
        bearer,
        address: Some(slot),
        outbox_bytes: connections.settings.outbox_bytes,
        inbox_window: connections.settings.inbox_window,
        requests_in_flight: connections.limits.requests_in_flight,
        slow_clients: connections.metrics.slow_clients.clone(),
    }));
    hub.enlist(&link);
    let frame_bytes = connections.limits.frame_bytes;
    let guarded = Guarded {
        payload,
        guard: FrameGuard::new(frame_bytes),
        link: Rc::clone(&link),
        chunk: Bytes::new(),
        frame_ended: false,
        over: false,
    };
    let actor = ConnectionActor { hub: Rc::clone(&hub), link: Rc::clone(&link), message: None, unreadable: 0 };
    let codec = Codec::new().max_size(frame_bytes);
    let context = WebsocketContext::with_codec(actor, guarded, codec);
    let body = Body::new(hub, link, context);
    response
        .message_body(body)
        .map(HttpResponse::map_into_boxed_body)
        .map_err(|_| Refusal::new(ErrorCode::Internal, "the request failed in the server"))
}

/// What a client offers to speak.
enum Offer {
    /// Nothing: version 1 is meant.
    Nothing,
    /// Version 1, among others perhaps.
    Ours,
    /// Only others.
    Others,
}

/// The sub-protocols offered, in one header or in several (RFC 6455, section 11.3.4).
fn offer(request: &HttpRequest) -> Offer {
    let mut offer = Offer::Nothing;
    for value in request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        // What is no text names a sub-protocol that is not ours.
        for protocol in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            match protocol {
                "" => {}
                SUB_PROTOCOL => return Offer::Ours,
                _ => offer = Offer::Others,
            }
        }
    }
    offer
}

/// The token of `Authorization: Bearer`.
fn bearer(request: &HttpRequest) -> Result<Option<&str>, Refusal> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let wrong = || Refusal::new(ErrorCode::Unauthenticated, "authorization: expected Bearer and a token");
    token.map(Some).ok_or_else(wrong)
}

/// The payload, behind the guard: frame by frame, and none while the connection is not to be read.
struct Guarded<P> {
    payload: P,
    guard: FrameGuard,
    link: Rc<Link>,
    chunk: Bytes,
    /// A whole frame has gone on: the codec takes it out before it asks for more, if it is told to wait once.
    frame_ended: bool,
    over: bool,
}

impl<P: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Guarded<P> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if std::mem::take(&mut this.frame_ended) {
            return Poll::Pending;
        }
        if this.over {
            return Poll::Ready(None);
        }
        if !this.link.may_read(cx) {
            return Poll::Pending;
        }
        loop {
            if this.chunk.is_empty() {
                match Pin::new(&mut this.payload).poll_next(cx) {
                    Poll::Ready(Some(Ok(chunk))) => this.chunk = chunk,
                    Poll::Ready(Some(Err(_)) | None) => {
                        this.link.set_peer_gone();
                        this.over = true;
                        return Poll::Ready(None);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            match this.guard.pass(&mut this.chunk) {
                Ok(passed) => {
                    this.frame_ended = passed.frame_ends;
                    if !passed.bytes.is_empty() {
                        return Poll::Ready(Some(Ok(passed.bytes)));
                    }
                }
                Err(code) => {
                    this.link.set_violation(code);
                    this.over = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// One user's WebSocket.
struct ConnectionActor {
    hub: Rc<Hub>,
    link: Rc<Link>,
    /// The fragments of the message under way.
    message: Option<BytesMut>,
    /// Unreadable frames in a row.
    unreadable: u32,
}

impl Actor for ConnectionActor {
    type Context = WebsocketContext<Self>;
}

impl ConnectionActor {
    fn text(&mut self, text: &str) {
        match decode_request(text) {
            Ok((id, request)) => {
                self.unreadable = 0;
                dispatch::take(&self.hub, &self.link, id, request);
            }
            Err(unreadable) => {
                self.hub.node.metrics.command("unreadable", Some(unreadable.refusal.code));
                match unreadable.id {
                    Some(id) => {
                        self.unreadable = 0;
                        let greets = matches!(unreadable.request, Some("authenticate" | "ping"));
                        let early = self.link.stage.get() == Stage::Unknown && !greets;
                        let refusal = if early {
                            unauthenticated()
                        } else {
                            dispatch::not_too_many(&self.hub, &self.link).err().unwrap_or(unreadable.refusal)
                        };
                        self.link.answer(id, "error", &Err(refusal));
                    }
                    None => {
                        self.unreadable += 1;
                        self.link.refuse_frame(&unreadable.refusal);
                        if self.unreadable >= UNREADABLE {
                            self.link.close(CloseCode::Unreadable);
                        }
                    }
                }
            }
        }
    }

    fn fragment(&mut self, item: Item) {
        match item {
            Item::FirstText(first) => self.message = Some(BytesMut::from(&first[..])),
            // The guard has refused it.
            Item::FirstBinary(_) => self.link.close(CloseCode::Unsupported),
            Item::Continue(next) => {
                if let Some(message) = &mut self.message {
                    message.extend_from_slice(&next);
                }
            }
            Item::Last(last) => {
                let mut message = self.message.take().unwrap_or_default();
                message.extend_from_slice(&last);
                match std::str::from_utf8(&message) {
                    Ok(text) => self.text(text),
                    Err(_) => self.link.close(CloseCode::InvalidText),
                }
            }
        }
    }

    fn failed(&self, error: &ProtocolError) {
        let code = match error {
            // The codec's word for text that is not UTF-8: the guard reports the socket's own end.
            ProtocolError::Io(_) => CloseCode::InvalidText,
            ProtocolError::Overflow => CloseCode::TooLarge,
            ProtocolError::UnmaskedFrame
            | ProtocolError::MaskedFrame
            | ProtocolError::InvalidOpcode(_)
            | ProtocolError::InvalidLength(_)
            | ProtocolError::BadOpCode
            | ProtocolError::ContinuationNotStarted
            | ProtocolError::ContinuationStarted
            | ProtocolError::ContinuationFragment(_) => CloseCode::Protocol,
        };
        self.link.close(code);
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for ConnectionActor {
    fn handle(&mut self, frame: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        self.link.heard.set(true);
        match frame {
            Ok(Message::Close(reason)) => {
                self.link.close_back(reason.map(|reason| reason.code.into()));
                ctx.stop();
            }
            // After the end has begun, only the client's own close still matters.
            Ok(_) | Err(_) if !self.link.is_open() => {}
            Ok(Message::Text(text)) => self.text(&text),
            Ok(Message::Continuation(item)) => self.fragment(item),
            Ok(Message::Binary(_)) => self.link.close(CloseCode::Unsupported),
            Ok(Message::Ping(payload)) => self.link.send_control(pong_frame(&payload)),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        if let Some(code) = self.link.violation() {
            self.link.close(code);
        } else if self.link.is_peer_gone() {
            self.link.abandon();
        }
        ctx.stop();
    }
}
