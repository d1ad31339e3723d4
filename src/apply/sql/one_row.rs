//! The SQL that writes and looks at one row. Pure.
//!
//! Every parameter is text and cast to the column's type, so that a value arrives exactly as the
//! source's output function printed it. The session's search path is empty: names are qualified.
//!
//! A *guarded* statement touches a row only where the row is older than the change, judged on the
//! row version that the statement locks (PostgreSQL evaluates the guard again when it had to wait
//! for a concurrent writer, manual 13.2.1). How many rows it took tells whether it won.

use std::fmt::Write as _;

use postgres_protocol::escape::{escape_identifier as quote, escape_literal};

use crate::apply::encode::binary;
use crate::apply::shape::guard::{Guard, Place, forged};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql;
use crate::catalog::key_text::key_expression;
use crate::catalog::table::KeyColumn;

/// The table's own rows: without those of tables that inherit from it, which are sent by
/// themselves.
pub(in crate::apply) fn rows_of(map: &TableMap) -> String {
    map.table.only()
}

/// `t.key = $first::type and …`, with the key index's own equality operators.
pub(in crate::apply) fn key_matches(map: &TableMap, alias: &str, first: usize) -> String {
    let terms = key_of(map).iter().enumerate().map(|(index, column)| {
        format!(
            "{alias}.{} {} ${}::{}",
            quote(&column.name),
            column.equality,
            first + index,
            column.type_name
        )
    });
    terms.collect::<Vec<_>>().join(" and ")
}

pub(in crate::apply) fn key_of(map: &TableMap) -> &[KeyColumn] {
    map.table
        .key
        .as_ref()
        .map_or(&[], |key| key.columns.as_slice())
}

/// The key's canonical text with parameters from `$first` on, as tombstones store it.
pub(in crate::apply) fn key_text(map: &TableMap, first: usize) -> String {
    let value =
        |index: usize, column: &KeyColumn| format!("${}::{}", first + index, column.type_name);
    map.table.key.as_ref().map_or_else(String::new, |key| {
        format!("({})::text", key_expression(key, value))
    })
}

/// The same of the row version `alias`; in a table without a key, the text of the whole row.
pub(in crate::apply) fn key_text_of(map: &TableMap, alias: &str) -> String {
    let Some(key) = &map.table.key else {
        let names = map.written().map(|index| quote(&map.columns[index].name));
        return row_text(names.map(|name| format!("{alias}.{name}")));
    };
    let value = |_, column: &KeyColumn| format!("{alias}.{}", quote(&column.name));
    format!("({})::text", key_expression(key, value))
}

/// The text of a row of these values.
pub(in crate::apply) fn row_text(values: impl Iterator<Item = String>) -> String {
    format!("row({})::text", values.collect::<Vec<_>>().join(", "))
}

/// `insert … values ($1, …)` of every written column; a row that is there already is left alone.
pub(in crate::apply) fn insert_new(map: &TableMap) -> String {
    format!("{} on conflict do nothing", insert(map))
}

/// The same without a conflict clause: a duplicate is an error.
pub(in crate::apply) fn insert(map: &TableMap) -> String {
    let written = map.columns.iter().filter(|column| column.written);
    let names: Vec<String> = written.map(|column| quote(&column.name)).collect();
    if names.is_empty() {
        return format!("insert into {} default values", map.table.qualified());
    }
    let values: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    format!(
        "insert into {} ({}) overriding system value values ({})",
        map.table.qualified(),
        names.join(", "),
        values.join(", ")
    )
}

/// "Two keys are one", by the key index's own equality. Parameters: the one, then the other, each a
/// text array per column of the key. Columns: one boolean for each pair.
pub(in crate::apply) fn same_keys(map: &TableMap) -> String {
    let keys = key_of(map);
    let arrays = (1..=2 * keys.len()).map(|number| format!("${number}::text[]"));
    let names = (1..=2 * keys.len()).map(|number| format!("k{number}"));
    let terms = (1..).zip(keys).map(|(number, column)| {
        let (kind, other) = (&column.type_name, number + keys.len());
        let collate = column.form.collate();
        format!(
            "k.k{number}::{kind}{collate} {} k.k{other}::{kind}{collate}",
            column.equality
        )
    });
    format!(
        "select {} from unnest({}) with ordinality k({}, n) order by k.n",
        terms.collect::<Vec<_>>().join(" and "),
        arrays.collect::<Vec<_>>().join(", "),
        names.collect::<Vec<_>>().join(", ")
    )
}

