//! What contradicts what, in words, and what to do about it. Pure.

use std::fmt;

use crate::error::{RetryClass, Retryable};
use crate::ids::{LinkName, NodeName, SystemId};
use crate::lsn::Lsn;

/// What keeps a link from going on. Each is a clause about the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A server is another node's.
    #[error("the dsn of {node} leads to the database of node {here}")]
    Misled {
        /// The node of the configuration.
        node: NodeName,
        /// Whose database it is.
        here: String,
    },
    /// A person took a node out of the cluster.
    #[error("node {node} was dropped on {at}")]
    Dropped {
        /// The node.
        node: NodeName,
        /// When, as text.
        at: String,
    },
    /// It was never set up.
    #[error("{to} has no position for it")]
    NoPosition {
        /// The target.
        to: NodeName,
    },
    /// The target was set up once and has nothing of it now.
    #[error("{to} lost its position for it: it was restored or re-created")]
    PositionLost {
        /// The target.
        to: NodeName,
    },
    /// The source is another server.
    #[error(
        "{from} is another server (system identifier {found}) than the one that the target has applied changes of ({known})"
    )]
    OtherServer {
        /// The source.
        from: NodeName,
        /// Identifier of the server behind the DSN.
        found: SystemId,
        /// Identifier in the position row.
        known: SystemId,
    },
    /// The database stands on another server, with all that was set up in it. `pg_upgrade` moves a
    /// database so: the new server has an identifier, a log and commit times of its own.
    #[error(
        "{node} is on a new server (system identifier {now}, before {before}) with what it had, as pg_upgrade leaves it"
    )]
    Upgraded {
        /// The node.
        node: NodeName,
        /// Identifier of the server on which it was set up.
        before: SystemId,
        /// Identifier of its server.
        now: SystemId,
    },
    /// The source has nothing of mmrepl any more.
    #[error("{from} was set up before and is not now: it was restored or re-created")]
    Emptied {
        /// The source.
        from: NodeName,
    },
    /// The target lost commits that were flushed.
    #[error(
        "{to} has lost commits: it had applied {from} up to {durable}, now only up to {applied} (restored from a backup, or failed over to a standby that was behind?)"
    )]
    TargetLost {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// What was flushed there once.
        durable: Lsn,
        /// What it has now.
        applied: Lsn,
    },
    /// The source's WAL ends before what was applied from it.
    #[error(
        "{from} has lost commits: {to} has applied it up to {applied}, but its WAL ends at {flushed} (restored from a backup, or failed over to a standby that was behind?)"
    )]
    SourceLost {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// Applied on the target.
        applied: Lsn,
        /// End of the source's WAL.
        flushed: Lsn,
    },
    /// The source's WAL reaches far enough, with another history in it.
    #[error(
        "{from} has lost commits: it does not have the last transaction that {to} has applied from it, up to {applied} (put back to an earlier state and written to since?)"
    )]
    SourceRewritten {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// Applied on the target.
        applied: Lsn,
    },
    /// The slot was dropped.
    #[error(
        "its replication slot is gone from {from} ({slot}), and what was written there after {applied} may not have reached {to}"
    )]
    NoSlot {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// The slot.
        slot: String,
        /// Applied on the target.
        applied: Lsn,
    },
    /// The server gave up the slot's WAL.
    #[error(
        "its replication slot {slot} on {from} was invalidated ({why}), and what was written there after {applied} may not have reached {to}; {mend}"
    )]
    SlotInvalid {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// The slot.
        slot: String,
        /// The server's word for it.
        why: String,
        /// What keeps it from happening again.
        mend: &'static str,
        /// Applied on the target.
        applied: Lsn,
    },
    /// Somebody else's slot has the name.
    #[error(
        "its replication slot {slot} on {from} belongs to database {database} with plugin {plugin}"
    )]
    SlotForeign {
        /// The source.
        from: NodeName,
        /// The slot.
        slot: String,
        /// Its database.
        database: String,
        /// Its plugin.
        plugin: String,
    },
    /// The slot has no beginning yet.
    #[error(
        "its replication slot {slot} on {from} is still being made, which waits for transactions that were open before; the link looks again by itself"
    )]
    SlotUnfinished {
        /// The source.
        from: NodeName,
        /// The slot.
        slot: String,
    },
    /// The slot reads what was written before the publication was made.
    #[error(
        "publication mmrepl is gone from {from} or was made anew, and replication slot {slot} cannot send what was written there before it was made; so what was written meanwhile has not reached {to}"
    )]
    PublicationAnew {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// The slot.
        slot: String,
    },
    /// The slot starts after the position.
    #[error(
        "its replication slot {slot} on {from} begins at {begins}, after {applied}, the target's position: what lies between is gone from the stream (was {to} restored from a backup, or the slot made anew?)"
    )]
    SlotAhead {
        /// The source.
        from: NodeName,
        /// The target.
        to: NodeName,
        /// The slot.
        slot: String,
        /// Where the slot begins.
        begins: Lsn,
        /// Applied on the target.
        applied: Lsn,
    },
}

impl Cause {
    /// The node that may lack what it once had: nothing may be copied from it.
    pub fn loser(&self) -> Option<&NodeName> {
        match self {
            Self::PositionLost { to }
            | Self::TargetLost { to, .. }
            | Self::SlotAhead { to, .. } => Some(to),
            Self::OtherServer { from, .. }
            | Self::Emptied { from }
            | Self::SourceLost { from, .. }
            | Self::SourceRewritten { from, .. } => Some(from),
            _ => None,
        }
    }

