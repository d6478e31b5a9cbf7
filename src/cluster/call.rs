//! What one node tells another: commands for sessions that live there, what comes of them, and nudges.
//!
//! Encoded once by the sender, in a version that the receiver reads; a receiver's frames are slices of the message as it
//! came. Invariant: a message that is damaged is dropped, and what it was about is told again or found in the store. Who
//! may speak as a node is the bus's business, not this file's.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::placement::Ticket;
use super::publication::{Damaged, put_bytes, take_bytes, take_id, take_user};
use super::wire::{Message, Wire};
use crate::protocol::{ErrorCode, Frame, NodeId, Request, RequestId, SessionId, UserId};
use crate::session::state::Command;

/// One connection of the cluster: its node, its worker thread, and a number that is not used twice on that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The node that it is connected to.
    pub node: NodeId,
    /// The hub that it is with.
    pub worker: u16,
    /// Which of its node's connections, ever.
    pub serial: u64,
}

/// Who asked, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, authenticated.
    pub user_id: UserId,
    /// The connection that the request came from.
    pub connection: ConnectionKey,
    /// The request's id on that connection.
    pub request_id: RequestId,
    /// The request's type.
    pub request: &'static str,
}

/// A node's number for one of its calls, counting up from 1.
pub type CallId = u64;

/// A command for a session that lives on the node that this is sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its place among the sender's calls to the session.
    pub ticket: Ticket,
    /// Which session.
    pub session_id: SessionId,
    /// Whose command it is.
    pub caller: Caller,
    /// The command.
    pub command: Command,
}

/// The answer to a call, ready for the caller's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallAnswer {
    /// Which call.
    pub id: CallId,
    /// Whether it was refused.
    pub refused: Option<ErrorCode>,
    /// The reply or the refusal.
    pub frame: Frame,
}

/// Why calls were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The session does not live there.
    Moved,
    /// A call before them was lost on the way.
    Missing,
}

/// What asks are to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which session asks.
    pub session_id: SessionId,
    /// Where it lives: who wants to know whether it was reached.
    pub owner: NodeId,
    /// Who is asked.
    pub user_id: UserId,
    /// Where they were seen last.
    pub connection: ConnectionKey,
    /// For the socket.
    pub frames: Vec<Frame>,
}

/// A nudge for a session; lossy, since the store has the truth or it comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// Tasks wait in the store.
    Tasks,
    /// A member has a new connection.
    MemberConnected(UserId, ConnectionKey),
    /// These answered the roll call.
    Present(Vec<(UserId, ConnectionKey)>),
    /// Whether what a member was asked has reached a connection of theirs, on this node.
    Reached(UserId, NodeId, bool),
}

/// What one node tells another.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeMessage {
    /// A command.
    Call(Box<Call>),
    /// Answers to the receiver's calls to a session, in order.
    Answers(SessionId, Vec<CallAnswer>),
    /// Asks to a connection of the receiver; behind the answers to calls of that connection.
    Asks(Asked),
    /// Calls of the receiver to a session, in this line and from this one on, were not taken.
    NotTaken(SessionId, CallId, CallId, NotTaken),
    /// A nudge for a session that lives on the receiver.
    Nudge(SessionId, Nudge),
}

const CALL: u8 = 1;
const ANSWERS: u8 = 2;
const ASKS: u8 = 3;
const NOT_TAKEN: u8 = 4;
const TASKS: u8 = 5;
const MEMBER_CONNECTED: u8 = 6;
const PRESENT: u8 = 7;
const REACHED: u8 = 8;

impl NodeMessage {
    /// Encoded messages of `from`, all in this version, as they travel together: the sender, and each behind its length.
    pub fn bundle(wire: Wire, from: NodeId, messages: &[Bytes]) -> Message {
        let size = messages.iter().map(|message| message.len() + 4).sum::<usize>();
        let mut out = wire.begin(size + 17);
        out.put_slice(from.as_bytes());
        messages.iter().for_each(|message| put_bytes(&mut out, message));
        Message { wire, bytes: out.freeze() }
    }

