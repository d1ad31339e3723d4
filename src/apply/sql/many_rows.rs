//! The SQL that writes many rows of one table at once. Pure.
//!
//! Each parameter is an array of texts, one for each column, and each element is cast to the
//! column's type without a length (the table's own length then checks the value; an explicit cast
//! would cut it). Only columns whose cast from text is their input function take part; see
//! `Column::cast_type`.

use postgres_protocol::escape::{escape_identifier as quote, escape_literal};

use crate::apply::shape::guard::{Guard, also_below};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql::kind::UpdateGuard;
use crate::apply::sql::one_row::same_identity;
use crate::catalog::table::KeyColumn;

/// Whether rows of the table can be written by these statements at all.
pub(in crate::apply) fn can_batch(map: &TableMap) -> bool {
    let castable = |name: &str| {
        map.table
            .column(name)
            .is_some_and(|c| c.cast_type.is_some())
    };
    let written = map
        .columns
        .iter()
        .filter(|column| column.written || column.in_key);
    map.key.is_some()
        && map.table.can_skip_duplicates
        && written.into_iter().all(|column| castable(&column.name))
}

/// `u.name::type`, for a column of the table.
fn value(map: &TableMap, name: &str, element: &str) -> String {
    let cast = map
        .table
        .column(name)
        .and_then(|column| column.cast_type.as_deref());
    format!("u.{element}::{}", cast.unwrap_or("text"))
}

fn key_of(map: &TableMap) -> &[KeyColumn] {
    map.table
        .key
        .as_ref()
        .map_or(&[], |key| key.columns.as_slice())
}

/// `unnest($1::timestamptz[], …, $2::text[], …) u(f1, …, e0, e1, …)`: the floors, the columns.
fn elements(floors: usize, columns: usize) -> String {
    let floor_arrays = (1..=floors).map(|n| format!("${n}::timestamptz[]"));
    let arrays = (1..=columns).map(|n| format!("${}::text[]", floors + n));
    let arrays: Vec<String> = floor_arrays.chain(arrays).collect();
    let floor_names = (1..=floors).map(|n| format!("f{n}"));
    let names: Vec<String> = floor_names
        .chain((0..columns).map(|n| format!("e{n}")))
        .collect();
    format!("unnest({}) u({})", arrays.join(", "), names.join(", "))
}

/// The guard of one row with its floors; `incoming` is the element with the change's version.
fn takes((guard, versions): (&Guard, &Versions), incoming: usize) -> String {
    let takes = guard.takes_above("t", |n| format!("u.f{n}"));
    also_below(versions, &format!("u.e{incoming}"), takes)
}

/// `t.key = u.e0::type and …`; the key's columns are the first elements.
fn key_matches(map: &TableMap) -> String {
    let terms = key_of(map).iter().enumerate().map(|(index, column)| {
        let element = value(map, &column.name, &format!("e{index}"));
        format!("t.{} {} {element}", quote(&column.name), column.equality)
    });
    terms.collect::<Vec<_>>().join(" and ")
}

/// Deletes rows by key where there is nothing to decide. Parameters: the floors, the key's columns,
/// and the deletes' versions where rows carry theirs.
pub(in crate::apply) fn delete(map: &TableMap, (guard, versions): (&Guard, &Versions)) -> String {
    let keys = key_of(map).len();
    format!(
        "delete from {} t using {} where {} and {}",
        map.table.only(),
        elements(guard.floors(), keys + usize::from(versions.is_in_row())),
        key_matches(map),
        takes((guard, versions), keys)
    )
}

/// The type of the one column of the key, where an array can hold its values: arrays of arrays are
/// arrays of their elements.
pub(in crate::apply) fn listed_type(map: &TableMap) -> Option<&str> {
    let [key] = key_of(map) else { return None };
    let cast = map.table.column(&key.name)?.cast_type.as_deref()?;
    (!cast.ends_with("[]")).then_some(cast)
}