    /// Whether the rows of both nodes tell something about it: they are the same two nodes, and
    /// one of them may lack rows.
    fn is_about_rows(&self) -> bool {
        !matches!(
            self,
            Self::Misled { .. }
                | Self::Dropped { .. }
                | Self::NoPosition { .. }
                | Self::SlotForeign { .. }
                | Self::SlotUnfinished { .. }
        )
    }
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: it passes.
    Wait,
    /// The link was never set up.
    Init,
    /// The configuration names a node that was dropped.
    TakeOut(NodeName),
    /// The configuration leads to the wrong server.
    CorrectDsn(NodeName),
    /// The slot's name is taken.
    OtherName,
    /// The slot has to be made anew, and what was written on this node meanwhile compared.
    SlotAnew(NodeName),
    /// Nobody lost anything but what one slot held.
    CopyFrom(NodeName),
    /// One node lost something.
    CopyTo {
        /// The node that has it still.
        whole: NodeName,
        /// The node that lost.
        loser: NodeName,
    },
    /// It may be that the configuration leads to a wrong server, or that one node lost everything.
    Refill {
        /// The node that has it still.
        whole: NodeName,
        /// The node that lost.
        loser: NodeName,
    },
    /// Neither node has everything.
    Neither(NodeName, NodeName),
    /// A database moved to another server, as `pg_upgrade` moves it.
    Moved {
        /// The node that moved.
        moved: NodeName,
        /// The other one, where it has not moved too.
        other: Option<NodeName>,
    },
}

impl Advice {
    /// The node to copy from, where that is what to do.
    pub fn copy_from(&self) -> Option<&NodeName> {
        match self {
            Self::CopyFrom(whole) | Self::CopyTo { whole, .. } | Self::Refill { whole, .. } => {
                Some(whole)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait => f.write_str("wait for it"),
            Self::Init => f.write_str("run `mmrepl init` to set the link up"),
            Self::TakeOut(node) => write!(
                f,
                "take the [[node]] section of {node} out of the file on every host and start the daemons again, or set it up again with `mmrepl init --rejoin {node}`"
            ),
            Self::CorrectDsn(node) => write!(f, "correct the dsn of {node}"),
            Self::OtherName => f.write_str("give this cluster another name in [cluster]"),
            Self::SlotAnew(from) => write!(
                f,
                "`mmrepl init` makes the slot anew where the nodes' rows are equal; where they differ, `mmrepl init --copy-from {from}` loses nothing that was written on {from}, and keeps rows that others alone have in their history of conflicts"
            ),
            Self::CopyFrom(from) => write!(
                f,
                "say whose rows count with `mmrepl init --copy-from {from}`, or `mmrepl init --assume-identical` if you know that the nodes are equal"
            ),
            Self::CopyTo { whole, loser } => write!(
                f,
                "do not copy from {loser}, which lost something; `mmrepl init --copy-from {whole}` replaces its rows by those of {whole}, and keeps rows that {loser} alone has in its history of conflicts (`mmrepl init --assume-identical` only if you know that the nodes are equal)"
            ),
            Self::Refill { whole, loser } => write!(
                f,
                "correct the dsn of {loser}; if it is to be filled anew, `mmrepl init --copy-from {whole}` replaces its rows by those of {whole}, and keeps rows that {loser} alone has in its history of conflicts"
            ),
            Self::Moved { moved, other } => {
                let whose = other.as_ref().map_or_else(
                    || "say whose rows count with --copy-from".to_owned(),
                    |other| {
                        format!("`mmrepl init --copy-from {other}` gives it the rows of {other}")
                    },
                );
                write!(
                    f,
                    "if all that was written on {moved} had reached the others before, and nothing was written on it since, run `mmrepl init --assume-identical`; if it is an older copy, its own last writes are missing: {whose}"
                )
            }
            Self::Neither(one, other) => write!(
                f,
                "both nodes lost something, and neither has everything: say whose rows count with `mmrepl init --copy-from {one}` or `mmrepl init --copy-from {other}`, rows that the other alone has are kept in its history of conflicts (`mmrepl init --assume-identical` if they are equal)"
            ),
        }
    }
}

/// The verdict on a link that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The link.
    pub link: LinkName,
    /// Why.
    pub cause: Cause,
    /// What to do.
    pub advice: Advice,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.advice {
            Advice::Wait => write!(f, "link {}: {}", self.link, self.cause),
            _ => write!(f, "link {}: {}; {}", self.link, self.cause, self.advice),
        }
    }
}

impl std::error::Error for Finding {}

impl Retryable for Finding {
    fn retry_class(&self) -> RetryClass {
        match self.cause {
            Cause::SlotUnfinished { .. } => RetryClass::Transient,
            _ => RetryClass::Operator,
        }
    }
}

impl Finding {
    /// Whether it helps to know which rows each node has alone.
    pub fn is_about_rows(&self) -> bool {
        self.cause.is_about_rows()
    }

    /// What is added where rows cannot be counted: the command that does.
    pub fn hint(&self) -> &'static str {
        if self.is_about_rows() {
            "; `mmrepl check` counts the rows that each node has alone"
        } else {
            ""
        }
    }

    /// The slot was looked at alone, once more.
    pub fn of_slot(link: &LinkName, cause: Cause) -> Self {
        Self {
            link: link.clone(),
            cause,
            advice: Advice::CopyFrom(link.from.clone()),
        }
    }
}
