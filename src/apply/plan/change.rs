//! What is to be written: a change of one key, made of one or several writes, or of a whole row.
//! Pure.

use std::borrow::Cow;
use std::sync::Arc;

use crate::apply::shape::mapping::KeyValues;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::target::statement::Target;
use crate::commit_time::CommitTime;
use crate::conflict::{Made, Rank, Seen};
use crate::pgoutput::{Tuple, Value};

/// When a change was made, and what its source had seen by then.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Commit time.
    pub time: CommitTime,
    /// What the source had applied from other nodes.
    pub seen: Arc<Seen>,
    /// What the transaction said of its clock when it deleted (`conflict::delete_clock`).
    pub delete_clock: Option<i64>,
}

/// The net change of one key.
#[derive(Debug, Clone)]
pub struct RowChange {
    /// The table.
    pub target: Arc<Target>,
    /// The key.
    pub key: KeyValues,
    /// What happens to it.
    pub op: RowOp,
    /// What the source did: the first of several writes of the key.
    pub made: Made,
    /// What the source had seen at the first write: what it applied between the writes, it made
    /// the first one without, and so did the target.
    pub seen: Arc<Seen>,
    /// Commit time of the (last) write.
    pub time: CommitTime,
    /// Commit time of the oldest write that a value was taken from. Between that one and the last
    /// the source may have applied somebody else's write, so all values are right only where the
    /// target's row is older than this.
    pub since: CommitTime,
    /// The version that the (last) write has in the row, where the table keeps one there.
    pub rank: Option<Rank>,
    /// The writes it is made of, where it is more than one.
    pub(in crate::apply) writes: Vec<Written>,
}

/// One of several writes of a key, as its source made it: see [`RowChange`].
#[derive(Debug, Clone)]
pub(in crate::apply) struct Written {
    op: RowOp,
    made: Made,
    seen: Arc<Seen>,
    time: CommitTime,
    rank: Option<Rank>,
}

/// A change in a table without a key, matched by the whole old row.
#[derive(Debug, Clone)]
pub struct WholeRowChange {
    /// The table.
    pub target: Arc<Target>,
    /// The row that was there, for updates and deletes.
    pub old: Option<Tuple>,
    /// The row that is there now, for inserts and updates.
    pub new: Option<Tuple>,
    /// Commit time.
    pub time: CommitTime,
    /// What the source had seen.
    pub seen: Arc<Seen>,
}

/// One thing to write.
#[derive(Debug, Clone)]
pub enum Entry {
    /// By key.
    Row(RowChange),
    /// By whole row.
    WholeRow(WholeRowChange),
}

/// What two consecutive changes of one key come to, the oldest write that a value is from, and the
/// version.
fn net(earlier: &RowChange, later: &RowChange) -> (RowOp, CommitTime, Option<Rank>) {
    let (mut since, mut rank) = (later.since, &later.rank);
    let op = match (&earlier.op, &later.op) {
        // The row came from another key: what it left out is not in the row that had this one.
        (RowOp::Put(before), RowOp::Put(after)) if after.moved => RowOp::Put(Put {
            insert: before.insert,
            ..after.clone()
        }),
        (RowOp::Put(before), RowOp::Put(after)) => {
            let values = completed(&after.values, &before.values);
            if values != after.values {
                since = earlier.since;
            }
            RowOp::Put(Put {
                values,
                insert: before.insert,
                moved: before.moved,
            })
        }
        // Under a deferrable key two rows may share a value until the transaction ends. The old row
        // that goes is not the one that came: that one stays.
        (RowOp::Put(put), RowOp::Delete(Some(gone)))
            if is_deferrable(&later.target) && put.values != *gone =>
        {
            (since, rank) = (earlier.since, &earlier.rank);
            RowOp::Put(put.clone())
        }
        // The row was there before the group: what came back replaces it.
        (RowOp::Delete(_), RowOp::Put(after)) => RowOp::Put(Put {
            values: after.values.clone(),
            insert: false,
            moved: true,
        }),
        (_, RowOp::Delete(old)) => RowOp::Delete(old.clone()),
    };
    (op, since, rank.clone())
}

