//! One variant per message of pgoutput, with the protocol version that brought it.

use std::fmt;

use bytes::Bytes;

use super::tuple::{OldImage, Tuple};
use crate::commit_time::CommitTime;
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::relation::Relation;

/// A message of the logical replication stream.
///
/// `xid: Option<u32>` is there exactly when the message came inside a streamed block (protocol
/// version 2 and later): the transaction, or subtransaction, that made the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `B`: a committed transaction begins.
    Begin {
        /// Where its commit record starts in the source's WAL.
        final_lsn: Lsn,
        /// When it committed.
        commit_time: CommitTime,
        /// Its transaction number.
        xid: u32,
    },
    /// `C`: the transaction begun last is complete.
    Commit {
        /// Where the commit record starts: the `final_lsn` of the Begin.
        commit_lsn: Lsn,
        /// Where the commit record ends: the position to confirm.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: CommitTime,
    },
    /// `O`: the transaction was applied here by a replication origin, not written here.
    Origin {
        /// The position of the commit on the server it came from.
        lsn: Lsn,
        /// The origin's name.
        name: String,
    },
    /// `R`: what a table looks like from here on.
    Relation(RelationMessage),
    /// `Y`: the name of a type that is not built in.
    Type(TypeMessage),
    /// `I`: a new row.
    Insert {
        /// Set inside a streamed block.
        xid: Option<u32>,
        /// The table.
        relation: RelationId,
        /// The row.
        new: Tuple,
    },
    /// `U`: a changed row.
    Update {
        /// Set inside a streamed block.
        xid: Option<u32>,
        /// The table.
        relation: RelationId,
        /// The old key if the key changed, the old row under `REPLICA IDENTITY FULL`, else nothing.
        old: Option<OldImage>,
        /// The row after the update.
        new: Tuple,
    },
    /// `D`: a deleted row.
    Delete {
        /// Set inside a streamed block.
        xid: Option<u32>,
        /// The table.
        relation: RelationId,
        /// The key or the whole row, as the replica identity says.
        old: OldImage,
    },
    /// `T`: one TRUNCATE command.
    Truncate {
        /// Set inside a streamed block.
        xid: Option<u32>,
        /// The tables it emptied, those reached by CASCADE included.
        relations: Vec<RelationId>,
        /// The command said CASCADE.
        cascade: bool,
        /// The command said RESTART IDENTITY.
        restart_identity: bool,
    },
    /// `M`: what somebody wrote with `pg_logical_emit_message` (option `messages`, PostgreSQL 14).
    Logical(LogicalMessage),
    /// `S` (version 2): a block of changes of a transaction that still runs.
    StreamStart {
        /// The top-level transaction.
        xid: u32,
        /// Whether this is the first block of that transaction.
        first: bool,
    },
    /// `E` (version 2): the block ends.
    StreamStop,
    /// `c` (version 2): a streamed transaction committed.
    StreamCommit {
        /// The top-level transaction.
        xid: u32,
        /// Where its commit record starts.
        commit_lsn: Lsn,
        /// Where its commit record ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: CommitTime,
    },
    /// `A` (version 2): a streamed transaction, or a subtransaction of it, rolled back.
    StreamAbort {
        /// The top-level transaction.
        xid: u32,
        /// What rolled back: the same number for the whole transaction.
        subxid: u32,
        /// Where and when, told only with `streaming = parallel` (version 4).
        at: Option<(Lsn, CommitTime)>,
    },
    /// `b` (version 3): a two-phase transaction begins.
    BeginPrepare(PreparedTx),
    /// `P` (version 3): it is prepared.
    Prepare(PreparedTx),
    /// `K` (version 3): COMMIT PREPARED.
    CommitPrepared {
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where the commit record ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: CommitTime,
        /// Its transaction number.
        xid: u32,
        /// The name given to PREPARE TRANSACTION.
        gid: String,
    },
    /// `r` (version 3): ROLLBACK PREPARED.
    RollbackPrepared {
        /// Where the prepare record ends.
        prepare_end_lsn: Lsn,
        /// Where the rollback record ends.
        rollback_end_lsn: Lsn,
        /// When it was prepared.
        prepare_time: CommitTime,
        /// When it was rolled back.
        rollback_time: CommitTime,
        /// Its transaction number.
        xid: u32,
        /// The name given to PREPARE TRANSACTION.
        gid: String,
    },
    /// `p` (version 3): a streamed transaction is prepared.
    StreamPrepare(PreparedTx),
}

/// `R`: a table's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationMessage {
    /// Set inside a streamed block.
    pub xid: Option<u32>,
    /// The definition.
    pub relation: Relation,
}

/// `Y`: a type's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMessage {
    /// Set inside a streamed block.
    pub xid: Option<u32>,
    /// The type's OID on the source.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// `M`: a logical message. Its `Debug` shows the length of the content only.
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Set inside a streamed block.
    pub xid: Option<u32>,
    /// Part of its transaction, or sent at once whatever becomes of it.
    pub transactional: bool,
    /// Where it stands in the source's WAL.
    pub lsn: Lsn,
    /// The prefix its writer chose.
    pub prefix: String,
    /// The content, any bytes.
    pub content: Bytes,
}

/// What `b`, `P` and `p` tell about a prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedTx {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: CommitTime,
    /// Its transaction number.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: String,
}

impl fmt::Debug for LogicalMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("xid", &self.xid)
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}

impl Message {
    /// The message's name in the manual, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "Begin",
            Self::Commit { .. } => "Commit",
            Self::Origin { .. } => "Origin",
            Self::Relation(_) => "Relation",
            Self::Type(_) => "Type",
            Self::Insert { .. } => "Insert",
            Self::Update { .. } => "Update",
            Self::Delete { .. } => "Delete",
            Self::Truncate { .. } => "Truncate",
            Self::Logical(_) => "Message",
            Self::StreamStart { .. } => "Stream Start",
            Self::StreamStop => "Stream Stop",
            Self::StreamCommit { .. } => "Stream Commit",
            Self::StreamAbort { .. } => "Stream Abort",
            Self::BeginPrepare(_) => "Begin Prepare",
            Self::Prepare(_) => "Prepare",
            Self::CommitPrepared { .. } => "Commit Prepared",
            Self::RollbackPrepared { .. } => "Rollback Prepared",
            Self::StreamPrepare(_) => "Stream Prepare",
        }
    }

    /// The (sub)transaction inside a streamed block, for the messages that carry one there.
    pub fn stream_xid(&self) -> Option<u32> {
        match self {
            Self::Relation(RelationMessage { xid, .. })
            | Self::Type(TypeMessage { xid, .. })
            | Self::Logical(LogicalMessage { xid, .. })
            | Self::Insert { xid, .. }
            | Self::Update { xid, .. }
            | Self::Delete { xid, .. }
            | Self::Truncate { xid, .. } => *xid,
            _ => None,
        }
    }
}
