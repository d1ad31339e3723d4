//! The three set-based queries behind [`super::table`].

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::CatalogError;
use super::key_form::{KeyForm, KeyType};
use super::table::{Column, Key, KeyColumn, Table};
use super::unique::Uniques;
use crate::wire::{RowExt, Unread, each};

/// Permanent tables only: unlogged and temporary ones are never published (manual, CREATE
/// PUBLICATION).
const TABLES: &str = "
select c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', c.relispartition,
       c.relreplident::text,
       not exists (
           select from pg_catalog.pg_index i where i.indrelid = c.oid and not i.indimmediate)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence = 'p'";

/// A domain is cast by way of the type under it and all domains between.
const COLUMNS: &str = "
with recursive under (domain, type, modifier) as (
    select t.oid, t.typbasetype, t.typtypmod from pg_catalog.pg_type t where t.typtype = 'd'
    union all
    select u.domain, t.typbasetype, t.typtypmod
    from under u join pg_catalog.pg_type t on t.oid = u.type where t.typtype = 'd')
select a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid,
       a.attnotnull, a.atthasdef or a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a',
       case when not exists (
                select from pg_catalog.pg_cast c
                where c.castsource = 'pg_catalog.text'::pg_catalog.regtype
                  and c.casttarget = coalesce(d.type, a.atttypid) and c.castmethod = 'f')
            then pg_catalog.format_type(a.atttypid, -1) end,
       coalesce(d.type, a.atttypid), coalesce(d.modifier, a.atttypmod),
       coalesce(d.type, a.atttypid) = 18
           and pg_catalog.current_setting('server_version_num')::int4 < 160000
from pg_catalog.pg_attribute a
left join (
    select u.* from under u join pg_catalog.pg_type b on b.oid = u.type where b.typtype <> 'd'
) d on d.domain = a.atttypid
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum";

