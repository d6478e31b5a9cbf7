//! The way to sessions, wherever they live.

use crate::connection::{ConnectionKey, ReplySlot};
use crate::protocol::{SessionId, UserId};
use crate::session::state::Command;

/// The sessions of the cluster, as a node reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {}

impl Sessions {
    /// Hands a command to a session, waking it if need be. Never waits: what cannot be taken is refused through
    /// `reply`. Commands that one caller submits to one session are handled in the order of the calls.
    pub fn submit(&self, session_id: SessionId, command: Command, reply: ReplySlot) {
        let _ = (session_id, command);
        drop(reply);
    }

    /// Makes a session and hands it its first command, [`Command::Create`].
    pub fn create(&self, command: Command, reply: ReplySlot) {
        let _ = command;
        drop(reply);
    }

    /// Tells a session that wants keys that one of its members has a new connection, which may be asked.
    pub fn member_connected(&self, session_id: SessionId, user_id: UserId, connection: ConnectionKey) {
        let _ = (session_id, user_id, connection);
    }

    /// Wakes a session that has tasks waiting in the store.
    pub fn wake(&self, session_id: SessionId) {
        let _ = session_id;
    }
}
