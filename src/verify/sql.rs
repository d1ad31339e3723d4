//! The statements of a comparison. Pure.

use super::columns::Compared;
use crate::catalog::key_text::key_expression;
use crate::catalog::names::ident;
use crate::catalog::table::Key;

/// For sessions that read whole tables; nobody is made to wait behind them.
pub(super) const SETTINGS: &str = "set work_mem = '64MB'; set jit = off; \
     set default_transaction_read_only = on";

/// A part of a table: one relation and a range of its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// `only "schema"."table"`, for FROM.
    pub(super) relation: String,
    /// First page, and the page after the last; nothing for all.
    pub(super) pages: Option<(i64, Option<i64>)>,
}

impl Part {
    fn condition(&self) -> String {
        match self.pages {
            None => "true".to_owned(),
            Some((first, None)) => format!("t.ctid >= '({first},0)'::pg_catalog.tid"),
            Some((first, Some(end))) => format!(
                "t.ctid >= '({first},0)'::pg_catalog.tid and t.ctid < '({end},0)'::pg_catalog.tid"
            ),
        }
    }
}

/// The relations that hold a table's rows, with their pages; nothing that may be read is left out.
pub(super) const RELATIONS: &str = "
    select n.nspname::text, c.relname::text,
           pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8,
           greatest(c.reltuples, 0)::int8, pg_catalog.has_table_privilege(c.oid, 'select')
    from (select coalesce(p.relid::oid, $1) as oid
          from (select $1::oid) o left join pg_catalog.pg_partition_tree($1) p on p.isleaf) t
    join pg_catalog.pg_class c on c.oid = t.oid and c.relkind in ('r', 'p')
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    order by 1, 2";

/// Rows fall into groups by the hashes of their keys: of each its number, how many rows it has, and
/// the sum of their hashes. `groups` is a power of two.
pub(super) fn groups(compared: &Compared<'_>, part: &Part, groups: u32) -> String {
    format!(
        "select ({} & {})::int4, pg_catalog.count(*), pg_catalog.sum({})::pg_catalog.text
         from {} t where {} group by 1",
        compared.key_hash(),
        groups - 1,
        compared.row_hash(),
        part.relation,
        part.condition()
    )
}

/// The rows of some groups (`$1`): hash of the key, hash of the row, the key's texts.
pub(super) fn rows(compared: &Compared<'_>, part: &Part, groups: u32) -> String {
    format!(
        "select r.k, r.h, r.texts from (
             select {} as k, {} as h, {} as texts from {} t where {}) r
         where (r.k & {})::int4 = any ($1::pg_catalog.int4[])",
        compared.key_hash(),
        compared.row_hash(),
        compared.key_texts(),
        part.relation,
        part.condition(),
        groups - 1,
    )
}

/// Keys given as one `text[]` per column of the key, as rows of the key's own types. Their place in
/// the arrays is called `mmrepl.n`, the columns `mmrepl.0` and so on: no application's are.
fn given_keys(compared: &Compared<'_>, key: &Key) -> String {
    let columns = || key.columns.iter().enumerate();
    let arrays =
        columns().map(|(at, _)| format!("pg_catalog.unnest(${}::pg_catalog.text[])", at + 1));
    let names = columns().map(|(at, _)| given(at));
    let casts = columns().map(|(at, column)| {
        let kind = cast_type(compared, &column.name, &column.type_name);
        format!("u.{0}::{kind} as {0}", given(at))
    });
    format!(
        "(select u.\"mmrepl.n\", {} from rows from ({}) with ordinality u({}, \"mmrepl.n\"))",
        joined(casts, ", "),
        joined(arrays, ", "),
        joined(names, ", ")
    )
}

fn given(place: usize) -> String {
    ident(&format!("mmrepl.{place}"))
}

/// What a row is now, by given keys: the place of the key, the hash, what tells this version of the
/// row from every other, and with `shown` its values, when it was written, and the node that wrote
/// it.
pub(super) fn by_key(compared: &Compared<'_>, shown: bool) -> Option<String> {
    let key = compared.table.key.as_ref()?;
    let columns = key.columns.iter().enumerate();
    let meets = columns.map(|(at, column)| {
        let own = ident(&column.name);
        format!("t.{own} {} w.{}", column.equality, given(at))
    });
    let shown = if shown {
        shown_columns(compared, key)
    } else {
        String::new()
    };
    Some(format!(
        "select w.\"mmrepl.n\", {}, pg_catalog.concat_ws(' ', t.tableoid, t.ctid, t.xmin){shown}
         from {} w join {} t on {}",
        compared.row_hash(),
        given_keys(compared, key),
        compared.table.only(),
        joined(meets, " and ")
    ))
}

/// The places of given keys whose rows wait for a person.
pub(super) fn waiting(compared: &Compared<'_>) -> Option<String> {
    let key = compared.table.key.as_ref()?;
    let text = key_expression(key, |at, _| format!("w.{}", given(at)));
    Some(format!(
        "select w.\"mmrepl.n\" from {} w where exists (
             select from mmrepl.conflict c
             where c.relation = {} and c.row_key = ({text})::pg_catalog.text
               and c.outcome = 'pending' and c.resolved_at is null)",
        given_keys(compared, key),
        compared.table.oid
    ))
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

/// Without its modifier, which would cut a value.
fn cast_type(compared: &Compared<'_>, name: &str, type_name: &str) -> String {
    let column = compared.table.column(name);
    let cast = column.and_then(|column| column.cast_type.clone());
    cast.unwrap_or_else(|| type_name.to_owned())
}

/// In a table without a key a row is its values: of each hash (`$1`) how many rows there are, and
/// what tells them from others.
pub(super) fn by_hash(compared: &Compared<'_>, shown: bool) -> String {
    let shown = if shown {
        ", pg_catalog.min(r.texts), null::text, null::text"
    } else {
        ""
    };
    format!(
        "select r.h, pg_catalog.count(*),
                pg_catalog.concat_ws(' ', pg_catalog.count(*), pg_catalog.sum(r.xmin::text::int8),
                    pg_catalog.sum(pg_catalog.hashtext(r.ctid::text)))
                {shown}
         from (select {} as h, {} as texts, t.xmin, t.ctid from {} t) r
         where r.h = any ($1::pg_catalog.int8[]) group by r.h",
        compared.row_hash(),
        compared.texts(),
        compared.table.only()
    )
}

fn shown_columns(compared: &Compared<'_>, key: &Key) -> String {
    let oid = compared.table.oid;
    let key = key_expression(key, |_, column| format!("t.{}", ident(&column.name)));
    format!(
        ", {},
         pg_catalog.to_char(
             mmrepl.source_time(t.xmin, {oid}::pg_catalog.oid, ({key})::pg_catalog.text)
             at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
         (select n.name
          from pg_catalog.pg_xact_commit_timestamp_origin(t.xmin) o
          left join pg_catalog.pg_replication_origin r on r.roident = o.roident
          join mmrepl.node n on n.origin_id = o.roident or n.here and o.roident = 0
              or pg_catalog.split_part(r.roname, '-', 2) <> ''
                 and pg_catalog.right(pg_catalog.split_part(r.roname, '-', 1),
                                      pg_catalog.length(n.name) + 1) = '_' || n.name
          order by pg_catalog.length(n.name) desc limit 1)",
        compared.texts()
    )
}
