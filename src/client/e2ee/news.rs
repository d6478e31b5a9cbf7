//! What the core asks its shell to do, and what it has to tell its user.

use std::fmt;

use super::super::crypto::{CryptoError, KeyName};
use super::super::identity::Fingerprint;
use crate::protocol::{
    ClientId, InboxId, KeyEpoch, Request, SessionEvent, SessionId, SessionOverview, Timestamp, UserId,
};

/// What the shell does for the core, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the key ring to the disk, then say [`super::Core::saved`].
    Save,
    /// Send a request, repeat it while it is refused for now or not answered, then say [`super::Core::replied`].
    Request(Purpose, Request),
    /// Ask the server for a user's public key until it says, then say [`super::Core::looked_up`].
    LookUp(UserId),
    /// Acknowledge a notification.
    AckInbox(InboxId),
    /// Tell the user.
    Tell(News),
}

/// What a request of the core's own was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn what a session is.
    Learn(SessionId),
    /// To give keys away.
    Give(KeyName),
    /// To read the wrapped keys on the server, because this one is missing.
    Fetch {
        /// The key that is missed.
        wanted: KeyName,
        /// Whether the server counts this user as a holder of it.
        believed_held: bool,
    },
    /// To be given a key again.
    AskAgain(KeyName),
}

/// What happened, for people and programs on top.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A session event that is no message.
    Event(Box<SessionEvent>),
    /// A message; once more with its text when the key came late.
    Message(Box<Message>),
    /// Somebody is writing.
    Typing {
        /// Where.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
    },
    /// Somebody asks or answers.
    Asking(Asking),
    /// Something about keys.
    Keys(KeyNews),
    /// The server broke its promise: events are missing.
    Gap {
        /// Where.
        session_id: SessionId,
        /// What should have come.
        expected: u64,
        /// What came.
        came: u64,
    },
    /// The server broke its promise: an event came again. It is told once.
    Repeated {
        /// Where.
        session_id: SessionId,
        /// Which.
        seq: u64,
    },
    /// A session is no longer this user's, as heard at reconnecting.
    Gone(crate::protocol::Gone),
    /// Connected; events go on from here.
    Connected {
        /// The node that the connection is on, as it calls itself.
        node: String,
        /// The user's sessions.
        sessions: Vec<SessionOverview>,
    },
    /// Not connected; trying again.
    Disconnected,
    /// Not connected, and trying again is of no use.
    Stopped {
        /// Why.
        why: String,
    },
    /// The key ring could not be written: no key goes out until it can.
    SaveFailed,
}

/// Join requests, invitations, and what became of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Asking {
    /// Somebody wants to be let in: to be decided by [`super::Core::decide`].
    JoinRequest {
        /// Where.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
        /// What they say.
        leave_message: Option<String>,
        /// The fingerprint of their key, where the session is encrypted.
        fingerprint: Option<Fingerprint>,
    },
    /// This user's own join request was decided.
    JoinDecided {
        /// Where.
        session_id: SessionId,
        /// By whom.
        by: UserId,
        /// How.
        accepted: bool,
    },
    /// This user is asked in; stands until it is answered.
    Invitation {
        /// Where to.
        session_id: SessionId,
        /// By whom.
        inviter_id: UserId,
        /// What they say.
        leave_message: Option<String>,
        /// Until when.
        expire_timestamp: Timestamp,
    },
    /// An invitation of this user was answered.
    InvitationAnswered {
        /// Where.
        session_id: SessionId,
        /// By whom.
        invitee_id: UserId,
        /// How.
        accepted: bool,
    },
    /// A request or invitation was decided elsewhere, or lapsed.
    Withdrawn {
        /// Where.
        session_id: SessionId,
        /// Who asked, or who invited.
        user_id: UserId,
    },
}

/// What happened to room keys and fingerprints.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyNews {
    /// This client made the room key of a new epoch.
    Made(KeyName),
    /// A room key came and was believed.
    Arrived {
        /// Which.
        name: KeyName,
        /// From whom.
        from: UserId,
    },
    /// A room key came and was not believed.
    Refused {
        /// Which.
        name: KeyName,
        /// From whom.
        from: UserId,
        /// Why.
        why: CryptoError,
    },
    /// Room keys were given to so many members; some may have been withheld.
    Given {
        /// Which.
        name: KeyName,
        /// To how many.
        members: usize,
        /// From how many it was withheld.
        withheld: usize,
    },
    /// Somebody's fingerprint is not the one that is pinned. Nothing is given to them, and no key is taken from them,
    /// until the user agrees.
    FingerprintChanged {
        /// Whose.
        user_id: UserId,
        /// What it was.
        pinned: Fingerprint,
        /// What it is now.
        offered: Fingerprint,
    },
    /// This account's public key was replaced from somewhere else.
    OwnKeyReplaced,
}

impl From<Asking> for News {
    fn from(asking: Asking) -> Self {
        Self::Asking(asking)
    }
}

impl From<KeyNews> for News {
    fn from(keys: KeyNews) -> Self {
        Self::Keys(keys)
    }
}

/// A message, as far as it can be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub session_id: SessionId,
    /// Its place.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub sender_id: UserId,
    /// The sender's own id for it.
    pub client_msg_id: Option<ClientId>,
    /// The text.
    pub body: Body,
    /// It could not be read when it came.
    pub late: bool,
}

/// What there is to read of a message.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// It was sent in the clear.
    Plain(String),
    /// It was encrypted, and this is the text.
    Decrypted(String),
    /// It is encrypted with a key that has not come yet.
    Sealed(Option<KeyEpoch>),
    /// It is encrypted and cannot be read.
    Unreadable(CryptoError),
    /// It was taken back.
    Recalled,
}

impl Body {
    /// The text, where there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Decrypted(text) => Some(text),
            Self::Sealed(_) | Self::Unreadable(_) | Self::Recalled => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => write!(f, "Plain(<{} bytes>)", text.len()),
            Self::Decrypted(text) => write!(f, "Decrypted(<{} bytes>)", text.len()),
            Self::Sealed(epoch) => write!(f, "Sealed({epoch:?})"),
            Self::Unreadable(why) => write!(f, "Unreadable({why:?})"),
            Self::Recalled => f.write_str("Recalled"),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("session_id", &self.session_id)
            .field("seq", &self.seq)
            .field("sender_id", &self.sender_id)
            .field("body", &self.body)
            .field("late", &self.late)
            .finish_non_exhaustive()
    }
}