/// Which columns an update writes, or compares where only the server may set them: those sent,
/// without the key unless it may come in another spelling.
pub(in crate::apply) fn updated_columns(
    map: &TableMap,
    sent: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let writable = |index: &usize| {
        let column = &map.columns[*index];
        let may_differ = !column.in_key || column.respelled;
        may_differ && column.written && sent(*index)
    };
    (0..map.columns.len()).filter(writable).collect()
}

/// How an update protects what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpdateGuard {
    /// The new row is whole: any older row may be replaced, if there is nothing to record.
    Older,
    /// Large values are missing from the new row: only a row that the source wrote as it stands
    /// there has the right ones.
    SameWriter,
    /// The row is locked and the decision made.
    Decided,
}

/// `update … set` of `columns`. Parameters: the floors (`Older` only), the key, the columns.
pub(in crate::apply) fn update(
    map: &TableMap,
    columns: &[usize],
    how: UpdateGuard,
    (guard, versions): (&Guard, &Versions),
) -> String {
    let first_key = match how {
        UpdateGuard::Older => 1 + guard.floors(),
        UpdateGuard::SameWriter | UpdateGuard::Decided => 1,
    };
    let first_value = first_key + key_of(map).len();
    let condition = match how {
        UpdateGuard::Older => {
            let place = columns
                .iter()
                .position(|index| Some(*index) == versions.index());
            let incoming = format!("${}", first_value + place.unwrap_or(0));
            format!(" and {}", guard.takes(versions, &incoming))
        }
        UpdateGuard::SameWriter => format!(" and {}", guard.same_writer("t")),
        UpdateGuard::Decided => String::new(),
    };
    let values = columns.iter().zip(first_value..);
    let (identities, set): (Vec<_>, Vec<_>) =
        values.partition(|(index, _)| map.columns[**index].identity_always);
    let set = set
        .iter()
        .map(|(index, number)| format!("{} = ${number}", quote(&map.columns[**index].name)));
    let set = set.collect::<Vec<_>>().join(", ");
    let mut matches = key_matches(map, "t", first_key) + &condition;
    for (index, number) in identities {
        let column = &map.columns[*index];
        let value = format!("${number}::{}", column.type_name);
        matches += &same_identity(&column.name, &value);
    }
    let table = rows_of(map);
    if set.is_empty() {
        // Nothing but the key: the row is written with what it has, so that its version moves on.
        return touch(map, &matches);
    }
    format!("update {table} t set {set} where {matches}")
}

/// The condition that a row has this value of a column which no update may set.
pub(in crate::apply) fn same_identity(column: &str, value: &str) -> String {
    format!(" and t.{} is not distinct from {value}", quote(column))
}

/// Writes a row without changing it; a table that only has columns the server sets is locked only.
fn touch(map: &TableMap, condition: &str) -> String {
    let table = rows_of(map);
    let settable = map.columns.iter().find(|c| c.written && !c.identity_always);
    match settable {
        Some(column) => {
            let name = quote(&column.name);
            format!("update {table} t set {name} = t.{name} where {condition}")
        }
        None => format!("select 1 from {table} t where {condition} for update"),
    }
}

/// Deletes one row by key where there is nothing to decide. Parameters: the floors, the key, and
/// the delete's version where rows carry theirs.
pub(in crate::apply) fn delete_older_row(
    map: &TableMap,
    guard: &Guard,
    versions: &Versions,
) -> String {
    let first_key = 1 + guard.floors();
    let (table, matches) = (rows_of(map), key_matches(map, "t", first_key));
    let incoming = format!("${}::text", first_key + key_of(map).len());
    format!(
        "delete from {table} t where {matches} and {}",
        guard.takes(versions, &incoming)
    )
}

/// Deletes one row by key. Parameters: the key.
pub(in crate::apply) fn delete_decided(map: &TableMap) -> String {
    format!(
        "delete from {} t where {}",
        rows_of(map),
        key_matches(map, "t", 1)
    )
}

