//! Rows that come to a server by another way than this program: subscriptions, other replicators.

use tokio_postgres::Client;

use super::CatalogError;
use crate::wire::{RowExt, each};

/// Subscriptions of this database, and origins that are neither ours nor those of subscriptions of
/// other databases.
const NAMES: &str = "
    select pg_catalog.format('subscription %s', s.subname)
    from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid
    where d.datname = pg_catalog.current_database()
    union all
    select pg_catalog.format('replication origin %s', o.roname)
    from pg_catalog.pg_replication_origin o
    where o.roname !~ '^mmrepl_' and not exists (
        select from pg_catalog.pg_subscription s
        where o.roname ~ ('^pg_' || s.oid || '(_|$)'))
    order by 1 limit 5";

/// What may write here in the name of a server outside of the cluster, in words.
pub async fn read_foreign(client: &Client) -> Result<Vec<String>, CatalogError> {
    let rows = client.query(NAMES, &[]).await;
    let rows = rows.map_err(CatalogError::query(
        "read subscriptions and replication origins",
    ))?;
    Ok(each(&rows, |row| row.read(0))?)
}
