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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::{
    Entry, RowChange, Stamp, WholeRowChange, completed, gives_back_a_value,
};
use crate::apply::shape::mapping::KeyValues;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::target::statement::Target;
use crate::assemble::Change;
use crate::conflict::Made;
use crate::pgoutput::{OldImage, Tuple};

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
