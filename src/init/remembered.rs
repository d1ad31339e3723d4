//! What a node remembers of a cluster, whatever the configuration says now.

use std::collections::BTreeSet;

use super::InitError;
use super::session::Session;
use crate::config::Config;
use crate::ids::NodeName;
use crate::wire::{RowExt, each};

/// Nodes that this one may have slots and origins for: those of the configuration, those that it
/// remembers from an earlier one, and `gone`.
pub(super) async fn peers(
    config: &Config,
    session: &Session,
    gone: Option<&NodeName>,
) -> Result<BTreeSet<NodeName>, InitError> {
    let mut peers: BTreeSet<NodeName> = config.nodes.iter().map(|node| node.name.clone()).collect();
    peers.extend(gone.cloned());
    if relation_exists(session, "mmrepl.node").await? {
        let rows = session
            .client
            .query("select name from mmrepl.node", &[])
            .await;
        let rows = rows.map_err(InitError::server(session.name(), "read mmrepl.node"))?;
        let names: Vec<&str> =
            each(&rows, |row| row.read(0)).map_err(InitError::unread(session.name()))?;
        peers.extend(names.into_iter().filter_map(|name| name.parse().ok()));
    }
    Ok(peers)
}

pub(super) async fn relation_exists(session: &Session, name: &str) -> Result<bool, InitError> {
    let sql = "select pg_catalog.to_regclass($1) is not null";
    let row = session.client.query_one(sql, &[&name]).await;
    let row = row.map_err(InitError::server(
        session.name(),
        format!("look for {name}"),
    ))?;
    row.read(0).map_err(InitError::unread(session.name()))
}
