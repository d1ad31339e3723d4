//! The question for the large values that the source left out of a row. Pure.

use postgres_protocol::escape::escape_literal;

use crate::apply::shape::keys::{key_matches, key_of, key_text, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql::names::printed;

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
