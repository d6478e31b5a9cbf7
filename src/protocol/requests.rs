//! Requests: what a client asks for, one struct each, in the order of the contract's table.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Base64Text, ClientId, InboxId, JoinPolicy, KeyEpoch, LostReason, PageLimit, Role, SessionId, UserId};

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $wire:literal;)*) => {
        /// Any request of the contract.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($(#[$doc])* $name($name),)*
        }

        impl Request {
            /// Every request's name on the wire.
            pub const NAMES: &[&str] = &[$($wire),*];

            /// The name on the wire.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => $wire,)* }
            }

            /// The known name that equals `name`.
            pub fn known_name(name: &str) -> Option<&'static str> {
                match name { $($wire => Some($wire),)* _ => None }
            }

            /// Reads the body of the request called `name`; `None` where there is no such request.
            pub(super) fn parse(name: &str, body: &str) -> Option<Result<Self, serde_json::Error>> {
                match name {
                    $($wire => Some(serde_json::from_str(body).map(Self::$name)),)*
                    _ => None,
                }
            }

            /// Reads the body again, slowly, to learn which field is wrong and what serde says of it.
            pub(super) fn explain(name: &str, body: &str) -> Option<serde_path_to_error::Error<serde_json::Error>> {
                let mut body = serde_json::Deserializer::from_str(body);
                match name {
                    $($wire => serde_path_to_error::deserialize::<_, $name>(&mut body).err(),)*
                    _ => None,
                }
            }

            /// The body as JSON, for clients.
            pub fn body(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
                match self { $(Self::$name(body) => serde_json::value::to_raw_value(body),)* }
            }
        }

        $(impl From<$name> for Request {
            fn from(body: $name) -> Self { Self::$name(body) }
        })*
    };
}

requests! {
    /// Says who the connection is.
    Authenticate = "authenticate";
    /// Asks for what was missed, and for live events.
    Resume = "resume";
    /// Makes a session.
    NewSession = "new_session";
    /// Asks to be let in.
    JoinSession = "join_session";
    /// Decides on a join request.
    AllowUserJoinSession = "allow_user_join_session";
    /// Asks a user in.
    InviteUserToSession = "invite_user_to_session";
    /// Answers an invitation.
    AcceptJoinSessionApproval = "accept_join_session_approval";
    /// Gives one member the room key.
    SendRoomKey = "send_room_key";
    /// Gives many members the room key.
    SendRoomKeys = "send_room_keys";
    /// Reads the wrapped keys sent to the caller.
    FetchRoomKeys = "fetch_room_keys";
    /// Says that the room key is not there.
    RequestRoomKey = "request_room_key";
    /// Speaks.
    SendMsg = "send_msg";
    /// Switches encryption on, or replaces the room key.
    E2eeizeSession = "e2eeize_session";
    /// Switches encryption off.
    Dee2eeizeSession = "dee2eeize_session";
    /// Leaves.
    LeaveSession = "leave_session";
    /// Ends the session.
    DeleteSession = "delete_session";
    /// Removes a member.
    KickUser = "kick_user";
    /// Removes a user and keeps them out.
    BanUser = "ban_user";
    /// Ends a ban.
    UnbanUser = "unban_user";
    /// Takes a member's voice.
    MuteUser = "mute_user";
    /// Gives it back.
    UnmuteUser = "unmute_user";
    /// Gives a member a role.
    SetRole = "set_role";
    /// Reads what the session is.
    GetSessionInfo = "get_session_info";
    /// Reads its members.
    ListMembers = "list_members";
    /// Changes what the session is.
    SetSessionInfo = "set_session_info";
    /// Reads its history.
    FetchMsgs = "fetch_msgs";
    /// Takes a message back.
    RecallMsg = "recall_msg";
    /// Says up to where events have come.
    Ack = "ack";
    /// Says which inbox events have come.
    AckInbox = "ack_inbox";
    /// Says that the caller is writing.
    Typing = "typing";
    /// Asks the time.
    Ping = "ping";
}

/// A request's body: a struct that is read from and written to JSON, whose optional fields are left out when empty.
macro_rules! body {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

/// A struct inside a body, which is read from an object only: a derived one would take a list of its fields' values.
macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(remote = "Self")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // What `remote` derived.
                Self::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct FromObject;

                impl<'de> de::Visitor<'de> for FromObject {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        $name::deserialize(de::value::MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(FromObject)
            }
        }
    };
}

/// `authenticate {token?}`: the token is left out where the upgrade carried it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Authenticate {
    /// A token of `register` or `login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticate {{ token: {:?} bytes }}", self.token.as_ref().map(String::len))
    }
}

body! {
    /// `resume {cursors?}`.
    Resume {
        /// The last event that the client has, per session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursors: Option<BTreeMap<SessionId, Cursor>>,
    }
}