/// Tells who wrote the row when. Parameters: the key. Columns: micros, origin, the version in the
/// row, whether this very transaction wrote it, and, where only time decides, whether nobody knows
/// when it was written (`rewrites`).
pub(in crate::apply) fn see_row(map: &TableMap, guard: &Guard, versions: &Versions) -> String {
    let forged = if versions.is_in_row() {
        "null".to_owned()
    } else {
        format!("{}::text", forged("x"))
    };
    format!(
        "select {}, {}, (x.xmin = pg_current_xact_id()::xid)::text, {forged} from {} x where {}",
        guard.written(map, Place::Row("x")),
        versions.printed("x"),
        rows_of(map),
        key_matches(map, "x", 1)
    )
}

/// The tombstones that cover a key. Parameters: the key. Columns: micros, origin, version, and
/// whether this very transaction deleted the key.
pub(in crate::apply) fn tombstones(map: &TableMap, guard: &Guard) -> String {
    format!(
        "select {}, x.version, \
         (x.key <> '' and x.xmin = pg_current_xact_id()::xid)::text from mmrepl.tombstone x \
         where x.relation = {} and x.key in ({}, '')",
        guard.written(map, Place::Tombstone("x")),
        map.table.oid,
        key_text(map, 1)
    )
}

/// A row where the table has any tombstone at all.
pub(in crate::apply) fn any_tombstone(map: &TableMap) -> String {
    format!(
        "select 1 from mmrepl.tombstone x where x.relation = {} limit 1",
        map.table.oid
    )
}

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

/// The same where one is needed: see `mmrepl.applies_from_only_peer`.
pub(in crate::apply) fn leave_needed_tombstone(map: &TableMap, versions: &Versions) -> String {
    if versions.is_in_row() {
        return leave_tombstone(map, versions);
    }
    let (oid, key) = (map.table.oid, key_text(map, 1));
    format!(
        "insert into mmrepl.tombstone (relation, key) select {oid}, {key} \
         where not mmrepl.applies_from_only_peer() or exists (select from mmrepl.tombstone x \
         where x.relation = {oid} and x.key = {key}) {NEW_TOMBSTONE}"
    )
}

/// The same beside the newest tombstone that the key has, which stays.
pub(in crate::apply) fn leave_tombstone_beside(map: &TableMap, versions: &Versions) -> String {
    let (oid, key) = (map.table.oid, key_text(map, 1));
    format!(
        "insert into mmrepl.tombstone (relation, key, version, bulk) \
         select {oid}, {key}, {}, coalesce((select not x.bulk \
         from mmrepl.tombstone x where x.relation = {oid} and x.key = {key} \
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
         mmrepl.tombstone x, pg_xact_commit_timestamp_origin(x.xmin) w \
         where x.relation = {} and x.key in (({text})::text, '') and {which}",
        guard.written(map, Place::Tombstone("x")),
        arrays.trim_end_matches(", "),
        map.table.oid,
    )
}

/// Fetches columns of one row from the source, by key. Parameters: the key; when it must be the
/// row that was written `at` a time, that time. Columns: the snapshot, whether there is such a row,
/// then its columns.
///
/// A row that the source keeps aside is as good; one statement, so that a row on its way there or
/// back is not missed.
pub(in crate::apply) fn fetch(map: &TableMap, columns: &[usize], at: bool) -> String {
    let names = || columns.iter().map(|index| &map.columns[*index].name);
    let printed: Vec<String> = names().map(|name| printed("s", name)).collect();
    let aliases: Vec<String> = (0..columns.len()).map(|n| format!("v{n}")).collect();
    let rows = format!(
        "select true, {} from {} s where {}",
        printed.join(", "),
        rows_of(map),
        key_matches(map, "s", 1)
    );
    let rows = if at {
        let time = 1 + key_of(map).len();
        format!("{rows} and pg_xact_commit_timestamp(s.xmin) = ${time}::timestamptz")
    } else {
        let kept = names().map(|name| {
            let name = escape_literal(name);
            format!("s.vals[array_position(s.names, {name})]")
        });
        format!(
            "{rows} union all select true, {} from mmrepl.shadow s \
             where s.relation = to_regclass({}) and s.key = {} limit 1",
            kept.collect::<Vec<_>>().join(", "),
            escape_literal(&map.table.qualified()),
            key_text(map, 1)
        )
    };
    format!(
        "select pg_current_snapshot()::text, (r.found is not null)::text, {0} \
         from (select 1) one left join ({rows}) r(found, {0}) on true",
        aliases.join(", ")
    )
}

