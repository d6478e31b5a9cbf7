//! How values stand in columns, whatever the dialect: ids as 16 bytes, numbers as 64-bit integers, enums as the words
//! of the wire. What only one dialect does (how a column of it is decoded, what a failure means) is in its own room.

use serde::Serialize;
use uuid::Uuid;

use super::{StoreError, StoreResult};
use crate::protocol::{
    Base64Text, GoneReason, InboxId, KeyEpoch, LeftReason, NodeId, Role, SessionId, Timestamp, UserId,
};
use crate::session::state::Until;

/// The end that never comes.
const FOREVER: i64 = i64::MAX;

/// A number that counts up in memory, as the column has it. None of ours comes near the end of the range.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The column's number for an end.
pub(super) fn end(until: Until) -> i64 {
    until.end().map_or(FOREVER, Timestamp::as_millis)
}

/// An end from the column's number.
pub(super) fn until(millis: i64) -> Until {
    if millis == FOREVER { Until::Forever } else { Until::At(Timestamp::from_millis(millis)) }
}

/// A role's word.
pub(super) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

/// The word for how a member left.
pub(super) const fn left_word(reason: LeftReason) -> &'static str {
    match reason {
        LeftReason::Left => "left",
        LeftReason::Kicked => "kicked",
        LeftReason::Banned => "banned",
    }
}

/// The word for the departure of those who were there when a session ended.
pub(super) const DELETED: &str = "deleted";

/// 16 bytes of an id as hexadecimal digits, for statements that take their rows as one JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hex([u8; 16]);

impl From<SessionId> for Hex {
    fn from(id: SessionId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<UserId> for Hex {
    fn from(id: UserId) -> Self {
        Self(*id.as_bytes())
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = Uuid::encode_buffer();
        serializer.serialize_str(Uuid::from_bytes(self.0).as_simple().encode_lower(&mut buffer))
    }
}

/// Rows as one JSON text, to be taken apart by the statement.
pub(super) fn json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("rows have string keys and no failing serializers")
}

/// Reading the columns of a row: a dialect says how the few kinds of columns are decoded, the rest follows.
pub(super) trait Columns {
    /// A number, where there is one.
    fn number(&self, name: &'static str) -> StoreResult<Option<i64>>;
    /// A text of our own making, where there is one.
    fn text(&self, name: &'static str) -> StoreResult<Option<String>>;
    /// A text in somebody else's words, where there is one: any character may be in it.
    fn words(&self, name: &'static str) -> StoreResult<Option<String>>;
    /// Yes or no.
    fn flag(&self, name: &'static str) -> StoreResult<bool>;
    /// 16 bytes.
    fn id(&self, name: &'static str) -> StoreResult<[u8; 16]>;
    /// A node, where there is one.
    fn node(&self, name: &'static str) -> StoreResult<Option<NodeId>>;

    /// A text that is always there.
    fn string(&self, name: &'static str) -> StoreResult<String> {
        self.text(name)?.ok_or_else(|| corrupt(name))
    }
    /// A number that is always there.
    fn integer(&self, name: &'static str) -> StoreResult<i64> {
        self.number(name)?.ok_or_else(|| corrupt(name))
    }
    /// A number that counts from 0.
    fn count(&self, name: &'static str) -> StoreResult<u64> {
        u64::try_from(self.integer(name)?).map_err(|_| corrupt(name))
    }
    /// A user.
    fn user(&self, name: &'static str) -> StoreResult<UserId> {
        self.id(name).map(UserId::from_bytes)
    }
    /// A session.
    fn session(&self) -> StoreResult<SessionId> {
        self.id("session_id").map(SessionId::from_bytes)
    }
    /// A moment.
    fn time(&self, name: &'static str) -> StoreResult<Timestamp> {
        self.integer(name).map(Timestamp::from_millis)
    }
    /// A moment, where there is one.
    fn moment(&self, name: &'static str) -> StoreResult<Option<Timestamp>> {
        Ok(self.number(name)?.map(Timestamp::from_millis))
    }
    /// An epoch, where there is one.
    fn epoch(&self, name: &'static str) -> StoreResult<Option<KeyEpoch>> {
        let epoch = self.number(name)?;
        epoch.map(|epoch| u64::try_from(epoch).map(KeyEpoch).map_err(|_| corrupt(name))).transpose()
    }
    /// Base64 that was checked when it came in.
    fn base64(&self, name: &'static str) -> StoreResult<Option<Base64Text>> {
        Ok(self.text(name)?.map(Base64Text::from_stored))
    }
    /// An end, where something holds.
    fn end(&self, name: &'static str) -> StoreResult<Option<Until>> {
        Ok(self.number(name)?.map(until))
    }
    /// The name of an inbox event.
    fn inbox_id(&self, name: &'static str) -> StoreResult<InboxId> {
        self.string(name).map(InboxId)
    }
    /// A role.
    fn role(&self) -> StoreResult<Role> {
        match self.string("role")?.as_str() {
            "member" => Ok(Role::Member),
            "admin" => Ok(Role::Admin),
            "owner" => Ok(Role::Owner),
            _ => Err(corrupt("role")),
        }
    }
    /// Why a session is gone.
    fn gone(&self) -> StoreResult<GoneReason> {
        match self.string("reason")?.as_str() {
            "left" => Ok(GoneReason::Left),
            "kicked" => Ok(GoneReason::Kicked),
            "banned" => Ok(GoneReason::Banned),
            DELETED => Ok(GoneReason::Deleted),
            _ => Err(corrupt("reason")),
        }
    }
    /// A record that is stored as JSON.
    fn record<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> StoreResult<T>
    where
        Self: Sized,
    {
        serde_json::from_str(&self.string(name)?).map_err(|_| corrupt(name))
    }
}

pub(super) fn corrupt(column: &'static str) -> StoreError {
    StoreError::Corrupt(format!("column {column} does not read"))
}