/// Deletes rows by key where there is nothing to decide, the floors being those of all of them.
/// Parameters: the keys, the floors.
///
/// A list is looked up in the index at once, where a join would come back for every key. It is a
/// query of its own so that the texts are cast once, and not again for every row where the server
/// reads the whole table instead.
pub(in crate::apply) fn delete_listed(map: &TableMap, guard: &Guard) -> String {
    let array = format!("{}[]", listed_type(map).unwrap_or("text"));
    let keys = format!("(select $1::text[]::{array})::{array}");
    let matches = key_of(map).iter().map(|column| {
        let (name, equality) = (quote(&column.name), &column.equality);
        format!("t.{name} {equality} any ({keys})")
    });
    format!(
        "delete from {} t where {} and {}",
        map.table.only(),
        matches.collect::<Vec<_>>().join(" and "),
        guard.takes_above("t", |n| format!("${}::timestamptz", n + 1))
    )
}

/// Rows of keys that are to have none; all of the keys where a delete that is applied leaves a
/// tombstone. Parameters: the key's columns.
///
/// `offset 0`: looked up one by one, whatever the server believes of the table.
pub(in crate::apply) fn still_there(map: &TableMap) -> String {
    format!(
        "select 1 from {} where not mmrepl.applies_from_only_peer() \
         or exists (select from {} t where {} offset 0)",
        elements(0, key_of(map).len()),
        map.table.only(),
        key_matches(map)
    )
}

/// Updates `columns` by key. Parameters: the floors (`Older` only), the key's columns, the columns.
pub(in crate::apply) fn update(
    map: &TableMap,
    columns: &[usize],
    how: UpdateGuard,
    guards: (&Guard, &Versions),
) -> String {
    let (guard, versions) = guards;
    let keys = key_of(map).len();
    let (mut set, mut same) = (Vec::new(), String::new());
    for (position, index) in columns.iter().enumerate() {
        let column = &map.columns[*index];
        let element = value(map, &column.name, &format!("e{}", keys + position));
        if column.identity_always {
            same += &same_identity(&column.name, &element);
        } else {
            set.push(format!("{} = {element}", quote(&column.name)));
        }
    }
    let (floors, condition) = match how {
        UpdateGuard::SameWriter => (0, guard.same_writer("t")),
        UpdateGuard::Older | UpdateGuard::Decided => {
            let place = columns
                .iter()
                .position(|index| Some(*index) == versions.index());
            (guard.floors(), takes(guards, keys + place.unwrap_or(0)))
        }
    };
    format!(
        "update {} t set {} from {} where {} and {condition}{same}",
        map.table.only(),
        set.join(", "),
        elements(floors, keys + columns.len()),
        key_matches(map)
    )
}

/// Inserts rows, none of which may be there. The data: every written column.
pub(in crate::apply) fn copy(map: &TableMap) -> String {
    let names: Vec<String> = map
        .written()
        .map(|index| quote(&map.columns[index].name))
        .collect();
    let table = map.table.qualified();
    if names.is_empty() {
        return format!("copy {table} from stdin");
    }
    format!("copy {table} ({}) from stdin", names.join(", "))
}

/// Fails where a written column is not of the type that it was. To read nothing of the table is
/// enough for a lock on it, which lasts as long as the transaction.
pub(in crate::apply) fn expect_types(map: &TableMap) -> String {
    let columns = || map.written().map(|index| &map.columns[index]);
    let names: Vec<String> = columns()
        .map(|column| escape_literal(&column.name))
        .collect();
    let types: Vec<String> = columns()
        .map(|column| column.type_oid.to_string())
        .collect();
    format!(
        "select mmrepl.expect_types({}, array[{}]::name[], array[{}]::oid[]) \
         from (select count(*) from (select from {} limit 0) nothing) locked",
        map.table.oid,
        names.join(", "),
        types.join(", "),
        map.table.only()
    )
}

/// Inserts rows that are not there yet. Parameters: every written column.
pub(in crate::apply) fn insert(map: &TableMap) -> String {
    let written: Vec<&str> = map
        .columns
        .iter()
        .filter(|column| column.written)
        .map(|column| column.name.as_str())
        .collect();
    let names: Vec<String> = written.iter().map(|name| quote(name)).collect();
    let values: Vec<String> = written
        .iter()
        .enumerate()
        .map(|(n, name)| value(map, name, &format!("e{n}")))
        .collect();
    format!(
        "insert into {} ({}) overriding system value select {} from {} on conflict do nothing",
        map.table.qualified(),
        names.join(", "),
        values.join(", "),
        elements(0, written.len())
    )
}