part! {
    /// Where a client stands in a session.
    Cursor {
        /// The last event that it has; 0 for none.
        seq: u64,
        /// The history that `seq` is of, as `authenticate` told it.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    }
}

body! {
    /// `new_session`.
    NewSession {
        /// What people call it.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Who is invited.
        #[serde(skip_serializing_if = "Option::is_none")]
        members: Option<Vec<UserId>>,
        /// Whether it starts end-to-end encrypted, at epoch 1.
        e2ee_on: bool,
        /// The first room key, wrapped for the caller's own other devices.
        #[serde(skip_serializing_if = "Option::is_none")]
        room_key: Option<Base64Text>,
        /// The check value of the first room key.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// Shown to who is invited.
        #[serde(skip_serializing_if = "Option::is_none")]
        leave_message: Option<String>,
        /// Makes a repeated request one.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_session_id: Option<ClientId>,
    }
}

body! {
    /// `join_session`.
    JoinSession {
        /// Which.
        session_id: SessionId,
        /// Shown to who decides.
        #[serde(skip_serializing_if = "Option::is_none")]
        leave_message: Option<String>,
    }
}

body! {
    /// `allow_user_join_session`.
    AllowUserJoinSession {
        /// Which.
        session_id: SessionId,
        /// Who asked.
        user_id: UserId,
        /// The decision.
        accepted: bool,
        /// The room key, wrapped for the applicant.
        #[serde(skip_serializing_if = "Option::is_none")]
        room_key: Option<Base64Text>,
        /// Its epoch; the current one where left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
        /// Its check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// The approver's signature over the check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Base64Text>,
    }
}

body! {
    /// `invite_user_to_session`.
    InviteUserToSession {
        /// Which.
        session_id: SessionId,
        /// Who is asked in.
        invitee: UserId,
        /// Shown to them.
        #[serde(skip_serializing_if = "Option::is_none")]
        leave_message: Option<String>,
    }
}

body! {
    /// `accept_join_session_approval`.
    AcceptJoinSessionApproval {
        /// Which.
        session_id: SessionId,
        /// Who asked the caller in.
        inviter_id: UserId,
        /// The answer.
        accepted: bool,
    }
}

body! {
    /// `send_room_key`.
    SendRoomKey {
        /// Which.
        session_id: SessionId,
        /// Who gets it.
        user_id: UserId,
        /// The room key, wrapped for them.
        room_key: Base64Text,
        /// Its epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
        /// Its check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// The sender's signature over the check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Base64Text>,
    }
}

body! {
    /// `send_room_keys`: `send_room_key` for many at once.
    SendRoomKeys {
        /// Which.
        session_id: SessionId,
        /// The keys' epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
        /// The room key's check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// The sender's signature over the check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Base64Text>,
        /// Who gets what; may be empty.
        room_keys: Vec<WrappedKey>,
        /// Who is not given the key.
        #[serde(skip_serializing_if = "Option::is_none")]
        withheld: Option<Vec<Withheld>>,
    }
}

part! {
    /// A room key wrapped for one member.
    WrappedKey {
        /// Who can unwrap it.
        user_id: UserId,
        /// The wrapped key.
        room_key: Base64Text,
    }
}

part! {
    /// A member whom the sender does not give the key.
    Withheld {
        /// Who stays without.
        user_id: UserId,
        /// Why, for operators: a short word such as `fingerprint_changed`.
        reason: String,
    }
}

body! {
    /// `fetch_room_keys`.
    FetchRoomKeys {
        /// Which.
        session_id: SessionId,
        /// Keys of later epochs only.
        #[serde(skip_serializing_if = "Option::is_none")]
        after_epoch: Option<u64>,
        /// How many at most.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<PageLimit>,
    }
}

body! {
    /// `request_room_key`.
    RequestRoomKey {
        /// Which.
        session_id: SessionId,
        /// Why.
        reason: LostReason,
    }
}

/// `send_msg`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SendMsg {
    /// Which.
    pub session_id: SessionId,
    /// Markdown, or ciphertext in base64.
    pub markdown_text: String,
    /// Which of the two.
    pub is_encrypted: bool,
    /// The epoch of the key it is encrypted with; the current one where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<KeyEpoch>,
    /// Makes a repeated request one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<ClientId>,
    /// What the text is; `text/markdown` where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

impl fmt::Debug for SendMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendMsg")
            .field("session_id", &self.session_id)
            .field("markdown_text_bytes", &self.markdown_text.len())
            .field("is_encrypted", &self.is_encrypted)
            .field("key_epoch", &self.key_epoch)
            .finish_non_exhaustive()
    }
}

body! {
    /// `e2eeize_session`.
    E2eeizeSession {
        /// Which.
        session_id: SessionId,
    }
}

body! {
    /// `dee2eeize_session`.
    Dee2eeizeSession {
        /// Which.
        session_id: SessionId,
    }
}

