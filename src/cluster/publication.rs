//! What travels on the bus: a session's commit, and signals to a user's connections. Encoded once by the sender, and
//! never again: a receiver's frames are slices of the message as it came.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::wire::{Message, Wire};
use crate::protocol::{Frame, InboxId, NodeId, SessionId, UserId};
use crate::store::TokenHash;

/// What one commit tells, or (version 0) something that is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Which session.
    pub session_id: SessionId,
    /// The commit's version, dense within the session; 0 for what is never stored.
    pub version: u64,
    /// Directed rows first, then events by `seq`: a key is there before the text that needs it.
    pub rows: Vec<Row>,
}

/// One row of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An inbox event of one user.
    Notice {
        /// Whose.
        user_id: UserId,
        /// Its name.
        inbox_id: InboxId,
        /// Whether a room key is in it.
        holds_key: bool,
        /// For the socket.
        frame: Frame,
    },
    /// Inbox events of one user that no longer matter.
    Withdrawn {
        /// Whose.
        user_id: UserId,
        /// Which.
        inbox_ids: Vec<InboxId>,
    },
    /// An event of all members.
    Event {
        /// Its place.
        seq: u64,
        /// What it does to who hears the next ones.
        effect: Effect,
        /// For the socket.
        frame: Frame,
    },
    /// For all members who are connected but one; never stored.
    Typing {
        /// Who is writing.
        by: UserId,
        /// For the socket.
        frame: Frame,
    },
    /// Where the session stands: whoever has not heard of this version has missed something. Never stored.
    Head(u64),
    /// The session no longer lives on this node, which is at its end or had nothing to do for it. Never stored.
    Released(NodeId),
    /// The session wants to know who of these is connected, and where; the answer goes to its owner. Never stored.
    RollCall {
        /// The node that the session lives on.
        owner: NodeId,
        /// Whom it may ask for keys.
        names: Vec<UserId>,
    },
}

/// What an event does to the audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// This user hears the session from this event on.
    Joined(UserId),
    /// This event is the last that this user hears.
    Left(UserId),
    /// This event is the last that anybody hears.
    Ended,
}

/// What a user's connections are told besides sessions' commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSignal {
    /// Look into the store: an inbox event is new.
    Wake,
    /// They have joined this session with its commit of this version, and may have been told something as its member.
    Joined(SessionId, u64),
    /// These inbox events were acknowledged on some connection.
    Acked(Vec<InboxId>),
    /// These inbox events no longer matter.
    Withdrawn(Vec<InboxId>),
    /// A token died.
    TokenDead(TokenHash),
    /// All tokens died, but this one where given.
    TokensDead {
        /// The token that lives on.
        except: Option<TokenHash>,
    },
}

/// A message from the bus that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a damaged message")]
pub struct Damaged;

const NOTICE: u8 = 1;
const WITHDRAWN: u8 = 2;
const EVENT: u8 = 3;
const TYPING: u8 = 4;
const HEAD: u8 = 5;
const ROLL_CALL: u8 = 6;
const RELEASED: u8 = 7;

impl Publication {
    /// As it travels. Layout: session id, version, then rows of a kind byte and length-prefixed parts, big-endian.
    pub fn encode(&self, wire: Wire) -> Message {
        let size = self.rows.iter().map(Row::size_hint).sum::<usize>() + 32;
        let mut out = wire.begin(size);
        out.put_slice(self.session_id.as_bytes());
        out.put_u64(self.version);
        for row in &self.rows {
            row.encode(&mut out);
        }
        Message { wire, bytes: out.freeze() }
    }

    /// Reads what [`Publication::encode`] wrote; frames share its bytes.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(Message { wire, bytes: mut message }: Message) -> Result<Self, Damaged> {
        wire.begun(&mut message)?;
        let session_id = SessionId::from_bytes(take_id(&mut message)?);
        let version = message.try_get_u64().map_err(|_| Damaged)?;
        let mut rows = Vec::new();
        while message.has_remaining() {
            rows.push(Row::decode(&mut message)?);
        }
        Ok(Self { session_id, version, rows })
    }
}

