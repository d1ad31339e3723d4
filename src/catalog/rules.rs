//! The rules that a node's daemon has left on its server.

use tokio_postgres::Client;

use super::CatalogError;
use crate::wire::RowExt;

/// Leaves the rules of this server's daemon.
pub async fn write_rules(client: &Client, rules: &str) -> Result<(), CatalogError> {
    let sql = "update mmrepl.node set rules = $1 where here and rules is distinct from $1";
    let done = client.execute(sql, &[&rules]).await;
    done.map_err(CatalogError::query("leave the rules"))?;
    Ok(())
}

/// The rules that the server's own daemon goes by; nothing before it has run.
pub async fn read_rules(client: &Client) -> Result<Option<String>, CatalogError> {
    let row = client
        .query_opt("select rules from mmrepl.node where here", &[])
        .await
        .map_err(CatalogError::query("read the rules"))?;
    Ok(row.map_or(Ok(None), |row| row.read(0))?)
}
