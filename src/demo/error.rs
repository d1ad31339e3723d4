//! Why the demo ended early.

use crate::local::LocalError;

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No server could be run.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A file, a folder or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, as "cannot …".
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// One of mmrepl's own commands.
    #[error("`mmrepl {command}` failed: {said}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// What it said.
        said: String,
    },
    /// A statement on one of the servers.
    #[error("{node} refused a statement: {source}")]
    Sql {
        /// The node.
        node: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// An order that was placed is not there, or there twice.
    #[error("{placed} orders were placed, but {node} has {found}")]
    Lost {
        /// The node.
        node: &'static str,
        /// How many were placed.
        placed: usize,
        /// How many are there.
        found: usize,
    },
    /// The one thing that must not happen.
    #[error(
        "the nodes are still different after {seconds} s; the daemons' logs are kept in {logs}"
    )]
    Different {
        /// How long it waited.
        seconds: u64,
        /// Where to look.
        logs: String,
    },
}

impl DemoError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
