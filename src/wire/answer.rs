//! Reads the columns of what a control connection gave back.
//!
//! `tokio_postgres::Row::get` panics where a column is NULL or of another type than was expected.
//! What a server answers is never a reason to end a task, so everything reads by [`RowExt::read`].

use std::error::Error;
use std::panic::Location;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// A column is NULL, of another type, or not there. Never holds its value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "column {column} of a server's answer cannot be read ({why}, at {place}): run `mmrepl check`, and report it if it stays"
)]
pub struct Unread {
    /// Its place from 1 on, and its name.
    pub column: String,
    /// What was found instead, a clause.
    pub why: String,
    /// File and line in the source code, which tell the query.
    pub place: String,
}

/// How the columns of a row are read.
pub trait RowExt {
    /// The column at `index`, from 0 on, as a `T`; only an `Option` takes NULL.
    fn read<'a, T: FromSql<'a>>(&'a self, index: usize) -> Result<T, Unread>;
}

impl RowExt for Row {
    #[track_caller]
    fn read<'a, T: FromSql<'a>>(&'a self, index: usize) -> Result<T, Unread> {
        // Not in `map_err`: a closure has no place of its caller.
        match self.try_get(index) {
            Ok(value) => Ok(value),
            Err(error) => {
                let name = self.columns().get(index).map_or("", |column| column.name());
                Err(unread(index, name, &error))
            }
        }
    }
}

#[track_caller]
fn unread(index: usize, name: &str, error: &tokio_postgres::Error) -> Unread {
    let why = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    let at = Location::caller();
    Unread {
        column: format!("{} (`{name}`)", index + 1),
        why,
        place: format!("{}:{}", at.file(), at.line()),
    }
}

/// Reads every row, up to the first that cannot be read.
pub fn each<'a, T, C: FromIterator<T>>(
    rows: &'a [Row],
    read: impl FnMut(&'a Row) -> Result<T, Unread>,
) -> Result<C, Unread> {
    rows.iter().map(read).collect()
}
