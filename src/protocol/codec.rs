//! The codec: text to request and reply to text, for servers; the other way round for clients.
//!
//! A request is read in two steps, neither of which builds a tree of values: the envelope, whose `body` stays raw
//! text, then the body straight into its struct. Only a request that is wrong is read a third time, to name the field.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ErrorBody;
use super::{Ask, InboxId, InboxNotice, NoticeBody, Request, RequestId, SessionEvent, SessionId, UserId};
use super::{ErrorCode, Refusal, explain};

/// The largest request id: what every client's numbers hold exactly.
pub(super) const MAX_ID: u64 = (1 << 53) - 1;

/// A frame that is not answered with a reply of its own type.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The request's id, where the frame has one that can be read; `None` counts towards closing with 4003.
    pub id: Option<RequestId>,
    /// Which request it is, where it is one that the server knows.
    pub request: Option<&'static str>,
    /// What to answer.
    pub refusal: Refusal,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: u64,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

fn read_envelope(text: &str) -> Option<Envelope<'_>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Reads one text frame as a request.
///
/// # Errors
/// What to answer instead: `reply_to: null` for a frame that is no request object, else the request's id with
/// `unknown_type` or an `invalid_argument` that names the field.
pub fn decode_request(text: &str) -> Result<(RequestId, Request), Unreadable> {
    let envelope = match read_envelope(text) {
        Some(envelope) if envelope.id <= MAX_ID => envelope,
        Some(_) | None => return Err(Unreadable { id: None, request: None, refusal: explain::envelope(text) }),
    };
    // `null` counts as left out, and what is left out is empty.
    let body = envelope.body.map_or("{}", RawValue::get);
    let request = Request::known_name(&envelope.r#type);
    let refuse = |refusal| Unreadable { id: Some(envelope.id), request, refusal };
    let Some(name) = request else {
        return Err(refuse(Refusal::new(ErrorCode::UnknownType, "type: the server knows no such request")));
    };
    // Derived structs would take a list of their fields' values for an object.
    if !body.starts_with('{') {
        return Err(refuse(Refusal::invalid("body", "expected an object")));
    }
    match Request::parse(name, body) {
        Some(Ok(request)) => Ok((envelope.id, request)),
        Some(Err(_)) | None => Err(refuse(explain::body(name, body))),
    }
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the wire's types have string keys and no failing serializers")
}

/// A reply's JSON text.
pub fn encode_reply<T: Serialize>(id: RequestId, name: &'static str, body: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire<'a, T> {
        reply_to: RequestId,
        r#type: &'static str,
        body: &'a T,
    }
    to_json(&Wire { reply_to: id, r#type: name, body })
}

/// A refusal's JSON text; `None` answers a frame that had no id.
pub fn encode_error(id: Option<RequestId>, refusal: &Refusal) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire<'a> {
        reply_to: Option<RequestId>,
        r#type: &'static str,
        body: ErrorBody<'a>,
    }
    to_json(&Wire { reply_to: id, r#type: "error", body: refusal.into() })
}

/// A frame from a server, as a client reads it.
#[derive(Clone, Debug)]
pub enum ServerFrame {
    /// The answer to a request: its type and its body as raw JSON, or the refusal.
    Reply {
        /// Which request.
        reply_to: Option<RequestId>,
        /// The body, or why not.
        outcome: Result<Box<RawValue>, Refusal>,
    },
    /// An event of a session.
    Event(Box<SessionEvent>),
    /// An event of a session of a type that this version does not know; its `seq` counts.
    UnknownEvent {
        /// Which session.
        session_id: SessionId,
        /// Its place.
        seq: u64,
    },
    /// A notification of this user's own.
    Inbox(Box<InboxNotice>),
    /// An ask.
    Ask(Box<Ask>),
    /// Somebody is writing.
    Typing {
        /// Where.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
    },
    /// Inbox events that no longer matter.
    InboxWithdrawn(Vec<InboxId>),
    /// The node will close the connection.
    GoingAway {
        /// When to come back, in milliseconds.
        reconnect_after_ms: u64,
    },
    /// Something of a later version, to be ignored.
    Unknown,
}

/// Reads a frame from a server.
///
/// # Errors
/// Where it is no object of the contract, or a known type's body lacks what the contract promises.
pub fn decode_server_frame(text: &str) -> serde_json::Result<ServerFrame> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(default, deserialize_with = "present")]
        reply_to: Option<Option<RequestId>>,
        inbox_id: Option<InboxId>,
        #[serde(borrow)]
        body: Option<&'a RawValue>,
    }
    let wire: Wire<'_> = serde_json::from_str(text)?;
    let body = wire.body.map_or("{}", RawValue::get);
    if let Some(reply_to) = wire.reply_to {
        let outcome = match &*wire.r#type {
            "error" => Err(serde_json::from_str(body)?),
            _ => Ok(RawValue::from_string(body.to_owned())?),
        };
        return Ok(ServerFrame::Reply { reply_to, outcome });
    }
    if let Some(inbox_id) = wire.inbox_id {
        return Ok(match read_tagged::<NoticeBody>(text)? {
            Some(body) => ServerFrame::Inbox(Box::new(InboxNotice { inbox_id, body })),
            None => ServerFrame::Unknown,
        });
    }
    if let Some(event) = SessionEvent::read(&wire.r#type, body) {
        return event.map(|event| ServerFrame::Event(Box::new(event)));
    }
    decode_loose(&wire.r#type, text, body)
}

fn decode_loose(name: &str, text: &str, body: &str) -> serde_json::Result<ServerFrame> {
    #[derive(Deserialize)]
    struct Loose {
        session_id: Option<SessionId>,
        user_id: Option<UserId>,
        seq: Option<u64>,
        inbox_ids: Option<Vec<InboxId>>,
        reconnect_after_ms: Option<u64>,
    }
    if let Some(ask) = read_tagged::<Ask>(text)? {
        return Ok(ServerFrame::Ask(Box::new(ask)));
    }
    let loose: Loose = serde_json::from_str(body)?;
    Ok(match (name, loose) {
        ("Typing", Loose { session_id: Some(session_id), user_id: Some(user_id), .. }) => {
            ServerFrame::Typing { session_id, user_id }
        }
        ("InboxWithdrawn", Loose { inbox_ids: Some(inbox_ids), .. }) => ServerFrame::InboxWithdrawn(inbox_ids),
        ("GoingAway", Loose { reconnect_after_ms, .. }) => {
            ServerFrame::GoingAway { reconnect_after_ms: reconnect_after_ms.unwrap_or(0) }
        }
        (_, Loose { session_id: Some(session_id), seq: Some(seq), .. }) => {
            ServerFrame::UnknownEvent { session_id, seq }
        }
        _ => ServerFrame::Unknown,
    })
}

/// Tells `"reply_to": null` from no `reply_to` at all.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<RequestId>>, D::Error> {
    Option::<RequestId>::deserialize(deserializer).map(Some)
}

/// Reads a `{"type", "body"}` enum; `None` where its type is none of the enum's.
fn read_tagged<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<Option<T>> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.to_string().starts_with("unknown variant") => Ok(None),
        Err(error) => Err(error),
    }
}
