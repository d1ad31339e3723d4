//! Functions that find what they name by the search path of whoever calls them: ours is empty.

use tokio_postgres::Client;

use super::CatalogError;
use super::names::ident;
use crate::wire::{RowExt, Unread, each};

/// SQLSTATEs of something named without its schema and not found: a table, a function, a type or
/// operator, a column, a schema.
const NOT_FOUND: [&str; 5] = ["42P01", "42883", "42704", "42703", "3F000"];

/// Whether an error may be that of a function with names that it does not find.
pub fn may_be_by_search_path(sqlstate: Option<&str>) -> bool {
    sqlstate.is_some_and(|state| NOT_FOUND.contains(&state))
}

/// A function of a person's own that sets no search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pathless {
    /// What calls it: `index t_lower_idx`, `event trigger log_changes`.
    pub user: String,
    /// Its schema.
    schema: String,
    /// With schema and argument types, as SQL has it.
    signature: String,
}

impl Pathless {
    /// The statement that gives it one.
    pub fn mend(&self) -> String {
        let own = ident(&self.schema);
        let path = match self.schema.as_str() {
            "public" => "public".to_owned(),
            _ => format!("{own}, public"),
        };
        format!("alter function {} set search_path = {path}", self.signature)
    }
}

/// In a sentence: who uses which, and the statements that mend it.
pub fn describe(found: &[Pathless]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let uses = found
        .iter()
        .map(|one| format!("{} calls {}", one.user, one.signature));
    let mut mends: Vec<String> = found.iter().map(Pathless::mend).collect();
    mends.sort_unstable();
    mends.dedup();
    Some(format!(
        "{}, which finds what it names by the caller's search_path only, and ours is empty: `{}`",
        uses.collect::<Vec<_>>().join(", "),
        mends.join("; ")
    ))
}

/// What a function must be like to depend on its caller.
macro_rules! pathless {
    () => {
        "join pg_catalog.pg_namespace n on n.oid = p.pronamespace
         join pg_catalog.pg_language l on l.oid = p.prolang
         where l.lanname not in ('c', 'internal') and p.prosqlbody is null
           and n.nspname not in ('mmrepl', 'pg_catalog', 'information_schema')
           and not exists (select from pg_catalog.unnest(p.proconfig) c
                           where c like 'search\\_path=%')"
    };
}

/// Functions of the table's indexes, constraints, generated columns and defaults, of its triggers
/// that fire for applied rows, and the same of its partitions.
const OF_TABLE: &str = concat!(
    "
with relation as (
    select t.oid from pg_catalog.pg_class t join pg_catalog.pg_namespace s on s.oid = t.relnamespace
    where s.nspname || '.' || t.relname = $1
    union
    select i.inhrelid from pg_catalog.pg_inherits i
    join pg_catalog.pg_class t on t.oid = i.inhparent
    join pg_catalog.pg_namespace s on s.oid = t.relnamespace
    where s.nspname || '.' || t.relname = $1
), users as (
    select 'pg_catalog.pg_class'::pg_catalog.regclass as class, i.indexrelid as oid,
           pg_catalog.format('index %s', i.indexrelid::pg_catalog.regclass) as name
    from pg_catalog.pg_index i join relation r on r.oid = i.indrelid
    union all
    select 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid,
           pg_catalog.format('constraint %I of %s', c.conname, c.conrelid::pg_catalog.regclass)
    from pg_catalog.pg_constraint c join relation r on r.oid = c.conrelid
    union all
    select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid,
           pg_catalog.format('column %I of %s', a.attname, d.adrelid::pg_catalog.regclass)
    from pg_catalog.pg_attrdef d join relation r on r.oid = d.adrelid
    join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    where a.attgenerated <> ''
    union all
    select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid,
           pg_catalog.format('trigger %I of %s', t.tgname, t.tgrelid::pg_catalog.regclass)
    from pg_catalog.pg_trigger t join relation r on r.oid = t.tgrelid
    where t.tgenabled in ('A', 'R') and not t.tgisinternal
)
select distinct u.name::pg_catalog.text, n.nspname::pg_catalog.text,
       p.oid::pg_catalog.regprocedure::pg_catalog.text
from users u
join pg_catalog.pg_depend d on d.classid = u.class and d.objid = u.oid
join pg_catalog.pg_proc p on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                         and p.oid = d.refobjid
",
    pathless!(),
    " order by 1, 3 limit 5"
);

/// Functions of event triggers that fire for our statements.
const OF_EVENT_TRIGGERS: &str = concat!(
    "
select pg_catalog.format('event trigger %I', e.evtname), n.nspname::pg_catalog.text,
       p.oid::pg_catalog.regprocedure::pg_catalog.text
from pg_catalog.pg_event_trigger e join pg_catalog.pg_proc p on p.oid = e.evtfoid
",
    pathless!(),
    " and e.evtenabled in ('O', 'A') order by 1, 3 limit 5"
);

/// Those that a write of the table may call. `table` is `schema.table`, unquoted.
pub async fn of_table(client: &Client, table: &str) -> Result<Vec<Pathless>, CatalogError> {
    let rows = client.query(OF_TABLE, &[&table]).await;
    let rows = rows.map_err(CatalogError::query("read the functions of a table"))?;
    Ok(each(&rows, read)?)
}

/// Those that any change of the structure calls.
pub async fn of_event_triggers(client: &Client) -> Result<Vec<Pathless>, CatalogError> {
    let rows = client.query(OF_EVENT_TRIGGERS, &[]).await;
    let rows = rows.map_err(CatalogError::query("read event triggers"))?;
    Ok(each(&rows, read)?)
}

fn read(row: &tokio_postgres::Row) -> Result<Pathless, Unread> {
    Ok(Pathless {
        user: row.read(0)?,
        schema: row.read(1)?,
        signature: row.read(2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_each_mend_once() {
        let found = |user: &str| Pathless {
            user: user.to_owned(),
            schema: "app".to_owned(),
            signature: "app.f(text)".to_owned(),
        };
        let said = describe(&[found("index a"), found("index b")]).unwrap();
        assert!(said.starts_with("index a calls app.f(text), index b calls app.f(text), which"));
        let mend = "`alter function app.f(text) set search_path = \"app\", public`";
        assert!(said.ends_with(mend), "{said}");
        assert_eq!(describe(&[]), None);
    }
}
