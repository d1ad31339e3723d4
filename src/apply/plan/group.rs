//! From changes to what must be written: the net change per key. Pure.
//!
//! A group is a run of consecutive source transactions applied as one target transaction. Within
//! it a key that is written several times needs to be written once, with the version of its last
//! write. Where order matters beyond one key (a truncate, a table whose shape changed in between, a
//! unique value that was taken and given back), a new segment begins; segments are applied one
//! after the other.
//!
//! The writes of a key are kept beside their net change: where the target holds a write that the
//! source did not know, each of them is judged by itself, so that what is recorded does not depend
//! on what happened to be applied together (`settle`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::target::statement::Target;
use crate::assemble::Change;
use crate::commit_time::CommitTime;
use crate::conflict::{Made, Rank, Seen};
use crate::pgoutput::{OldImage, Tuple, Value};

/// The new state of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// All source columns; `Unchanged` where the source left a large value out.
    pub values: Tuple,
    /// The source inserted it, so most likely the target has no such row.
    pub insert: bool,
    /// The row came from another key: what is `Unchanged` is not in the row that has this key now.
    pub moved: bool,
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

impl Put {
    /// True when no large value is missing.
    pub fn is_whole(&self) -> bool {
        !self.values.0.contains(&Value::Unchanged)
    }
}

/// What happens to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOp {
    /// Afterwards the row is there.
    Put(Put),
    /// Afterwards it is not. Carries the whole old row where the source sent it.
    Delete(Option<Tuple>),
}

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

/// Entries whose order among different keys does not matter, or a truncate.
#[derive(Debug, Clone)]
pub enum Segment {
    /// Rows, each key once.
    Rows(Vec<Entry>),
    /// Tables emptied.
    Truncate(Vec<Arc<Target>>, Stamp),
}

impl Segment {
    /// The rows, where there are any.
    pub fn rows(&self) -> Option<&[Entry]> {
        match self {
            Self::Rows(entries) => Some(entries),
            Self::Truncate(..) => None,
        }
    }
}

/// Turns one row change into entries: two where an update changed the key.
pub fn entries_of(
    change: &Change,
    target: &Arc<Target>,
    stamp: &Stamp,
) -> Result<Vec<Entry>, ApplyError> {
    if let Change::Insert { new, .. } | Change::Update { new, .. } = change {
        target.map.check_missing(new)?;
    }
    if target.map.key.is_none() {
        let whole = whole_row(change, target, stamp).map(Entry::WholeRow);
        return Ok(whole.into_iter().collect());
    }
    let row = |key, made, op, rank| {
        Entry::Row(RowChange {
            target: Arc::clone(target),
            key,
            op,
            made,
            seen: Arc::clone(&stamp.seen),
            time: stamp.time,
            since: stamp.time,
            rank,
            writes: Vec::new(),
        })
    };
    let versions = target.versions();
    let put = |new: &Tuple, insert, moved| {
        RowOp::Put(Put {
            values: new.clone(),
            insert,
            moved,
        })
    };
    let need = |key: Option<KeyValues>| {
        key.ok_or_else(|| ApplyError::KeyMissing {
            table: target.map.label(),
        })
    };
    Ok(match change {
        Change::Insert { new, .. } => {
            let key = need(target.map.key_of(new))?;
            let rank = versions.of_row(new);
            vec![row(key, Made::Insert, put(new, true, false), rank)]
        }
        Change::Update { old, new, .. } => {
            let before = need(target.map.old_key(old.as_ref(), new))?;
            let gone = whole(old.as_ref());
            let new = &filled(new, gone.as_ref());
            let rank = versions.of_row(new);
            match target.map.key_of(new) {
                Some(after) if target.map.one_form(&after) != target.map.one_form(&before) => {
                    let left = versions.of_move(gone.as_ref(), rank.as_ref());
                    let gone = RowOp::Delete(gone);
                    vec![
                        row(before, Made::KeyChange, gone, left),
                        row(after, Made::KeyChange, put(new, true, true), rank),
                    ]
                }
                _ => vec![row(before, Made::Update, put(new, false, false), rank)],
            }
        }
        Change::Delete { old, .. } => {
            let key = need(target.map.key_of(old.tuple()))?;
            let gone = whole(Some(old));
            let rank = versions.of_delete(gone.as_ref(), stamp.delete_clock);
            vec![row(key, Made::Delete, RowOp::Delete(gone), rank)]
        }
        Change::Truncate { .. } | Change::Message { .. } => vec![],
    })
}

/// The old row, where the source sent all of it.
fn whole(old: Option<&OldImage>) -> Option<Tuple> {
    match old {
        Some(OldImage::Full(tuple)) => Some(tuple.clone()),
        _ => None,
    }
}

