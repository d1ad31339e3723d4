//! The one configuration file of a cluster, the same on every host (`mmrepl.example.toml`).
//!
//! Parsing has two halves: [`raw`] is the file as written, unknown keys refused; [`validate`] turns
//! it into a [`Config`] and reports every problem at once.

pub mod agreement;
pub mod conflict;
pub mod conninfo;
mod error;
mod raw;
pub mod table_filter;
mod validate;
mod validate_conflict;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use conflict::{ConflictConfig, Strategy, TableRule};
pub use error::ConfigError;
pub use table_filter::TableFilter;

use crate::ids::{ClusterName, LinkName, NodeName};
use conninfo::ConnInfo;

/// Where the file is looked for when neither `--config` nor `$MMREPL_CONFIG` names one.
pub const DEFAULT_PATH: &str = "/etc/mmrepl/cluster.toml";

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "MMREPL_CONFIG";

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
    /// Where this node's daemon serves HTTP.
    pub admin: SocketAddr,
    /// The file whose first line a caller must send as a bearer token.
    pub admin_token_file: Option<PathBuf>,
}

/// The file to read: what the command line says, else the environment, else the default.
pub fn search_path(option: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let from_env = || {
        env(PATH_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    option
        .map(Path::to_path_buf)
        .or_else(from_env)
        .unwrap_or_else(|| DEFAULT_PATH.into())
}

impl Config {
    /// Reads and checks the file at `path`; connection defaults come from the process environment.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, &|key| std::env::var(key).ok()).map_err(|error| ConfigError::In {
            path: path.to_path_buf(),
            source: Box::new(error),
        })
    }

    /// Checks the text of a file; `env` stands in for the process environment (`PG*`).
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        validate::validate(raw::parse(text)?, env)
    }

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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn example() -> Config {
        Config::parse(include_str!("../../mmrepl.example.toml"), &no_env).unwrap()
    }

    #[test]
    fn the_example_parses_and_makes_a_full_mesh() {
        let config = example();
        let links: Vec<_> = config.links().iter().map(ToString::to_string).collect();
        assert_eq!(links, ["east->west", "west->east"]);
        assert_eq!(config.cluster.as_str(), "shop");
        assert!(config.node(&"north".parse().unwrap()).is_err());
    }

    #[test]
    fn the_example_documents_every_key() {
        let text = include_str!("../../mmrepl.example.toml");
        for key in raw::KEYS {
            let shown = |line: &str| {
                line.trim_start_matches(['#', ' '])
                    .starts_with(&format!("{key} "))
            };
            assert!(
                text.lines().any(shown),
                "`{key}` is not in mmrepl.example.toml"
            );
        }
    }

    #[test]
    fn the_command_line_beats_the_environment_and_that_the_default() {
        let env = |key: &str| (key == PATH_VARIABLE).then(|| "/from/env".to_owned());
        assert_eq!(search_path(Some(Path::new("/a")), &env), Path::new("/a"));
        assert_eq!(search_path(None, &env), Path::new("/from/env"));
        assert_eq!(search_path(None, &no_env), Path::new(DEFAULT_PATH));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/cluster.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/cluster.toml") && error.contains("--config"),
            "{error}"
        );
    }
}
