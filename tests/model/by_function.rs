//! Rule `custom`: a function that is neither associative nor commutative, nor keeps every row.

use mmrepl::apply::pure::{RowChange, take};
use mmrepl::conflict::{Rank, Sibling};
use mmrepl::pgoutput::Tuple;

use crate::applying::{Applying, RolledBack, kept, key_of};
use crate::cluster::Cluster;
use crate::history::NAMES;
use crate::node::{Beside, KEY_COUNT, Row, Stamp, Values, whole};
use crate::table::column;
use crate::versions::{self, Kept};

/// The function of the user. Two of nine rows it makes are none.
fn made_of(a: Option<Values>, b: Option<Values>) -> Option<Values> {
    let side = |values: Option<Values>| values.map_or(7, |(small, large, _)| mixed(small, large));
    let both = mixed(side(a).wrapping_mul(3), side(b).wrapping_add(5));
    (both % 9 > 1).then(|| (both, mixed(both, 11), 0))
}

fn mixed(one: u16, other: u16) -> u16 {
    let mixed = u32::from(one) * 40_503 + u32::from(other) * 2_654 + 97;
    u16::try_from((mixed ^ (mixed >> 13)) % 60_013).expect("below 60,013")
}

/// The fold, stated once more: two deletes are one.
fn folded(sides: impl IntoIterator<Item = Option<Values>>) -> Option<Values> {
    let both = |a: Option<Values>, b: Option<Values>| match (a, b) {
        (None, None) => None,
        _ => made_of(a, b),
    };
    sides.into_iter().reduce(both).flatten()
}

fn values_of(row: &Tuple) -> Values {
    let value = |index| column(row, index).expect("a whole row");
    (value(1), value(2), column(row, 4).unwrap_or(0))
}

impl Applying<'_> {
    fn sibling(&self, key: usize, values: Option<Values>, known: Kept) -> Sibling<Tuple> {
        let row = |(small, large, taken)| Row {
            small,
            large,
            taken,
            version: known,
            stamp: Stamp::Own,
        };
        let version = versions::rank(self.strategy, known);
        Sibling {
            version: version.unwrap_or_else(Rank::knowing_nothing),
            row: values.map(|values| whole(self.strategy, key, row(values))),
        }
    }

    /// `Applier::settle_custom`.
    pub(crate) fn settle_custom(&mut self, change: &RowChange) -> Result<(), RolledBack> {
        let key = key_of(change);
        let row = self.state.rows[key];
        let holds = match (row, self.local(key).known()) {
            (None, None) => None,
            (row, known) => Some(self.sibling(key, row.map(Row::values), kept(known.as_ref()))),
        };
        let beside = self.state.siblings[key].iter().flatten();
        let beside = beside.map(|own| self.sibling(key, own.values, own.known));
        let beside = beside.collect();
        let Some(taken) = take(change, holds, beside) else {
            return Ok(());
        };
        let all = taken.siblings.in_order(self.names);
        let values = |sibling: &Sibling<Tuple>| sibling.row.as_ref().map(values_of);
        let result = folded(all.iter().map(|(_, sibling)| values(sibling)));
        let known = taken.siblings.known();
        let mut kept_now = [None; 3];
        if taken.siblings.only().is_none() {
            for (slot, (_, sibling)) in kept_now.iter_mut().zip(&all) {
                *slot = Some(Beside {
                    values: values(sibling),
                    known: kept(Some(&sibling.version)),
                });
            }
        }
        assert!(all.len() <= 3, "one for each node");
        self.state.siblings[key] = kept_now;
        let version = kept(known.as_ref());
        match result {
            Some(values) => {
                let written = self.sibling(key, Some(values), version);
                self.put(key, &written.row.expect("a row"))?;
                if row.is_none() {
                    self.inserted.push((key, change.since, known));
                }
            }
            None if row.is_some() => self.state.remove(key, version),
            None => self.state.remember(key, version),
        }
        Ok(())
    }
}

impl Cluster {
    /// Every node has what the function makes of the writes that no other knew, in their order.
    pub(crate) fn end_by_function(&mut self) -> Result<(), String> {
        self.all_equal()?;
        let wanted: [Option<Values>; KEY_COUNT] = std::array::from_fn(|key| {
            let mut sides = self.pasts.strangers(key);
            sides.sort_by_key(|(node, _)| NAMES[usize::from(*node)]);
            folded(sides.into_iter().map(|(_, values)| values))
        });
        if self.nodes[0].state.values() == wanted {
            return Ok(());
        }
        Err(format!("wanted {wanted:?}\n{}", self.report()))
    }
}
