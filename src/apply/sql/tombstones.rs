//! The SQL around tombstones: looks at them, and leaves them where no row is. Pure.

use std::fmt::Write as _;

use crate::apply::shape::guard::{Guard, Place};
use crate::apply::shape::keys::{key_of, key_text};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql;
use crate::catalog::key_text::key_expression;
use crate::catalog::table::KeyColumn;

/// The tombstones that cover a key. Parameters: the key. Columns: micros, origin, version, and
/// whether this very transaction deleted the key.
pub(in crate::apply) fn tombstones(map: &TableMap, guard: &Guard) -> String {
    format!(
        "select {}, x.version, \
         (x.key <> '' and x.xmin = pg_current_xact_id()::xid)::text \
         from mmrepl.tombstones_of({}, {}) x",
        guard.written(map, Place::Tombstone("x")),
        map.table.oid,
        key_text(map, 1)
    )
}

/// Those of the given tables that have any tombstone, in a row of its own or in a block. Each is
/// looked up in the index by itself, whatever the server believes of how many there are: in the
/// index's order the first one is the cheapest to find.
pub(in crate::apply) const WITH_TOMBSTONES: &str = "\
select w.relation from pg_catalog.unnest($1::pg_catalog.oid[]) w (relation) \
cross join lateral ((select from mmrepl.tombstone x where x.relation = w.relation \
order by x.key limit 1) union all (select from mmrepl.tombstone_block b \
where b.relation = w.relation order by b.kind, b.layer limit 1) limit 1) found";

/// Leaves a tombstone for a key that has no row. Parameters: the key, and the delete's version
/// where rows carry theirs.
pub(in crate::apply) fn leave_tombstone(map: &TableMap, versions: &Versions) -> String {
    if versions.merging().is_some() {
        return sql::merging::bury(map);
    }
    format!(
        "insert into mmrepl.tombstone (relation, key, version) values ({}, {}, {}) {NEW_TOMBSTONE}",
        map.table.oid,
        key_text(map, 1),
        delete_version(map, versions)
    )
}

/// Leaves a tombstone for a key that has no row, where one is needed: see
/// `mmrepl.applies_from_only_peer`. Parameters as of [`leave_tombstone`].
pub(in crate::apply) fn leave_needed_tombstone(map: &TableMap, versions: &Versions) -> String {
    if versions.is_in_row() {
        return leave_tombstone(map, versions);
    }
    let (oid, key) = (map.table.oid, key_text(map, 1));
    format!(
        "insert into mmrepl.tombstone (relation, key) select {oid}, {key} \
         where not mmrepl.applies_from_only_peer() or exists (select \
         from mmrepl.tombstones_of({oid}, {key}) x where x.key <> '') {NEW_TOMBSTONE}"
    )
}

/// Leaves a tombstone for a key that has no row beside the newest one that the key has, which
/// stays. Parameters as of [`leave_tombstone`].
pub(in crate::apply) fn leave_tombstone_beside(map: &TableMap, versions: &Versions) -> String {
    let (oid, key) = (map.table.oid, key_text(map, 1));
    format!(
        "insert into mmrepl.tombstone (relation, key, version, bulk) \
         select {oid}, {key}, {}, coalesce((select not x.bulk \
         from mmrepl.tombstones_of({oid}, {key}) x where x.key <> '' \
         order by x.left_at desc limit 1), false) {NEW_TOMBSTONE}",
        delete_version(map, versions)
    )
}

/// A tombstone takes the place of the one that is there.
const NEW_TOMBSTONE: &str = "on conflict (relation, key, bulk) do update \
     set left_at = excluded.left_at, version = excluded.version";

/// The delete's version, the parameter after the key, where rows carry theirs.
fn delete_version(map: &TableMap, versions: &Versions) -> String {
    if versions.is_in_row() {
        format!("${}::text", 1 + key_of(map).len())
    } else {
        "null::text".to_owned()
    }
}

/// Deletes of the keys just inserted that are newer, or that the source did not know of.
///
/// Parameters: one text array per key column, then one array of times per floor. Columns: which of
/// the keys, from 1; micros, origin and version of the delete. Where rows carry their version, all
/// deletes by others: time does not tell which is newer. What this very transaction deleted, the
/// source deleted after the insert.
pub(in crate::apply) fn deletes_above(
    map: &TableMap,
    guard: &Guard,
    versions: &Versions,
) -> String {
    let keys = key_of(map);
    let (mut arrays, mut names) = (String::new(), String::new());
    for position in 1..=keys.len() {
        let _ = write!(arrays, "${position}::text[], ");
        let _ = write!(names, "k{position}, ");
    }
    for floor in 1..=guard.floors() {
        let _ = write!(arrays, "${}::timestamptz[], ", keys.len() + floor);
        let _ = write!(names, "f{floor}, ");
    }
    let value =
        |index: usize, column: &KeyColumn| format!("k.k{}::{}", index + 1, column.type_name);
    let which = if versions.merging().is_some() {
        // Each may have something for the row.
        "true".to_owned()
    } else if versions.is_in_row() {
        format!(
            "not coalesce({}, false) and x.xmin <> pg_current_xact_id()::xid",
            guard.by_source("w")
        )
    } else {
        // Where a transaction's time is too late, too many are asked about: their own times follow.
        let above = guard.above_floor("w", "w.\"timestamp\"", |n| format!("k.f{n}"));
        format!("not {} and {above}", guard.by_source("w"))
    };
    let key = map.table.key.as_ref();
    let text = key.map_or_else(String::new, |key| key_expression(key, value));
    format!(
        "select k.n::text, {}, x.version \
         from unnest({}) with ordinality k({names}n), \
         mmrepl.tombstones_of({}, ({text})::text) x, pg_xact_commit_timestamp_origin(x.xmin) w \
         where {which}",
        guard.written(map, Place::Tombstone("x")),
        arrays.trim_end_matches(", "),
        map.table.oid,
    )
}
