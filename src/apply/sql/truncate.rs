//! The SQL of a truncate: which rows it takes, which it must leave, what of it is recorded. Pure.

use postgres_protocol::escape::escape_literal as literal;

use crate::apply::shape::guard::{Guard, Place, forged, rewritten, version_query};
use crate::apply::shape::keys::{key_of, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql::history::{COLUMNS, key_names};
use crate::apply::sql::names::{names, printed, row_values, written};

/// Keeps writers away from the tables of a truncate while their rows are judged.
pub(in crate::apply) fn lock_tables(maps: &[&TableMap]) -> String {
    let names: Vec<String> = maps.iter().map(|map| rows_of(map)).collect();
    format!("lock table {} in access exclusive mode", names.join(", "))
}

/// Empties the tables. Sequences keep their values: each node draws from its own.
pub(in crate::apply) fn truncate(maps: &[&TableMap]) -> String {
    let names: Vec<String> = maps.iter().map(|map| rows_of(map)).collect();
    format!("truncate {}", names.join(", "))
}

/// Leaves the tombstone of a whole table, unless a newer one is there. Parameter: commit time.
pub(in crate::apply) fn leave_table_tombstone(map: &TableMap, guard: &Guard) -> String {
    format!(
        "insert into mmrepl.tombstone as t (relation, key) values ({}, '') \
         on conflict (relation, key, bulk) do update set left_at = excluded.left_at where {}",
        map.table.oid,
        guard.older(Place::Tombstone("t"), map, "$1::timestamptz")
    )
}

/// "The row `t` was written by another node, and the source of the truncate did not know it".
fn unknown_row(map: &TableMap, guard: &Guard) -> String {
    let written = "(pg_xact_commit_timestamp_origin(t.xmin))";
    let unknown = |written: &str, at: &str| {
        let above = guard.above_floor(written, at, |n| format!("${n}::timestamptz"));
        format!("not {} and {above}", guard.by_source(written))
    };
    format!(
        "case when {} then (select coalesce({}, false) from {} b) else {} end",
        rewritten("t"),
        unknown("b", "b.\"timestamp\""),
        version_query("t"),
        unknown(written, &row_time(map, guard)),
    )
}

/// When the row `t` was written.
fn row_time(map: &TableMap, guard: &Guard) -> String {
    guard.time_of(Place::Row("t"), map)
}

/// "The row `t` is older than `time`".
fn older_row(map: &TableMap, guard: &Guard, time: &str) -> String {
    guard.older(Place::Row("t"), map, time)
}

/// The number of the parameter with the truncate's time.
fn time(guard: &Guard) -> String {
    format!("${}::timestamptz", 1 + guard.floors())
}

/// Rows that the source of a truncate did not know; and what it must spare, rows or a tombstone of
/// the whole table; and whether of the former some may be older after all (`rewrites`). Parameters:
/// the floors, the time.
pub(in crate::apply) fn judge_rows(map: &TableMap, guard: &Guard) -> String {
    let older = older_row(map, guard, &time(guard));
    let older_truncate = guard.older(Place::Tombstone("t"), map, &time(guard));
    format!(
        "select count(*) filter (where {})::text, (count(*) filter (where not {older}) + \
         (select count(*) from mmrepl.tombstone t where t.relation = {} and t.key = '' \
         and not {older_truncate}))::text, \
         coalesce(bool_or(not {older} and {}), false)::text from {} t",
        unknown_row(map, guard),
        map.table.oid,
        forged("t"),
        rows_of(map)
    )
}

/// Records the rows that the source of a truncate did not know. Parameters: the floors, the time,
/// source, target, how many at most.
pub(in crate::apply) fn record_truncated(
    map: &TableMap,
    guard: &Guard,
    third: &[(u32, String)],
) -> String {
    let parameter = |more: usize| format!("${}", 1 + guard.floors() + more);
    let (source, target) = (parameter(1), parameter(2));
    let (schema, table) = (literal(&map.table.schema), literal(&map.table.name));
    let key: Vec<String> = key_of(map).iter().map(|c| printed("t", &c.name)).collect();
    let key = match map.table.key {
        Some(_) => format!("array[{}]::text[]", key.join(", ")),
        None => "null".to_owned(),
    };
    let when = |id: u32, node: &str| format!("when {id} then {}", literal(node));
    let all = |(id, node): &(u32, String)| -> Vec<String> {
        guard.both(*id).map(|id| when(id, node)).collect()
    };
    let nodes: Vec<String> = third.iter().flat_map(all).collect();
    let node = match third {
        [] => format!("{target}::text"),
        _ => format!("case w.roident {} else {target}::text end", nodes.join(" ")),
    };
    format!(
        "insert into mmrepl.conflict ({COLUMNS}) \
         select {source}, {target}, {schema}, {table}, {}, {key}, 'truncate', 'last_write_wins', \
         case when {} then 'applied' else 'kept_local' end, \
         null, null, {}, {}, {}, {}, {}, {node}, w.roident \
         from {} t, lateral {} w where {} limit {}::int8",
        key_names(map),
        older_row(map, guard, &time(guard)),
        time(guard),
        guard.origin,
        names(written(map)),
        row_values(map),
        row_time(map, guard),
        rows_of(map),
        version_query("t"),
        unknown_row(map, guard),
        parameter(3),
    )
}

/// Deletes every row older than the time. Parameters: the time.
pub(in crate::apply) fn delete_older(map: &TableMap, guard: &Guard) -> String {
    format!(
        "delete from {} t where {}",
        rows_of(map),
        older_row(map, guard, "$1::timestamptz")
    )
}
