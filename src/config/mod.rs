//! The one configuration file of a cluster, the same on every host (`mmrepl.example.toml`).
//!
//! Parsing has two halves: [`raw`] is the file as written, unknown keys refused; [`validate`] turns
//! it into a [`Config`] and reports every problem at once.

pub mod agreement;
mod cluster;
pub mod conflict;
pub mod conninfo;
mod error;
mod problems;
mod raw;
pub mod table_filter;
mod validate;
mod validate_conflict;

use std::path::{Path, PathBuf};

pub use cluster::{Config, Node};
pub use conflict::{ConflictConfig, Strategy, TableRule};
pub use error::ConfigError;
pub use table_filter::TableFilter;

/// Where the file is looked for when neither `--config` nor `$MMREPL_CONFIG` names one.
pub const DEFAULT_PATH: &str = "/etc/mmrepl/cluster.toml";

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "MMREPL_CONFIG";

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

/// Reads and checks the file at `path`; connection defaults come from the process environment.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    parse(&text, &|key| std::env::var(key).ok()).map_err(|error| ConfigError::In {
        path: path.to_path_buf(),
        source: Box::new(error),
    })
}

/// Checks the text of a file; `env` stands in for the process environment (`PG*`).
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    validate::validate(raw::parse(text)?, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn example() -> Config {
        super::parse(include_str!("../../mmrepl.example.toml"), &no_env).unwrap()
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
        let error = super::load(Path::new("/nonexistent/cluster.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/cluster.toml") && error.contains("--config"),
            "{error}"
        );
    }
}
