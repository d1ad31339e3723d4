//! The SQL that asks when a table without a key was emptied, and records what does not come. Pure.

use crate::apply::shape::guard::{Guard, Place};
use crate::apply::shape::keys::rows_of;
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql;

/// Takes the lock of a writer, before anything is written.
pub(in crate::apply) fn hold(map: &TableMap) -> String {
    format!("lock table {} in row exclusive mode", rows_of(map))
}

/// When the table was emptied last, and by whom, with the columns that `Origins::held` reads.
pub(in crate::apply) fn truncates(map: &TableMap, guard: &Guard) -> String {
    format!(
        "select {}, x.version from mmrepl.tombstone x where {}",
        guard.written(map, Place::Tombstone("x")),
        of_table(map)
    )
}

/// A row where the table was emptied after a time. Parameter: the time.
pub(in crate::apply) fn newer_truncate(map: &TableMap, guard: &Guard) -> String {
    let older = guard.older(Place::Tombstone("x"), map, "$1::timestamptz");
    let which = of_table(map);
    format!("select 1 from mmrepl.tombstone x where {which} and not {older}")
}

fn of_table(map: &TableMap) -> String {
    format!("x.relation = {} and x.key = ''", map.table.oid)
}

/// Records a row that does not come. Parameters: source, target, kind, outcome, names and values
/// of the row, its time, and when and by whom the table was emptied.
pub(in crate::apply) fn record(map: &TableMap, guard: &Guard, third: &[(u32, String)]) -> String {
    let origin = sql::history::origin_of_rival(third, "$9");
    sql::history::record_without_key(map, guard, &origin)
}
