//! Statements over many rows in a few fixed sizes, so that each is prepared once and a batch is few statements. For the
//! rows that every message needs: a JSON text of rows, which the others take, costs several times as much per row.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

/// Rows of one statement, from the largest size down; 1 must be the last.
const SIZES: [usize; 3] = [64, 8, 1];

/// `.. VALUES (..), (..)` in each of the sizes.
#[derive(Debug)]
pub(super) struct Rows {
    sizes: [(usize, Arc<str>); SIZES.len()],
}

impl Rows {
    /// `head` goes up to `VALUES`, `row` is one row's placeholders, `tail` is what follows the rows.
    pub(super) fn new(head: &str, row: &str, tail: &str) -> Self {
        let sql = |rows: usize| format!("{head} VALUES {}{tail}", vec![row; rows].join(", ")).into();
        Self { sizes: SIZES.map(|rows| (rows, sql(rows))) }
    }

    /// The text for one row.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.sizes[SIZES.len() - 1].1
    }

    /// Runs it over all rows, `bind` giving each one's values in the order of the placeholders.
    pub(super) async fn run<R>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[R],
        bind: impl Fn(&R, &mut Values),
    ) -> sqlx::Result<()> {
        for (size, sql) in &self.sizes {
            while rows.len() >= *size {
                let (chunk, rest) = rows.split_at(*size);
                rows = rest;
                let mut values = Values(SqliteArguments::default());
                for row in chunk {
                    bind(row, &mut values);
                }
                sqlx::query_with(AssertSqlSafe(Arc::clone(sql)), values.0).execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

/// The values of a statement, in order.
#[derive(Debug)]
pub(super) struct Values(SqliteArguments);

impl Values {
    /// Adds one.
    pub(super) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) {
        self.0.add(value).expect("bytes, texts and integers always encode");
    }
}
