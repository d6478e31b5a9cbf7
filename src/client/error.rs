//! What can go wrong between this client and a server, in one enum.

use crate::protocol::{CloseCode, ErrorCode, Refusal};

use super::crypto::CryptoError;
use super::identity::Fingerprint;
use super::vault::VaultError;
use crate::protocol::UserId;

/// Why a call of the client did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none of http, https, ws or wss.
    #[error("not a server address: expected http://HOST:PORT or https://HOST:PORT")]
    Address,
    /// Some of a server's addresses are https, and some are not: what went over TLS would go in the clear at another one.
    #[error("either all addresses of a server are https (or wss), or none is")]
    MixedAddresses,
    /// The certificates that are to be believed cannot be read.
    #[error("no certificates to believe: {0}")]
    Trust(String),
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection ended before an answer came; whether the request was carried out is unknown.
    #[error("the connection ended{}", .0.map(|code| format!(" with code {code}")).unwrap_or_default())]
    Closed(Option<u16>),
    /// No answer in time; whether the request was carried out is unknown.
    #[error("no answer in time")]
    Timeout,
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The server answered something that is not in the contract.
    #[error("the server's answer is not in the contract: {0}")]
    Contract(String),
    /// The server's key for somebody is not the one that was pinned.
    #[error("the fingerprint of user {user_id} has changed from {pinned} to {offered}")]
    FingerprintChanged {
        /// Whose.
        user_id: UserId,
        /// What it was.
        pinned: Fingerprint,
        /// What it is now.
        offered: Fingerprint,
    },
    /// The session is not one of this user's, or nothing is known of it yet.
    #[error("not in this session")]
    NotInSession,
    /// The room key did not come in time.
    #[error("the room key is not here")]
    NoRoomKey,
    /// A key could not be used.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Keys could not be saved or read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The client was closed by its owner.
    #[error("the client is closed")]
    Stopped,
}

impl ClientError {
    /// The code, where the server refused.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, as far as one can tell from here.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.retryable(),
            Self::Connect(_) | Self::Closed(_) | Self::Timeout => true,
            Self::Address
            | Self::MixedAddresses
            | Self::Trust(_)
            | Self::Contract(_)
            | Self::FingerprintChanged { .. }
            | Self::NotInSession
            | Self::NoRoomKey
            | Self::Crypto(_)
            | Self::Vault(_)
            | Self::Stopped => false,
        }
    }

    /// Whether trying to connect again is useless: the server does not want this client as it is.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Closed(Some(code)) => !reconnect_after(*code),
            Self::Refused(refusal) => refusal.code == ErrorCode::Unauthenticated,
            Self::Address | Self::MixedAddresses | Self::Trust(_) | Self::Stopped => true,
            Self::Connect(_)
            | Self::Closed(None)
            | Self::Timeout
            | Self::Contract(_)
            | Self::FingerprintChanged { .. }
            | Self::NotInSession
            | Self::NoRoomKey
            | Self::Crypto(_)
            | Self::Vault(_) => false,
        }
    }
}

/// What the contract's table of close codes says; unknown codes are worth another try.
pub fn reconnect_after(code: u16) -> bool {
    const ALL: [CloseCode; 13] = [
        CloseCode::Normal,
        CloseCode::GoingAway,
        CloseCode::Protocol,
        CloseCode::Unsupported,
        CloseCode::InvalidText,
        CloseCode::TooLarge,
        CloseCode::Restart,
        CloseCode::Unauthenticated,
        CloseCode::AuthenticateTimeout,
        CloseCode::Unreadable,
        CloseCode::TooSlow,
        CloseCode::CutOff,
        CloseCode::NoPong,
    ];
    ALL.iter().find(|known| known.code() == code).is_none_or(|known| known.reconnect())
}