/// A column of row `alias` as text. A composite of NULLs is not NULL itself, hence `num_nulls`.
pub(in crate::apply) fn printed(alias: &str, name: &str) -> String {
    let name = quote(name);
    format!("case when num_nulls({alias}.{name}) = 0 then format('%s', {alias}.{name}) end")
}

/// "Column `index` prints as the text parameter `$number`", NULL equal to NULL, for every type.
///
/// A type without one obvious form may be printed otherwise by the source's version, as `pg_lsn` is
/// from 19 on: such a value is read and printed once more here, where its type can be cast to.
fn prints_as(map: &TableMap, index: usize, number: usize) -> String {
    let column = &map.columns[index];
    let here = printed("t", &column.name);
    let cast = map
        .table
        .column(&column.name)
        .and_then(|column| column.cast_type.as_deref())
        .filter(|_| !binary::has_one_form(column.type_oid));
    let sent = match cast {
        None => format!("${number}::text"),
        Some(cast) => format!(
            "(case when ${number}::text is not null then format('%s', ${number}::text::{cast}) end)"
        ),
    };
    format!("({here}) is not distinct from {sent}")
}

/// Columns by which an index finds a row of a table without a key, each with whether the row has
/// NULL there; by their places among the source's columns.
pub(in crate::apply) type LookedUp = Vec<(usize, bool)>;

/// The place of one row that equals the old image whole. Parameters from `$first`, one per column.
///
/// That a column prints alike no index can tell; that it is equal follows from it.
fn place_of_row(map: &TableMap, first: usize, looked_up: &LookedUp) -> String {
    let written = (0..map.columns.len()).filter(|index| map.columns[*index].written);
    let mut same = Vec::new();
    for (position, index) in written.enumerate() {
        let known = looked_up.iter().find(|(column, _)| *column == index);
        same.extend(known.and_then(|(_, null)| finds(map, index, (first + position, *null))));
        same.push(prints_as(map, index, first + position));
    }
    if same.is_empty() {
        // A table without columns: one row is as good as another.
        same.push("true".to_owned());
    }
    format!(
        "select t.tableoid, t.ctid from {} t where {} limit 1 for update",
        rows_of(map),
        same.join(" and ")
    )
}

/// "Column `index` equals the parameter", for an index.
fn finds(map: &TableMap, index: usize, (number, null): (usize, bool)) -> Option<String> {
    let name = &map.columns[index].name;
    let indexed = map.table.indexed.iter().find(|c| c.name == *name)?;
    let kind = map.table.column(name)?.cast_type.as_ref()?;
    let column = quote(name);
    Some(if null {
        format!("t.{column} is null")
    } else {
        format!("t.{column} {} ${number}::text::{kind}", indexed.equality)
    })
}

/// Deletes one row that equals the old image. Parameters: the old image's written columns.
pub(in crate::apply) fn delete_whole(map: &TableMap, looked_up: &LookedUp) -> String {
    format!(
        "delete from {} t where (t.tableoid, t.ctid) = ({})",
        rows_of(map),
        place_of_row(map, 1, looked_up)
    )
}

/// Replaces one row that equals the old image, or inserts the new one where there is none.
///
/// Parameters: the new row's written columns, then the old image's.
pub(in crate::apply) fn update_whole(map: &TableMap, looked_up: &LookedUp) -> String {
    let written: Vec<&crate::apply::shape::mapping::TargetColumn> =
        map.columns.iter().filter(|column| column.written).collect();
    let names: Vec<String> = written.iter().map(|column| quote(&column.name)).collect();
    let values: Vec<String> = written
        .iter()
        .enumerate()
        .map(|(position, column)| format!("${}::{}", position + 1, column.type_name))
        .collect();
    let (rows, table) = (rows_of(map), map.table.qualified());
    format!(
        "with gone as (delete from {rows} t where (t.tableoid, t.ctid) = ({}) returning 1) \
         insert into {table} ({}) overriding system value
         select {} from (select count(*) from gone) g",
        place_of_row(map, written.len() + 1, looked_up),
        names.join(", "),
        values.join(", ")
    )
}

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
