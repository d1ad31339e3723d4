//! The SQL for rows that merge: what a target has for a key, whole. Pure.

use postgres_protocol::escape::escape_identifier as quote;

use crate::apply::shape::guard::{Guard, Place};
use crate::apply::shape::keys::{key_matches, key_of, key_text, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;

/// Columns of [`lock_row`] before the row's.
pub(in crate::apply) const ROW_COLUMNS: usize = 3;

/// Locks a row and tells all of it. Parameters: the key. Columns: micros, origin, version, then the
/// source's columns.
pub(in crate::apply) fn lock_row(map: &TableMap, guard: &Guard, versions: &Versions) -> String {
    let columns = map.columns.iter().map(|column| {
        if column.written {
            format!("x.{}", quote(&column.name))
        } else {
            "null".to_owned()
        }
    });
    format!(
        "select {}, {}, {} from {} x where {} for update",
        guard.written(map, Place::Row("x")),
        versions.printed("x"),
        columns.collect::<Vec<_>>().join(", "),
        rows_of(map),
        key_matches(map, "x", 1)
    )
}

/// Locks the tombstones that cover a key. Parameters: the key. Columns: micros, origin, version,
/// and the image as a JSON array of names and values in turn.
///
/// The lock: two links may have something to add to one image.
pub(in crate::apply) fn lock_tombstones(map: &TableMap, guard: &Guard) -> String {
    format!(
        "select {}, x.version, array_to_json(x.image)::text \
         from mmrepl.tombstone x where x.relation = {} and x.key in ({}, '') for update",
        guard.written(map, Place::Tombstone("x")),
        map.table.oid,
        key_text(map, 1)
    )
}

/// Leaves a tombstone. Parameters: the key, the delete's version, the image.
pub(in crate::apply) fn bury(map: &TableMap) -> String {
    let next = 1 + key_of(map).len();
    format!(
        "insert into mmrepl.tombstone (relation, key, version, image) \
         values ({}, {}, ${next}::text, ${}::text[]) on conflict (relation, key, bulk) do update \
         set left_at = excluded.left_at, version = excluded.version, image = excluded.image",
        map.table.oid,
        key_text(map, 1),
        next + 1,
    )
}
