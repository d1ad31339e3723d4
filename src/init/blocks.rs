//! Tombstones of very many rows that one statement deleted, in blocks of many keys, as SQL. Pure.
//!
//! What the rows of `mmrepl.tombstone_block` are, stands in the migration that makes the table; how
//! keys are found in them, in `migrations/functions/blocks.sql`. A block holds keys and no hashes
//! of them: none is ever taken for another.

use super::own::Keyed;
use crate::catalog::key_form::KeyForm;
use crate::catalog::names::ident;

/// How many rows a statement deletes at least where it leaves blocks.
const BLOCKS_FROM: u32 = INTS;

/// How many keys a block has: what fits in a row without being moved out of line. Texts may not.
const INTS: u32 = 240;
const UUIDS: u32 = 120;
const TEXTS: u32 = 60;

/// So many keys are sorted in one array, which is the fastest. The server sorts the others in rows,
/// on disk if need be: an array ends at a gigabyte.
const ARRAY_MAX: u32 = 1_000_000;

/// The last layer in which a statement leaves blocks: a look-up reads one block of each. Statements
/// that delete very many get further, as little is gained by the others.
const LAYER_MAX: u32 = 3;
const LAYER_MAX_OF_MANY: u32 = 7;
const MANY: u32 = 20_000;
/// For what follows in one statement: one more for each of those layers at most.
const ANY_LAYER: u32 = 32_767;

/// First number of the advisory lock of whoever makes blocks of a table. Nobody waits for it: who
/// does not get it leaves a tombstone for each key.
const LOCK: u32 = 1_835_889_275;

/// The list that takes the keys of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Ints,
    Uuids,
    Texts,
}

/// The statements of a trigger function that leave blocks, and say in `mmrepl_blocks` how many.
/// None where somebody else is making some, and where keys lie among those of too many others.
///
/// They run with a snapshot that is taken now, so all blocks of others are visible once the lock is
/// held (`mmrepl.free_layer`).
pub(super) fn statements(keyed: Keyed<'_>) -> String {
    let list = list(keyed);
    let (insert, further) = match list {
        List::Texts => (texts(keyed), String::new()),
        List::Ints | List::Uuids => (fixed(keyed, list), further(keyed, list)),
    };
    let oid = keyed.table.oid.cast_signed();
    format!(
        "        if (select pg_catalog.count(*) from (select from mmrepl_old limit {BLOCKS_FROM}) counted)
            OPERATOR(pg_catalog.=) {BLOCKS_FROM} then
            if pg_catalog.pg_try_advisory_xact_lock({LOCK}, {oid}) then
                {insert};
                get diagnostics mmrepl_blocks = row_count;
{further}            end if;
        end if;\n"
    )
}

fn list(keyed: Keyed<'_>) -> List {
    let [column] = keyed.key.columns.as_slice() else {
        return List::Texts;
    };
    match (&column.form, column.type_name.as_str()) {
        (KeyForm::Cast, "smallint" | "integer" | "bigint") => List::Ints,
        (KeyForm::Cast, "uuid") => List::Uuids,
        _ => List::Texts,
    }
}

impl List {
    /// Its column.
    const fn name(self) -> &'static str {
        match self {
            Self::Ints => "ints",
            Self::Uuids => "uuids",
            Self::Texts => "texts",
        }
    }

    /// How many keys a block has.
    const fn size(self) -> u32 {
        match self {
            Self::Ints => INTS,
            Self::Uuids => UUIDS,
            Self::Texts => TEXTS,
        }
    }

    /// What stands for it in the table of blocks.
    const fn kind(self) -> char {
        match self {
            Self::Ints => 'i',
            Self::Uuids => 'u',
            Self::Texts => 't',
        }
    }

    /// The place of a value of it.
    fn place(self, value: &str) -> String {
        match self {
            Self::Ints => value.to_owned(),
            Self::Uuids => format!("mmrepl.place_of_uuid({value})"),
            Self::Texts => format!("mmrepl.place_of_text({value})"),
        }
    }

    /// What blocks are inserted with, up to their keys.
    fn insert(self) -> String {
        let name = self.name();
        format!("insert into mmrepl.tombstone_block (relation, kind, layer, low, high, {name})")
    }
}

