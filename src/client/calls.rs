//! Which reply belongs to which request, so that [`Connection::call`](super::Connection::call) is typed.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::protocol::*;

/// A request with a known reply.
pub trait Call: Into<Request> {
    /// What the server answers when it does not refuse.
    type Reply: DeserializeOwned;
}

/// `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Done {}

/// The reply to `new_session`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Created {
    /// The new session.
    pub session_id: SessionId,
    /// 1 where it is encrypted.
    pub key_epoch: Option<KeyEpoch>,
    /// Who was not invited, and why.
    pub failed_members: Vec<FailedMember>,
}

/// The reply to `join_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Joining {
    /// In, or to be decided.
    pub status: JoinStatus,
}

/// The reply to `send_room_keys`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeysSent {
    /// Who was not sent the key, and why.
    pub failed_members: Vec<FailedMember>,
}

/// The reply to `send_msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// The message's place.
    pub seq: u64,
    /// When it was taken.
    pub time: Timestamp,
}

/// The reply to `e2eeize_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Asked {
    /// The epoch that the caller is asked for.
    pub key_epoch: KeyEpoch,
}

/// The reply to `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Pong {
    /// The server's time.
    pub time: Timestamp,
}

macro_rules! replies {
    ($($request:ident => $reply:ty;)*) => {
        $(impl Call for $request {
            type Reply = $reply;
        })*
    };
}

replies! {
    Authenticate => Authenticated;
    Resume => Resumed;
    NewSession => Created;
    JoinSession => Joining;
    AllowUserJoinSession => Done;
    InviteUserToSession => Done;
    AcceptJoinSessionApproval => Done;
    SendRoomKey => Done;
    SendRoomKeys => KeysSent;
    FetchRoomKeys => RoomKeysPage;
    RequestRoomKey => Done;
    SendMsg => Sent;
    E2eeizeSession => Asked;
    Dee2eeizeSession => Done;
    LeaveSession => Done;
    DeleteSession => Done;
    KickUser => Done;
    BanUser => Done;
    UnbanUser => Done;
    MuteUser => Done;
    UnmuteUser => Done;
    SetRole => Done;
    GetSessionInfo => SessionInfo;
    ListMembers => MembersPage;
    SetSessionInfo => Done;
    FetchMsgs => MsgsPage;
    RecallMsg => Done;
    Ack => Done;
    AckInbox => Done;
    Typing => Done;
    Ping => Pong;
}
