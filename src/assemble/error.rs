//! Why a stream cannot be followed.

use crate::error::{RetryClass, Retryable};
use crate::ids::RelationId;
use crate::lsn::Lsn;

/// The stream broke the rules of the protocol, or a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A message where the protocol does not allow it.
    #[error(
        "the source sent a {message} message {place}, where the protocol does not allow it; \
         report this together with the server's version"
    )]
    Misplaced {
        /// The message's name in the manual.
        message: &'static str,
        /// Where the stream was.
        place: &'static str,
    },
    /// A change of a table that no Relation message has described.
    #[error(
        "the source sent a change of table number {} without describing the table; \
         report this together with the server's version", .0.0
    )]
    UnknownRelation(RelationId),
    /// A row that is wider or narrower than its table.
    #[error(
        "the source sent a row of {found} columns for {table}, which it described with {expected}; \
         report this together with the server's version"
    )]
    Arity {
        /// `schema.table`.
        table: String,
        /// Columns in the Relation message.
        expected: usize,
        /// Values in the row.
        found: usize,
    },
    /// A Commit that belongs to another Begin.
    #[error(
        "the source began a transaction that commits at {begun} and ended one that commits at \
         {committed}; report this together with the server's version"
    )]
    WrongCommit {
        /// What Begin announced.
        begun: Lsn,
        /// What Commit said.
        committed: Lsn,
    },
    /// An Origin message after part of its transaction was passed on.
    #[error(
        "the source named the origin of a transaction after its first rows; it cannot be filtered \
         any more: use PostgreSQL 16 or newer there, or report this"
    )]
    LateOrigin,
    /// A block or commit of a streamed transaction that does not fit what came before.
    #[error(
        "the source sent a {message} message for transaction {xid}, which does not fit its \
         earlier blocks; report this together with the server's version"
    )]
    StreamOrder {
        /// The message's name in the manual.
        message: &'static str,
        /// The top-level transaction.
        xid: u32,
    },
    /// Streamed transactions in progress take too much memory.
    #[error(
        "transactions in progress on the source take {held_bytes} bytes here, more than the \
         {budget_bytes} allowed; stream without `streaming`, so that the source keeps them"
    )]
    StreamBudget {
        /// What they would take.
        held_bytes: usize,
        /// What they may take.
        budget_bytes: usize,
    },
    /// A subtransaction was rolled back whose changes may have been passed on.
    #[error("a part of transaction {xid}, which is still running, was rolled back to a savepoint")]
    PartRolledBack {
        /// The top-level transaction.
        xid: u32,
    },
    /// A message of a two-phase transaction, which mmrepl does not ask for.
    #[error(
        "the source sent a {0} message, though `two_phase` is off on this link; \
         drop the slot and create it again without two_phase"
    )]
    TwoPhase(&'static str),
    /// The pieces of the last Stream Commit were not taken.
    #[error("a message was fed before all pieces of the last transaction were taken")]
    NotTaken,
    /// The assembler met an error before.
    #[error("the stream failed before; start it again from the last applied position")]
    Failed,
}

impl AssembleError {
    /// Whether the stream can be followed where transactions arrive once they are committed.
    pub fn is_about_streaming(&self) -> bool {
        matches!(
            self,
            Self::StreamBudget { .. }
                | Self::PartRolledBack { .. }
                | Self::StreamOrder { .. }
                | Self::LateOrigin
        )
    }
}

impl Retryable for AssembleError {
    fn retry_class(&self) -> RetryClass {
        match self {
            // A new stream starts with a new assembler.
            Self::Failed | Self::NotTaken => RetryClass::Transient,
            // The same WAL gives the same stream.
            _ => RetryClass::Definite,
        }
    }
}
