//! A node that is compared.

use tokio_postgres::Client;

use super::error::{AskError, VerifyError};
use super::fence::Post;
use crate::catalog::load_tables::load_tables;
use crate::catalog::server::read_server;
use crate::catalog::table::Table;
use crate::config::{Config, Node};
use crate::wire::control;

/// Schema and name of a table.
pub(super) type TableId = (String, String);

/// A node that is compared.
pub(super) struct Peer<'a> {
    pub(super) node: &'a Node,
    /// For marks and positions.
    pub(super) client: Client,
    pub(super) tables: Vec<Table>,
    pub(super) encoding: String,
}

/// Connects to `node` and reads its tables.
pub(super) async fn meet<'a>(config: &Config, node: &'a Node) -> Result<Peer<'a>, VerifyError> {
    let client = connect(config, node).await?;
    let asked = |source| AskError {
        node: node.name.clone(),
        source,
    };
    let tables = load_tables(&client, &config.tables).await.map_err(asked)?;
    let encoding = read_server(&client).await.map_err(asked)?.encoding;
    Ok(Peer {
        node,
        client,
        tables,
        encoding,
    })
}

/// The name of every session of a comparison.
pub(super) fn session_name(config: &Config) -> String {
    format!("mmrepl {} verify", config.cluster)
}

/// A connection for a comparison.
pub(super) async fn connect(config: &Config, node: &Node) -> Result<Client, VerifyError> {
    let client = control(&node.dsn, &session_name(config)).await;
    client.map_err(|source| VerifyError::Reach {
        node: node.name.clone(),
        source,
    })
}

impl Peer<'_> {
    /// Where marks are left and waited for.
    pub(super) fn post(&self) -> Post<'_> {
        Post {
            node: &self.node.name,
            client: &self.client,
        }
    }

    /// The table of that name.
    pub(super) fn table(&self, (schema, name): &TableId) -> Option<&Table> {
        self.tables
            .iter()
            .find(|table| table.id() == (schema, name))
    }
}
