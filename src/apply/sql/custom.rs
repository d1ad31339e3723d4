//! The SQL of rule `custom`: the function's arguments, its call, its result; the siblings. Pure.
//!
//! Each is made from the texts of values alone, by the types' own functions under the pinned
//! settings, so all nodes give the function the same arguments.

use postgres_protocol::escape::escape_identifier as quote;
use serde_json::{Map, Value};

use crate::apply::shape::keys::{key_matches, key_of, key_text};
use crate::apply::shape::mapping::{TableMap, TargetColumn};
use crate::apply::shape::versions::Versions;
use crate::apply::sql::names::{names, printed};
use crate::conflict::Custom;

/// The columns that the function sees: what is written, without the version.
pub(in crate::apply) fn shown<'a>(
    map: &'a TableMap,
    versions: &'a Versions,
) -> impl Iterator<Item = (usize, &'a TargetColumn)> {
    let columns = map.columns.iter().enumerate();
    columns.filter(|(index, column)| column.written && Some(*index) != versions.index())
}

/// A row as `jsonb`. Parameters: the columns that are [`shown`].
pub(in crate::apply) fn image(map: &TableMap, versions: &Versions) -> String {
    let columns = shown(map, versions)
        .enumerate()
        .map(|(place, (_, column))| {
            let (value, name) = (format!("${}", place + 1), quote(&column.name));
            format!("{value}::{} as {name}", column.type_name)
        });
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("select to_jsonb(r)::text from (select {columns}) r")
}

/// Calls the function. Parameters: the two rows, NULL where one was deleted; what else it is told,
/// without the key.
pub(in crate::apply) fn call(map: &TableMap, custom: &Custom) -> String {
    let function = format!("{}.{}", quote(&custom.schema), quote(&custom.function));
    let key = names(key_of(map).iter().map(|column| column.name.as_str()));
    format!(
        "select {function}(x.a, x.b, $3::jsonb || jsonb_build_object('key', \
         (select jsonb_object_agg(k, coalesce(x.a -> k, x.b -> k)) from unnest({key}) k)))::text \
         from (select $1::jsonb as a, $2::jsonb as b) x"
    )
}

/// What the function returned as a row of the table; none where the key is another. Parameters:
/// the result, the key. Columns: those of the source.
pub(in crate::apply) fn result(map: &TableMap) -> String {
    let columns = map.columns.iter().map(|column| {
        if column.written {
            printed("x", &column.name)
        } else {
            "null".to_owned()
        }
    });
    format!(
        "select {} from jsonb_populate_record(null::{}, $1::jsonb) x where {}",
        columns.collect::<Vec<_>>().join(", "),
        map.table.qualified(),
        key_matches(map, "x", 2)
    )
}

/// The siblings that are kept of a key. Parameters: the key. Columns: version, and names and
/// values as JSON arrays.
pub(in crate::apply) fn siblings(map: &TableMap) -> String {
    format!(
        "select x.version, array_to_json(x.names)::text, array_to_json(x.vals)::text \
         from mmrepl.sibling x where {}",
        of_key(map)
    )
}

/// Forgets the siblings of a key. Parameters: the key.
pub(in crate::apply) fn drop_siblings(map: &TableMap) -> String {
    format!("delete from mmrepl.sibling x where {}", of_key(map))
}

fn of_key(map: &TableMap) -> String {
    format!(
        "x.relation = {} and x.key = {}",
        map.table.oid,
        key_text(map, 1)
    )
}

/// Keeps a sibling. Parameters: the key, the node, the version, names and values.
pub(in crate::apply) fn keep_sibling(map: &TableMap) -> String {
    let next = 1 + key_of(map).len();
    format!(
        "insert into mmrepl.sibling (relation, key, node, version, names, vals) \
         values ({}, {}, ${next}::text, ${}::text, ${}::text[], ${}::text[])",
        map.table.oid,
        key_text(map, 1),
        next + 1,
        next + 2,
        next + 3
    )
}

/// The names in `result` that the table does not have; `None` where it is no JSON object.
pub(in crate::apply) fn unknown_columns(map: &TableMap, result: &str) -> Option<Vec<String>> {
    let given: Map<String, Value> = serde_json::from_str(result).ok()?;
    let unknown = |name: &String| map.table.column(name).is_none();
    Some(
        given
            .iter()
            .map(|(name, _)| name.clone())
            .filter(unknown)
            .collect(),
    )
}
