//! Why nothing can be said.

use crate::apply::ApplyError;
use crate::catalog::CatalogError;
use crate::config::ConfigError;
use crate::ids::{LinkName, NodeName};
use crate::wire::WireError;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The configuration has no such node, or only one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node cannot be reached.
    #[error("{node} cannot be reached: {source}")]
    Reach {
        /// The node.
        node: NodeName,
        /// Why.
        source: WireError,
    },
    /// A node refused a question.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A link does not bring what was written before.
    #[error(
        "{} has not applied in {seconds} s what {} had written, so nobody can tell what differs from what is under way: see `mmrepl status`, then run this again",
        link.to,
        link.from
    )]
    InFlight {
        /// The link.
        link: LinkName,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A node cannot be written to.
    #[error(
        "{node}: rows cannot be mended now: {source}; what was mended stays so: run this again"
    )]
    Mend {
        /// The node.
        node: NodeName,
        /// Its answer.
        source: Box<ApplyError>,
    },
    /// A node lacks what mended rows are marked with.
    #[error("{node} has no replication origin {origin}: run `mmrepl init`, then this again")]
    NotSetUp {
        /// The node.
        node: NodeName,
        /// The origin.
        origin: String,
    },
    /// Two at once would put back twice what is missing.
    #[error(
        "another `mmrepl verify --repair` is at work ({node} holds its lock): wait until it has ended"
    )]
    AtWork {
        /// The node.
        node: NodeName,
    },
    /// Nothing to compare.
    #[error("no table of the cluster matches {0}")]
    NoTable(String),
    /// Nobody to compare with.
    #[error("the cluster has one node: there is nothing to compare it with")]
    OneNode,
}

/// A node refused a question.
#[derive(Debug, thiserror::Error)]
#[error("{node}: {source}")]
pub struct AskError {
    /// The node.
    pub node: NodeName,
    /// Its answer.
    pub source: CatalogError,
}

impl AskError {
    /// For `map_err`: the node, and what was being done.
    pub(super) fn of(
        node: &NodeName,
        what: &'static str,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let node = node.clone();
        move |error| Self {
            node,
            source: CatalogError::query(what)(error),
        }
    }
}
