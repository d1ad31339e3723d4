//! What one server says about the sequences that make values of tables that take part.

use tokio_postgres::{Client, Row};

use crate::catalog::CatalogError;
use crate::catalog::names::{ident, qualified, readable};
use crate::wire::{RowExt, Unread, each};

/// How many sequences one query asks about.
const AT_ONCE: usize = 200;

/// A table with fewer rows is looked through for its highest value where no index leads to it.
const SMALL_ROWS: f32 = 100_000.0;

/// Somebody holds a lock on the table, or it is gone.
const NOT_NOW: [&str; 2] = ["55P03", "42P01"];

/// A sequence whose values must not be given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The same on every node: `schema.table.column` that it fills, else its own name.
    pub fills: String,
    /// The sequence, ready for SQL.
    pub name: String,
    /// Its first value.
    pub start: i64,
    /// Its step.
    pub increment: i64,
    /// The lowest value that it gives.
    pub min: i64,
    /// The highest value that it gives and its column takes.
    pub max: i64,
    /// Whether it begins again after its last value.
    pub cycles: bool,
    /// What it knows of itself, where the role may read that.
    pub state: Option<SequenceState>,
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// `last_value`.
    pub last: i64,
    /// `is_called`: whether that value was given.
    pub called: bool,
    /// The farthest value in its column, in the direction of its step.
    pub farthest: Option<i64>,
}

/// Sequences that fill a column of a unique index, by identity or by default; and those that no
/// column has, which functions, triggers or the application itself may call. A partition counts
/// for its root, and a unique index of a partition alone for the root's column.
///
/// What is materialized keeps the planner from reading all functions for each relation of a catalog
/// that was never analysed.
const LIST: &str = "
with filled as (
    select coalesce(pg_catalog.pg_partition_root(a.attrelid)::oid, a.attrelid) as relation,
           a.attname, u.sequence
    from (select d.refobjid as relation, d.refobjsubid::int2 as number, d.objid as sequence
          from pg_catalog.pg_depend d
          where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'i'
          union
          select f.adrelid, f.adnum, d.refobjid
          from pg_catalog.pg_attrdef f
          join pg_catalog.pg_depend d on d.objid = f.oid
               and d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
               and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) u
    join pg_catalog.pg_sequence s on s.seqrelid = u.sequence
    join pg_catalog.pg_attribute a on a.attrelid = u.relation and a.attnum = u.number),
indexed as (
    select r.oid as relation, a.attname,
           pg_catalog.bool_or(a.attnum = i.indkey[0] and i.indisvalid) as leads
    from pg_catalog.unnest($1::oid[]) r(oid)
    cross join lateral (select r.oid as relid union
                        select p.relid from pg_catalog.pg_partition_tree(r.oid) p) m
    join pg_catalog.pg_index i on i.indrelid = m.relid and i.indisunique
    join pg_catalog.pg_attribute a on a.attrelid = m.relid and a.attnum = any(i.indkey)
    group by 1, 2),
columns as (
    select distinct f.sequence, n.nspname, c.relname, a.attname,
           pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null) as type,
           (x.leads or c.reltuples between 0 and $2)
           and pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
           and not pg_catalog.row_security_active(c.oid) as may_ask
    from filled f
    join indexed x on x.relation = f.relation and x.attname = f.attname
    join pg_catalog.pg_class c on c.oid = f.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = f.attname
    join pg_catalog.pg_type t on t.oid = a.atttypid),
candidates as materialized (
    select s.seqrelid as sequence, sc.relname::text as name, sc.relnamespace as schema
    from pg_catalog.pg_sequence s
    join pg_catalog.pg_class sc
         on sc.oid = s.seqrelid and sc.relkind = 'S' and sc.relpersistence <> 't'
    where not exists (select from filled f where f.sequence = s.seqrelid)
      and not exists (
          select from pg_catalog.pg_depend d
          where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = s.seqrelid
            and (d.deptype = 'e' or d.deptype = 'a' and d.refobjid <> all($1)))),
texts as materialized (
    select coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) as text
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname not in ('pg_catalog', 'information_schema', 'mmrepl')
    union all
    select pg_catalog.pg_get_expr(f.adbin, f.adrelid)
    from pg_catalog.pg_attrdef f where f.adrelid = any($1)),
free as (
    select s.sequence from candidates s
    where s.schema in (select c.relnamespace from pg_catalog.pg_class c where c.oid = any($1))
       or exists (select from texts t where pg_catalog.strpos(t.text, s.name) > 0))