    /// Reads what [`NodeMessage::bundle`] wrote: who sent it, and the messages that can be read.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn unbundle(Message { wire, mut bytes }: Message) -> Result<(NodeId, Vec<Self>), Damaged> {
        wire.begun(&mut bytes)?;
        let from = NodeId::from_bytes(take_id(&mut bytes)?);
        let mut messages = Vec::new();
        while bytes.has_remaining() {
            // One that makes no sense here takes no other with it.
            messages.extend(Self::decode(wire, take_bytes(&mut bytes)?).ok());
        }
        Ok((from, messages))
    }

    /// A call, from its parts.
    pub fn encode_call(wire: Wire, ticket: Ticket, session_id: SessionId, caller: &Caller, command: &Command) -> Bytes {
        let command = serde_json::to_vec(command);
        let command = command.expect("a command is made of strings, numbers and lists: JSON has them all");
        let mut out = wire.begin(command.len() + 160);
        out.put_u8(CALL);
        out.put_slice(session_id.as_bytes());
        let Ticket { id, line, after, settled } = ticket;
        for number in [id, line, after, settled] {
            out.put_u64(number);
        }
        put_caller(&mut out, caller);
        put_bytes(&mut out, &command);
        out.freeze()
    }

    /// As it travels within a bundle.
    pub fn encode(&self, wire: Wire) -> Bytes {
        let mut out = wire.begin(0);
        match self {
            Self::Call(call) => {
                let Call { ticket, session_id, ref caller, ref command } = **call;
                return Self::encode_call(wire, ticket, session_id, caller, command);
            }
            Self::Answers(session_id, answers) => {
                out.put_u8(ANSWERS);
                out.put_slice(session_id.as_bytes());
                for answer in answers {
                    out.put_u64(answer.id);
                    put_bytes(&mut out, answer.refused.map_or("", ErrorCode::as_str).as_bytes());
                    put_bytes(&mut out, answer.frame.bytes());
                }
            }
            Self::Asks(Asked { session_id, owner, user_id, connection, frames }) => {
                out.put_u8(ASKS);
                out.put_slice(session_id.as_bytes());
                out.put_slice(owner.as_bytes());
                out.put_slice(user_id.as_bytes());
                put_connection(&mut out, connection);
                frames.iter().for_each(|frame| put_bytes(&mut out, frame.bytes()));
            }
            Self::NotTaken(session_id, line, from, why) => {
                out.put_u8(NOT_TAKEN);
                out.put_slice(session_id.as_bytes());
                out.put_u64(*line);
                out.put_u64(*from);
                out.put_u8(match why {
                    NotTaken::Moved => 0,
                    NotTaken::Missing => 1,
                });
            }
            Self::Nudge(session_id, nudge) => put_nudge(&mut out, *session_id, nudge),
        }
        out.freeze()
    }

    fn decode(wire: Wire, mut message: Bytes) -> Result<Self, Damaged> {
        let message = &mut message;
        wire.begun(message)?;
        let kind = message.try_get_u8().map_err(|_| Damaged)?;
        let session_id = SessionId::from_bytes(take_id(message)?);
        Ok(match kind {
            CALL => {
                let (id, line) = (take_u64(message)?, take_u64(message)?);
                let ticket = Ticket { id, line, after: take_u64(message)?, settled: take_u64(message)? };
                let caller = take_caller(message)?;
                let command = serde_json::from_slice(&take_bytes(message)?).map_err(|_| Damaged)?;
                Self::Call(Box::new(Call { ticket, session_id, caller, command }))
            }
            ANSWERS => {
                let mut answers = Vec::new();
                while message.has_remaining() {
                    answers.push(take_answer(message)?);
                }
                Self::Answers(session_id, answers)
            }
            ASKS => {
                let owner = NodeId::from_bytes(take_id(message)?);
                let (user_id, connection) = (take_user(message)?, take_connection(message)?);
                let mut frames = Vec::new();
                while message.has_remaining() {
                    frames.push(Frame::from_encoded(take_bytes(message)?));
                }
                Self::Asks(Asked { session_id, owner, user_id, connection, frames })
            }
            NOT_TAKEN => {
                let (line, from) = (take_u64(message)?, take_u64(message)?);
                let why = match message.try_get_u8().map_err(|_| Damaged)? {
                    0 => NotTaken::Moved,
                    1 => NotTaken::Missing,
                    _ => return Err(Damaged),
                };
                Self::NotTaken(session_id, line, from, why)
            }
            kind => Self::Nudge(session_id, take_nudge(kind, message)?),
        })
    }
}