/// The best usable index of each table with its columns. Usable: unique, valid, a btree or of a
/// constraint `without overlaps` (18), without predicate or expressions, on NOT NULL columns; a
/// NOT NULL that is not valid (18) leaves NULLs where they are. Best: the primary key, then the
/// immediate ones, then btrees, then by name. Where periods may not overlap, those that are equal
/// do: so equal values and periods are one row; what else is kept out is in `unique`.
/// The form of a key column follows its type under all domains; see `key_text`. `hashes`: what the
/// type hashes by (support function 2) where that agrees with the index's own equality, and where
/// elements, bounds and columns of the type have such a function too. What follows from the type is
/// looked up once for each kind of column (`kinds`), not for each table.
const KEYS: &str = "
with usable as (
    select distinct on (i.indrelid)
           i.indexrelid, i.indrelid, i.indisprimary, not i.indimmediate as deferrable,
           i.indisexclusion as temporal,
           ic.relname::text as index_name, i.indnkeyatts, i.indkey, i.indclass, i.indcollation
    from pg_catalog.pg_index i
    join pg_catalog.pg_class ic on ic.oid = i.indexrelid
    where i.indrelid = any($1) and i.indisunique and i.indisvalid and i.indisready
      and (i.indisexclusion
           or ic.relam = (select oid from pg_catalog.pg_am where amname = 'btree'))
      and i.indpred is null and i.indexprs is null
      and not exists (
          select from pg_catalog.generate_series(0, i.indnkeyatts - 1) g(k)
          join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[g.k]
          where not a.attnotnull or exists (
              select from pg_catalog.pg_constraint n
              where n.conrelid = i.indrelid and n.contype = 'n' and not n.convalidated
                and n.conkey[1] = a.attnum))
    order by i.indrelid, i.indisprimary desc, i.indimmediate desc, i.indisexclusion, ic.relname
), hashes as (
    select ho.opcintype as type, eq.amopopr as equality,
           pg_catalog.format('%I.%I', pn.nspname, p.proname) as function
    from pg_catalog.pg_opclass ho
    join pg_catalog.pg_am hm on hm.oid = ho.opcmethod and hm.amname = 'hash'
    join pg_catalog.pg_amproc hp on hp.amprocfamily = ho.opcfamily and hp.amprocnum = 2
         and hp.amproclefttype = ho.opcintype and hp.amprocrighttype = ho.opcintype
    join pg_catalog.pg_proc p on p.oid = hp.amproc
    join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
    join pg_catalog.pg_amop eq on eq.amopfamily = ho.opcfamily and eq.amopstrategy = 1
         and eq.amoplefttype = ho.opcintype and eq.amoprighttype = ho.opcintype
    where ho.opcdefault
), parts as materialized (
    select u.indrelid, u.index_name, u.indisprimary, u.deferrable, u.temporal, g.k, a.attname,
           a.atttypid, a.atttypmod, u.indclass[g.k] as class, u.indcollation[g.k] as coll
    from usable u
    cross join lateral pg_catalog.generate_series(0, u.indnkeyatts - 1) g(k)
    join pg_catalog.pg_attribute a on a.attrelid = u.indrelid and a.attnum = u.indkey[g.k]
), kinds as materialized (
    select distinct atttypid, atttypmod, class, coll, temporal from parts
), forms as materialized (
    select u.*,
       pg_catalog.format_type(u.atttypid, u.atttypmod) as type,
       case when u.temporal then 'OPERATOR(pg_catalog.=)'
            else pg_catalog.format('OPERATOR(%I.%s)', opn.nspname, op.oprname) end as equality,
       base.typname::text as name, basens.nspname = 'pg_catalog' as builtin,
       base.typtype::text as kind,
       case when elem.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
                 and elem.typtype = 'b' and elem.typelem = 0 then elem.typname::text
            when elem.oid is not null then '' end as element,
       case when not coll.collisdeterministic
            then pg_catalog.format('%I.%I', colln.nspname, coll.collname) end as collation_name,
       hash.function as hash
    from kinds u
    join pg_catalog.pg_opclass oc on oc.oid = u.class
    left join pg_catalog.pg_amop ao on ao.amopfamily = oc.opcfamily and ao.amopstrategy = 3
         and ao.amoplefttype = oc.opcintype and ao.amoprighttype = oc.opcintype and not u.temporal
    left join pg_catalog.pg_operator op on op.oid = ao.amopopr
    left join pg_catalog.pg_namespace opn on opn.oid = op.oprnamespace
    left join pg_catalog.pg_collation coll on coll.oid = u.coll
    left join pg_catalog.pg_namespace colln on colln.oid = coll.collnamespace
    cross join lateral (
        with recursive under (oid, base) as (
            select u.atttypid, t.typbasetype from pg_catalog.pg_type t where t.oid = u.atttypid
            union all
            select t.oid, t.typbasetype from under join pg_catalog.pg_type t on t.oid = under.base
            where under.base <> 0)
        select under.oid from under where under.base = 0) b
    join pg_catalog.pg_type base on base.oid = b.oid
    join pg_catalog.pg_namespace basens on basens.oid = base.typnamespace
    left join pg_catalog.pg_range r on r.rngtypid = base.oid or r.rngmultitypid = base.oid
    left join pg_catalog.pg_type elem on elem.oid = coalesce(r.rngsubtype, nullif(base.typelem, 0))
    left join hashes hash
         on (hash.equality = op.oid or u.temporal)
         and hash.type = case when base.typtype = 'c' then 'pg_catalog.record'::pg_catalog.regtype
                              when base.typtype = 'r' then 'pg_catalog.anyrange'::pg_catalog.regtype
                              when base.typtype = 'm'
                              then 'pg_catalog.anymultirange'::pg_catalog.regtype
                              when base.typelem <> 0 and base.typlen = -1
                              then 'pg_catalog.anyarray'::pg_catalog.regtype
                              else base.oid end
         and not exists (
             select from (
                 select elem.oid where elem.oid is not null
                 union all
                 select f.atttypid from pg_catalog.pg_attribute f
                 where f.attrelid = base.typrelid and f.attnum > 0
                   and not f.attisdropped) part (oid)
             join pg_catalog.pg_type p on p.oid = part.oid
             join pg_catalog.pg_type pb
                  on pb.oid = case when p.typtype = 'd' then p.typbasetype else p.oid end
             where pb.typtype <> 'e' and pb.oid <> 'pg_catalog.varchar'::pg_catalog.regtype
               and not exists (select from hashes h where h.type = pb.oid))
)
select p.indrelid, p.index_name, p.indisprimary, p.deferrable, p.attname::text,
       f.type, f.equality, f.name, f.builtin, f.kind, f.element, f.collation_name, f.hash
