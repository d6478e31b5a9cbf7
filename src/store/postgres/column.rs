//! How PostgreSQL's columns are decoded, and how ids and texts go in.

use serde::{Serialize, Serializer};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, Row, Type};
use uuid::Uuid;

use crate::protocol::{NodeId, SessionId, UserId};
pub(super) use crate::store::column::*;
use crate::store::{StoreResult, TokenHash};

impl Columns for PgRow {
    fn number(&self, name: &'static str) -> StoreResult<Option<i64>> {
        cell(self, name)
    }

    fn text(&self, name: &'static str) -> StoreResult<Option<String>> {
        cell(self, name)
    }

    fn words(&self, name: &'static str) -> StoreResult<Option<String>> {
        let bytes: Option<Vec<u8>> = cell(self, name)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| corrupt(name))
    }

    fn flag(&self, name: &'static str) -> StoreResult<bool> {
        cell(self, name)
    }

    fn id(&self, name: &'static str) -> StoreResult<[u8; 16]> {
        Ok(cell::<Uuid>(self, name)?.into_bytes())
    }

    fn node(&self, name: &'static str) -> StoreResult<Option<NodeId>> {
        Ok(cell::<Option<Uuid>>(self, name)?.map(NodeId::new))
    }
}

/// A column as any type that PostgreSQL decodes.
pub(super) fn cell<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, name: &'static str) -> StoreResult<T> {
    row.try_get(name).map_err(|_| corrupt(name))
}

/// An id as the column type.
pub(super) trait AsUuid {
    /// The same 16 bytes.
    fn uuid(&self) -> Uuid;
}

impl AsUuid for SessionId {
    fn uuid(&self) -> Uuid {
        Uuid::from_bytes(*self.as_bytes())
    }
}

impl AsUuid for UserId {
    fn uuid(&self) -> Uuid {
        Uuid::from_bytes(*self.as_bytes())
    }
}

impl AsUuid for NodeId {
    fn uuid(&self) -> Uuid {
        Uuid::from_bytes(*self.as_bytes())
    }
}

/// Many ids for one parameter.
pub(super) fn uuids<T: AsUuid>(ids: &[T]) -> Vec<Uuid> {
    ids.iter().map(AsUuid::uuid).collect()
}

/// Many tokens for one parameter.
pub(super) fn hashes(tokens: &[TokenHash]) -> Vec<&[u8]> {
    tokens.iter().map(|token| &token.0[..]).collect()
}

/// A text in somebody else's words as hexadecimal digits: a JSON text of PostgreSQL's has no U+0000.
pub(super) struct HexWords<'a>(pub(super) &'a str);

impl Serialize for HexWords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        let digits: String = self.0.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&digits)
    }
}
