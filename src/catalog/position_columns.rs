//! Which columns hold WAL positions: from 19 on these print with leading zeros.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::CatalogError;
use super::row_text::PG_LSN;
use super::table::Table;
use crate::wire::{RowExt, each};

/// The columns with a WAL position anywhere in their types: in domains, arrays, ranges, composites.
const WITH_POSITIONS: &str = "
with recursive part (name, type) as (
    select a.attname::text, a.atttypid from pg_catalog.pg_attribute a
    where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
    union
    select p.name, under.oid
    from part p
    join pg_catalog.pg_type t on t.oid = p.type
    cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all
        select t.typelem where t.typelem <> 0
        union all
        select r.rngsubtype from pg_catalog.pg_range r
        where t.oid in (r.rngtypid, r.rngmultitypid)
        union all
        select f.atttypid from pg_catalog.pg_attribute f
        where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
    ) under (oid))
select distinct name from part where type = 'pg_catalog.pg_lsn'::pg_catalog.regtype";

/// Types from this number on are none of the server's own.
const OWN_TYPES_FROM: u32 = 16_384;
const PG_LSN_ARRAY: u32 = 3_221;

/// Asks which columns hold WAL positions, where any may.
pub async fn with_positions(
    client: &Client,
    table: &Table,
) -> Result<HashSet<String>, CatalogError> {
    let may = |oid: u32| oid >= OWN_TYPES_FROM || oid == PG_LSN || oid == PG_LSN_ARRAY;
    if !table.columns.iter().any(|column| may(column.type_oid)) {
        return Ok(HashSet::new());
    }
    let rows = client.query(WITH_POSITIONS, &[&table.oid]).await;
    let rows = rows.map_err(CatalogError::query("look for columns with WAL positions"))?;
    let names: Vec<String> = each(&rows, |row| row.read(0))?;
    Ok(names.into_iter().collect())
}
