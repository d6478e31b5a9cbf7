//! What a session can be told. Serialisable: a command travels to the node that its session lives on.

use serde::{Deserialize, Serialize};

use crate::protocol::{
    AcceptJoinSessionApproval, AllowUserJoinSession, FailedMember, InviteUserToSession, LostReason, NewSession, Role,
    SendMsg, SendRoomKey, SendRoomKeys, SessionEvent, SetSessionInfo, UserId,
};

/// A request of a user, with what the connection looked up for it beforehand: the state asks nobody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Command {
    /// Whether a session that may have taken it already can be told it again: it is known by its sender's own id, and
    /// answered alike.
    pub const fn is_repeatable(&self) -> bool {
        match self {
            Self::SendMsg(body) => body.client_msg_id.is_some(),
            Self::Create { .. }
            | Self::Join { .. }
            | Self::Allow(_)
            | Self::Invite { .. }
            | Self::Accept { .. }
            | Self::SendRoomKey(_)
            | Self::SendRoomKeys(_)
            | Self::RequestRoomKey(_)
            | Self::E2eeize
            | Self::Dee2eeize
            | Self::Leave { .. }
            | Self::Delete
            | Self::Kick(_)
            | Self::Ban { .. }
            | Self::Unban(_)
            | Self::Mute { .. }
            | Self::Unmute(_)
            | Self::SetRole { .. }
            | Self::SetInfo(_)
            | Self::Recall { .. } => false,
        }
    }

    /// About how many bytes it holds, for the bound on what waits.
    pub fn weight(&self) -> usize {
        let large = match self {
            Self::SendMsg(body) => body.markdown_text.len(),
            Self::SendRoomKeys(body) => body.room_keys.iter().map(|key| key.room_key.as_str().len() + 64).sum(),
            Self::Recall { original, .. } => original.as_ref().map_or(0, |event| event.encode().len()),
            Self::Create { .. }
            | Self::Join { .. }
            | Self::Allow(_)
            | Self::Invite { .. }
            | Self::Accept { .. }
            | Self::SendRoomKey(_)
            | Self::RequestRoomKey(_)
            | Self::E2eeize
            | Self::Dee2eeize
            | Self::Leave { .. }
            | Self::Delete
            | Self::Kick(_)
            | Self::Ban { .. }
            | Self::Unban(_)
            | Self::Mute { .. }
            | Self::Unmute(_)
            | Self::SetRole { .. }
            | Self::SetInfo(_) => 0,
        };
        large + 1024
    }
}
