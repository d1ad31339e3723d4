//! Which statement tries a row without a look, and what becomes of a row it did not take. Pure.

use crate::apply::plan::change::RowChange;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql::kind::UpdateGuard;
use crate::commit_time::CommitTime;
use crate::conflict::{
    Incoming, Local, Rank, Standing, Tie, Verdict, Version, Write, resolve, standing,
};
use crate::ids::NodeName;

/// The guarded statement that takes a row if nothing newer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Delete the row where it is older.
    DeleteOlder,
    /// Insert where no row is.
    InsertNew,
    /// Update the row under this guard.
    Update(UpdateGuard),
    /// No such statement: the row must be settled.
    Settle,
}

/// What becomes of a row, once it is known what the target holds for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// What the target holds is newer and stays.
    Discard,
    /// The row goes.
    Delete,
    /// There is no row; the tombstone stays.
    LeaveTombstone,
    /// The values that were sent replace those of the row; the others it has are the right ones.
    Overwrite,
    /// What was not sent is fetched from the source, then the row is written whole.
    Complete,
    /// A value in the net change may be one that the source had lost to a write on the target:
    /// only change by change does it come out right.
    Overtaken,
    /// Neither write knew of the other: what the target holds stays until a person decides.
    Pending,
    /// Both deleted the row without knowing of each other: the tombstone stands for both.
    JoinDeletes(Rank),
}

impl Decision {
    /// What the history says of it: the change took effect, or what the target holds stays.
    pub(in crate::apply) fn verdict(&self) -> Verdict {
        match self {
            Self::Discard | Self::Pending => Verdict::Discard,
            _ => Verdict::Apply,
        }
    }
}

/// Picks the first attempt.
pub fn attempt(row: &RowChange) -> Attempt {
    let merges = row.target.versions().merging().is_some();
    let put = match &row.op {
        _ if is_by_knowledge(row) => return Attempt::Settle,
        // The image of the deleted row is joined with the target's.
        RowOp::Delete(_) if merges => return Attempt::Settle,
        RowOp::Delete(_) => return Attempt::DeleteOlder,
        RowOp::Put(put) => put,
    };
    if merges && !(put.insert && put.is_whole()) {
        return Attempt::Settle;
    }
    if put.insert && !row.target.map.table.can_skip_duplicates {
        return Attempt::Settle;
    }
    match (put.is_whole(), put.insert, put.moved) {
        (true, true, _) => Attempt::InsertNew,
        (true, false, _) => Attempt::Update(UpdateGuard::Older),
        (false, _, true) => Attempt::Settle,
        (false, _, false) => Attempt::Update(UpdateGuard::SameWriter),
    }
}

/// Decides a change of the link's `source` against what the target holds for its key.
pub fn decide(row: &RowChange, local: &Local, source: &NodeName) -> Decision {
    if !wins(row, row.time, local, source) {
        return lost(row, local, source);
    }
    match &row.op {
        RowOp::Delete(_) if local.row.is_some() => Decision::Delete,
        RowOp::Delete(_) => Decision::LeaveTombstone,
        RowOp::Put(_) if !wins(row, row.since, local, source) => Decision::Overtaken,
        RowOp::Put(put) if has_the_rest(row, put, local, source) => Decision::Overwrite,
        RowOp::Put(_) => Decision::Complete,
    }
}

/// Whether the table's rule knows no order.
pub(in crate::apply) fn is_by_knowledge(row: &RowChange) -> bool {
    row.target.versions().tie() == Tie::Known
}

fn lost(row: &RowChange, local: &Local, source: &NodeName) -> Decision {
    if !is_by_knowledge(row) {
        return Decision::Discard;
    }
    match standing(&incoming(row, row.time, source), local) {
        Standing::Concurrent => Decision::Pending,
        Standing::BothDeleted(known) => Decision::JoinDeletes(known),
        Standing::Earlier | Standing::Later => Decision::Discard,
    }
}

fn wins(row: &RowChange, time: CommitTime, local: &Local, source: &NodeName) -> bool {
    let between_equals = row.target.versions().tie();
    resolve(&incoming(row, time, source), local, between_equals) == Verdict::Apply
}

/// The change of `source` as a write made at `time`.
pub(in crate::apply) fn incoming(row: &RowChange, time: CommitTime, source: &NodeName) -> Incoming {
    let write = match row.op {
        RowOp::Put(_) => Write::Put,
        RowOp::Delete(_) => Write::Delete,
    };
    let node = source.clone();
    Incoming {
        write,
        version: Version { time, node },
        rank: row.rank.clone(),
    }
}

/// True when the target's row holds what the source did not send: the source wrote it, and no
/// third node can have written the source's row in between.
fn has_the_rest(row: &RowChange, put: &Put, local: &Local, source: &NodeName) -> bool {
    !put.moved && row.target.guard().pair && wrote(source, local)
}

/// True when the link's source wrote the target's row.
pub(in crate::apply) fn wrote(source: &NodeName, local: &Local) -> bool {
    let row = local.row.as_ref().and_then(|row| row.version.as_ref());
    row.is_some_and(|version| version.node == *source)
}
