//! Why a link is not streaming.

use std::time::Duration;

use crate::apply::ApplyError;
use crate::assemble::{AssembleError, TxHeader};
use crate::catalog::CatalogError;
use crate::checkpoint::CheckpointError;
use crate::commit_time::CommitTime;
use crate::error::{RetryClass, Retryable};
use crate::fault::Fault;
use crate::ids::{LinkName, NodeName};
use crate::lineage::Finding;
use crate::lsn::Lsn;
use crate::migrate::MigrateError;
use crate::pgoutput::DecodeError;
use crate::status::model::{LastError, LinkState};
use crate::wire::WireError;

/// What ended one run of a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A node could not be reached, or said no.
    #[error("{node}: {source}")]
    Node {
        /// Which node.
        node: NodeName,
        /// What the server or the connection said.
        source: WireError,
    },
    /// A catalog query failed.
    #[error("{node}: {source}")]
    Catalog {
        /// Which node.
        node: NodeName,
        /// What the server or the connection said.
        source: CatalogError,
    },
    /// The stream could not be decoded.
    #[error("the stream of {node} cannot be read: {source}")]
    Decode {
        /// The source.
        node: NodeName,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// The stream's messages do not fit together.
    #[error("the stream of {node} makes no sense: {source}")]
    Assemble {
        /// The source.
        node: NodeName,
        /// What is wrong with the messages.
        source: AssembleError,
    },
    /// A change could not be applied.
    #[error("{node}: {source}")]
    Apply {
        /// The target.
        node: NodeName,
        /// Why.
        source: Box<ApplyError>,
    },
    /// A change could not be applied, and a person may let it go by.
    #[error("{}: {source}; the way past it, without this change: `{}`", .link.to, skip_command(.link, *.commit, .source.table()))]
    Change {
        /// The link.
        link: LinkName,
        /// Where its transaction commits, in the source's WAL.
        commit: Lsn,
        /// Why.
        source: Box<ApplyError>,
    },
    /// A transaction that is still running on the source cannot be applied as it comes.
    #[error("{0}")]
    Running(String),
    /// History is broken.
    #[error("{0}{hint}", hint = .0.hint())]
    History(Box<Finding>),
    /// `init` has not been run, or only in part.
    #[error("{node} has no {what}: run `mmrepl init`")]
    NotSetUp {
        /// Which node.
        node: NodeName,
        /// What is missing.
        what: String,
    },
    /// `init` is at work: what it has begun looks broken until it has ended.
    #[error("`mmrepl init` is at work on {0}: the link goes on by itself once it has ended")]
    InitAtWork(NodeName),
    /// What `init` has made there cannot be read.
    #[error("{node}: {source}")]
    Schema {
        /// Which node.
        node: NodeName,
        /// Why.
        source: MigrateError,
    },
    /// The clocks are too far apart.
    #[error(
        "the clock of {to} is {behind_ms} ms behind that of {from}, and max_clock_skew is {allowed_ms} ms: set both servers' clocks (NTP), or raise max_clock_skew"
    )]
    ClockSkew {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// How far the target's clock is behind, at least, in milliseconds.
        behind_ms: i64,
        /// `max_clock_skew`, in milliseconds.
        allowed_ms: u128,
        /// The transaction that is too early, where one is.
        change: Option<TxHeader>,
    },
    /// A transaction has a commit time that is ahead of all clocks, its source's too.
    #[error(
        "transaction {commit} of {}{} was committed at {time}, which is {ahead_s} s ahead of the clock of {from}: whoever wrote it gave it that time. The link goes on by itself once the clock of {to} has passed it; the way past it, without this transaction: `{command}`",
        .link.from,
        brought_by(.origin.as_deref()),
        from = .link.from,
        to = .link.to,
        command = skip_command(.link, *.commit, None)
    )]
    FromTheFuture {
        /// The link.
        link: LinkName,
        /// Where the transaction commits, in the source's WAL.
        commit: Lsn,
        /// Its commit time.
        time: CommitTime,
        /// How far ahead of the source's clock that is, in seconds.
        ahead_s: i64,
        /// The replication origin that it has on the source.
        origin: Option<String>,
    },
    /// The target's daemon goes by other rules.
    #[error("{0}")]
    RulesDiffer(String),
    /// Another daemon of the source's node runs the link.
    #[error("{0}")]
    OtherDaemon(String),
    /// The source's daemon reaches another server than its peers do.
    #[error("{0}")]
    OtherServer(String),
    /// The checkpoint store failed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// One of the others, with what to do about it.
    #[error("{source}; {remedy}")]
    Advised {
        /// What happened.
        source: Box<LinkError>,
        /// With a command.
        remedy: String,
    },
    /// A panic.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The command that lets a change go by.