fn put_nudge(out: &mut BytesMut, session_id: SessionId, nudge: &Nudge) {
    out.put_u8(match nudge {
        Nudge::Tasks => TASKS,
        Nudge::MemberConnected(..) => MEMBER_CONNECTED,
        Nudge::Present(_) => PRESENT,
        Nudge::Reached(..) => REACHED,
    });
    out.put_slice(session_id.as_bytes());
    match nudge {
        Nudge::Tasks => {}
        Nudge::MemberConnected(user_id, connection) => {
            out.put_slice(user_id.as_bytes());
            put_connection(out, connection);
        }
        Nudge::Present(present) => {
            for (user_id, connection) in present {
                out.put_slice(user_id.as_bytes());
                put_connection(out, connection);
            }
        }
        Nudge::Reached(user_id, node, reached) => {
            out.put_slice(user_id.as_bytes());
            out.put_slice(node.as_bytes());
            out.put_u8(u8::from(*reached));
        }
    }
}

fn take_nudge(kind: u8, message: &mut Bytes) -> Result<Nudge, Damaged> {
    Ok(match kind {
        TASKS => Nudge::Tasks,
        MEMBER_CONNECTED => Nudge::MemberConnected(take_user(message)?, take_connection(message)?),
        PRESENT => {
            let mut present = Vec::new();
            while message.has_remaining() {
                present.push((take_user(message)?, take_connection(message)?));
            }
            Nudge::Present(present)
        }
        REACHED => {
            let (user_id, node) = (take_user(message)?, NodeId::from_bytes(take_id(message)?));
            Nudge::Reached(user_id, node, message.try_get_u8().map_err(|_| Damaged)? == 1)
        }
        _ => return Err(Damaged),
    })
}

fn put_connection(out: &mut BytesMut, connection: &ConnectionKey) {
    out.put_slice(connection.node.as_bytes());
    out.put_u16(connection.worker);
    out.put_u64(connection.serial);
}

fn take_connection(message: &mut Bytes) -> Result<ConnectionKey, Damaged> {
    let node = NodeId::from_bytes(take_id(message)?);
    let worker = message.try_get_u16().map_err(|_| Damaged)?;
    Ok(ConnectionKey { node, worker, serial: take_u64(message)? })
}

fn put_caller(out: &mut BytesMut, caller: &Caller) {
    out.put_slice(caller.user_id.as_bytes());
    put_connection(out, &caller.connection);
    out.put_u64(caller.request_id);
    put_bytes(out, caller.request.as_bytes());
}

fn take_caller(message: &mut Bytes) -> Result<Caller, Damaged> {
    let (user_id, connection, request_id) = (take_user(message)?, take_connection(message)?, take_u64(message)?);
    let name = take_bytes(message)?;
    let request = std::str::from_utf8(&name).ok().and_then(Request::known_name).ok_or(Damaged)?;
    Ok(Caller { user_id, connection, request_id, request })
}

