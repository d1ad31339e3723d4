//! Transactions, whole or in parts.

use std::sync::Arc;

use super::change::Change;
use super::error::AssembleError;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::lsn::Lsn;

/// What is known of a transaction when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxHeader {
    /// Where its commit record starts on the source.
    pub final_lsn: Lsn,
    /// When it committed, by the source's clock; what its rows are judged by.
    pub commit_time: CommitTime,
    /// The commit time that the source keeps of it and answers to `pg_xact_commit_timestamp`.
    /// It differs from `commit_time` for a transaction that came from outside of the cluster.
    pub kept_time: CommitTime,
    /// Its number on the source.
    pub xid: u32,
}

impl TxHeader {
    /// Of transaction `xid`, whose commit record starts at `final_lsn`.
    pub const fn committed(final_lsn: Lsn, commit_time: CommitTime, xid: u32) -> Self {
        Self {
            final_lsn,
            commit_time,
            kept_time: commit_time,
            xid,
        }
    }

    /// Of a transaction that is still running: it will commit after everything known by now.
    pub(super) const fn running(xid: u32) -> Self {
        Self::committed(Lsn::MAX, CommitTime::MAX, xid)
    }

    /// Of a transaction that came here from outside of the cluster: it has the commit time of the
    /// server that it was made on, which may lie before that of a row it replaced. What was here
    /// first cannot be newer, so its time is above everything that this node had `seen`.
    #[must_use]
    pub(super) fn passed_on(mut self, seen: &Seen) -> Self {
        if let Some(newest) = seen.newest() {
            self.commit_time = self.commit_time.max(newest.plus_micros(1));
        }
        self
    }

    /// Whether the transaction is still running.
    pub fn is_running(&self) -> bool {
        self.commit_time == CommitTime::MAX
    }
}

/// Where a transaction ends in the source's WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxEnd {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where it ends: the position to resume from and to confirm.
    pub end_lsn: Lsn,
}

/// A transaction, or a part of a large one. The parts of one transaction follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The transaction.
    pub header: TxHeader,
    /// Whether this is its first part.
    pub first: bool,
    /// The changes in the order in which they were made; at least one.
    pub changes: Vec<Change>,
    /// Bytes of the changes on the wire.
    pub bytes: usize,
    /// Memory of the changes, at least; what [`PieceLimits::bytes`] limits.
    pub memory_bytes: usize,
    /// What the source had applied from other nodes when it made the changes, and when the
    /// transaction ended.
    pub seen: SeenRuns,
    /// Set in the last part only.
    pub end: Option<TxEnd>,
}

/// What the source had seen, change by change: it rarely differs within a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenRuns {
    /// From this change on.
    runs: Vec<(usize, Arc<Seen>)>,
    /// When the transaction committed; set with [`Piece::end`].
    pub(super) at_end: Arc<Seen>,
}

impl SeenRuns {
    /// What had been seen when the change at `index` was made.
    pub fn of(&self, index: usize) -> &Arc<Seen> {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= index);
        run.map_or(&self.at_end, |(_, seen)| seen)
    }

    /// Everything that had been seen at some change.
    pub fn all(&self) -> impl Iterator<Item = &Seen> {
        self.runs.iter().map(|(_, seen)| &**seen)
    }

    /// What had been seen when the transaction committed.
    pub fn at_end(&self) -> &Arc<Seen> {
        &self.at_end
    }

    pub(super) fn push(&mut self, index: usize, seen: &Arc<Seen>) {
        let same = |(_, last): &(usize, Arc<Seen>)| Arc::ptr_eq(last, seen);
        if !self.runs.last().is_some_and(same) {
            self.runs.push((index, Arc::clone(seen)));
        }
    }
}

/// How large a piece may grow. A single change is never split, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    /// Changes in one piece.
    pub rows: usize,
    /// Memory of one piece.
    pub bytes: usize,
}

impl TxHeader {
    /// Compares Begin with what Commit says of the same transaction.
    pub(super) fn check_commit(self, commit: Self) -> Result<(), AssembleError> {
        let (begun, committed) = (self.final_lsn, commit.final_lsn);
        if begun == committed && self.commit_time == commit.commit_time {
            return Ok(());
        }
        Err(AssembleError::WrongCommit { begun, committed })
    }
}

impl Piece {
    pub(super) fn empty(header: TxHeader, first: bool) -> Self {
        Self {
            header,
            first,
            changes: Vec::new(),
            bytes: 0,
            memory_bytes: 0,
            seen: SeenRuns::default(),
            end: None,
        }
    }
}