fn skip_command(link: &LinkName, commit: Lsn, table: Option<&str>) -> String {
    let quoted = |table: &str| format!(" --table '{}'", table.replace('\'', "'\\''"));
    let table = table.map(quoted).unwrap_or_default();
    format!("mmrepl skip '{link}' --transaction {commit}{table} --yes")
}

fn brought_by(origin: Option<&str>) -> String {
    let brought = |name: &str| format!(", which replication origin \"{name}\" brought there,");
    origin.map(brought).unwrap_or_default()
}

impl From<Box<Finding>> for LinkError {
    fn from(finding: Box<Finding>) -> Self {
        Self::History(finding)
    }
}

impl Retryable for LinkError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Node { source, .. } => source.retry_class(),
            Self::Catalog { source, .. } => source.retry_class(),
            Self::Apply { source, .. } | Self::Change { source, .. } => source.retry_class(),
            Self::Schema { source, .. } => source.retry_class(),
            Self::Decode { .. }
            | Self::Assemble { .. }
            | Self::NotSetUp { .. }
            | Self::OtherDaemon(_)
            | Self::OtherServer(_)
            | Self::Fault(_) => RetryClass::Definite,
            Self::Running(_) | Self::InitAtWork(_) => RetryClass::Transient,
            Self::History(error) => error.retry_class(),
            Self::ClockSkew { .. } | Self::FromTheFuture { .. } | Self::RulesDiffer(_) => {
                RetryClass::Operator
            }
            Self::Checkpoint(error) => error.retry_class(),
            Self::Advised { source, .. } => source.retry_class(),
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Node { source, .. } => source.sqlstate(),
            Self::Catalog { source, .. } => source.sqlstate(),
            Self::Apply { source, .. } | Self::Change { source, .. } => source.sqlstate(),
            Self::Schema { source, .. } => source.sqlstate(),
            Self::Advised { source, .. } => source.sqlstate(),
            _ => None,
        }
    }
}

impl LinkError {
    /// A change could not be applied. `commit`: where its transaction commits on the source, where
    /// that one is applied by itself, so that a person may let it go by.
    pub(super) fn applying(link: &LinkName, commit: Option<Lsn>, error: ApplyError) -> Self {
        let may_go_by = error.retry_class() == RetryClass::Definite && error.may_be_skipped();
        let source = Box::new(error);
        match commit.filter(|_| may_go_by) {
            Some(commit) => Self::Change {
                link: link.clone(),
                commit,
                source,
            },
            None => Self::Apply {
                node: link.to.clone(),
                source,
            },
        }
    }

    /// The clock of the link's target is `behind` that of its source, more than is `allowed`.
    pub(super) fn clock_skew(
        link: &LinkName,
        (behind, allowed): (Duration, Duration),
        change: Option<TxHeader>,
    ) -> Self {
        Self::ClockSkew {
            from: link.from.clone(),
            to: link.to.clone(),
            behind_ms: i64::try_from(behind.as_millis()).unwrap_or(i64::MAX).max(1),
            allowed_ms: allowed.as_millis(),
            change,
        }
    }

    /// A transaction that is still running cannot be applied as it comes, for this reason.
    pub(super) fn running(reason: String) -> Self {
        Self::Running(reason)
    }

    /// Whether the link can go on where transactions arrive once they are committed.
    pub(super) fn is_about_streaming(&self) -> bool {
        match self {
            Self::Running(_) => true,
            Self::Assemble { source, .. } => source.is_about_streaming(),
            _ => false,
        }
    }

    /// The table the error is about.
    pub fn relation(&self) -> Option<&str> {
        match self {
            Self::Apply { source, .. } | Self::Change { source, .. } => source.table(),
            Self::Advised { source, .. } => source.relation(),
            _ => None,
        }
    }
}

/// What a link is after this error.
pub(super) fn failed_state(error: &impl Retryable) -> LinkState {
    match error.retry_class() {
        RetryClass::Transient => LinkState::Retrying,
        RetryClass::Definite => LinkState::Blocked,
        RetryClass::Operator => LinkState::Stopped,
    }
}

/// The error as `status` shows it.
pub(super) fn last_error(
    error: &impl Retryable,
    message: String,
    relation: Option<&str>,
) -> LastError {
    LastError {
        at: CommitTime::now(),
        sqlstate: error.sqlstate().map(str::to_owned),
        message,
        relation: relation.map(str::to_owned),
        retryable: error.retry_class() == RetryClass::Transient,
    }
}
