//! Asks one server everything that the checks need.

use tokio_postgres::Client;

use super::facts::{NodeFacts, Ours, Rights};
use super::facts_query as query;
use crate::catalog::foreign::read_subscriptions;
use crate::catalog::load_tables::load_tables;
use crate::catalog::server::{Server, read_server};
use crate::catalog::table::Table;
use crate::catalog::{CatalogError, slots};
use crate::config::{Config, Node};

/// What the role may not do on one server.
pub(crate) async fn rights(
    client: &Client,
    server: &Server,
    tables: &[Table],
) -> Result<Rights, CatalogError> {
    query::rights(client, server, tables).await
}

/// Asks one server everything. The client should be otherwise idle: the clock is measured on it.
pub async fn gather(
    config: &Config,
    node: &Node,
    client: &Client,
) -> Result<NodeFacts, CatalogError> {
    let server = read_server(client).await?;
    let tables = load_tables(client, &config.tables).await?;
    let clock = query::clock(client).await?;
    let rights = query::rights(client, &server, &tables).await?;
    let oddities = query::oddities(client, config, &tables).await?;
    let functions = super::functions::gather(config, client).await?;
    let here = query::here(client).await?;
    let neighbours = super::neighbours::gather(config, node, here.as_deref(), client).await?;
    Ok(NodeFacts {
        name: node.name.clone(),
        target: node.dsn.describe(),
        here,
        neighbours,
        ours: ours(config, node, client).await?,
        scope: super::scope::gather(config, client).await?,
        server,
        tables,
        clock,
        rights,
        oddities,
        functions,
        subscriptions: read_subscriptions(client).await?,
    })
}

async fn ours(config: &Config, node: &Node, client: &Client) -> Result<Ours, CatalogError> {
    let mut ours = Ours::default();
    for peer in config.peers_of(&node.name) {
        let slot = crate::ids::slot_name(&config.cluster, &peer.name);
        if let Some(slot) = slots::slot_state(client, &slot).await? {
            ours.slots += 1;
            ours.streaming += i64::from(slot.active_pid.is_some());
        }
    }
    for node in &config.nodes {
        for origin in crate::ids::origin_names(&config.cluster, &node.name) {
            ours.origins += i64::from(slots::origin_id(client, &origin).await?.is_some());
        }
    }
    Ok(ours)
}
