//! The SQL that records conflicts, and that looks for them under a truncate. Pure.
//!
//! The row that the target holds is copied by the server itself, inside the statement, so it is
//! exactly what was there and does not travel. Values are recorded as the types' output functions
//! print them under the session's pinned settings, which is what they are restored from.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal as literal;

use crate::apply::shape::guard::Guard;
use crate::apply::shape::keys::{key_matches, key_of, key_text, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql::names::{names, row_values, written};

/// Parameters of [`record`] before the key's.
pub(in crate::apply) const RECORD_PARAMETERS: usize = 13;

pub(in crate::apply) const COLUMNS: &str = "source, target, schema_name, table_name, key_columns, key_values, kind, \
     rule, outcome, incoming_columns, incoming_values, incoming_time, incoming_origin, \
     local_columns, local_values, local_time, local_node, local_origin";

/// Names of the key's columns; `null` for a table without one.
pub(in crate::apply) fn key_names(map: &TableMap) -> String {
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

/// "Record `c` waits for a decision about the key", whose parameters begin at `$first`.
fn waiting(map: &TableMap, first: usize) -> String {
    format!(
        "c.relation = {} and c.row_key = {} and c.outcome = 'pending' and c.resolved_at is null",
        map.table.oid,
        key_text(map, first)
    )
}

/// Makes the record just written one that waits; an older one of the same source waits no more.
/// Parameters: the source, then the key.
pub(in crate::apply) fn pend(map: &TableMap) -> String {
    format!(
        "with me as (select currval(pg_get_serial_sequence('mmrepl.conflict', 'id')) as id), \
         older as (update mmrepl.conflict c \
         set resolved_at = clock_timestamp(), resolved_as = 'replaced' \
         from me where {} and c.source = $1 and c.id <> me.id) \
         update mmrepl.conflict c set outcome = 'pending', relation = {}, row_key = {} \
         from me where c.id = me.id",
        waiting(map, 2),
        map.table.oid,
        key_text(map, 2)
    )
}

/// Ends what waits for a decision about a write that is known by now. Parameters: what is known,
/// then the key.
pub(in crate::apply) fn supersede(map: &TableMap) -> String {
    format!(
        "update mmrepl.conflict c set resolved_at = clock_timestamp(), resolved_as = 'superseded' \
         where {} and mmrepl.knows($1::text::bigint[], c.incoming_version::bigint[])",
        waiting(map, 2)
    )
}
