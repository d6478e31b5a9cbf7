//! Session events: what every member sees, in `seq` order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Base64Text, ClientId, JoinPolicy, KeyEpoch, LeftReason, Role, SessionId, Timestamp, UserId};

/// One event of a session's history.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionEvent {
    /// Which session.
    pub session_id: SessionId,
    /// Its place in the session.
    pub seq: u64,
    /// When it happened; never before the event before it.
    pub time: Timestamp,
    /// Who did it, where somebody did (a message says `sender_id` instead).
    pub by: Option<UserId>,
    /// What.
    pub what: Happening,
}

macro_rules! happenings {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl From<$name> for Happening {
                fn from(body: $name) -> Self {
                    Self::$name(body)
                }
            }
        )*

        /// What an event tells.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Happening {
            /// Somebody spoke.
            Msg(Msg),
            $($(#[$doc])* $name($name),)*
        }

        impl Happening {
            /// The type on the wire.
            pub const fn name(&self) -> &'static str {
                match self { Self::Msg(_) => "Msg", $(Self::$name(_) => stringify!($name),)* }
            }

            fn read(name: &str, body: &str) -> Option<serde_json::Result<Self>> {
                match name {
                    "Msg" => Some(serde_json::from_str(body).map(Self::Msg)),
                    $(stringify!($name) => Some(serde_json::from_str(body).map(Self::$name)),)*
                    _ => None,
                }
            }
        }
    };
}

/// A message; `by` is left out, since `sender_id` says it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Msg {
    /// Who spoke.
    pub sender_id: UserId,
    /// Markdown, or ciphertext in base64; empty where recalled.
    pub markdown_text: String,
    /// Which of the two.
    pub is_encrypted: bool,
    /// The epoch of the key it is encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<KeyEpoch>,
    /// The sender's own id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<ClientId>,
    /// What the text is; `text/markdown` where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Present and true in catch-up and history, where it was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recalled: bool,
}

impl From<Msg> for Happening {
    fn from(body: Msg) -> Self {
        Self::Msg(body)
    }
}

impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msg")
            .field("sender_id", &self.sender_id)
            .field("markdown_text_bytes", &self.markdown_text.len())
            .field("is_encrypted", &self.is_encrypted)
            .field("key_epoch", &self.key_epoch)
            .finish_non_exhaustive()
    }
}

happenings! {
    /// Somebody came in.
    MemberJoined {
        /// Who.
        user_id: UserId,
        /// As what.
        role: Role,
    }
    /// Somebody is no longer a member.
    MemberLeft {
        /// Who.
        user_id: UserId,
        /// Why.
        reason: LeftReason,
    }
    /// A member's role changed.
    RoleChanged {
        /// Who.
        user_id: UserId,
        /// To what.
        role: Role,
    }
    /// A user was muted, banned, or freed of it: how they stand now.
    MemberRestricted {
        /// Who.
        user_id: UserId,
        /// May not speak.
        muted: bool,
        /// Until when; without end where left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        muted_until: Option<Timestamp>,
        /// May not come in.
        banned: bool,
        /// Until when; without end where left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        banned_until: Option<Timestamp>,
    }
    /// What the session is was changed: the fields that changed.
    SessionInfoChanged {
        /// The name; empty where it was taken away.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The description; empty where it was taken away.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Whether plain messages are refused while encryption is on.
        #[serde(skip_serializing_if = "Option::is_none")]
        require_encryption: Option<bool>,
        /// Whether the room key is replaced when someone joined.
        #[serde(skip_serializing_if = "Option::is_none")]
        rotate_on_join: Option<bool>,
        /// Who comes in by `join_session`.
        #[serde(skip_serializing_if = "Option::is_none")]
        join_policy: Option<JoinPolicy>,
    }
    /// Encryption was switched.
    SessionE2eeChanged {
        /// To what.
        e2ee_on: bool,
    }
    /// A new room key is the current one.
    RoomKeyRotated {
        /// Its epoch.
        key_epoch: KeyEpoch,
        /// Its check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
    }
    /// A message was taken back.
    MsgRecalled {
        /// Which.
        recalled_seq: u64,
    }
    /// A member's account has a new public key.
    PublicKeyChanged {
        /// Who.
        user_id: UserId,
        /// Hex SHA-256 of the new key's SPKI DER.
        fingerprint: String,
    }
    /// The session ended.
    SessionDeleted {}
}

/// The fields that every event's body starts with.
#[derive(Deserialize)]
struct Header {
    session_id: SessionId,
    seq: u64,
    time: Timestamp,
    by: Option<UserId>,
}

impl SessionEvent {
    /// The event as a JSON text: `{"type": .., "body": {..}}`.
    pub fn encode(&self) -> Vec<u8> {
        super::codec::to_json(self)
    }

    /// Reads an event frame's body; `None` where the type is none of this version.
    pub fn read(name: &str, body: &str) -> Option<serde_json::Result<Self>> {
        let what = match Happening::read(name, body)? {
            Ok(what) => what,
            Err(error) => return Some(Err(error)),
        };
        Some(serde_json::from_str(body).map(|Header { session_id, seq, time, by }| Self {
            session_id,
            seq,
            time,
            by,
            what,
        }))
    }
}

impl Serialize for SessionEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            r#type: &'static str,
            body: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            session_id: SessionId,
            seq: u64,
            time: Timestamp,
            #[serde(skip_serializing_if = "Option::is_none")]
            by: Option<UserId>,
            #[serde(flatten)]
            what: &'a Happening,
        }
        let Self { session_id, seq, time, by, ref what } = *self;
        Wire { r#type: what.name(), body: Body { session_id, seq, time, by, what } }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SessionEvent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        #[derive(Deserialize)]
        struct Wire {
            r#type: String,
            body: Box<serde_json::value::RawValue>,
        }
        let Wire { r#type, body } = Wire::deserialize(deserializer)?;
        Self::read(&r#type, body.get())
            .ok_or_else(|| D::Error::custom("no event of this version"))?
            .map_err(D::Error::custom)
    }
}

/// The frame that tells the others that a member is writing: no `seq`, never stored.
pub fn encode_typing(session_id: SessionId, user_id: UserId) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire {
        r#type: &'static str,
        body: Body,
    }
    #[derive(Serialize)]
    struct Body {
        session_id: SessionId,
        user_id: UserId,
    }
    super::codec::to_json(&Wire { r#type: "Typing", body: Body { session_id, user_id } })
}
