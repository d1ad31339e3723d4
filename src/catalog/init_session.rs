//! By what everybody knows that `mmrepl init` is at work: the name of its sessions.

use tokio_postgres::Client;

use super::CatalogError;
use crate::ids::ClusterName;
use crate::wire::RowExt;

/// `mmrepl shop init`, the `application_name` of every session that `init` opens.
pub fn name(cluster: &ClusterName) -> String {
    format!("mmrepl {cluster} init")
}

/// Whether `init` is at work on this database. It makes slots first, compares or copies rows, and
/// writes positions last: meanwhile the history of a link looks broken and is not.
pub async fn is_there(client: &Client, cluster: &ClusterName) -> Result<bool, CatalogError> {
    let sql = "select exists (
                   select from pg_catalog.pg_stat_activity
                   where application_name = $1 and datname = pg_catalog.current_database())";
    let row = client.query_one(sql, &[&name(cluster)]).await;
    let row = row.map_err(CatalogError::query("see whether `mmrepl init` is at work"))?;
    Ok(row.read(0)?)
}
