//! Every catalog query as a named function that returns a struct.
//!
//! Queries run on control connections (`tokio_postgres::Client`), name every object with its schema
//! and work on PostgreSQL 14 to 19.

pub mod dropped;
pub mod foreign;
pub mod gap;
pub mod indexed;
pub mod init_session;
pub mod key_form;
pub mod key_text;
pub mod link_control;
pub mod load_tables;
pub mod lock_waits;
pub mod mark;
pub mod names;
pub mod parameter;
pub mod position;
pub mod position_columns;
pub mod read_ahead;
pub mod rewrites;
pub mod row_text;
pub mod rules;
pub mod search_path;
pub mod secret;
pub mod server;
pub mod skips;
pub mod slots;
pub mod table;
mod table_query;
pub mod unique;
pub mod wal;

use crate::error::{RetryClass, Retryable};
use crate::wire::{Unread, WireError, from_tokio_postgres};

/// A catalog query failed or returned what it never should.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The server refused the query, or the connection broke.
    #[error("cannot {what}: {source}")]
    Query {
        /// What was being done, as an action.
        what: &'static str,
        /// The server's answer.
        source: WireError,
    },
    /// A column of the answer is not what it must be.
    #[error(transparent)]
    Answer(#[from] Unread),
    /// A value in a catalog or in mmrepl's own tables is not what it must be.
    #[error("{what} holds `{value}`, which mmrepl cannot read; run `mmrepl check`")]
    Unreadable {
        /// The column that was read.
        what: &'static str,
        /// The text found there.
        value: String,
    },
}

impl CatalogError {
    /// For `map_err`: names the action and keeps the SQLSTATE, without row values.
    pub fn query(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self::Query {
            what,
            source: from_tokio_postgres(error),
        }
    }

    /// Reads a text column into a typed value.
    pub(crate) fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Self> {
        text.parse().map_err(|_| Self::Unreadable {
            what,
            value: text.to_owned(),
        })
    }
}

impl Retryable for CatalogError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Query { source, .. } => source.retry_class(),
            Self::Answer(_) => RetryClass::Definite,
            Self::Unreadable { .. } => RetryClass::Operator,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Query { source, .. } => source.sqlstate(),
            Self::Answer(_) | Self::Unreadable { .. } => None,
        }
    }
}
