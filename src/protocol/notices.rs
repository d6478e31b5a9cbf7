//! What one user alone is told: notifications kept until acknowledged, and asks.

use serde::{Deserialize, Serialize};

use super::{Base64Text, InboxId, KeyEpoch, SessionId, Timestamp, UserId};

/// A notification that is kept until its user acknowledges it; delivered at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxNotice {
    /// Its name.
    pub inbox_id: InboxId,
    /// What it tells.
    pub body: NoticeBody,
}

/// The five notifications of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "body")]
pub enum NoticeBody {
    /// To owner and admins: somebody wants to be let in.
    JoinSessionApproval {
        /// Where.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
        /// What they say.
        #[serde(skip_serializing_if = "Option::is_none")]
        leave_message: Option<String>,
        /// Their public key, where the session is encrypted.
        #[serde(skip_serializing_if = "Option::is_none")]
        public_key: Option<String>,
    },
    /// To an applicant: it was decided.
    AllowUserJoinSessionNotification {
        /// Where.
        session_id: SessionId,
        /// Who decided.
        user_id: UserId,
        /// What.
        accepted: bool,
        /// The room key, wrapped for the applicant.
        #[serde(skip_serializing_if = "Option::is_none")]
        room_key: Option<Base64Text>,
        /// Its epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
        /// Its check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// The approver's signature over the check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Base64Text>,
    },
    /// To an invitee.
    InviteUserToSession {
        /// Where to.
        session_id: SessionId,
        /// Who asks.
        inviter_id: UserId,
        /// What they say.
        #[serde(skip_serializing_if = "Option::is_none")]
        leave_message: Option<String>,
        /// Until when it stands.
        expire_timestamp: Timestamp,
    },
    /// To an inviter: it was answered.
    AcceptSessionNotification {
        /// Where.
        session_id: SessionId,
        /// Who answered.
        invitee_id: UserId,
        /// What.
        accepted: bool,
        /// Their public key, where the session is encrypted.
        #[serde(skip_serializing_if = "Option::is_none")]
        public_key: Option<String>,
        /// The current epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_epoch: Option<KeyEpoch>,
    },
    /// To a member: a wrapped room key.
    ReceiveRoomKeyNotification {
        /// Where.
        session_id: SessionId,
        /// Who sent it.
        user_id: UserId,
        /// The room key, wrapped for the member.
        room_key: Base64Text,
        /// Its epoch.
        key_epoch: KeyEpoch,
        /// Its check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_check: Option<Base64Text>,
        /// The sender's signature over the check value.
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Base64Text>,
    },
}

impl NoticeBody {
    /// Whether a room key is in it: then it goes before the text that needs it, and with the key.
    pub const fn holds_key(&self) -> bool {
        match self {
            Self::ReceiveRoomKeyNotification { .. }
            | Self::AllowUserJoinSessionNotification { room_key: Some(_), .. } => true,
            Self::AllowUserJoinSessionNotification { room_key: None, .. }
            | Self::JoinSessionApproval { .. }
            | Self::InviteUserToSession { .. }
            | Self::AcceptSessionNotification { .. } => false,
        }
    }
}

impl InboxNotice {
    /// The notification as a JSON text: `{"type": .., "inbox_id": .., "body": {..}}`.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a> {
            inbox_id: &'a InboxId,
            #[serde(flatten)]
            body: &'a NoticeBody,
        }
        super::codec::to_json(&Wire { inbox_id: &self.inbox_id, body: &self.body })
    }
}

/// What the session's state asks of a member's client. Never stored: it follows from the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "body")]
pub enum Ask {
    /// Make a new room key; it will be this epoch.
    UpdateRoomKeyNotification {
        /// Where.
        session_id: SessionId,
        /// The epoch.
        key_epoch: KeyEpoch,
    },
    /// Encrypt the key of this epoch for this member.
    SendRoomKeyNotification {
        /// Where.
        session_id: SessionId,
        /// For whom.
        user_id: UserId,
        /// Their public key: base64 of SPKI DER.
        public_key: String,
        /// Which key.
        key_epoch: KeyEpoch,
    },
}

impl Ask {
    /// The ask as a JSON text: `{"type": .., "body": {..}}`.
    pub fn encode(&self) -> Vec<u8> {
        super::codec::to_json(self)
    }
}

/// `InboxWithdrawn`: these inbox events have been decided elsewhere or have lapsed.
pub fn encode_withdrawn(inbox_ids: &[InboxId]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire<'a> {
        r#type: &'static str,
        body: Body<'a>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        inbox_ids: &'a [InboxId],
    }
    super::codec::to_json(&Wire { r#type: "InboxWithdrawn", body: Body { inbox_ids } })
}

/// `GoingAway`: this node will close the connection; come back after so many milliseconds.
pub fn encode_going_away(reconnect_after_ms: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire {
        r#type: &'static str,
        body: Body,
    }
    #[derive(Serialize)]
    struct Body {
        reconnect_after_ms: u64,
    }
    super::codec::to_json(&Wire { r#type: "GoingAway", body: Body { reconnect_after_ms } })
}
