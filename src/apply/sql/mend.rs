//! The SQL that looks at rows to mend them (`send::mender`). Pure.

use crate::apply::shape::guard::{Guard, Place, forged};
use crate::apply::shape::keys::{key_matches, key_text, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
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
