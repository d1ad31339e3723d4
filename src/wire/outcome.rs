//! What a statement gave back.

use std::str::FromStr;

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

    /// One value, which must be there and be a `T`; `what` says in the error what it is.
    pub fn get<T: FromStr>(
        &self,
        row: usize,
        column: usize,
        what: &'static str,
    ) -> Result<T, WireError> {
        let value = self.text(row, column).and_then(|text| text.parse().ok());
        value.ok_or(WireError::Unreadable { what })
    }

    /// One value as a `T`; nothing when it is NULL. What is no `T`, or not there, is an error.
    pub fn optional<T: FromStr>(
        &self,
        row: usize,
        column: usize,
        what: &'static str,
    ) -> Result<Option<T>, WireError> {
        let value = self.rows.get(row).and_then(|row| row.get(column));
        match value.ok_or(WireError::Unreadable { what })? {
            None => Ok(None),
            Some(_) => self.get(row, column, what).map(Some),
        }
    }

    /// Whether the value is true, as `::text` prints a boolean; it must be one.
    pub fn flag(&self, row: usize, column: usize, what: &'static str) -> Result<bool, WireError> {
        match self.text(row, column) {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(WireError::Unreadable { what }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it_without_its_value() {
        let values = vec![Some(Bytes::from_static(b"s3cret")), None];
        let outcome = Outcome {
            affected: 1,
            rows: vec![values, vec![Some(Bytes::from_static(b"17"))]],
        };
        assert_eq!(outcome.get::<u64>(1, 0, "a count").unwrap(), 17);
        for (row, column) in [(0, 0), (0, 1), (1, 1), (9, 0)] {
            let error = outcome.get::<u64>(row, column, "a count").unwrap_err();
            let words = error.to_string();
            assert!(
                words.contains("a count") && !words.contains("s3cret"),
                "{words}"
            );
            assert!(outcome.flag(row, column, "a flag").is_err());
        }
        let optional = |row, column| outcome.optional::<u64>(row, column, "a count");
        assert_eq!(optional(1, 0).unwrap(), Some(17));
        assert_eq!(optional(0, 1).unwrap(), None);
        assert!(optional(0, 0).is_err() && optional(1, 1).is_err() && optional(9, 0).is_err());
    }
}