select c.nspname::text, c.relname::text, c.attname::text, c.type, coalesce(c.may_ask, false),
       sn.nspname::text, sc.relname::text, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
       s.seqcycle, pg_catalog.has_sequence_privilege(sc.oid, 'SELECT')
from (select sequence, nspname, relname, attname, type, may_ask from columns
      union all select sequence, null, null, null, null, null from free) c
join pg_catalog.pg_sequence s on s.seqrelid = c.sequence
join pg_catalog.pg_class sc on sc.oid = c.sequence
join pg_catalog.pg_namespace sn on sn.oid = sc.relnamespace
where not pg_catalog.starts_with(sn.nspname::text, 'pg_')
  and sn.nspname not in ('information_schema', 'mmrepl')
order by 1, 2, 3, 6, 7";

/// Lists them and asks each where it stands.
pub(super) async fn sequences(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<Sequence>, CatalogError> {
    let failed = || CatalogError::query("read sequences");
    let rows = client.query(LIST, &[&oids, &SMALL_ROWS]).await;
    let rows = rows.map_err(failed())?;
    let mut found: Vec<Sequence> = each(&rows, sequence)?;
    let mut questions: Vec<(usize, String)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        questions.extend(question(at, row)?.map(|text| (at, text)));
    }
    for questions in questions.chunks(AT_ONCE) {
        let texts: Vec<&str> = questions.iter().map(|(_, text)| text.as_str()).collect();
        for (at, state) in states(client, &texts.join(" union all ")).await? {
            found[at].state = Some(state);
        }
    }
    Ok(found)
}

fn sequence(row: &Row) -> Result<Sequence, Unread> {
    let name = readable(row.read(5)?, row.read(6)?);
    let column: Option<&str> = row.read(2)?;
    let fills = match column {
        Some(column) => format!("{}.{column}", readable(row.read(0)?, row.read(1)?)),
        None => name.clone(),
    };
    let max: i64 = row.read(10)?;
    let takes = match row.read(3)? {
        Some("smallint") => i64::from(i16::MAX),
        Some("integer") => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    Ok(Sequence {
        fills,
        name,
        start: row.read(7)?,
        increment: row.read(8)?,
        min: row.read(9)?,
        max: max.min(takes),
        cycles: row.read(11)?,
        state: None,
    })
}

/// The query for where a sequence stands; nothing where the role may not read it.
fn question(at: usize, row: &Row) -> Result<Option<String>, Unread> {
    if !row.read::<bool>(12)? {
        return Ok(None);
    }
    let sequence = qualified(row.read(5)?, row.read(6)?);
    let farthest = if row.read(4)? { farthest(row)? } else { None };
    let farthest = farthest.unwrap_or_else(|| "null".to_owned());
    Ok(Some(format!(
        "select {at}, last_value, is_called, {farthest}::pg_catalog.int8 from {sequence}"
    )))
}

/// The highest or lowest number in a column; nothing where it holds no numbers.
fn farthest(row: &Row) -> Result<Option<String>, Unread> {
    let number: Option<&str> = row.read(3)?;
    if !number.is_some_and(|number| ["smallint", "integer", "bigint"].contains(&number)) {
        return Ok(None);
    }
    let end = if row.read::<i64>(8)? > 0 {
        "max"
    } else {
        "min"
    };
    let (table, column) = (qualified(row.read(0)?, row.read(1)?), ident(row.read(2)?));
    Ok(Some(format!(
        "(select pg_catalog.{end}({column}) from {table})"
    )))
}

/// The answers, by place; none where a table cannot be read at this moment.
async fn states(client: &Client, sql: &str) -> Result<Vec<(usize, SequenceState)>, CatalogError> {
    let failed = || CatalogError::query("read the values of sequences");
    let begin = "begin read only; set local lock_timeout = '3s'";
    client.batch_execute(begin).await.map_err(failed())?;
    let answer = client.query(sql, &[]).await;
    client.batch_execute("rollback").await.map_err(failed())?;
    let rows = match answer {
        Err(error)
            if error
                .code()
                .is_some_and(|code| NOT_NOW.contains(&code.code())) =>
        {
            Vec::new()
        }
        answer => answer.map_err(failed())?,
    };
    let state = |row: &Row| {
        let state = SequenceState {
            last: row.read(1)?,
            called: row.read(2)?,
            farthest: row.read(3)?,
        };
        let at = usize::try_from(row.read::<i32>(0)?);
        Ok(at.ok().map(|at| (at, state)))
    };
    let states: Vec<Option<_>> = each(&rows, state)?;
    Ok(states.into_iter().flatten().collect())
}
