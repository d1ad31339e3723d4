//! Which values a conflict has dropped. Pure.
//!
//! Usually one of the two rows lost whole. Where rows merge column by column, both writes won and
//! both lost: of the columns that a write itself has set, those are lost in which the other row has
//! a newer value. Columns that it only carried along are not. Counters lose nothing.

use super::model::{Column, Conflict, Side};
use crate::conflict::{COUNT_COLUMN, MergeState, STATE_COLUMN};

/// The values to write over a row that is there, to bring back what lost. Of a delete, nothing.
pub(super) fn lost_values(conflict: &Conflict) -> Vec<Column> {
    let sides = [&conflict.incoming, &conflict.local].map(Image::of);
    let [incoming, local] = &sides;
    if incoming.state.columns.is_empty() || local.state.columns.is_empty() {
        let loser = Image::of(conflict.loser());
        let adds = |column: &&Column| loser.state.counters.contains_key(&column.name);
        return loser.row.iter().filter(|c| !adds(c)).cloned().collect();
    }
    let mut lost = incoming.lost_against(local);
    lost.extend(local.lost_against(incoming));
    lost
}

/// One of the two rows with its clocks.
struct Image<'a> {
    row: &'a [Column],
    state: MergeState,
}

impl<'a> Image<'a> {
    fn of(side: &'a Side) -> Self {
        let row = side.row.as_deref().unwrap_or_default();
        let state = text(row, STATE_COLUMN).map(|text| MergeState::read(text.as_bytes()));
        Self {
            row,
            state: state.unwrap_or_default(),
        }
    }

    /// What its last write has set and `other` has newer.
    fn lost_against(&self, other: &Self) -> Vec<Column> {
        let written = text(self.row, COUNT_COLUMN).and_then(|clock| clock.parse::<i64>().ok());
        let lost = |column: &&Column| {
            let set = self.state.columns.get(&column.name);
            let newer = set < other.state.columns.get(&column.name);
            let own = set.is_some_and(|set| Some(set.clock) == written);
            own && newer && other.value(&column.name) != Some(&column.value)
        };
        self.row.iter().filter(lost).cloned().collect()
    }

    fn value(&self, name: &str) -> Option<&Option<String>> {
        let column = self.row.iter().find(|column| column.name == name);
        column.map(|column| &column.value)
    }
}

fn text<'a>(row: &'a [Column], name: &str) -> Option<&'a str> {
    let column = row.iter().find(|column| column.name == name)?;
    column.value.as_deref()
}
