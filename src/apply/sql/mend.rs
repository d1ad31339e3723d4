//! The SQL that looks at rows to mend them (`send::mender`). Pure.

use postgres_protocol::escape::escape_literal as literal;

use crate::apply::shape::guard::{Guard, Place, forged};
use crate::apply::shape::keys::{key_matches, key_text, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql::history::COLUMNS;
use crate::apply::sql::names::printed;

/// What tells a version of the row `x` from every other.
pub(in crate::apply) const IDENTITY: &str = "concat_ws(' ', x.tableoid, x.ctid, x.xmin)";

/// The columns of [`look`] before the row's own: micros, origin, the version in the row, whether
/// nobody knows when it was written, and what tells it from every other version.
pub(in crate::apply) const BEFORE_VALUES: usize = 5;

/// A row with its version. Parameters: the key.
pub(in crate::apply) fn look(map: &TableMap, guard: &Guard, versions: &Versions) -> String {
    let is_forged = if versions.is_in_row() {
        "'false'".to_owned()
    } else {
        format!("{}::text", forged("x"))
    };
    let values: Vec<String> = map.columns.iter().map(|c| printed("x", &c.name)).collect();
    format!(
        "select {}, {}, {is_forged}, {IDENTITY}, {} from {} x where {}",
        guard.written(map, Place::Row("x")),
        versions.printed("x"),
        values.join(", "),
        rows_of(map),
        key_matches(map, "x", 1)
    )
}

/// Keeps a row from being deleted until the transaction ends; tells which version it is.
/// Parameters: the key.
pub(in crate::apply) fn hold(map: &TableMap) -> String {
    format!(
        "select {IDENTITY} from {} x where {} for key share",
        rows_of(map),
        key_matches(map, "x", 1)
    )
}

/// A row where the key's row is kept aside. Parameters: the key.
pub(in crate::apply) fn aside(map: &TableMap) -> String {
    format!(
        "select 1 from mmrepl.shadow s where s.relation = {} and s.key = {}",
        map.table.oid,
        key_text(map, 1)
    )
}

/// The columns of [`bag`] before the row's own: the hash, micros, origin.
pub(in crate::apply) const BEFORE_BAG: usize = 3;

/// Rows of a table without a key by the hash of all their values, each once, as the newest of
/// equal rows is. Parameters: the hashes.
pub(in crate::apply) fn bag(map: &TableMap, guard: &Guard, row_hash: &str) -> String {
    let values: Vec<String> = map.columns.iter().map(|c| printed("x", &c.name)).collect();
    format!(
        "select distinct on (v.h) v.h::text, {}, {} \
         from {} x cross join lateral (select ({row_hash}) as h) v \
         where v.h = any ($1::int8[]) \
         order by v.h, pg_xact_commit_timestamp(x.xmin) desc nulls last",
        guard.written(map, Place::Row("x")),
        values.join(", "),
        rows_of(map),
    )
}

/// Records a row of a table without a key that is put back or goes. Parameters: `$1` source, `$2`
/// target, `$3` kind, `$4` rule, `$5` and `$6` names and values of the row that is put back, `$7`
/// its time, `$8` and `$9` those of the row that goes.
pub(in crate::apply) fn record_bag(map: &TableMap) -> String {
    let (schema, table) = (literal(&map.table.schema), literal(&map.table.name));
    format!(
        "insert into mmrepl.conflict ({COLUMNS}) \
         select $1, $2, {schema}, {table}, null, null, $3, $4, 'applied', \
         $5::text[], $6::text[], $7::timestamptz, 0::oid, \
         $8::text[], $9::text[], null, null, null"
    )
}
