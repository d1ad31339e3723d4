//! Why `init` or `drop` stopped.

use crate::catalog::CatalogError;
use crate::config::ConfigError;
use crate::error::{RetryClass, Retryable};
use crate::ids::NodeName;
use crate::lineage::Finding;
use crate::migrate::MigrateError;
use crate::wire::{Unread, WireError, from_tokio_postgres};

/// `init` or `drop` could not go on. Running it again goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The command line names something that the configuration does not have.
    #[error("{0}")]
    Config(#[source] ConfigError),
    /// The preflight found errors; they were reported one by one.
    #[error("{errors} problem(s) must be mended first; nothing was changed")]
    Preflight {
        /// How many.
        errors: usize,
    },
    /// The order of the nodes in the file changed, which gives places in versions another meaning.
    #[error("{0}")]
    Places(String),
    /// A server could not be asked.
    #[error("node {node}: {source}")]
    Catalog {
        /// The node.
        node: NodeName,
        /// What failed.
        source: CatalogError,
    },
    /// A server could not be migrated.
    #[error("node {node}: {source}")]
    Migrate {
        /// The node.
        node: NodeName,
        /// What failed.
        source: MigrateError,
    },
    /// A step failed.
    #[error("node {node}: cannot {what}: {source}")]
    Server {
        /// The node.
        node: NodeName,
        /// What was being done.
        what: String,
        /// The server's answer.
        source: WireError,
    },
    /// A step failed, most likely in a function of an event trigger.
    #[error("{source}; {triggers}, and run init again")]
    EventTrigger {
        /// What failed.
        source: Box<InitError>,
        /// Which triggers, and what mends them.
        triggers: String,
    },
    /// A link's slot and position do not fit together: changes between them are lost.
    #[error("{finding}{}", .apart.as_ref().map(|apart| format!("; {apart}")).unwrap_or_default())]
    Broken {
        /// The verdict.
        finding: Box<Finding>,
        /// What each of the two nodes has alone, where it was counted.
        apart: Option<String>,
    },
    /// A slot or origin that must be made anew is in use.
    #[error(
        "node {node}: {what} is in use: stop the daemon of {daemon} (mmrepl run), then run init again"
    )]
    InUse {
        /// The node.
        node: NodeName,
        /// The slot or origin.
        what: String,
        /// Whose daemon it is.
        daemon: NodeName,
    },
    /// Nodes hold different rows.
    #[error("{0}")]
    Different(String),
    /// What was asked would lose something, or pull it from under a daemon; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// A peer did not catch up in time.
    #[error(
        "node {node} has not applied what {source_node} wrote before the copy: start the daemon of {source_node} (mmrepl run --node {source_node}), or use --copy-from after it has caught up"
    )]
    Behind {
        /// The node to copy from.
        node: NodeName,
        /// The node it waits for.
        source_node: NodeName,
    },
    /// Tables stayed locked by the application.
    #[error(
        "node {node}: cannot {what}: another transaction holds a lock on the table; end it (see pg_stat_activity) and run init again"
    )]
    Locked {
        /// The node.
        node: NodeName,
        /// What was being done.
        what: String,
    },
}

impl InitError {
    /// A link whose history is broken; what each node has alone is not counted yet.
    pub(super) fn broken(finding: &Finding) -> Self {
        Self::Broken {
            finding: Box::new(finding.clone()),
            apart: None,
        }
    }

    /// For `map_err` on a server's answer.
    pub(super) fn server(
        node: &NodeName,
        what: impl Into<String>,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self::wire(node, what)(from_tokio_postgres(error))
    }

    /// For `map_err` on an error of our own connections.
    pub(super) fn wire(node: &NodeName, what: impl Into<String>) -> impl FnOnce(WireError) -> Self {
        move |source| match source.sqlstate() {
            Some("55P03") => Self::Locked {
                node: node.clone(),
                what: what.into(),
            },
            _ => Self::Server {
                node: node.clone(),
                what: what.into(),
                source,
            },
        }
    }

    /// For `map_err` on a catalog query.
    pub(super) fn catalog(node: &NodeName) -> impl FnOnce(CatalogError) -> Self {
        move |source| Self::Catalog {
            node: node.clone(),
            source,
        }
    }
}

impl InitError {
    /// For `map_err` on the columns of an answer.
    pub(super) fn unread(node: &NodeName) -> impl Fn(Unread) -> Self + '_ {
        move |unread| Self::Catalog {
            node: node.clone(),
            source: unread.into(),
        }
    }
}

impl Retryable for InitError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Catalog { source, .. } => source.retry_class(),
            Self::Migrate { source, .. } => source.retry_class(),
            Self::Server { source, .. } => source.retry_class(),
            Self::EventTrigger { source, .. } => source.retry_class(),
            Self::InUse { .. } | Self::Behind { .. } | Self::Locked { .. } => RetryClass::Transient,
            Self::Config(_) | Self::Places(_) | Self::Preflight { .. } => RetryClass::Definite,
            Self::Broken { .. } | Self::Different(_) | Self::Refused(_) => RetryClass::Operator,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Catalog { source, .. } => source.sqlstate(),
            Self::Migrate { source, .. } => source.sqlstate(),
            Self::Server { source, .. } => source.sqlstate(),
            Self::EventTrigger { source, .. } => source.sqlstate(),
            Self::Locked { .. } => Some("55P03"),
            _ => None,
        }
    }
}
