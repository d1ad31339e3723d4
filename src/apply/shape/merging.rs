//! What becomes of a change where rows merge (`conflict::Image`): the state that a target has for a
//! key, joined with what arrives. Pure.

use std::collections::BTreeMap;

use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::op::RowOp;
use crate::conflict::{
    Cell, Counter, Decimal, Image, Merge, MergeState, Rank, STATE_COLUMN, Stamp, Verdict,
};
use crate::pgoutput::{Tuple, Value};

/// How the rows of a table merge.
#[derive(Debug, Clone)]
pub struct Merging {
    by_column: bool,
    /// Indexes among the source's columns.
    version: usize,
    state: usize,
    names: Vec<String>,
    counters: Vec<bool>,
    /// Not for the columns that the target computes.
    written: Vec<bool>,
}

/// The tombstone of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grave {
    /// The version of the newest delete; nothing where it has none.
    pub rank: Option<Rank>,
    /// The row as it was, with what has arrived since; nothing where it was not kept.
    pub image: Option<Tuple>,
}

/// What a target has for a key. Rows are in the order of the source's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The row.
    pub row: Option<Tuple>,
    /// The tombstone.
    pub grave: Option<Grave>,
}

/// What is written for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Nothing: all of it is there.
    Nothing,
    /// There is no row: this one.
    Insert(Tuple),
    /// Some values of the row.
    Update {
        /// These; what stays is `Unchanged`.
        changed: Tuple,
        /// The row with them.
        row: Tuple,
    },
    /// The row goes and leaves this tombstone.
    Delete(Grave),
    /// There is no row; this tombstone takes the place of the one there.
    Remember(Grave),
}