impl Row {
    fn size_hint(&self) -> usize {
        match self {
            Self::Notice { frame, .. } => frame.len() + 96,
            Self::Withdrawn { inbox_ids, .. } => inbox_ids.len() * 64 + 32,
            Self::Event { frame, .. } | Self::Typing { frame, .. } => frame.len() + 48,
            Self::Head(_) | Self::Released(_) => 24,
            Self::RollCall { names, .. } => names.len() * 16 + 32,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Notice { user_id, inbox_id, holds_key, frame } => {
                out.put_u8(NOTICE);
                out.put_slice(user_id.as_bytes());
                put_bytes(out, inbox_id.0.as_bytes());
                out.put_u8(u8::from(*holds_key));
                put_bytes(out, frame.bytes());
            }
            Self::Withdrawn { user_id, inbox_ids } => {
                out.put_u8(WITHDRAWN);
                out.put_slice(user_id.as_bytes());
                put_ids(out, inbox_ids);
            }
            Self::Event { seq, effect, frame } => {
                out.put_u8(EVENT);
                out.put_u64(*seq);
                match effect {
                    Effect::None => out.put_u8(0),
                    Effect::Joined(user_id) => {
                        out.put_u8(1);
                        out.put_slice(user_id.as_bytes());
                    }
                    Effect::Left(user_id) => {
                        out.put_u8(2);
                        out.put_slice(user_id.as_bytes());
                    }
                    Effect::Ended => out.put_u8(3),
                }
                put_bytes(out, frame.bytes());
            }
            Self::Typing { by, frame } => {
                out.put_u8(TYPING);
                out.put_slice(by.as_bytes());
                put_bytes(out, frame.bytes());
            }
            Self::Head(version) => {
                out.put_u8(HEAD);
                out.put_u64(*version);
            }
            Self::Released(node) => {
                out.put_u8(RELEASED);
                out.put_slice(node.as_bytes());
            }
            Self::RollCall { owner, names } => {
                out.put_u8(ROLL_CALL);
                out.put_slice(owner.as_bytes());
                out.put_u32(u32::try_from(names.len()).expect("a roll call names a few at a time"));
                names.iter().for_each(|user_id| out.put_slice(user_id.as_bytes()));
            }
        }
    }

    fn decode(message: &mut Bytes) -> Result<Self, Damaged> {
        match message.try_get_u8().map_err(|_| Damaged)? {
            NOTICE => Ok(Self::Notice {
                user_id: take_user(message)?,
                inbox_id: take_inbox_id(message)?,
                holds_key: message.try_get_u8().map_err(|_| Damaged)? == 1,
                frame: Frame::from_encoded(take_bytes(message)?),
            }),
            WITHDRAWN => Ok(Self::Withdrawn { user_id: take_user(message)?, inbox_ids: take_ids(message)? }),
            EVENT => {
                let seq = message.try_get_u64().map_err(|_| Damaged)?;
                let effect = match message.try_get_u8().map_err(|_| Damaged)? {
                    0 => Effect::None,
                    1 => Effect::Joined(take_user(message)?),
                    2 => Effect::Left(take_user(message)?),
                    3 => Effect::Ended,
                    _ => return Err(Damaged),
                };
                Ok(Self::Event { seq, effect, frame: Frame::from_encoded(take_bytes(message)?) })
            }
            TYPING => Ok(Self::Typing { by: take_user(message)?, frame: Frame::from_encoded(take_bytes(message)?) }),
            HEAD => Ok(Self::Head(message.try_get_u64().map_err(|_| Damaged)?)),
            RELEASED => Ok(Self::Released(NodeId::from_bytes(take_id(message)?))),
            ROLL_CALL => {
                let owner = NodeId::from_bytes(take_id(message)?);
                let count = message.try_get_u32().map_err(|_| Damaged)?;
                let names = (0..count).map(|_| take_user(message)).collect::<Result<_, _>>()?;
                Ok(Self::RollCall { owner, names })
            }
            _ => Err(Damaged),
        }
    }
}

