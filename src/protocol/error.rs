//! Refusals: the codes of the contract, and the one shape in which a client is told "no".

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::KeyEpoch;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, retryable: $retryable:literal, status: $status:literal;)*) => {
        /// Why a request was refused. What a client may conclude from each is in `docs/PROTOCOL.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $wire)] $name,)*
        }

        impl ErrorCode {
            /// Every code, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// The code of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($wire => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Whether the same request may succeed later, unchanged.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// The HTTP status that fits.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

error_codes! {
    /// A field is missing, of the wrong type or out of range.
    InvalidArgument = "invalid_argument", retryable: false, status: 400;
    /// The server knows no such request.
    UnknownType = "unknown_type", retryable: false, status: 400;
    /// No token, or a dead one.
    Unauthenticated = "unauthenticated", retryable: false, status: 401;
    /// The caller's role does not allow it.
    PermissionDenied = "permission_denied", retryable: false, status: 403;
    /// There is no such session, user, request or message.
    NotFound = "not_found", retryable: false, status: 404;
    /// The session exists; the caller is no member.
    NotAMember = "not_a_member", retryable: false, status: 403;
    /// It is there already.
    AlreadyExists = "already_exists", retryable: false, status: 409;
    /// The caller is banned from the session.
    Banned = "banned", retryable: false, status: 403;
    /// The caller may not speak in the session.
    Muted = "muted", retryable: false, status: 403;
    /// The session is plain.
    E2eeNotOn = "e2ee_not_on", retryable: false, status: 409;
    /// The last holder of the room key leaves others without it.
    LastKeyHolder = "last_key_holder", retryable: false, status: 409;
    /// The session takes encrypted messages only.
    EncryptionRequired = "encryption_required", retryable: false, status: 409;
    /// The approver holds the room key and has to give it.
    RoomKeyRequired = "room_key_required", retryable: false, status: 409;
    /// Encryption is on, but no room key has been rotated in yet.
    RoomKeyPending = "room_key_pending", retryable: true, status: 409;
    /// Of another epoch than the current one.
    StaleRoomKey = "stale_room_key", retryable: false, status: 409;
    /// Another check value stands for this epoch.
    KeyMismatch = "key_mismatch", retryable: false, status: 409;
    /// Its time is over.
    Expired = "expired", retryable: false, status: 410;
    /// Larger than the server takes.
    TooLarge = "too_large", retryable: false, status: 413;
    /// Too often.
    RateLimited = "rate_limited", retryable: true, status: 429;
    /// More work than the node takes at once.
    Overloaded = "overloaded", retryable: true, status: 503;
    /// The node cannot do it now.
    Unavailable = "unavailable", retryable: true, status: 503;
    /// A fault of the server's own.
    Internal = "internal", retryable: false, status: 500;
}

/// What a client needs besides the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// With `stale_room_key`: the session's current epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<KeyEpoch>,
    /// With `rate_limited`: milliseconds after which to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A request that was refused. Its text names the field and what would be right, and never repeats what came in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people: lower case, without a full stop.
    pub message: Cow<'static, str>,
    /// What goes with some codes.
    pub details: Option<Box<Details>>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// `invalid_argument`: `field`, and what would be right in it.
    pub fn invalid(field: &str, right: &str) -> Self {
        Self::new(ErrorCode::InvalidArgument, format!("{field}: {right}"))
    }

    /// `not_found` for the session itself.
    pub const fn no_session() -> Self {
        Self { code: ErrorCode::NotFound, message: Cow::Borrowed("there is no such session"), details: None }
    }

    /// `not_a_member` of the session.
    pub const fn not_a_member() -> Self {
        Self { code: ErrorCode::NotAMember, message: Cow::Borrowed("not a member of this session"), details: None }
    }

    /// `rate_limited`, with the time after which to try again.
    pub fn rate_limited(message: impl Into<Cow<'static, str>>, retry_after_ms: u64) -> Self {
        let details = Details { retry_after_ms: Some(retry_after_ms), key_epoch: None };
        Self { details: Some(Box::new(details)), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// `stale_room_key`, with the current epoch.
    pub fn stale_room_key(current: Option<KeyEpoch>) -> Self {
        let details = Details { key_epoch: current, retry_after_ms: None };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(ErrorCode::StaleRoomKey, "key_epoch: another epoch is the current one")
        }
    }
}

/// The body of a refusal on the wire, in frames and in HTTP answers alike.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody<'a> {
    code: ErrorCode,
    message: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
}

impl<'a> From<&'a Refusal> for ErrorBody<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        Self {
            code: refusal.code,
            message: &refusal.message,
            retryable: refusal.code.retryable(),
            details: refusal.details.as_deref(),
        }
    }
}

impl Serialize for Refusal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ErrorBody::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Body {
            code: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            retryable: bool,
            details: Option<Details>,
        }
        let body = Body::deserialize(deserializer)?;
        // A code of a later server is judged by `retryable`, as the contract asks.
        let unknown = if body.retryable { ErrorCode::Unavailable } else { ErrorCode::Internal };
        let code = ErrorCode::ALL.iter().copied().find(|code| code.as_str() == body.code).unwrap_or(unknown);
        Ok(Self { code, message: body.message.into(), details: body.details.map(Box::new) })
    }
}
