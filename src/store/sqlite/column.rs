//! How SQLite's columns are decoded, and what a failed statement of it means.

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use crate::protocol::NodeId;
pub(super) use crate::store::column::*;
use crate::store::{StoreError, StoreResult};

/// A column as any type that SQLite decodes.
pub(super) trait Cells {
    /// By name.
    fn col<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, name: &'static str) -> StoreResult<T>;
}

impl Cells for SqliteRow {
    fn col<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, name: &'static str) -> StoreResult<T> {
        self.try_get(name).map_err(|_| corrupt(name))
    }
}

impl Columns for SqliteRow {
    fn number(&self, name: &'static str) -> StoreResult<Option<i64>> {
        self.col(name)
    }

    fn text(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.col(name)
    }

    fn words(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.col(name)
    }

    fn flag(&self, name: &'static str) -> StoreResult<bool> {
        self.col(name)
    }

    fn id(&self, name: &'static str) -> StoreResult<[u8; 16]> {
        self.col::<&[u8]>(name)?.try_into().map_err(|_| corrupt(name))
    }

    fn node(&self, name: &'static str) -> StoreResult<Option<NodeId>> {
        self.col::<Option<&str>>(name)?.map(str::parse).transpose().map_err(|_| corrupt(name))
    }
}

impl Columns for rusqlite::Row<'_> {
    fn number(&self, name: &'static str) -> StoreResult<Option<i64>> {
        self.get(name).map_err(|_| corrupt(name))
    }

    fn text(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.get(name).map_err(|_| corrupt(name))
    }

    fn words(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.get(name).map_err(|_| corrupt(name))
    }

    fn flag(&self, name: &'static str) -> StoreResult<bool> {
        self.get(name).map_err(|_| corrupt(name))
    }

    fn id(&self, name: &'static str) -> StoreResult<[u8; 16]> {
        self.get(name).map_err(|_| corrupt(name))
    }

    fn node(&self, name: &'static str) -> StoreResult<Option<NodeId>> {
        self.text(name)?.as_deref().map(str::parse).transpose().map_err(|_| corrupt(name))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// What a failed statement means to the caller. SQLite's texts name tables and columns, never values.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::Conflict("a row of this key exists"),
        error => StoreError::Unavailable(error.to_string()),
    }
}