/// `newer` with what it left out taken from `older`.
pub(in crate::apply) fn completed(newer: &Tuple, older: &Tuple) -> Tuple {
    let pick = |(new, old): (&Value, &Value)| match new {
        Value::Unchanged => old.clone(),
        _ => new.clone(),
    };
    Tuple(newer.0.iter().zip(older.0.iter()).map(pick).collect())
}

fn is_deferrable(target: &Target) -> bool {
    target
        .map
        .table
        .key
        .as_ref()
        .is_some_and(|key| key.deferrable)
}

/// Whether only the two changes apart show that somebody may have had a unique value on the target
/// which the first one took and the second one gave back.
pub(in crate::apply) fn gives_back_a_value(earlier: &RowChange, later: &RowChange) -> bool {
    let unique = earlier.target.unique_columns();
    match (&earlier.op, &later.op) {
        _ if unique.is_empty() => false,
        (RowOp::Put(before), RowOp::Put(after)) => unique.iter().any(|&column| {
            let (before, after) = (&before.values.0[column], &after.values.0[column]);
            *after != Value::Unchanged && before != after
        }),
        (RowOp::Put(_), RowOp::Delete(_)) => true,
        (RowOp::Delete(_), _) => false,
    }
}

impl Entry {
    /// The change, when it is one by key.
    pub fn row(&self) -> Option<&RowChange> {
        match self {
            Self::Row(row) => Some(row),
            Self::WholeRow(_) => None,
        }
    }

    /// The values of the row that is there afterwards.
    pub(in crate::apply) fn put(&self) -> Option<&Tuple> {
        match self {
            Self::Row(row) => match &row.op {
                RowOp::Put(put) => Some(&put.values),
                RowOp::Delete(_) => None,
            },
            Self::WholeRow(row) => row.new.as_ref(),
        }
    }
}

impl RowChange {
    /// Every write by itself, in the source's order.
    pub(in crate::apply) fn one_by_one(&self) -> Vec<Cow<'_, Self>> {
        if self.writes.is_empty() {
            return vec![Cow::Borrowed(self)];
        }
        let alone = |write: &Written| Self {
            target: Arc::clone(&self.target),
            key: self.key.clone(),
            op: write.op.clone(),
            made: write.made,
            seen: Arc::clone(&write.seen),
            time: write.time,
            since: write.time,
            rank: write.rank.clone(),
            writes: Vec::new(),
        };
        self.writes.iter().map(alone).map(Cow::Owned).collect()
    }

    /// The net change of several changes of one key.
    pub(in crate::apply) fn together(changes: impl Iterator<Item = Self>) -> Option<Self> {
        changes.reduce(|mut net, later| {
            net.followed_by(later);
            net
        })
    }

    /// The source inserted the row, so most likely the target has none.
    pub(in crate::apply) fn is_insert(&self) -> bool {
        matches!(&self.op, RowOp::Put(put) if put.insert)
    }

    /// The source inserted the row and has deleted it.
    pub(in crate::apply) fn is_gone_again(&self) -> bool {
        let first = self.writes.first().map(|write| (&write.op, write.made));
        matches!(self.op, RowOp::Delete(_))
            && matches!(first, Some((RowOp::Put(put), Made::Insert)) if put.insert)
    }

    /// A delete whose tombstone carries the delete's own version: the trigger leaves one as of a
    /// delete made on the target.
    pub(in crate::apply) fn leaves_version(&self) -> bool {
        matches!(self.op, RowOp::Delete(_)) && self.target.versions().is_in_row()
    }
}

impl RowChange {
    /// Makes this the net change of itself and the next one of its key.
    pub(in crate::apply) fn followed_by(&mut self, later: Self) {
        let (op, since, rank) = net(self, &later);
        let made = match (&self.op, &later.op) {
            (RowOp::Put(_), RowOp::Put(_)) => self.made,
            (RowOp::Delete(_), _) | (_, RowOp::Delete(_)) => later.made,
        };
        let before = std::mem::replace(&mut self.op, op);
        if self.writes.is_empty() {
            self.writes.push(Written {
                op: before,
                made: self.made,
                seen: Arc::clone(&self.seen),
                time: self.time,
                rank: self.rank.take(),
            });
        }
        self.writes.push(Written {
            op: later.op,
            made: later.made,
            seen: later.seen,
            time: later.time,
            rank: later.rank,
        });
        (self.made, self.time, self.since, self.rank) = (made, later.time, since, rank);
    }
}
