//! The SQL around unique values: a row's rivals, and rows that are kept aside. Pure.
//!
//! The rivals of a row that is not written yet are found by evaluating the index's expressions for
//! it in a query of its own, whose only names are the row's columns; outside, the same expressions
//! can then only mean the table's.

use postgres_protocol::escape::{escape_identifier as quote, escape_literal};

use crate::apply::shape::guard::{Guard, Place};
use crate::apply::shape::keys::{key_matches, key_of, key_text, key_text_of, rows_of};
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::versions::Versions;
use crate::apply::sql::names::{names, row_values, written};
use crate::catalog::unique::{Unique, UniqueColumn, UniquePart};

/// Whether rivals are only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Look {
    /// They may be gone or others a moment later.
    Glance,
    /// Their rows are locked.
    Lock,
}

/// Rows under other keys that an index does not let be there beside a row. Parameters: the key, the
/// row's written columns. Columns: the key's texts, micros, origin, whether this very transaction
/// wrote it.
pub(in crate::apply) fn rivals(
    map: &TableMap,
    guard: &Guard,
    (unique, look): (&Unique, Look),
) -> String {
    let keys: Vec<String> = key_of(map)
        .iter()
        .map(|column| format!("format('%s', x.{})", quote(&column.name)))
        .collect();
    let predicate = |text: &Option<String>| text.as_ref().map_or("true".into(), Clone::clone);
    let (values, related): (Vec<String>, Vec<String>) = (1..)
        .zip(&unique.parts)
        .map(|(number, part)| compared(part, &format!("mmrepl {number}"), unique.nulls_equal))
        .unzip();
    let suffix = match look {
        Look::Glance => "",
        Look::Lock => " for update of x",
    };
    format!(
        "select {}, {}, \
         (x.xmin = pg_current_xact_id()::xid)::text \
         from {} x, (select {} from {} n where {}) v \
         where ({}) and {} and not ({}){suffix}",
        keys.join(", "),
        guard.written(map, Place::Row("x")),
        rows_of(map),
        values.join(", "),
        incoming(map),
        predicate(&unique.predicate),
        predicate(&unique.predicate),
        related.join(" and "),
        key_matches(map, "x", 1),
    )
}

/// A part as a value of the row under `name`, and how a row of the table relates to it.
fn compared(part: &UniquePart, name: &str, nulls_equal: bool) -> (String, String) {
    let (expression, name) = (&part.expression, quote(name));
    let collate = part.collation.as_ref();
    let collate = collate.map_or_else(String::new, |collation| format!(" collate {collation}"));
    let operator = &part.operator;
    let mut related = format!("({expression}){collate} {operator} v.{name}{collate}");
    if nulls_equal {
        related = format!("({related} or (({expression}) is null and v.{name} is null))");
    }
    (format!("({expression}) as {name}"), related)
}

/// The row that is not written yet, with every column of the table. Parameters after the key's.
fn incoming(map: &TableMap) -> String {
    let sent = map.columns.iter().filter(|column| column.written);
    let sent: Vec<&str> = sent.map(|column| column.name.as_str()).collect();
    let first = 1 + key_of(map).len();
    let value = |column: &UniqueColumn| {
        let collate = column.collation.as_ref();
        let collate = collate.map_or_else(String::new, |name| format!(" collate {name}"));
        let place = sent.iter().position(|name| *name == column.name);
        let text = place.map_or("null".into(), |place| format!("${}", first + place));
        let name = quote(&column.name);
        format!("{text}::{}{collate} as {name}", column.type_name)
    };
    let columns = || map.table.uniques.columns.iter();
    let stored = columns().filter(|column| column.generation.is_none());
    let values: Vec<String> = stored.map(value).collect();
    let row = format!("(select {})", values.join(", "));
    let computed = columns().filter_map(|column| {
        let generation = column.generation.as_ref()?;
        Some(format!(", ({generation}) as {}", quote(&column.name)))
    });
    let computed: String = computed.collect();
    if computed.is_empty() {
        row
    } else {
        format!("(select g.*{computed} from {row} g)")
    }
}

