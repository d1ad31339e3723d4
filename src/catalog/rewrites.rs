//! What a person decides about rows of which nobody knows when they were written
//! (`apply::rewrites`), one statement each.

use postgres_protocol::escape::escape_identifier as quote;
use tokio_postgres::Client;

use super::CatalogError;
use super::table::Table;
use crate::wire::RowExt;

/// Such rows of table `t`, by partition and transaction, as `f`.
fn forged(table: &Table) -> String {
    format!(
        "(select x.tableoid as relation, x.xmin as writer from {} x group by 1, 2 \
         having mmrepl.is_forged(x.xmin, x.tableoid) and exists (select from mmrepl.table_file f \
         join pg_catalog.pg_class c on c.oid = f.relation and c.relfilenode <> f.file \
         where f.relation = x.tableoid)) f",
        table.only()
    )
}

/// Whether the table has such rows.
pub async fn has_forged_rows(client: &Client, table: &Table) -> Result<bool, CatalogError> {
    let sql = format!("select exists (select from {})", forged(table));
    let row = client.query_one(&sql, &[]).await;
    let row = row.map_err(CatalogError::query("look for rewritten rows"))?;
    Ok(row.read(0)?)
}

/// `update … set` of a column to what it is; a column of the key only where there is no other.
fn write_again(table: &Table) -> Option<String> {
    let in_key = |name: &str| {
        let mut columns = table.key.iter().flat_map(|key| &key.columns);
        columns.any(|column| column.name == name)
    };
    let settable = table
        .columns
        .iter()
        .filter(|column| !column.generated && !column.identity_always);
    let column = settable.min_by_key(|column| in_key(&column.name))?;
    let name = quote(&column.name);
    Some(format!("update {} t set {name} = t.{name}", table.only()))
}

async fn run(client: &Client, table: &Table, condition: &str) -> Result<u64, CatalogError> {
    let Some(update) = write_again(table) else {
        return Ok(0);
    };
    let written = client.execute(&format!("{update} {condition}"), &[]).await;
    written.map_err(CatalogError::query("write rows again"))
}

/// Writes such rows again, as they are: new writes of this node.
pub async fn renew_forged(client: &Client, table: &Table) -> Result<u64, CatalogError> {
    let condition = format!(
        "from {} where t.tableoid = f.relation and t.xmin = f.writer",
        forged(table)
    );
    run(client, table, &condition).await
}

/// Writes rows again that were written after `since`, or all.
pub async fn renew_since(
    client: &Client,
    table: &Table,
    since: Option<&str>,
) -> Result<u64, CatalogError> {
    let condition = since.map_or_else(String::new, |since| {
        let since = super::names::literal(since);
        format!("where pg_catalog.pg_xact_commit_timestamp(t.xmin) > {since}::timestamptz")
    });
    run(client, table, &condition).await
}

/// From now on such rows count as older than all that arrives.
pub async fn age_forged(client: &Client, table: &Table) -> Result<u64, CatalogError> {
    let sql = format!(
        "insert into mmrepl.rewrite (relation, xid, cid, kept, buckets, writes) \
         select f.relation, f.writer::text::bigint, 0, 0, 1, 0 from {}",
        forged(table)
    );
    let aged = client.execute(&sql, &[]).await;
    aged.map_err(CatalogError::query("let rewritten rows count as old"))
}

/// The oldest commit time up to which some source has been applied, as text.
pub async fn applied_since(client: &Client) -> Result<Option<String>, CatalogError> {
    let sql = "select case when pg_catalog.bool_and(commit_time is not null)
                      then pg_catalog.min(commit_time) end::text from mmrepl.apply_position";
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(CatalogError::query("read the apply positions"))?;
    Ok(row.read(0)?)
}
