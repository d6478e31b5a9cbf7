//! The wire contract as types: identifiers, requests, replies, events, errors, close codes and the codec.
//!
//! This room is pure. It knows no other room of the house, no clock, no random source, no runtime; everything
//! else speaks in its terms. `docs/PROTOCOL.md` is the same contract in prose.

mod check;
mod close;
mod codec;
mod error;
mod events;
mod explain;
mod frame;
mod ids;
mod notices;
mod replies;
mod requests;
mod values;

pub use check::Limits;
pub use close::CloseCode;
pub use codec::{ServerFrame, Unreadable, decode_request, decode_server_frame, encode_error, encode_reply};
pub use error::{Details, ErrorCode, Refusal};
pub use events::*;
pub use frame::Frame;
pub use ids::{InboxId, KeyEpoch, NodeId, RequestId, SessionId, UserId};
pub use notices::{Ask, InboxNotice, NoticeBody, encode_going_away, encode_withdrawn};
pub use replies::{
    Authenticated, FailedMember, Gone, GoneReason, InvitationView, JoinRequestView, JoinStatus, MemberView,
    MembersPage, MsgsPage, PublicLimits, Reply, Resumed, ResumedSession, RoomKeyView, RoomKeysPage, SessionInfo,
    SessionOverview,
};
pub use requests::*;
pub use values::{Base64Text, ClientId, JoinPolicy, LeftReason, LostReason, PageLimit, Role, Timestamp};

/// The WebSocket sub-protocol of version 1.
pub const SUB_PROTOCOL: &str = "conclave.v1.json";

#[cfg(test)]
mod tests;
