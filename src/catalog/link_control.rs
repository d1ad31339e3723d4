//! `mmrepl.link_control`: what a person asked of a link, kept on its source server.

use tokio_postgres::Client;

use super::CatalogError;
use crate::ids::LinkName;
use crate::wire::RowExt;

/// Whether the link is paused. Ask the link's source server.
pub async fn read_paused(client: &Client, link: &LinkName) -> Result<bool, CatalogError> {
    let sql = "select paused from mmrepl.link_control where link = $1";
    let row = client.query_opt(sql, &[&link.to_string()]).await;
    let row = row.map_err(CatalogError::query("read whether the link is paused"))?;
    Ok(row.map_or(Ok(false), |row| row.read(0))?)
}

/// Pauses or resumes the link, on its source server. `since` keeps the time of the last change.
pub async fn set_paused(
    client: &Client,
    link: &LinkName,
    paused: bool,
) -> Result<(), CatalogError> {
    let sql = "insert into mmrepl.link_control (link, paused) values ($1, $2)
               on conflict (link) do update set paused = excluded.paused, since = now()
               where link_control.paused <> excluded.paused";
    let done = client.execute(sql, &[&link.to_string(), &paused]).await;
    done.map_err(CatalogError::query("record that the link is paused"))?;
    Ok(())
}