impl Merging {
    /// For the source's columns of `map`, of which `version` holds the row's version. An error
    /// names a column that is missing.
    pub(in crate::apply) fn new(
        merge: &Merge,
        version: usize,
        map: &TableMap,
    ) -> Result<Self, &'static str> {
        let columns = &map.columns;
        let state = columns
            .iter()
            .position(|column| column.name == STATE_COLUMN && column.written);
        Ok(Self {
            by_column: merge.by_column,
            version,
            state: state.ok_or(STATE_COLUMN)?,
            counters: columns
                .iter()
                .map(|column| merge.counters.contains(&column.name))
                .collect(),
            names: columns.iter().map(|column| column.name.clone()).collect(),
            written: columns.iter().map(|column| column.written).collect(),
        })
    }

    /// When and where a row was last written.
    pub(in crate::apply) fn version_of(&self, row: &Tuple) -> Option<Stamp> {
        let clock = row.0.get(self.version)?.as_bytes()?;
        let clock = std::str::from_utf8(clock).ok()?.parse().ok()?;
        let node = self.state_of(row).node;
        Some(Stamp { clock, node })
    }

    fn state_of(&self, row: &Tuple) -> MergeState {
        let text = row.0.get(self.state).and_then(Value::as_bytes);
        text.map_or_else(MergeState::default, |text| MergeState::read(text))
    }

    /// A row with the clocks of what it holds.
    fn image(&self, row: &Tuple) -> Image<Value> {
        let mut state = self.state_of(row);
        let cells = row.0.iter().enumerate().map(|(index, value)| {
            let name = &self.names[index];
            let counter = self.counters[index].then(|| {
                let counted = state.counters.remove(name);
                counted.or_else(|| uncounted(value))
            });
            if let Some(counter) = counter.flatten() {
                return Cell::Counter(counter);
            }
            let is_ours = index == self.version || index == self.state;
            let set = state.columns.remove(name).filter(|_| self.by_column);
            // What stands in mmrepl's own columns is in the image itself.
            let skipped = is_ours || !self.written[index];
            let value = if skipped { Value::Null } else { value.clone() };
            Cell::Register { set, value }
        });
        let cells = cells.collect();
        let version = self.version_of(row);
        Image { version, cells }
    }

    /// The row of an image.
    fn row(&self, image: &Image<Value>) -> Tuple {
        let text = |text: String| Value::Text(text.into());
        let values = image.cells.iter().map(|cell| match cell {
            Cell::Register { value, .. } => value.clone(),
            Cell::Counter(counter) => text(counter.value().to_string()),
        });
        let mut values: Vec<Value> = values.collect();
        let version = image.version.as_ref();
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        values[self.version] = or_null(version.map(|stamp| text(stamp.clock.to_string())));
        values[self.state] = or_null(version.map(|stamp| text(self.written_state(image, stamp))));
        values.into()
    }

    fn written_state(&self, image: &Image<Value>, version: &Stamp) -> String {
        let (mut columns, mut counters) = (BTreeMap::new(), BTreeMap::new());
        for (name, cell) in self.names.iter().zip(&image.cells) {
            match cell {
                Cell::Register { set, .. } => {
                    columns.extend(set.clone().map(|set| (name.clone(), set)));
                }
                Cell::Counter(counter) => {
                    counters.insert(name.clone(), counter.clone());
                }
            }
        }
        let node = version.node.clone();
        MergeState {
            node,
            columns,
            counters,
        }
        .write()
    }

    /// What `new` has instead of the values of `old`.
    fn changed(&self, old: &Tuple, new: &Tuple) -> Tuple {
        let columns = old.0.iter().zip(new.0.iter()).zip(&self.written);
        let changed = |((old, new), written): ((&Value, &Value), &bool)| {
            if *written && old != new {
                new.clone()
            } else {
                Value::Unchanged
            }
        };
        Tuple(columns.map(changed).collect())
    }

    /// Joins what a target has `kept` with a change, whose `rank` counts where it is a delete;
    /// `wins` says whether the change is the newer where neither has a version. Also tells whose
    /// row it is now.
    pub fn merge(
        &self,
        op: &RowOp,
        rank: Option<&Rank>,
        kept: &Kept,
        wins: bool,
    ) -> (Merged, Verdict) {
        let (incoming, deleted) = match op {
            RowOp::Put(put) => (Some(&put.values), None),
            RowOp::Delete(old) => (old.as_ref(), rank.cloned()),
        };
        let grave = kept.grave.clone().unwrap_or_default();
        let there = kept.row.as_ref().map(|row| self.image(row));
        let buried = grave.image.as_ref().map(|row| self.image(row));
        let held = joined(there.as_ref(), buried.as_ref());
        let arriving = incoming.map(|row| self.image(row));
        let image = if wins {
            joined(arriving.as_ref(), held.as_ref())
        } else {
            joined(held.as_ref(), arriving.as_ref())
        };
        let rank = grave.rank.clone().max(deleted);
        let version = image.as_ref().and_then(|image| image.version.clone());
        let stands = match &rank {
            None => kept.row.is_some() || wins,
            Some(_) => version.map(Rank::of_stamp) > rank,
        };
        let is_put = matches!(op, RowOp::Put(_));
        let verdict = match (stands, is_put) {
            (false, true) => Verdict::Discard,
            (false, false) => Verdict::Apply,
            (true, true) if image == arriving => Verdict::Apply,
            (true, _) if image == held => Verdict::Discard,
            (true, _) => Verdict::Merge,
        };
        let same_grave = kept.grave.is_some() && grave.rank == rank && held == image;
        let row = image.as_ref().map(|image| self.row(image));
        let merged = match (stands, &kept.row, row, image) {
            (true, Some(old), Some(row), image) if there != image => Merged::Update {
                changed: self.changed(old, &row),
                row,
            },
            (true, None, Some(row), _) => Merged::Insert(row),
            (true, ..) => Merged::Nothing,
            (false, Some(_), image, _) => Merged::Delete(Grave { rank, image }),
            (false, None, ..) if same_grave => Merged::Nothing,
            (false, None, image, _) => Merged::Remember(Grave { rank, image }),
        };
        (merged, verdict)
    }
}

/// A counter that nobody has counted with yet: what every node had at first.
fn uncounted(value: &Value) -> Option<Counter> {
    let from: Decimal = std::str::from_utf8(value.as_bytes()?).ok()?.parse().ok()?;
    let node = String::new();
    Some(Counter::new(Stamp { clock: 0, node }, from))
}

/// The join of two images, either of which may be missing.
fn joined(one: Option<&Image<Value>>, other: Option<&Image<Value>>) -> Option<Image<Value>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.join(other)),
        (one, other) => one.or(other).cloned(),
    }
}
