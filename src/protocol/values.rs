//! The small values that requests, replies and events are made of.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in milliseconds since the Unix epoch; RFC 3339 in UTC with milliseconds on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment and so many milliseconds, held within what can be told.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This moment and so many seconds.
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_millis(if secs > i64::MAX as u64 / 1000 { i64::MAX } else { secs as i64 * 1000 })
    }

    /// Milliseconds from `earlier` to this moment; negative if it is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    fn in_range(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        f.write_str(&PRINTER.timestamp_to_string(&self.in_range()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(|_| de::Error::custom("not an RFC 3339 time"))?;
        Ok(Self(time.as_millisecond()))
    }
}

/// Reads an enum from its word alone: a derived one would take `{"owner": null}` for `"owner"` as well.
macro_rules! from_word {
    ($name:ident: $($variant:ident = $word:literal),*) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match &*Cow::<'de, str>::deserialize(deserializer)? {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(de::Error::custom("none of the words")),
                }
            }
        }
    };
}

from_word!(Role: Owner = "owner", Admin = "admin", Member = "member");
from_word!(JoinPolicy: Approval = "approval", Open = "open", Closed = "closed");
from_word!(LeftReason: Left = "left", Kicked = "kicked", Banned = "banned");
from_word!(LostReason: Lost = "lost", Bad = "bad");

/// What a member may do in a session. The order is the rank: `Member < Admin < Owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Speaks and reads.
    Member,
    /// Lets people in and out, over members.
    Admin,
    /// One per session; over everybody.
    Owner,
}

/// Who comes in by `join_session`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinPolicy {
    /// An owner or admin decides on each request.
    #[default]
    Approval,
    /// Anyone who is not banned; plain sessions only.
    Open,
    /// Nobody: by invitation of an owner or admin only.
    Closed,
}

/// Why a member is no longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// By themselves, or their account was closed or disabled.
    Left,
    /// Removed by an owner or admin.
    Kicked,
    /// Removed and kept out.
    Banned,
}

/// Why a member asks for a room key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// It is not there any more.
    Lost,
    /// What came cannot be unwrapped, or is not the key that its check value says.
    Bad,
}

/// How many rows a page may have: from 1; the server's maximum holds it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageLimit(pub u64);

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(de::Error::custom("limits count from 1")),
            limit => Ok(Self(limit)),
        }
    }
}

/// `client_msg_id` or `client_session_id`: 1 to 64 bytes that the client chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ClientId(pub Box<str>);

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() || text.len() > 64 {
            return Err(de::Error::custom("1 to 64 bytes"));
        }
        Ok(Self(text.into()))
    }
}

/// Bytes in standard padded base64 that the server carries and never opens: wrapped room keys, check values,
/// signatures. At most 4,096 characters: twice what RSA with 8,192 bits makes.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Base64Text(Box<str>);

impl Base64Text {
    /// The most characters that are taken.
    pub const MAX_CHARS: usize = 4096;

    /// Encodes bytes.
    pub fn encode(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes).into())
    }

    /// From text that was checked when it came in, such as the store's.
    pub fn from_stored(text: String) -> Self {
        Self(text.into())
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes; `None` only for text from a store that was tampered with.
    pub fn decode(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&*self.0).ok()
    }
}

impl fmt::Debug for Base64Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} characters of base64>", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Base64Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() || text.len() > Self::MAX_CHARS || STANDARD.decode(text.as_bytes()).is_err() {
            return Err(de::Error::custom("padded base64"));
        }
        Ok(Self(text.into()))
    }
}
