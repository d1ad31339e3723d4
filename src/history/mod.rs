//! The history of conflicts: reading it on every node, showing it, bringing a value back.
//!
//! `apply` writes the records, each in the transaction that decided; see `mmrepl.conflict` in
//! `migrations/`. A conflict between two nodes is decided on both, so it stands in both histories,
//! each time from the view of the node that decided.

mod model;
pub mod prune;
mod read;
pub mod render;
mod restore;

pub use model::{Column, Conflict, ConflictId, Side, StatsLine};
pub use read::{Filter, history, one, stats};
pub use restore::{Restored, restore};

use crate::wire::WireError;

/// The history could not be read, or a value not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A node refused, or could not be reached.
    #[error("{node}: cannot {what}: {source}")]
    Node {
        /// Which node.
        node: String,
        /// What was being done, as an action.
        what: &'static str,
        /// The server's answer.
        source: WireError,
    },
    /// A node took too long.
    #[error("{node} does not answer")]
    Silent {
        /// Which node.
        node: String,
    },
    /// No such record.
    #[error(
        "there is no conflict {0}: it was never recorded, or it is older than `[conflict] history` keeps"
    )]
    Unknown(ConflictId),
    /// The table is gone or has changed too much.
    #[error("conflict {id} cannot be restored: {why}")]
    Unfit {
        /// Which record.
        id: ConflictId,
        /// A clause.
        why: String,
    },
}
