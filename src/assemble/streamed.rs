//! Transactions that are sent while they run (protocol version 2 and later).
//!
//! Changes are kept in runs of one (sub)transaction each. A rollback empties the runs of exactly
//! that subtransaction and costs no more than what it removes, so a transaction with a hundred
//! thousand savepoints costs no more than one without. The server sends one Stream Abort for each
//! subtransaction, the children of a rolled back one included (`DecodeAbort` in decode.c).

use std::collections::HashMap;
use std::sync::Arc;

use super::assembled::Assembled;
use super::builder::Builder;
use super::change::Change;
use super::error::AssembleError;
use super::piece::{Piece, PieceLimits, TxEnd, TxHeader};
use crate::conflict::Seen;
use crate::pgoutput::Message;
use crate::relation::{Relation, RelationCache};

/// Memory of a run beside its changes: itself and its place in the index, rounded up.
const RUN_BYTES: usize = 128;
/// Memory of a transaction beside its runs, rounded up.
const TX_BYTES: usize = 256;

/// All streamed transactions in progress.
#[derive(Debug)]
pub(super) struct Streams {
    open: HashMap<u32, Streamed>,
    held_bytes: usize,
    budget_bytes: usize,
    passing: Passing,
}

/// Whether one transaction at a time is passed on as it comes, and the one that is.
#[derive(Debug)]
enum Passing {
    /// All are kept.
    Never,
    /// The next may be.
    Ready,
    /// This one is.
    Open(Builder),
}

impl Passing {
    fn is(&self, top: u32) -> bool {
        matches!(self, Self::Open(builder) if builder.header().xid == top)
    }
}

/// One streamed transaction in progress.
#[derive(Debug, Default)]
struct Streamed {
    /// Applied here, not written here: its changes are not kept.
    dropped: bool,
    /// It came from outside of the cluster.
    elsewhere: bool,
    /// What it said about tables. Others see it when it commits.
    described: RelationCache,
    described_bytes: usize,
    runs: Vec<Run>,
    /// Where in `runs` the changes of each (sub)transaction are.
    runs_of: HashMap<u32, Vec<usize>>,
    run_bytes: usize,
}

/// Consecutive changes of one (sub)transaction, made while the source had seen the same.
#[derive(Debug)]
struct Run {
    xid: u32,
    seen: Arc<Seen>,
    changes: Vec<Change>,
    bytes: usize,
}

