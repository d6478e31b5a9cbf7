//! Identifiers. Each is its own type, so that none is ever passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// A request's number, the client's own: 0 to 2^53-1.
pub type RequestId = u64;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID; new ones are version 7, made by the caller, who has the clock.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The 16 bytes, as the store keeps them.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From 16 bytes of the store.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                const WRONG: &str = "a UUID as a lower-case hyphenated string";
                // One spelling per id: `Uuid` alone would take upper case and three other forms.
                if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(WRONG);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| WRONG)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = Uuid::encode_buffer();
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A user, for the whole life of the account and after it: ids are not given out again.
    UserId
);
uuid_id!(
    /// A group session.
    SessionId
);
uuid_id!(
    /// A node of the cluster, for one life of its process: made anew at each start.
    NodeId
);

/// The number of a room key in its session, from 1, counting up. No number ever means two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyEpoch(pub u64);

impl KeyEpoch {
    /// The first epoch of a session.
    pub const FIRST: Self = Self(1);

    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl<'de> Deserialize<'de> for KeyEpoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(de::Error::custom("epochs count from 1")),
            epoch => Ok(Self(epoch)),
        }
    }
}

/// The name of one inbox event, unique per user; opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InboxId(pub String);

impl InboxId {
    /// The `number`th inbox event that `session` made.
    pub fn of(session: SessionId, number: u64) -> Self {
        Self(format!("{}.{number}", session.0.as_simple()))
    }
}

impl SessionId {
    /// For tests and tools: the underlying UUID.
    pub const fn uuid(&self) -> Uuid {
        self.0
    }
}
