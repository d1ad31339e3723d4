//! What every node has already.

use std::collections::HashMap;

use super::observe_query as query;
use super::session::{self, Session};
use super::triggers::Trigger;
use super::{InitError, PUBLICATION};
use crate::catalog::position::{Position, read_positions};
use crate::catalog::server::Server;
use crate::catalog::slots::{SlotState, slot_state};
use crate::catalog::table::Table;
use crate::check::facts::NodeFacts;
use crate::config::Config;
use crate::ids::{NodeName, slot_name};
use crate::migrate;

/// One node as `init` found it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The node.
    pub name: NodeName,
    pub(super) server: Server,
    /// Migrations that have not run.
    pub(super) pending: Vec<&'static str>,
    pub(super) tables: Vec<TableState>,
    pub(super) publication: Option<PublicationState>,
    /// Rows of `mmrepl.node`: name, whether it is this server, system id, origin.
    pub(super) nodes: Vec<NodeRow>,
    /// Origins of this cluster by name.
    pub(super) origins: HashMap<String, u32>,
    pub(super) positions: Vec<Position>,
    /// Slots of this cluster by peer.
    pub(super) slots: HashMap<NodeName, SlotState>,
}

/// A row of `mmrepl.node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) here: bool,
    pub(super) system_id: String,
    pub(super) origin_id: Option<u32>,
    /// The rules that the server's own daemon goes by.
    pub(super) rules: Option<String>,
}

/// The publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicationState {
    /// Whether it publishes all four actions, through the partition root, of listed tables, and
    /// (from 18 on) stored generated columns.
    pub(super) as_wanted: bool,
}

/// A table that takes part.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) table: Table,
    /// The index of `replica identity using index`.
    pub(super) identity_index: Option<String>,
    pub(super) published: bool,
    pub(super) triggers: Vec<Trigger>,
    pub(super) partitions: Vec<PartitionState>,
}

/// A partition, at any depth, of a table that takes part.
#[derive(Clone, Debug)]
pub(super) struct PartitionState {
    pub(super) oid: u32,
    pub(super) qualified: String,
    pub(super) replica_identity: char,
    pub(super) identity_index: Option<String>,
    /// The partition's own part of the root's key index.
    pub(super) key_index: Option<String>,
    pub(super) triggers: Vec<Trigger>,
}

/// Observes every node.
pub(super) async fn observe_all(
    config: &Config,
    sessions: &[Session],
    facts: &[NodeFacts],
) -> Result<Vec<NodeState>, InitError> {
    let mut states = Vec::new();
    for facts in facts {
        let session = session::of(sessions, &facts.name);
        states.push(observe(config, session, facts).await?);
    }
    Ok(states)
}

async fn observe(
    config: &Config,
    session: &Session,
    facts: &NodeFacts,
) -> Result<NodeState, InitError> {
    let client = &session.client;
    let failed = || InitError::catalog(session.name());
    let pending = migrate::pending(client)
        .await
        .map_err(|source| InitError::Migrate {
            node: facts.name.clone(),
            source,
        })?;
    let set_up = migrate::is_set_up(client).await;
    let set_up = set_up.map_err(|source| InitError::Migrate {
        node: facts.name.clone(),
        source,
    })?;
    let mut slots = HashMap::new();
    for peer in config.peers_of(&facts.name) {
        let slot = slot_state(client, &slot_name(&config.cluster, &peer.name)).await;
        slots.extend(
            slot.map_err(failed())?
                .map(|slot| (peer.name.clone(), slot)),
        );
    }
    Ok(NodeState {
        name: facts.name.clone(),
        server: facts.server.clone(),
        pending: pending.iter().map(|file| file.name).collect(),
        tables: query::tables(client, &facts.tables)
            .await
            .map_err(failed())?,
        publication: query::publication(client, PUBLICATION)
            .await
            .map_err(failed())?,
        nodes: if set_up {
            query::nodes(client).await.map_err(failed())?
        } else {
            Vec::new()
        },
        origins: query::origins(client, config).await.map_err(failed())?,
        positions: if set_up {
            read_positions(client).await.map_err(failed())?
        } else {
            Vec::new()
        },
        slots,
    })
}