/// What replaces a shadow of the same key: the row that goes aside is newer.
const REPLACE: &str = "on conflict (relation, key) do update set names = excluded.names, \
     vals = excluded.vals, written_at = excluded.written_at, node = excluded.node, \
     since = excluded.since";

/// Keeps a row of the table aside, which is deleted next. Parameters: the key, the time and node of
/// its version.
pub(in crate::apply) fn push_aside(map: &TableMap) -> String {
    let time = 1 + key_of(map).len();
    let key = key_text_of(map, "t");
    format!(
        "insert into mmrepl.shadow (relation, key, names, vals, written_at, node) \
         select {}, {key}, {}, {}, ${time}::timestamptz, ${} from {} t where {} {REPLACE}",
        map.table.oid,
        names(written(map)),
        row_values(map),
        time + 1,
        rows_of(map),
        key_matches(map, "t", 1),
    )
}

/// Keeps a row aside that is not in the table. Parameters: the key, names and values, the time and
/// node of its version.
pub(in crate::apply) fn keep_aside(map: &TableMap) -> String {
    let next = 1 + key_of(map).len();
    format!(
        "insert into mmrepl.shadow (relation, key, names, vals, written_at, node) \
         values ({}, {}, ${next}::text[], ${}::text[], ${}::timestamptz, ${}) {REPLACE}",
        map.table.oid,
        key_text(map, 1),
        next + 1,
        next + 2,
        next + 3,
    )
}

/// "The shadow of the key". Parameters: the key.
fn of_key(map: &TableMap) -> String {
    let key = key_text(map, 1);
    format!("s.relation = {} and s.key = {key}", map.table.oid)
}

/// Tells the version of a key's shadow and locks it. Parameters: the key. Columns: micros, node,
/// and the version that the row carries.
pub(in crate::apply) fn lock_shadow(map: &TableMap, versions: &Versions) -> String {
    let column = versions.rule().column().map(escape_literal);
    let rank = column.map_or_else(
        || "null".to_owned(),
        |name| format!("s.vals[array_position(s.names, {name})]"),
    );
    format!(
        "select ((extract(epoch from s.written_at) * 1000000)::int8 - 946684800000000)::text, \
         s.node, {rank} from mmrepl.shadow s where {} for update",
        of_key(map)
    )
}

/// Forgets a shadow. Parameters: the key.
pub(in crate::apply) fn drop_shadow(map: &TableMap) -> String {
    format!("delete from mmrepl.shadow s where {}", of_key(map))
}

/// Forgets the tombstone of a key whose newest version is kept aside: older ones, and the one that
/// this transaction's own delete left. Parameters: the key, the time of the version.
pub(in crate::apply) fn forget_tombstone(map: &TableMap, guard: &Guard) -> String {
    format!(
        "delete from mmrepl.tombstone s where {} and coalesce({} <= ${}::timestamptz, true)",
        of_key(map),
        guard.time_of(Place::Tombstone("s"), map),
        1 + key_of(map).len()
    )
}

/// "The shadow is older than a truncate". Parameters: `$1` its time, `$2` its node.
const OLDER: &str = "coalesce(s.node = $2 or (s.written_at, s.node collate \"C\") \
     < ($1::timestamptz, $2::text collate \"C\"), true)";

/// How many shadows of the table a truncate must spare. Parameters: its time and node.
pub(in crate::apply) fn newer_shadows(map: &TableMap) -> String {
    let oid = map.table.oid;
    format!("select count(*)::text from mmrepl.shadow s where s.relation = {oid} and not {OLDER}")
}

/// Forgets the shadows that a truncate removes. Parameters: its time and node.
pub(in crate::apply) fn drop_older_shadows(map: &TableMap) -> String {
    let oid = map.table.oid;
    format!("delete from mmrepl.shadow s where s.relation = {oid} and {OLDER}")
}