body! {
    /// `leave_session`.
    LeaveSession {
        /// Which.
        session_id: SessionId,
        /// Even as the last holder of the room key.
        #[serde(skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
    }
}

body! {
    /// `delete_session`.
    DeleteSession {
        /// Which.
        session_id: SessionId,
    }
}

body! {
    /// `kick_user`.
    KickUser {
        /// Which.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
    }
}

body! {
    /// `ban_user`.
    BanUser {
        /// Which.
        session_id: SessionId,
        /// Who; a member or not.
        user_id: UserId,
        /// For how long, from 1; without end where left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_s: Option<DurationSecs>,
    }
}

body! {
    /// `unban_user`.
    UnbanUser {
        /// Which.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
    }
}

body! {
    /// `mute_user`.
    MuteUser {
        /// Which.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
        /// For how long, from 1; without end where left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_s: Option<DurationSecs>,
    }
}

body! {
    /// `unmute_user`.
    UnmuteUser {
        /// Which.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
    }
}

body! {
    /// `set_role`.
    SetRole {
        /// Which.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
        /// What they become; `owner` hands ownership over.
        role: Role,
    }
}

body! {
    /// `get_session_info`.
    GetSessionInfo {
        /// Which.
        session_id: SessionId,
    }
}

body! {
    /// `list_members`.
    ListMembers {
        /// Which.
        session_id: SessionId,
        /// The last one seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<UserId>,
        /// How many at most.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<PageLimit>,
    }
}

body! {
    /// `set_session_info`: what is left out stays.
    SetSessionInfo {
        /// Which.
        session_id: SessionId,
        /// What people call it.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// What it is about.
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
}

body! {
    /// `fetch_msgs`: one of the two cursors.
    FetchMsgs {
        /// Which.
        session_id: SessionId,
        /// Events after this one, the oldest of them first.
        #[serde(skip_serializing_if = "Option::is_none")]
        after_seq: Option<u64>,
        /// Events before this one, the youngest of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        before_seq: Option<u64>,
        /// How many at most.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<PageLimit>,
    }
}

body! {
    /// `recall_msg`.
    RecallMsg {
        /// Which.
        session_id: SessionId,
        /// The message.
        seq: u64,
    }
}

body! {
    /// `ack`.
    Ack {
        /// Which.
        session_id: SessionId,
        /// The last event received.
        seq: u64,
    }
}

body! {
    /// `ack_inbox`.
    AckInbox {
        /// What was received.
        inbox_ids: Vec<InboxId>,
    }
}

body! {
    /// `typing`.
    Typing {
        /// Which.
        session_id: SessionId,
    }
}

body! {
    /// `ping`.
    Ping {}
}

/// A length of time in seconds, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DurationSecs(pub u64);

impl<'de> Deserialize<'de> for DurationSecs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(de::Error::custom("durations are from 1")),
            secs => Ok(Self(secs)),
        }
    }
}

impl Request {
    /// The session that the request is about, if it is about one.
    pub const fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::Authenticate(_) | Self::Resume(_) | Self::NewSession(_) | Self::AckInbox(_) | Self::Ping(_) => None,
            Self::JoinSession(JoinSession { session_id, .. })
            | Self::AllowUserJoinSession(AllowUserJoinSession { session_id, .. })
            | Self::InviteUserToSession(InviteUserToSession { session_id, .. })
            | Self::AcceptJoinSessionApproval(AcceptJoinSessionApproval { session_id, .. })
            | Self::SendRoomKey(SendRoomKey { session_id, .. })
            | Self::SendRoomKeys(SendRoomKeys { session_id, .. })
            | Self::FetchRoomKeys(FetchRoomKeys { session_id, .. })
            | Self::RequestRoomKey(RequestRoomKey { session_id, .. })
            | Self::SendMsg(SendMsg { session_id, .. })
            | Self::E2eeizeSession(E2eeizeSession { session_id })
            | Self::Dee2eeizeSession(Dee2eeizeSession { session_id })
            | Self::LeaveSession(LeaveSession { session_id, .. })
            | Self::DeleteSession(DeleteSession { session_id })
            | Self::KickUser(KickUser { session_id, .. })
            | Self::BanUser(BanUser { session_id, .. })
            | Self::UnbanUser(UnbanUser { session_id, .. })
            | Self::MuteUser(MuteUser { session_id, .. })
            | Self::UnmuteUser(UnmuteUser { session_id, .. })
            | Self::SetRole(SetRole { session_id, .. })
            | Self::GetSessionInfo(GetSessionInfo { session_id })
            | Self::ListMembers(ListMembers { session_id, .. })
            | Self::SetSessionInfo(SetSessionInfo { session_id, .. })
            | Self::FetchMsgs(FetchMsgs { session_id, .. })
            | Self::RecallMsg(RecallMsg { session_id, .. })
            | Self::Ack(Ack { session_id, .. })
            | Self::Typing(Typing { session_id }) => Some(*session_id),
        }
    }
}
