//! Nodes that a person took out of the cluster: `mmrepl drop --node`.

use tokio_postgres::Client;

use super::CatalogError;
use super::names::literal;
use crate::ids::NodeName;
use crate::wire::{RowExt, each};

/// A node that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedNode {
    /// Its name.
    pub node: String,
    /// When, as text.
    pub at: String,
}

/// What a server that was set up knows of nodes that were dropped.
pub async fn read_dropped(client: &Client) -> Result<Vec<DroppedNode>, CatalogError> {
    let sql = "select node, pg_catalog.to_char(at at time zone 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"')
               from mmrepl.dropped order by 1";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.dropped"))?;
    let node = |row: &tokio_postgres::Row| {
        Ok(DroppedNode {
            node: row.read(0)?,
            at: row.read(1)?,
        })
    };
    Ok(each(&rows, node)?)
}

/// The statement that remembers it.
pub fn remember(node: &NodeName) -> String {
    format!(
        "insert into mmrepl.dropped (node) values ({}) on conflict (node) do update set at = now()",
        literal(node.as_str())
    )
}
