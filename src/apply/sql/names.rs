//! Names and values of columns in statements. Pure.

use postgres_protocol::escape::{escape_identifier as quote, escape_literal as literal};

use crate::apply::encode::params::array_literal;
use crate::apply::shape::mapping::TableMap;

/// A column of row `alias` as text. A composite of NULLs is not NULL itself, hence `num_nulls`.
pub(in crate::apply) fn printed(alias: &str, name: &str) -> String {
    let name = quote(name);
    format!("case when num_nulls({alias}.{name}) = 0 then format('%s', {alias}.{name}) end")
}

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
