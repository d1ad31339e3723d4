//! Columns of a table without a key by which an index finds rows.
//!
//! Such a table is matched by whole rows. That every column is equal decides; that one of these is
//! lets the server look a row up instead of reading the whole table, as its own subscriptions do
//! since 16.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::CatalogError;
use crate::wire::RowExt;

/// A column that stands in a usable index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedColumn {
    /// Its name.
    pub name: String,
    /// The index's own equality, ready for SQL: `OPERATOR(pg_catalog.=)`.
    pub equality: String,
}

/// Usable: a valid btree of whole rows and plain columns, under the columns' own collations.
const COLUMNS: &str = "
select distinct i.indrelid, a.attname::text,
       pg_catalog.format('OPERATOR(%I.%s)', opn.nspname, op.oprname)
from pg_catalog.pg_index i
join pg_catalog.pg_class ic on ic.oid = i.indexrelid
join pg_catalog.pg_am am on am.oid = ic.relam and am.amname = 'btree'
cross join lateral pg_catalog.generate_series(0, i.indnkeyatts - 1) g(k)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[g.k]
     and a.attcollation = i.indcollation[g.k]
join pg_catalog.pg_opclass oc on oc.oid = i.indclass[g.k] and oc.opcdefault
join pg_catalog.pg_amop ao on ao.amopfamily = oc.opcfamily and ao.amopstrategy = 3
     and ao.amoplefttype = oc.opcintype and ao.amoprighttype = oc.opcintype
join pg_catalog.pg_operator op on op.oid = ao.amopopr
join pg_catalog.pg_namespace opn on opn.oid = op.oprnamespace
where i.indrelid = any($1) and i.indisvalid and i.indisready
  and i.indpred is null and i.indexprs is null
order by 1, 2";

/// The indexed columns of each table.
pub(super) async fn indexed(
    client: &Client,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<IndexedColumn>>, CatalogError> {
    let mut indexed: HashMap<u32, Vec<IndexedColumn>> = HashMap::new();
    if oids.is_empty() {
        return Ok(indexed);
    }
    let rows = client
        .query(COLUMNS, &[&oids])
        .await
        .map_err(CatalogError::query("read indexed columns"))?;
    for row in &rows {
        indexed
            .entry(row.read(0)?)
            .or_default()
            .push(IndexedColumn {
                name: row.read(1)?,
                equality: row.read(2)?,
            });
    }
    Ok(indexed)
}
