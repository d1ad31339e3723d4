//! Reads tables with their columns and keys.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::indexed::indexed;
use super::mark::{Mark, marks_of_published};
use super::table::{Column, Key, Table};
use super::unique::uniques;
use super::{CatalogError, table_query};
use crate::config::TableFilter;

/// One table by name, or nothing when the server has none (views and foreign tables are none).
pub async fn load_table(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Option<Table>, CatalogError> {
    Ok(load_named(client, &[(schema, name)]).await?.pop())
}

/// The tables of these schemas and names that there are, in no order. As many queries for a
/// thousand as for one.
pub async fn load_named(
    client: &Client,
    names: &[(&str, &str)],
) -> Result<Vec<Table>, CatalogError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
    let mut tables = table_query::tables_named(client, (&schemas, &tables)).await?;
    complete(client, &mut tables).await?;
    Ok(tables)
}

/// Every permanent table that `filter` takes in: ordinary tables and partition roots, not
/// partitions.
///
/// Six queries whatever the number of tables.
pub async fn load_tables(
    client: &Client,
    filter: &TableFilter,
) -> Result<Vec<Table>, CatalogError> {
    load_where(client, |table| filter.matches(&table.schema, &table.name)).await
}

/// The tables that the server publishes to the cluster, each with the mark that it had before it
/// was read: what is altered meanwhile has another one by now.
pub async fn load_published(client: &Client) -> Result<Vec<(Table, Mark)>, CatalogError> {
    let mut marks = marks_of_published(client).await?;
    let oids: Vec<u32> = marks.keys().copied().collect();
    let mut tables = table_query::tables_of(client, &oids).await?;
    complete(client, &mut tables).await?;
    let marked = |table: Table| marks.remove(&table.oid).map(|mark| (table, mark));
    Ok(tables.into_iter().filter_map(marked).collect())
}

/// Every permanent table, but for partitions.
pub async fn load_all(client: &Client) -> Result<Vec<Table>, CatalogError> {
    load_where(client, |_| true).await
}

async fn load_where(
    client: &Client,
    is_wanted: impl Fn(&Table) -> bool,
) -> Result<Vec<Table>, CatalogError> {
    let mut tables = table_query::all_tables(client).await?;
    tables.retain(is_wanted);
    complete(client, &mut tables).await?;
    Ok(tables)
}

/// Fills in columns and keys.
async fn complete(client: &Client, tables: &mut [Table]) -> Result<(), CatalogError> {
    if tables.is_empty() {
        return Ok(());
    }
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut columns: HashMap<u32, Vec<Column>> = table_query::columns(client, &oids).await?;
    let mut keys: HashMap<u32, Key> = table_query::keys(client, &oids).await?;
    let indexes = keys.iter().map(|(oid, key)| (*oid, key.index.clone()));
    let mut uniques = uniques(client, &oids, &indexes.collect()).await?;
    let keyless = oids.iter().filter(|oid| !keys.contains_key(oid));
    let mut of_keyless = indexed(client, &keyless.copied().collect::<Vec<_>>()).await?;
    for table in tables {
        table.indexed = of_keyless.remove(&table.oid).unwrap_or_default();
        table.uniques = uniques.remove(&table.oid).unwrap_or_default();
        table.columns = columns.remove(&table.oid).unwrap_or_default();
        table.key = keys.remove(&table.oid);
    }
    Ok(())
}
