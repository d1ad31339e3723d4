//! The SQL that keeps when rows were written, where their transaction is stamped with another time.
//! Pure.

use std::fmt::Write as _;

use crate::apply::shape::keys::row_text;
use crate::apply::shape::mapping::TableMap;
use crate::catalog::key_text::key_expression;

/// Keeps the times of rows of one table. Parameters: one text array per column of the key, or per
/// written column where there is none; the times.
///
/// The number of a transaction long ago may come round again.
pub(in crate::apply) fn keep(map: &TableMap) -> String {
    let types = types_of(map);
    let (mut arrays, mut names) = (String::new(), String::new());
    for position in 1..=types.len() {
        let _ = write!(arrays, "${position}::text[], ");
        let _ = write!(names, "k{position}, ");
    }
    let value = |index: usize| format!("k.k{}::{}", index + 1, types[index]);
    let text = match &map.table.key {
        Some(key) => format!("({})::text", key_expression(key, |index, _| value(index))),
        None => row_text((0..types.len()).map(value)),
    };
    format!(
        "insert into mmrepl.source_time (xid, relation, keys, times) \
         select pg_current_xact_id()::xid::text::int8, {}, \
         array_agg(hashtextextended({text} collate \"C\", 0)), array_agg(k.at) \
         from unnest({arrays}${}::timestamptz[]) k({names}at) \
         on conflict (xid, relation) do update set keys = excluded.keys, times = excluded.times, \
         left_at = excluded.left_at",
        map.table.oid,
        types.len() + 1,
    )
}

/// The types of what tells a row of the table from others.
pub(in crate::apply) fn types_of(map: &TableMap) -> Vec<&str> {
    match &map.table.key {
        Some(key) => key.columns.iter().map(|c| c.type_name.as_str()).collect(),
        None => map
            .written()
            .map(|index| map.columns[index].type_name.as_str())
            .collect(),
    }
}
