//! A cluster as its file describes it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::conflict::{ConflictConfig, Strategy, TableRule};
use super::conninfo::ConnInfo;
use super::error::ConfigError;
use super::table_filter::TableFilter;
use crate::conflict::{Custom, Merge, Rule, Rules};
use crate::ids::{ClusterName, LinkName, NodeName};

/// A whole cluster, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, part of slot and origin names.
    pub cluster: ClusterName,
    /// Every node, in the order of the file; at least one.
    pub nodes: Vec<Node>,
    /// Which tables are replicated.
    pub tables: TableFilter,
    /// How conflicts are settled.
    pub conflict: ConflictConfig,
    /// Whether large transactions are applied while they are running on their node.
    pub streaming: bool,
    /// How many sessions apply one link's changes at once; 1 to [`crate::ids::WORKERS_MAX`].
    pub apply_workers: usize,
}

/// One node: a database that takes writes, and the daemon beside it.
#[derive(Clone, Debug)]
pub struct Node {
    /// The stable name.
    pub name: NodeName,
    /// How to reach the database.
    pub dsn: ConnInfo,
    /// How its own daemon reaches the database instead.
    pub local_dsn: Option<ConnInfo>,
    /// Where this node's daemon serves HTTP.
    pub admin: SocketAddr,
    /// The file whose first line a caller must send as a bearer token.
    pub admin_token_file: Option<PathBuf>,
}

impl Config {
    /// The node called `name`.
    pub fn node(&self, name: &NodeName) -> Result<&Node, ConfigError> {
        self.nodes
            .iter()
            .find(|node| node.name == *name)
            .ok_or_else(|| ConfigError::NoSuchNode {
                name: name.to_string(),
                known: self.node_names(),
            })
    }

    /// Every node's name, comma-separated, for messages.
    fn node_names(&self) -> String {
        self.nodes
            .iter()
            .map(|node| node.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Every link of the full mesh, grouped by source.
    pub fn links(&self) -> Vec<LinkName> {
        self.nodes
            .iter()
            .flat_map(|node| self.links_from(&node.name))
            .collect()
    }

    /// The cluster as the daemon of `own` reaches it: its own server by `local_dsn`, where there is
    /// one.
    #[must_use]
    pub fn beside(mut self, own: &NodeName) -> Self {
        for node in self.nodes.iter_mut().filter(|node| node.name == *own) {
            if let Some(local) = node.local_dsn.take() {
                node.dsn = local;
            }
        }
        self
    }

    /// The links that start at `from`: those its daemon owns.
    pub fn links_from(&self, from: &NodeName) -> Vec<LinkName> {
        let link = |peer: &Node| LinkName {
            from: from.clone(),
            to: peer.name.clone(),
        };
        self.peers_of(from).into_iter().map(link).collect()
    }

    /// Every node but `name`.
    pub fn peers_of(&self, name: &NodeName) -> Vec<&Node> {
        self.nodes
            .iter()
            .filter(|node| node.name != *name)
            .collect()
    }

    /// The link as written on a command line, refused when a node is unknown.
    pub fn link(&self, link: &LinkName) -> Result<(&Node, &Node), ConfigError> {
        if link.from == link.to {
            return Err(ConfigError::SameEnds {
                link: link.to_string(),
            });
        }
        Ok((self.node(&link.from)?, self.node(&link.to)?))
    }

    /// The rule of every table.
    pub fn rules(&self) -> Rules {
        let conflict = &self.conflict;
        let tables = conflict
            .tables
            .iter()
            .map(|table| (table.name.clone(), self.rule(table)));
        Rules {
            default: self.rule(&TableRule::of(conflict.strategy)),
            tables: tables.collect(),
        }
    }

    fn rule(&self, table: &TableRule) -> Rule {
        let in_file = || self.nodes.iter().map(|node| node.name.clone()).collect();
        let priority = table.node_priority.as_ref();
        let priority = priority.or(self.conflict.node_priority.as_ref());
        let merge = |by_column| {
            let counters = table.delta_columns.clone();
            Rule::Merge(Merge {
                by_column,
                counters,
            })
        };
        match table.strategy {
            Strategy::VersionColumn => {
                Rule::VersionColumn(table.version_column.clone().unwrap_or_default())
            }
            Strategy::ColumnMerge => merge(true),
            Strategy::HybridClock if !table.delta_columns.is_empty() => merge(false),
            Strategy::HybridClock => Rule::HybridClock,
            Strategy::FirstWriteWins => Rule::FirstWriteWins,
            Strategy::NodePriority => Rule::NodePriority(priority.cloned().unwrap_or_else(in_file)),
            Strategy::Manual => Rule::Manual(in_file()),
            Strategy::Custom => {
                let (schema, function) = table.function.clone().unwrap_or_default();
                Rule::Custom(Custom {
                    nodes: in_file(),
                    schema,
                    function,
                })
            }
            Strategy::LastWriteWins => Rule::LastWriteWins,
        }
    }
}
