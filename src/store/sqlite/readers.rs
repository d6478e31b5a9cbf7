//! The threads that read, each with a connection of its own.
//!
//! A reading is one visit, whatever it has to look up, and of one moment where it is one transaction. A thread that has
//! more to do goes on without being woken: a crowd that comes back at once is read for in a row.

use std::path::Path;

use rusqlite::{Connection, Params, Row};

use super::desk::{Desk, Work};
use crate::store::{StoreError, StoreResult};

/// The desks.
#[derive(Debug)]
pub(super) struct Readers(Vec<Desk>);

impl Readers {
    /// Starts so many threads, one at least.
    pub(super) fn start(file: &Path, readers: u32) -> std::io::Result<Self> {
        (0..readers.max(1)).map(|_| Desk::start("reads", file, Work::Reading)).collect::<Result<_, _>>().map(Self)
    }

    /// Reads, on the thread that has least to do.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let gone = || StoreError::Unavailable("the store is closed, or a reading of it failed".to_owned());
        let desk = self.0.iter().min_by_key(|desk| desk.visits()).ok_or_else(gone)?;
        desk.visit(|clerk| read(clerk.connection()?)).await.map_err(|_| gone())?
    }

    /// Ends the threads, after what is under way.
    pub(super) async fn close(&self) {
        for desk in &self.0 {
            desk.close().await;
        }
    }
}

/// All rows of a statement, as records.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    record: impl Fn(&Row<'_>) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let mut records = Vec::new();
    while let Some(row) = found.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

/// The first row of a statement, as a record.
pub(super) fn row<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    record: impl Fn(&Row<'_>) -> StoreResult<T>,
) -> StoreResult<Option<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    found.next()?.map(record).transpose()
}
