//! How values stand in columns: ids as 16 bytes, numbers as 64-bit integers, enums as the words of the wire.

use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use uuid::Uuid;

use crate::protocol::{Base64Text, GoneReason, InboxId, KeyEpoch, LeftReason, Role, SessionId, Timestamp, UserId};
use crate::session::state::Until;
use crate::store::{StoreError, StoreResult};

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

/// 16 bytes of an id as hexadecimal digits, for statements that take their rows as one JSON text (`unhex`).
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

/// Rows as one JSON text, to be taken apart by `json_each`.
pub(super) fn json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("rows have string keys and no failing serializers")
}

/// Reading the columns of a row.
pub(super) trait Columns {
    /// A column, by name.
    fn col<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, name: &'static str) -> StoreResult<T>;
    /// A number that counts from 0.
    fn count(&self, name: &'static str) -> StoreResult<u64> {
        let number: i64 = self.col(name)?;
        u64::try_from(number).map_err(|_| corrupt(name))
    }
    /// 16 bytes.
    fn id(&self, name: &'static str) -> StoreResult<[u8; 16]> {
        self.col::<&[u8]>(name)?.try_into().map_err(|_| corrupt(name))
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
        self.col(name).map(Timestamp::from_millis)
    }
    /// A moment, where there is one.
    fn moment(&self, name: &'static str) -> StoreResult<Option<Timestamp>> {
        Ok(self.col::<Option<i64>>(name)?.map(Timestamp::from_millis))
    }
    /// An epoch, where there is one.
    fn epoch(&self, name: &'static str) -> StoreResult<Option<KeyEpoch>> {
        let epoch: Option<i64> = self.col(name)?;
        epoch.map(|epoch| u64::try_from(epoch).map(KeyEpoch).map_err(|_| corrupt(name))).transpose()
    }
    /// Base64 that was checked when it came in.
    fn base64(&self, name: &'static str) -> StoreResult<Option<Base64Text>> {
        Ok(self.col::<Option<String>>(name)?.map(Base64Text::from_stored))
    }
    /// An end, where something holds.
    fn end(&self, name: &'static str) -> StoreResult<Option<Until>> {
        Ok(self.col::<Option<i64>>(name)?.map(until))
    }
    /// The name of an inbox event.
    fn inbox_id(&self, name: &'static str) -> StoreResult<InboxId> {
        self.col(name).map(InboxId)
    }
    /// A role.
    fn role(&self) -> StoreResult<Role> {
        match self.col("role")? {
            "member" => Ok(Role::Member),
            "admin" => Ok(Role::Admin),
            "owner" => Ok(Role::Owner),
            _ => Err(corrupt("role")),
        }
    }
    /// Why a session is gone.
    fn gone(&self) -> StoreResult<GoneReason> {
        match self.col("reason")? {
            "left" => Ok(GoneReason::Left),
            "kicked" => Ok(GoneReason::Kicked),
            "banned" => Ok(GoneReason::Banned),
            DELETED => Ok(GoneReason::Deleted),
            _ => Err(corrupt("reason")),
        }
    }
    /// A record that is stored as JSON.
    fn record<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> StoreResult<T> {
        serde_json::from_str(self.col(name)?).map_err(|_| corrupt(name))
    }
}

impl Columns for SqliteRow {
    fn col<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, name: &'static str) -> StoreResult<T> {
        self.try_get(name).map_err(|_| corrupt(name))
    }
}

pub(super) fn corrupt(column: &'static str) -> StoreError {
    StoreError::Corrupt(format!("column {column} does not read"))
}

/// What a failed statement means to the caller. SQLite's texts name tables and columns, never values.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::Conflict("a row of this key exists"),
        error => StoreError::Unavailable(error.to_string()),
    }
}