/// The last layer for so many rows.
fn last_layer(rows: &str) -> String {
    format!(
        "case when {rows} OPERATOR(pg_catalog.>=) {MANY} then {LAYER_MAX_OF_MANY} else {LAYER_MAX} end"
    )
}

/// The value of the key's one column in the row `d`.
fn value(keyed: Keyed<'_>, list: List) -> String {
    let name = keyed.key.columns.first().map(|column| &column.name);
    let name = name.map_or_else(String::new, |name| ident(name));
    match list {
        List::Ints => format!("d.{name}::pg_catalog.int8"),
        _ => format!("d.{name}"),
    }
}

/// The first keys, sorted in an array and cut.
fn fixed(keyed: Keyed<'_>, list: List) -> String {
    let (size, kind) = (list.size(), list.kind());
    let count = "pg_catalog.cardinality(sorted.k)";
    format!(
        "{}
                with sorted as materialized (select array(select d.k from
                    (select {} from mmrepl_old d limit {ARRAY_MAX}) d(k) order by d.k) as k),
                free as materialized (
                    select mmrepl.free_layer(tg_relid, '{kind}', {}, {}, {}) as layer from sorted)
                select tg_relid, '{kind}', free.layer, {}, {}, sorted.k[cut.low : cut.high]
                from sorted cross join free cross join lateral (
                    select low, least(low OPERATOR(pg_catalog.+) {}, {count})
                    from pg_catalog.generate_series(1, {count}, {size}) low
                ) cut(low, high)
                where free.layer is not null",
        list.insert(),
        value(keyed, list),
        list.place("sorted.k[1]"),
        list.place(&format!("sorted.k[{count}]")),
        last_layer(count),
        list.place("sorted.k[cut.low]"),
        list.place("sorted.k[cut.high]"),
        size - 1,
    )
}

/// The keys after those, in a layer of their own, as they may lie among the first ones.
fn further(keyed: Keyed<'_>, list: List) -> String {
    let (size, kind) = (list.size(), list.kind());
    let (value, place) = (value(keyed, list), list.place("d.k"));
    format!(
        "                if mmrepl_blocks OPERATOR(pg_catalog.>=) {} then
                    {}
                    with free as materialized (
                        select mmrepl.free_layer(tg_relid, '{kind}',
                            pg_catalog.min({place}), pg_catalog.max({place}), {ANY_LAYER}) as layer
                        from (select {value} from mmrepl_old d offset {ARRAY_MAX}) d(k))
                    select tg_relid, '{kind}', free.layer, {}, {}, list.k
                    from free cross join (select pg_catalog.array_agg(x.k order by x.k) from (
                        select d.k, (pg_catalog.row_number() over (order by d.k)
                            OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) {size}
                        from (select {value} from mmrepl_old d offset {ARRAY_MAX}) d(k)) x(k, n)
                        group by x.n) list(k);
                end if;\n",
        ARRAY_MAX / size,
        list.insert(),
        list.place("list.k[1]"),
        list.place("list.k[pg_catalog.cardinality(list.k)]"),
    )
}

/// All keys as texts, in the order of their places.
fn texts(keyed: Keyed<'_>) -> String {
    let kind = List::Texts.kind();
    let (place, key) = (List::Texts.place("d.k"), keyed.text());
    format!(
        "{}
                with placed as materialized (
                    select d.k, {place} as place
                    from (select {key} from mmrepl_old d offset 0) d(k)),
                free as materialized (
                    select mmrepl.free_layer(tg_relid, '{kind}',
                        pg_catalog.min(p.place), pg_catalog.max(p.place), {}) as layer
                    from placed p)
                select tg_relid, '{kind}', (select free.layer from free),
                    pg_catalog.min(x.place), pg_catalog.max(x.place), pg_catalog.array_agg(x.k)
                from (select p.k, p.place, (pg_catalog.row_number() over (order by p.place)
                        OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) {TEXTS} as n
                    from placed p) x
                where (select free.layer from free) is not null group by x.n",
        List::Texts.insert(),
        last_layer("pg_catalog.count(*)"),
    )
}