impl UserSignal {
    /// As it travels, behind the user's id.
    pub fn encode(&self, wire: Wire, user_id: UserId) -> Message {
        let mut out = wire.begin(64);
        out.put_slice(user_id.as_bytes());
        match self {
            Self::Wake => out.put_u8(1),
            Self::Joined(session_id, version) => {
                out.put_u8(6);
                out.put_slice(session_id.as_bytes());
                out.put_u64(*version);
            }
            Self::Acked(ids) => {
                out.put_u8(2);
                put_ids(&mut out, ids);
            }
            Self::Withdrawn(ids) => {
                out.put_u8(3);
                put_ids(&mut out, ids);
            }
            Self::TokenDead(hash) => {
                out.put_u8(4);
                out.put_slice(&hash.0);
            }
            Self::TokensDead { except } => {
                out.put_u8(5);
                if let Some(hash) = except {
                    out.put_slice(&hash.0);
                }
            }
        }
        Message { wire, bytes: out.freeze() }
    }

    /// Reads what [`UserSignal::encode`] wrote.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(Message { wire, bytes: mut message }: Message) -> Result<(UserId, Self), Damaged> {
        wire.begun(&mut message)?;
        let user_id = take_user(&mut message)?;
        let signal = match message.try_get_u8().map_err(|_| Damaged)? {
            1 => Self::Wake,
            2 => Self::Acked(take_ids(&mut message)?),
            3 => Self::Withdrawn(take_ids(&mut message)?),
            4 => Self::TokenDead(take_hash(&mut message)?),
            5 if message.is_empty() => Self::TokensDead { except: None },
            5 => Self::TokensDead { except: Some(take_hash(&mut message)?) },
            6 => {
                let session_id = SessionId::from_bytes(take_id(&mut message)?);
                Self::Joined(session_id, message.try_get_u64().map_err(|_| Damaged)?)
            }
            _ => return Err(Damaged),
        };
        if message.has_remaining() { Err(Damaged) } else { Ok((user_id, signal)) }
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("frames are far below 4 GiB: their limits are in the configuration"));
    out.put_slice(bytes);
}

fn put_ids(out: &mut BytesMut, ids: &[InboxId]) {
    out.put_u32(u32::try_from(ids.len()).expect("lists are bounded by their limit"));
    for id in ids {
        put_bytes(out, id.0.as_bytes());
    }
}

pub(super) fn take_bytes(message: &mut Bytes) -> Result<Bytes, Damaged> {
    let len = message.try_get_u32().map_err(|_| Damaged)? as usize;
    if len > message.len() { Err(Damaged) } else { Ok(message.split_to(len)) }
}

fn take_inbox_id(message: &mut Bytes) -> Result<InboxId, Damaged> {
    String::from_utf8(take_bytes(message)?.into()).map(InboxId).map_err(|_| Damaged)
}

fn take_ids(message: &mut Bytes) -> Result<Vec<InboxId>, Damaged> {
    let count = message.try_get_u32().map_err(|_| Damaged)?;
    (0..count).map(|_| take_inbox_id(message)).collect()
}

pub(super) fn take_id(message: &mut Bytes) -> Result<[u8; 16], Damaged> {
    let mut id = [0; 16];
    message.try_copy_to_slice(&mut id).map_err(|_| Damaged)?;
    Ok(id)
}

pub(super) fn take_user(message: &mut Bytes) -> Result<UserId, Damaged> {
    take_id(message).map(UserId::from_bytes)
}

fn take_hash(message: &mut Bytes) -> Result<TokenHash, Damaged> {
    let mut hash = [0; 32];
    message.try_copy_to_slice(&mut hash).map_err(|_| Damaged)?;
    Ok(TokenHash(hash))
}
