//! The SQL that writes and looks at one row. Pure.
//!
//! Every parameter is text and cast to the column's type, so that a value arrives exactly as the
//! source's output function printed it. The session's search path is empty: names are qualified.
//!
//! A *guarded* statement touches a row only where the row is older than the change, judged on the
//! row version that the statement locks (PostgreSQL evaluates the guard again when it had to wait
//! for a concurrent writer, manual 13.2.1). How many rows it took tells whether it won.

use postgres_protocol::escape::escape_identifier as quote;

use crate::apply::encode::binary;
use crate::apply::shape::guard::{Guard, Place, forged};
use crate::apply::shape::keys::{key_matches, key_of, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql::kind::UpdateGuard;
use crate::apply::sql::names::printed;

/// `insert … values ($1, …)` of every written column; a row that is there already is left alone.
pub(in crate::apply) fn insert_new(map: &TableMap) -> String {
    format!("{} on conflict do nothing", insert(map))
}

/// `insert … values ($1, …)` of every written column; a duplicate is an error.
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