from parts p
join forms f on f.atttypid = p.atttypid and f.atttypmod = p.atttypmod and f.class = p.class
    and f.coll = p.coll and f.temporal = p.temporal
order by p.indrelid, p.k";

/// Every permanent table of the database that is not a partition.
pub(super) async fn all_tables(client: &Client) -> Result<Vec<Table>, CatalogError> {
    let sql = format!("{TABLES} and not c.relispartition order by 2, 3");
    let rows = client
        .query(&sql, &[])
        .await
        .map_err(CatalogError::query("list tables"))?;
    Ok(each(&rows, table)?)
}

/// Those of the tables that there are, in no order.
pub(super) async fn tables_of(client: &Client, oids: &[u32]) -> Result<Vec<Table>, CatalogError> {
    let rows = client
        .query(&format!("{TABLES} and c.oid = any($1)"), &[&oids])
        .await;
    let rows = rows.map_err(CatalogError::query("look up tables"))?;
    Ok(each(&rows, table)?)
}

/// The tables of these schemas and names that there are, in no order.
pub(super) async fn tables_named(
    client: &Client,
    (schemas, tables): (&[&str], &[&str]),
) -> Result<Vec<Table>, CatalogError> {
    let sql = format!(
        "{TABLES} and (n.nspname, c.relname) in (
            select w.s, w.t
            from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) w (s, t))"
    );
    let rows = client.query(&sql, &[&schemas, &tables]).await;
    let rows = rows.map_err(CatalogError::query("look up tables"))?;
    Ok(each(&rows, table)?)
}

fn table(row: &Row) -> Result<Table, Unread> {
    Ok(Table {
        oid: row.read(0)?,
        schema: row.read(1)?,
        name: row.read(2)?,
        partitioned: row.read(3)?,
        is_partition: row.read(4)?,
        replica_identity: first_char(row.read(5)?),
        can_skip_duplicates: row.read(6)?,
        columns: Vec::new(),
        key: None,
        uniques: Uniques::default(),
        indexed: Vec::new(),
    })
}

/// A `"char"` column cast to text; empty would be its zero byte.
fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or('\0')
}

/// The columns of each table.
pub(super) async fn columns(
    client: &Client,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<Column>>, CatalogError> {
    let rows = client
        .query(COLUMNS, &[&oids])
        .await
        .map_err(CatalogError::query("read columns"))?;
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in &rows {
        columns.entry(row.read(0)?).or_default().push(Column {
            name: row.read(1)?,
            type_name: row.read(2)?,
            type_oid: row.read(3)?,
            not_null: row.read(4)?,
            has_default: row.read(5)?,
            generated: row.read(6)?,
            identity_always: row.read(7)?,
            cast_type: row.read(8)?,
            base_type: (row.read(9)?, row.read(10)?),
            is_bare_byte: row.read(11)?,
        });
    }
    Ok(columns)
}

/// The key of each table that has one.
pub(super) async fn keys(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Key>, CatalogError> {
    let rows = client
        .query(KEYS, &[&oids])
        .await
        .map_err(CatalogError::query("read keys"))?;
    let mut keys: HashMap<u32, Key> = HashMap::new();
    for row in &rows {
        let empty = Key {
            index: row.read(1)?,
            columns: Vec::new(),
            primary: row.read(2)?,
            deferrable: row.read(3)?,
        };
        let key = keys.entry(row.read(0)?).or_insert(empty);
        key.columns.push(key_column(row)?);
    }
    Ok(keys)
}

fn key_column(row: &Row) -> Result<KeyColumn, Unread> {
    let form = KeyForm::of_type(KeyType {
        name: row.read(7)?,
        builtin: row.read(8)?,
        kind: row.read(9)?,
        element: row.read(10)?,
        collation: row.read(11)?,
        hash: row.read(12)?,
    });
    Ok(KeyColumn {
        name: row.read(4)?,
        type_name: row.read(5)?,
        equality: row.read(6)?,
        form,
    })
}
