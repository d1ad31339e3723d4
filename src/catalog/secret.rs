//! The secret by which a node's messages are known.

use tokio_postgres::Client;

use super::CatalogError;
use crate::conflict::Secret;
use crate::wire::RowExt;

/// Reads the node's secret; one that somebody emptied the table of is made anew.
pub async fn read_secret(client: &Client) -> Result<Secret, CatalogError> {
    let failed = || CatalogError::query("read mmrepl.secret");
    let read = "select secret from mmrepl.secret";
    if let Some(row) = client.query_opt(read, &[]).await.map_err(failed())? {
        return Ok(Secret::new(row.read(0)?));
    }
    let make = "insert into mmrepl.secret default values on conflict do nothing";
    client.execute(make, &[]).await.map_err(failed())?;
    let row = client.query_one(read, &[]).await.map_err(failed())?;
    Ok(Secret::new(row.read(0)?))
}