fn take_answer(message: &mut Bytes) -> Result<CallAnswer, Damaged> {
    let id = take_u64(message)?;
    let code = take_bytes(message)?;
    let refused = match &code[..] {
        b"" => None,
        // Of a newer node; it is for the metrics only.
        code => Some(std::str::from_utf8(code).ok().and_then(ErrorCode::from_name).unwrap_or(ErrorCode::Internal)),
    };
    Ok(CallAnswer { id, refused, frame: Frame::from_encoded(take_bytes(message)?) })
}

fn take_u64(message: &mut Bytes) -> Result<u64, Damaged> {
    message.try_get_u64().map_err(|_| Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientId, SendMsg};

    const NODE: NodeId = NodeId::from_bytes([1; 16]);
    const SESSION: SessionId = SessionId::from_bytes([2; 16]);
    const USER: UserId = UserId::from_bytes([3; 16]);

    fn examples() -> Vec<NodeMessage> {
        let connection = ConnectionKey { node: NODE, worker: 3, serial: 4 };
        let caller = Caller { user_id: USER, connection, request_id: 5, request: "send_msg" };
        let body = SendMsg {
            session_id: SESSION,
            markdown_text: "hello".to_owned(),
            is_encrypted: false,
            key_epoch: None,
            client_msg_id: Some(ClientId("one".into())),
            content_type: None,
        };
        let call = |command| {
            let ticket = Ticket { id: 9, line: 6, after: 8, settled: 7 };
            let call = Call { ticket, session_id: SESSION, caller, command };
            NodeMessage::Call(Box::new(call))
        };
        let answer = |refused| CallAnswer { id: 9, refused, frame: Frame::text(b"{}") };
        let asked = Asked {
            session_id: SESSION,
            owner: NODE,
            user_id: USER,
            connection,
            frames: vec![Frame::text(b"{}"), Frame::text(b"[]")],
        };
        vec![
            call(Command::SendMsg(body)),
            call(Command::Leave { force: true }),
            call(Command::Recall { seq: 3, original: None }),
            NodeMessage::Answers(SESSION, vec![answer(None), answer(Some(ErrorCode::Muted))]),
            NodeMessage::Asks(asked),
            NodeMessage::NotTaken(SESSION, 2, 4, NotTaken::Moved),
            NodeMessage::NotTaken(SESSION, 2, 5, NotTaken::Missing),
            NodeMessage::Nudge(SESSION, Nudge::Tasks),
            NodeMessage::Nudge(SESSION, Nudge::MemberConnected(USER, connection)),
            NodeMessage::Nudge(SESSION, Nudge::Present(vec![(USER, connection), (USER, connection)])),
            NodeMessage::Nudge(SESSION, Nudge::Reached(USER, NODE, true)),
        ]
    }

    fn bundle(wire: Wire, messages: &[NodeMessage]) -> Message {
        let encoded: Vec<Bytes> = messages.iter().map(|message| message.encode(wire)).collect();
        NodeMessage::bundle(wire, NODE, &encoded)
    }

    #[test]
    fn what_is_written_is_read_again() {
        for wire in [Wire::V1, Wire::Next] {
            assert_eq!(NodeMessage::unbundle(bundle(wire, &examples())).unwrap(), (NODE, examples()));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for example in examples() {
            let Message { wire, bytes } = bundle(Wire::V1, &[example]);
            for len in 1..bytes.len() {
                let cut = NodeMessage::unbundle(Message { wire, bytes: bytes.slice(..len) });
                assert!(cut.is_err() || cut.is_ok_and(|(_, messages)| messages.is_empty()), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_takes_no_other_with_it() {
        let good = NodeMessage::Nudge(SESSION, Nudge::Tasks);
        let (wire, encoded) = (Wire::V1, good.encode(Wire::V1));
        let message = NodeMessage::bundle(wire, NODE, &[encoded.clone(), Bytes::from_static(b"\xffnone"), encoded]);
        assert_eq!(NodeMessage::unbundle(message).unwrap().1, [good.clone(), good]);
    }
}
