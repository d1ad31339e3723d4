//! What a statement gave back.

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{CommandCompleteBody, DataRowBody};

use super::error::WireError;

/// The result of one statement.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows inserted, updated, deleted, selected or copied; 0 for other commands.
    pub affected: u64,
    /// The rows it returned, as text. The values are slices of the read buffer: copy what is
    /// kept for long, or each keeps 128 KiB alive.
    pub rows: Vec<Vec<Option<Bytes>>>,
}

impl Outcome {
    /// One value as text; none when it is NULL, not UTF-8 or not there.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        let value = self.rows.get(row)?.get(column)?.as_ref()?;
        std::str::from_utf8(value).ok()
    }
}

impl std::fmt::Debug for Outcome {
    /// Never shows row values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Outcome {{ affected: {}, rows: {} }}",
            self.affected,
            self.rows.len()
        )
    }
}

/// Cuts a `DataRow` into its values.
pub(super) fn split_row(row: &DataRowBody) -> Result<Vec<Option<Bytes>>, WireError> {
    let buffer = row.buffer_bytes();
    let values = row
        .ranges()
        .map(|range| Ok(range.map(|range| buffer.slice(range))))
        .collect();
    values.map_err(|_| WireError::unexpected("a malformed row", "a result"))
}

/// The count at the end of a command tag such as `INSERT 0 5`.
pub(super) fn affected(body: &CommandCompleteBody) -> u64 {
    let last_word = body.tag().ok().and_then(|tag| tag.rsplit(' ').next());
    last_word.and_then(|count| count.parse().ok()).unwrap_or(0)
}
