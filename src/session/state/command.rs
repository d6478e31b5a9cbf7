//! What a session can be told.

use crate::protocol::{
    AcceptJoinSessionApproval, AllowUserJoinSession, FailedMember, InviteUserToSession, LostReason, NewSession, Role,
    SendMsg, SendRoomKey, SendRoomKeys, SessionEvent, SetSessionInfo, UserId,
};

/// A request of a user, with what the connection looked up for it beforehand: the state asks nobody.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `new_session`: the first command of a session, and only that.
    Create {
        /// The request; `members` are those who can be invited, each once.
        body: NewSession,
        /// Those who cannot, and why.
        failed: Vec<FailedMember>,
    },
    /// `join_session`.
    Join {
        /// What the applicant says.
        leave_message: Option<String>,
        /// The applicant's public key.
        public_key: String,
    },
    /// `allow_user_join_session`.
    Allow(AllowUserJoinSession),
    /// `invite_user_to_session`.
    Invite {
        /// The request.
        body: InviteUserToSession,
        /// Whether there is such a live account.
        known: bool,
    },
    /// `accept_join_session_approval`.
    Accept {
        /// The request.
        body: AcceptJoinSessionApproval,
        /// The invitee's public key.
        public_key: String,
    },
    /// `send_room_key`.
    SendRoomKey(SendRoomKey),
    /// `send_room_keys`.
    SendRoomKeys(SendRoomKeys),
    /// `request_room_key`.
    RequestRoomKey(LostReason),
    /// `send_msg`.
    SendMsg(SendMsg),
    /// `e2eeize_session`.
    E2eeize,
    /// `dee2eeize_session`.
    Dee2eeize,
    /// `leave_session`.
    Leave {
        /// Even as the last holder of the room key.
        force: bool,
    },
    /// `delete_session`.
    Delete,
    /// `kick_user`.
    Kick(UserId),
    /// `ban_user`.
    Ban {
        /// Who.
        user_id: UserId,
        /// Seconds; without end where left out.
        duration_s: Option<u64>,
        /// Whether there is such a live account.
        known: bool,
    },
    /// `unban_user`.
    Unban(UserId),
    /// `mute_user`.
    Mute {
        /// Who.
        user_id: UserId,
        /// Seconds; without end where left out.
        duration_s: Option<u64>,
    },
    /// `unmute_user`.
    Unmute(UserId),
    /// `set_role`.
    SetRole {
        /// Who.
        user_id: UserId,
        /// What they become.
        role: Role,
    },
    /// `set_session_info`.
    SetInfo(SetSessionInfo),
    /// `recall_msg`.
    Recall {
        /// Which.
        seq: u64,
        /// The event with that `seq`, as it is stored.
        original: Option<Box<SessionEvent>>,
    },
}
