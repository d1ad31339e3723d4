//! How a table, its rows and its keys are written in SQL. Pure.
//!
//! A value arrives as text and is cast to the column's type; keys are compared by the key index's
//! own equality.

use postgres_protocol::escape::escape_identifier as quote;

use crate::apply::shape::mapping::TableMap;
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

/// The key's canonical text of the row version `alias`; in a table without a key, the text of the
/// whole row.
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
