//! What `init` made on tables that take part no longer: the configuration leaves them out since.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::{PUBLICATION, own};
use crate::catalog::CatalogError;
use crate::catalog::names::{ident, qualified, readable};
use crate::config::TableFilter;
use crate::wire::{RowExt, Unread, each};

/// A relation that does not take part and has something of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    schema: String,
    name: String,
    /// It is sent to the peers all the same.
    pub(super) published: bool,
    /// Our triggers, without those that go with their parent's.
    triggers: Vec<String>,
    /// The replica identity that `init` found.
    identity_before: Option<String>,
    oid: u32,
}

impl Leftover {
    /// `schema.table`, for people.
    pub(super) fn readable(&self) -> String {
        readable(&self.schema, &self.name)
    }

    /// What takes away everything of ours.
    pub(super) fn statements(&self) -> Vec<String> {
        let table = qualified(&self.schema, &self.name);
        let mut sql = Vec::new();
        if self.published {
            let publication = ident(PUBLICATION);
            sql.push(format!(
                "alter publication {publication} drop table {table}"
            ));
        }
        let triggers = self.triggers.iter();
        sql.extend(triggers.map(|name| format!("drop trigger {} on {table}", ident(name))));
        let oid = self.oid;
        let own = own::NAMES.iter();
        sql.extend(own.map(|name| format!("drop function if exists mmrepl.{name}_{oid}()")));
        if let Some(before) = &self.identity_before {
            sql.push(format!(
                "alter table only {table} replica identity {before}"
            ));
            sql.push(format!(
                "delete from mmrepl.replica_identity where relation = {oid}"
            ));
        }
        sql
    }
}

/// Relations with something of ours, beside our own tables; the root of a partition decides whether
/// it takes part.
const OURS: &str = "
select c.oid, n.nspname::text, c.relname::text, rn.nspname::text, root.relname::text,
       exists (select from pg_catalog.pg_publication_rel r
               join pg_catalog.pg_publication p on p.oid = r.prpubid
               where r.prrelid = c.oid and p.pubname = $1),
       array(select t.tgname::text from pg_catalog.pg_trigger t
             where t.tgrelid = c.oid and t.tgparentid = 0
               and t.tgname::text ~ '^(zzz_)?mmrepl_' order by 1)
from (select r.prrelid from pg_catalog.pg_publication_rel r
      join pg_catalog.pg_publication p on p.oid = r.prpubid where p.pubname = $1
      union
      select t.tgrelid from pg_catalog.pg_trigger t
      where t.tgparentid = 0 and t.tgname::text ~ '^(zzz_)?mmrepl_') ours(oid)
join pg_catalog.pg_class c on c.oid = ours.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class root
  on root.oid = coalesce(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid)
join pg_catalog.pg_namespace rn on rn.oid = root.relnamespace
where n.nspname <> 'mmrepl'
order by 2, 3";

/// Everything of ours on relations that `filter` leaves out; `migrated`: schema `mmrepl` is there.
pub(super) async fn leftovers(
    client: &Client,
    filter: &TableFilter,
    migrated: bool,
) -> Result<Vec<Leftover>, CatalogError> {
    let rows = client.query(OURS, &[&PUBLICATION]).await;
    let rows = rows.map_err(CatalogError::query("list what init made"))?;
    let mut found = Vec::new();
    for row in &rows {
        if !filter.matches(row.read(3)?, row.read(4)?) {
            found.push(leftover(row)?);
        }
    }
    if migrated && !found.is_empty() {
        let sql = "select relation, before from mmrepl.replica_identity";
        let rows = client.query(sql, &[]).await;
        let rows = rows.map_err(CatalogError::query("read replica identities"))?;
        let mut before: HashMap<u32, String> = each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?;
        for leftover in &mut found {
            leftover.identity_before = before.remove(&leftover.oid);
        }
    }
    Ok(found)
}

fn leftover(row: &tokio_postgres::Row) -> Result<Leftover, Unread> {
    Ok(Leftover {
        oid: row.read(0)?,
        schema: row.read(1)?,
        name: row.read(2)?,
        published: row.read(5)?,
        triggers: row.read(6)?,
        identity_before: None,
    })
}