fn whole_row(change: &Change, target: &Arc<Target>, stamp: &Stamp) -> Option<WholeRowChange> {
    let image = |old: &OldImage| match old {
        OldImage::Key(tuple) | OldImage::Full(tuple) => tuple.clone(),
    };
    let (old, new) = match change {
        Change::Insert { new, .. } => (None, Some(new.clone())),
        Change::Update { old, new, .. } => {
            let old = old.as_ref().map(image);
            let new = filled(new, old.as_ref());
            (old, Some(new))
        }
        Change::Delete { old, .. } => (Some(image(old)), None),
        Change::Truncate { .. } | Change::Message { .. } => return None,
    };
    Some(WholeRowChange {
        target: Arc::clone(target),
        old,
        new,
        time: stamp.time,
        seen: Arc::clone(&stamp.seen),
    })
}

/// The new row with what it left out, where the source sent the old one whole.
fn filled(new: &Tuple, old: Option<&Tuple>) -> Tuple {
    old.map_or_else(|| new.clone(), |old| completed(new, old))
}

/// `newer` with what it left out taken from `older`.
fn completed(newer: &Tuple, older: &Tuple) -> Tuple {
    let pick = |(new, old): (&Value, &Value)| match new {
        Value::Unchanged => old.clone(),
        _ => new.clone(),
    };
    Tuple(newer.0.iter().zip(older.0.iter()).map(pick).collect())
}

/// Collects changes into segments.
#[derive(Debug, Default)]
pub struct GroupBuilder {
    done: Vec<Segment>,
    rows: Vec<Entry>,
    by_key: HashMap<(u32, KeyValues), usize>,
    /// Tables of which rows are deleted, where texts do not tell which keys are one.
    deleted: HashSet<u32>,
}

impl GroupBuilder {
    /// Adds one row change.
    pub fn row(
        &mut self,
        change: &Change,
        target: &Arc<Target>,
        stamp: &Stamp,
    ) -> Result<(), ApplyError> {
        for entry in entries_of(change, target, stamp)? {
            match entry {
                Entry::Row(row) => self.merge(row),
                Entry::WholeRow(_) => self.rows.push(entry),
            }
        }
        Ok(())
    }

    /// What follows spells keys as nothing before does: it comes after all of that.
    pub fn respells(&mut self) {
        self.close_segment();
    }

    /// Adds a truncate: what came before is written first, what follows after.
    pub fn truncate(&mut self, targets: Vec<Arc<Target>>, stamp: Stamp) {
        self.close_segment();
        self.done.push(Segment::Truncate(targets, stamp));
    }

    /// The segments, in the order they must be applied.
    pub fn finish(mut self) -> Vec<Segment> {
        self.close_segment();
        self.done
    }

    fn close_segment(&mut self) {
        if !self.rows.is_empty() {
            self.done
                .push(Segment::Rows(std::mem::take(&mut self.rows)));
        }
        self.by_key.clear();
        self.deleted.clear();
    }

    fn merge(&mut self, row: RowChange) {
        let (map, oid) = (&row.target.map, row.target.map.table.oid);
        let slot = (oid, map.one_form(&row.key));
        if map.has_open_key() {
            // A key that is new may be one that was deleted in another spelling. Nothing else
            // brings two spellings of one key together (`respells`).
            if row.is_insert() && self.deleted.contains(&oid) && !self.by_key.contains_key(&slot) {
                self.close_segment();
            }
            if matches!(row.op, RowOp::Delete(_)) {
                self.deleted.insert(oid);
            }
        }
        let Some(&place) = self.by_key.get(&slot) else {
            self.by_key.insert(slot, self.rows.len());
            self.rows.push(Entry::Row(row));
            return;
        };
        match &mut self.rows[place] {
            Entry::Row(earlier)
                if Arc::ptr_eq(&earlier.target, &row.target)
                    && !gives_back_a_value(earlier, &row) =>
            {
                earlier.followed_by(row);
            }
            _ => {
                self.close_segment();
                self.merge(row);
            }
        }
    }
}

fn is_deferrable(target: &Target) -> bool {
    target
        .map
        .table
        .key
        .as_ref()
        .is_some_and(|key| key.deferrable)
}

impl RowChange {
    /// Makes this the net change of itself and the next one of its key.
    fn followed_by(&mut self, later: Self) {
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

/// Whether only the two changes apart show that somebody may have had a unique value on the target
/// which the first one took and the second one gave back.
fn gives_back_a_value(earlier: &RowChange, later: &RowChange) -> bool {
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