impl Streams {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self {
            open: HashMap::new(),
            held_bytes: 0,
            budget_bytes,
            passing: Passing::Never,
        }
    }

    /// From now on one transaction at a time is passed on as it comes.
    pub(super) fn pass_on(&mut self) {
        self.passing = Passing::Ready;
    }

    /// What is at hand of the transaction when a block of it ends, if it is the one passed on.
    pub(super) fn flush(&mut self, top: u32) -> Option<Piece> {
        match &mut self.passing {
            Passing::Open(builder) if builder.header().xid == top => builder.flush(),
            _ => None,
        }
    }

    /// The transaction ended; true where it was the one passed on.
    fn ends_passing(&mut self, top: u32) -> bool {
        let passed = self.passing.is(top);
        if passed {
            self.passing = Passing::Ready;
        }
        passed
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.held_bytes = 0;
    }

    /// What all of them take.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn charge(&mut self, bytes: usize) -> Result<(), AssembleError> {
        let (held_bytes, budget_bytes) = (self.held_bytes + bytes, self.budget_bytes);
        if held_bytes > budget_bytes {
            return Err(AssembleError::StreamBudget {
                held_bytes,
                budget_bytes,
            });
        }
        self.held_bytes = held_bytes;
        Ok(())
    }

    /// Stream Start: the first block of a transaction, or another one of a known transaction.
    pub(super) fn start(&mut self, xid: u32, first: bool) -> Result<(), AssembleError> {
        if first == self.open.contains_key(&xid) {
            return Err(AssembleError::StreamOrder {
                message: "Stream Start",
                xid,
            });
        }
        if first {
            self.charge(TX_BYTES)?;
            self.open.insert(xid, Streamed::default());
        }
        Ok(())
    }

    /// Relation: counts for the rest of this transaction, and for all once it has committed.
    pub(super) fn describe(
        &mut self,
        top: u32,
        relation: Arc<Relation>,
    ) -> Result<(), AssembleError> {
        let bytes = relation.memory_bytes();
        self.charge(bytes)?;
        if let Some(streamed) = self.open.get_mut(&top) {
            streamed.described_bytes += bytes;
            streamed.described.share(relation);
        }
        Ok(())
    }

    /// A change made by `xid`, a subtransaction of `top` or `top` itself. Gives a piece where the
    /// transaction is passed on and one is full.
    pub(super) fn push(
        &mut self,
        (top, xid): (u32, u32),
        message: Message,
        known: &RelationCache,
        (seen, limits): (&Arc<Seen>, PieceLimits),
    ) -> Result<Option<Piece>, AssembleError> {
        let Some(streamed) = self.open.get(&top).filter(|streamed| !streamed.dropped) else {
            return Ok(None);
        };
        let find = |id| {
            streamed
                .described
                .get(id)
                .or_else(|| known.get(id))
                .cloned()
        };
        let Some(change) = Change::resolve(message, find)? else {
            return Ok(None);
        };
        if matches!(self.passing, Passing::Ready) && streamed.runs.is_empty() {
            self.passing = Passing::Open(Builder::new(TxHeader::running(top)));
        }
        if self.passing.is(top)
            && let Passing::Open(builder) = &mut self.passing
        {
            return Ok(builder.push(change, seen, limits));
        }
        let bytes = change.memory_bytes() + streamed.new_run_bytes(xid, seen);
        self.charge(bytes)?;
        if let Some(streamed) = self.open.get_mut(&top) {
            streamed.push((xid, seen), change, bytes);
        }
        Ok(None)
    }

    /// Origin: this transaction is not to be passed on.
    pub(super) fn drop_changes(&mut self, top: u32) -> Result<(), AssembleError> {
        if self.passing.is(top) {
            return Err(AssembleError::LateOrigin);
        }
        if let Some(streamed) = self.open.get_mut(&top) {
            streamed.dropped = true;
            streamed.runs.clear();
            streamed.runs_of.clear();
            self.held_bytes -= std::mem::take(&mut streamed.run_bytes);
        }
        Ok(())
    }

    /// Origin: this transaction came from outside of the cluster.
    pub(super) fn pass_on_above(&mut self, top: u32) {
        if let Some(streamed) = self.open.get_mut(&top) {
            streamed.elsewhere = true;
        }
    }

    /// Stream Abort, of all of `top` or of one of its subtransactions.
    ///
    /// Without anything kept there is nothing to do, and nothing that could be lost. True where the
    /// transaction was passed on.
    pub(super) fn abort(&mut self, top: u32, xid: u32) -> Result<bool, AssembleError> {
        if top != xid && self.passing.is(top) {
            return Err(AssembleError::PartRolledBack { xid: top });
        }
        if top == xid {
            let gone = self.open.remove(&top);
            self.held_bytes -= gone.map_or(0, |streamed| streamed.bytes());
        } else if let Some(streamed) = self.open.get_mut(&top) {
            let before = streamed.bytes();
            streamed.abort(xid);
            self.held_bytes -= before - streamed.bytes();
        }
        Ok(top == xid && self.ends_passing(top))
    }

    /// Stream Commit: what the transaction said about tables, its header as it counts, and its
    /// changes if it has any.
    pub(super) fn commit(
        &mut self,
        header: TxHeader,
        end: TxEnd,
        seen: &Arc<Seen>,
    ) -> Result<(RelationCache, TxHeader, Kept), AssembleError> {
        let unknown = AssembleError::StreamOrder {
            message: "Stream Commit",
            xid: header.xid,
        };
        let streamed = self.open.remove(&header.xid).ok_or(unknown)?;
        self.held_bytes -= streamed.bytes();
        let header = if streamed.elsewhere {
            header.passed_on(seen)
        } else {
            header
        };
        let kept = if self.ends_passing(header.xid) {
            Kept::PassedOn
        } else if streamed.runs.is_empty() {
            Kept::Nothing
        } else {
            let end = (end, Arc::clone(seen));
            Kept::All(Box::new(Finished::new(header, end, streamed.runs)))
        };
        Ok((streamed.described, header, kept))
    }
}

