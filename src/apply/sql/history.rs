//! The SQL that records conflicts, and that looks for them under a truncate. Pure.
//!
//! The row that the target holds is copied by the server itself, inside the statement, so it is
//! exactly what was there and does not travel. Values are recorded as the types' output functions
//! print them under the session's pinned settings, which is what they are restored from.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal as literal;

use crate::apply::encode::params::array_literal;
use crate::apply::shape::guard::{Guard, Place, forged, rewritten, version_query};
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql::one_row::{key_matches, key_of, key_text, printed, rows_of};

/// Parameters of [`record`] before the key's.
pub(in crate::apply) const RECORD_PARAMETERS: usize = 13;

const COLUMNS: &str = "source, target, schema_name, table_name, key_columns, key_values, kind, \
     rule, outcome, incoming_columns, incoming_values, incoming_time, incoming_origin, \
     local_columns, local_values, local_time, local_node, local_origin";

/// Columns of the target that an insert may set.
pub(in crate::apply) fn written(map: &TableMap) -> impl Iterator<Item = &str> {
    let columns = map.table.columns.iter().filter(|column| !column.generated);
    columns.map(|column| column.name.as_str())
}

/// A `text[]` of names.
pub(in crate::apply) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let array = array_literal(names.map(|name| Some(name.as_bytes())));
    format!("{}::text[]", literal(&String::from_utf8_lossy(&array)))
}

/// The row `t` of the table as a `text[]`.
pub(in crate::apply) fn row_values(map: &TableMap) -> String {
    let values: Vec<String> = written(map).map(|name| printed("t", name)).collect();
    format!("array[{}]::text[]", values.join(", "))
}

/// Names of the key's columns; `null` for a table without one.
fn key_names(map: &TableMap) -> String {
    if map.table.key.is_none() {
        return "null".to_owned();
    }
    names(key_of(map).iter().map(|column| column.name.as_str()))
}

/// Records one conflict. Parameters: `$1` source, `$2` target, `$3` key values, `$4` kind, `$5`
/// outcome, `$6` and `$7` names and values of the incoming row, `$8` its time, `$9` and `$10` time
/// and node of what the target held, `$11` and `$12` the versions of both in their rows, `$13`
/// whether that was a row: one may be there by now that was written since; then the key.
pub(in crate::apply) fn record(
    map: &TableMap,
    guard: &Guard,
    rule: &str,
    origin_of_rival: &str,
) -> String {
    let (schema, table) = (literal(&map.table.schema), literal(&map.table.name));
    format!(
        "insert into mmrepl.conflict ({COLUMNS}, incoming_version, local_version) \
         select $1, $2, {schema}, {table}, {}, $3::text[], $4, {}, $5, \
         $6::text[], $7::text[], $8::timestamptz, {}, \
         l.names, l.vals, $9::timestamptz, $10, {origin_of_rival}, $11, $12 \
         from (select 1) one left join ({} limit 1) l on $13::bool",
        key_names(map),
        literal(rule),
        guard.origin,
        held(map),
    )
}

/// Records a row of a table without a key that a truncate takes. Parameters: `$1` source, `$2`
/// target, `$3` kind, `$4` outcome, `$5` and `$6` names and values of the row, `$7` its time, `$8`
/// and `$9` time and node of the truncate.
pub(in crate::apply) fn record_without_key(
    map: &TableMap,
    guard: &Guard,
    origin_of_rival: &str,
) -> String {
    let (schema, table) = (literal(&map.table.schema), literal(&map.table.name));
    format!(
        "insert into mmrepl.conflict ({COLUMNS}) \
         select $1, $2, {schema}, {table}, null, null, $3, 'last_write_wins', $4, \
         $5::text[], $6::text[], $7::timestamptz, {}, \
         null, null, $8::timestamptz, $9, {origin_of_rival}",
        guard.origin,
    )
}

/// The row that the target holds for the key, in the table or kept aside.
fn held(map: &TableMap) -> String {
    let mut held = format!(
        "select {} as names, {} as vals from {} t where {}",
        names(written(map)),
        row_values(map),
        rows_of(map),
        key_matches(map, "t", 1 + RECORD_PARAMETERS),
    );
    if !map.table.uniques.is_empty() {
        let (oid, key) = (map.table.oid, key_text(map, 1 + RECORD_PARAMETERS));
        let _ = write!(
            held,
            " union all select s.names, s.vals from mmrepl.shadow s \
             where s.relation = {oid} and s.key = {key}"
        );
    }
    held
}

/// The number of the origin of the node that a parameter names.
pub(in crate::apply) fn origin_of_rival(third: &[(u32, String)], parameter: &str) -> String {
    if third.is_empty() {
        return "0".to_owned();
    }
    let cases: Vec<String> = third
        .iter()
        .map(|(id, node)| format!("when {} then {id}", literal(node)))
        .collect();
    format!("case {parameter}::text {} else 0 end", cases.join(" "))
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
