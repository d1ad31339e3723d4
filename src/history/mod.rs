//! The history of conflicts: reading it on every node, showing it, bringing a value back.
//!
//! `apply` writes the records, each in the transaction that decided; see `mmrepl.conflict` in
//! `migrations/tables/`. A conflict between two nodes is decided on both, so it stands in both
//! histories, each time from the view of the node that decided.

mod lost;
mod model;
pub mod prune;
mod read;
pub mod render;
mod resolve;
mod restore;

pub use model::{Column, Conflict, ConflictId, Side, StatsLine};
pub use read::{Filter, history, one, stats};
pub use resolve::{Resolved, Take, resolve};
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
    /// There is nothing to decide.
    #[error("conflict {id} is not pending: {why}")]
    NotPending {
        /// Which record.
        id: ConflictId,
        /// A clause.
        why: String,
    },
    /// A person decided about something else than what is there now.
    #[error(
        "the row of {table} was written again on {node} since conflict {id} was recorded: `mmrepl conflicts show {id}` now shows it as it is; look at it and resolve again", node = .id.node
    )]
    Changed {
        /// Which record.
        id: ConflictId,
        /// `schema.table`.
        table: String,
    },
    /// The table is gone or has changed too much.
    #[error("conflict {id} cannot be written: {why}")]
    Unfit {
        /// Which record.
        id: ConflictId,
        /// A clause.
        why: String,
    },
}