/// What is left of a streamed transaction that has committed.
pub(super) enum Kept {
    /// It wrote nothing.
    Nothing,
    /// It has been passed on.
    PassedOn,
    /// All of it.
    All(Box<Finished>),
}

impl Run {
    /// Whether the next change belongs here.
    fn takes(&self, xid: u32, seen: &Arc<Seen>) -> bool {
        self.xid == xid && Arc::ptr_eq(&self.seen, seen)
    }
}

impl Streamed {
    fn bytes(&self) -> usize {
        TX_BYTES + self.described_bytes + self.run_bytes
    }

    /// What a change by `xid` costs beside itself.
    fn new_run_bytes(&self, xid: u32, seen: &Arc<Seen>) -> usize {
        let continues = self.runs.last().is_some_and(|run| run.takes(xid, seen));
        if continues { 0 } else { RUN_BYTES }
    }

    fn push(&mut self, (xid, seen): (u32, &Arc<Seen>), change: Change, bytes: usize) {
        self.run_bytes += bytes;
        match self.runs.last_mut() {
            Some(run) if run.takes(xid, seen) => {
                run.changes.push(change);
                run.bytes += bytes;
            }
            _ => {
                self.runs_of.entry(xid).or_default().push(self.runs.len());
                self.runs.push(Run {
                    xid,
                    seen: Arc::clone(seen),
                    changes: vec![change],
                    bytes,
                });
            }
        }
    }

    /// Removes the changes of one subtransaction.
    ///
    /// The server now takes everything it told this transaction about tables for untold
    /// (`cleanup_rel_sync_cache` in pgoutput.c) and tells it again; so it is forgotten here too.
    fn abort(&mut self, xid: u32) {
        for index in self.runs_of.remove(&xid).unwrap_or_default() {
            if let Some(run) = self.runs.get_mut(index) {
                run.changes = Vec::new();
                self.run_bytes -= std::mem::take(&mut run.bytes);
            }
        }
        while self.runs.last().is_some_and(|run| run.changes.is_empty()) {
            self.runs.pop();
        }
        self.described = RelationCache::default();
        self.described_bytes = 0;
    }
}

/// A committed streamed transaction that leaves piece by piece.
#[derive(Debug)]
pub(super) struct Finished {
    /// `None` when the last piece has left.
    builder: Option<Builder>,
    end: (TxEnd, Arc<Seen>),
    runs: std::vec::IntoIter<Run>,
    /// The run whose changes are leaving.
    current: Option<(Arc<Seen>, std::vec::IntoIter<Change>)>,
}

impl Finished {
    fn new(header: TxHeader, end: (TxEnd, Arc<Seen>), runs: Vec<Run>) -> Self {
        Self {
            builder: Some(Builder::new(header)),
            end,
            runs: runs.into_iter(),
            current: None,
        }
    }

    /// Whether the last piece has left.
    pub(super) fn is_done(&self) -> bool {
        self.builder.is_none()
    }

    fn next_change(&mut self) -> Option<(Arc<Seen>, Change)> {
        loop {
            if let Some((seen, changes)) = &mut self.current
                && let Some(change) = changes.next()
            {
                return Some((Arc::clone(seen), change));
            }
            let run = self.runs.next()?;
            self.current = Some((run.seen, run.changes.into_iter()));
        }
    }

    pub(super) fn next_piece(&mut self, limits: PieceLimits) -> Option<Piece> {
        let mut builder = self.builder.take()?;
        while let Some((seen, change)) = self.next_change() {
            let full = builder.push(change, &seen, limits);
            if full.is_some() {
                self.builder = Some(builder);
                return full;
            }
        }
        match builder.finish(self.end.0, &self.end.1) {
            Assembled::Piece(piece) => Some(piece),
            _ => None,
        }
    }
}
