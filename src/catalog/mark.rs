//! Whether a table was altered since somebody looked at it.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::CatalogError;
use crate::ids::PUBLICATION;
use crate::wire::{RowExt, each};

/// So many published tables are looked at at once at most: about half a second.
const PUBLISHED_MAX: i64 = 5_000;

/// Where a table's name and the transactions that wrote its rows in the catalog: of the table, its
/// columns and its indexes. What alters a table writes one of them anew.
const MARKS: &str = "
select c.oid, pg_catalog.concat_ws(' ', n.nspname, c.relname, c.xmin,
    (select pg_catalog.string_agg(a.xmin::pg_catalog.text, ' ' order by a.attnum)
     from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
    '/',
    (select pg_catalog.string_agg(i.xmin::pg_catalog.text, ' ' order by i.indexrelid)
     from pg_catalog.pg_index i where i.indrelid = c.oid))
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid ";

/// What a table was known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// For tests: of no table.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(String::new())
    }
}

/// The marks of these tables, as far as there are such.
pub async fn marks(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Mark>, CatalogError> {
    let rows = client.query(&format!("{MARKS} = any($1)"), &[&oids]).await;
    read(&rows.map_err(CatalogError::query("see whether tables were altered"))?)
}

/// The marks of the tables in the cluster's publication, but for those beyond a number that nobody
/// wants to wait for.
pub async fn marks_of_published(client: &Client) -> Result<HashMap<u32, Mark>, CatalogError> {
    let sql = format!(
        "{MARKS} in (
            select r.prrelid from pg_catalog.pg_publication_rel r
            join pg_catalog.pg_publication p on p.oid = r.prpubid
            where p.pubname = $1 order by r.prrelid limit $2)"
    );
    let rows = client.query(&sql, &[&PUBLICATION, &PUBLISHED_MAX]).await;
    read(&rows.map_err(CatalogError::query("list published tables"))?)
}

fn read(rows: &[Row]) -> Result<HashMap<u32, Mark>, CatalogError> {
    let mark = |row: &Row| Ok((row.read(0)?, Mark(row.read(1)?)));
    let marks: Vec<(u32, Mark)> = each(rows, mark)?;
    Ok(marks.into_iter().collect())
}
