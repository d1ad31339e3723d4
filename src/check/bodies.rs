//! Functions that the server calls while rows are applied, and that look for names where sessions
//! of mmrepl do not.

use tokio_postgres::{Client, Row};

use super::Problem;
use super::facts::{NodeFacts, Unqualified};
use crate::catalog::CatalogError;
use crate::catalog::names::{ident, qualified, readable};
use crate::wire::{RowExt, each};

/// Functions in SQL or PL/pgSQL, kept as text and without a search path of their own, that CHECK
/// constraints, domains, generated columns and indexes call. Their text is searched for functions,
/// tables and types of the database that it names without a schema.
const FIND: &str = r#"
with members as (
    select r.oid as relid from pg_catalog.unnest($1::oid[]) r(oid)
    union
    select p.relid::oid from pg_catalog.unnest($1::oid[]) r(oid)
    cross join lateral pg_catalog.pg_partition_tree(r.oid) p),
calls as (
    select d.refobjid as function, m.relid, 'constraint ' || k.conname as what
    from pg_catalog.pg_constraint k
    join members m on m.relid = k.conrelid
         or exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = m.relid and k.contypid <> 0 and a.atttypid = k.contypid)
    join pg_catalog.pg_depend d on d.objid = k.oid
         and d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
         and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    where k.contype = 'c'
    union
    select d.refobjid, m.relid, 'generated column ' || a.attname
    from members m
    join pg_catalog.pg_attribute a on a.attrelid = m.relid and a.attgenerated <> ''
    join pg_catalog.pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    join pg_catalog.pg_depend d on d.objid = f.oid
         and d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
         and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    union
    select d.refobjid, m.relid, 'index ' || ic.relname
    from members m
    join pg_catalog.pg_index i on i.indrelid = m.relid
    join pg_catalog.pg_class ic on ic.oid = i.indexrelid
    join pg_catalog.pg_depend d on d.objid = i.indexrelid
         and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
         and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass),
things as (
    select n.nspname, o.name, o.kind
    from (select pronamespace, proname::text, 'function' from pg_catalog.pg_proc
          union select relnamespace, relname::text, 'table' from pg_catalog.pg_class
                where relkind in ('r', 'p', 'v', 'm', 'f')
          union select typnamespace, typname::text, 'type' from pg_catalog.pg_type
                where typtype in ('e', 'd', 'c')) o(schema, name, kind)
    join pg_catalog.pg_namespace n on n.oid = o.schema
    where o.name ~ '^[a-z_][a-z0-9_]*$' and not pg_catalog.starts_with(n.nspname::text, 'pg_')
      and n.nspname not in ('information_schema', 'mmrepl')
      and not exists (select from pg_catalog.pg_proc p where p.proname = o.name
                      and p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace))
select n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid),
       cn.nspname::text, c.relname::text, pg_catalog.min(s.what),
       pg_catalog.array_agg(distinct t.nspname::text order by t.nspname::text)
from calls s
join pg_catalog.pg_proc p on p.oid = s.function
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname in ('sql', 'plpgsql')
join pg_catalog.pg_class c on c.oid = s.relid
join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
join things t on p.prosrc ~* case t.kind
     when 'function' then '(^|[^.\w"])' || t.name || '\s*\('
     when 'table' then '\m(from|join|into|update)\s+' || t.name || '\M'
     else '::\s*' || t.name || '\M' end
where not exists (select from pg_catalog.unnest(p.proconfig) g(setting)
                  where pg_catalog.starts_with(g.setting, 'search_path='))
group by 1, 2, 3, 4, 5
order by 1, 2, 3, 4, 5"#;

/// Asks a server for them.
pub(super) async fn gather(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<Unqualified>, CatalogError> {
    let rows = client.query(FIND, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("read functions that constraints call"))?;
    let found = |row: &Row| {
        Ok(Unqualified {
            function: format!(
                "{}({})",
                qualified(row.read(0)?, row.read(1)?),
                row.read::<&str>(2)?
            ),
            caller: format!(
                "{} of {}",
                row.read::<&str>(5)?,
                readable(row.read(3)?, row.read(4)?)
            ),
            schemas: row.read(6)?,
        })
    };
    Ok(each(&rows, found)?)
}

/// The problems of one node.
pub(super) fn check(facts: &NodeFacts) -> Vec<Problem> {
    let problem = |one: &Unqualified| {
        let Unqualified {
            function, caller, ..
        } = one;
        let what = format!(
            "function {function}, which {caller} calls, names things without their schema: they are not found where rows are applied, and the link is blocked"
        );
        let schemas: Vec<String> = one.schemas.iter().map(|schema| ident(schema)).collect();
        Problem::warning(&facts.name, what).sql(format!(
            "alter function {function} set search_path = {}, pg_temp",
            schemas.join(", ")
        ))
    };
    facts.oddities.unqualified.iter().map(problem).collect()
}
