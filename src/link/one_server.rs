//! Whether the two ways to the daemon's own server lead to one.

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::{application_name, catalog_at};
use crate::catalog::server::read_server;
use crate::wire::control;

/// Where the way of the peers cannot be gone.
const UNKNOWN: &str =
    "dsn cannot be reached from here, so nobody knows whether local_dsn leads to the same server";

/// Fails where the source, as this daemon reaches it, is not the server that its peers mean. Asked
/// whenever the link connects: a standby may have been promoted meanwhile, and `dsn` lead there.
pub(super) async fn check(context: &LinkContext, source: &Client) -> Result<(), LinkError> {
    let home = &context.home;
    let Some(for_peers) = home.for_peers() else {
        return Ok(());
    };
    let node = &context.source.name;
    let client = match control(for_peers, &application_name(context, "control")).await {
        Ok(client) => client,
        Err(error) => {
            if !home.was_told() {
                tracing::warn!(%node, %error, "{UNKNOWN}");
            }
            return Ok(());
        }
    };
    let here = read_server(source).await.map_err(catalog_at(node))?;
    let there = read_server(&client).await.map_err(catalog_at(node))?;
    let Some(difference) = here.difference(&there) else {
        return Ok(());
    };
    Err(LinkError::OtherServer(format!(
        "local_dsn of {node} ({}) and its dsn ({}) lead to two servers: {difference}; make both lead to one, in the file of every host, and restart the daemon",
        context.source.dsn.describe(),
        for_peers.describe()
    )))
}
