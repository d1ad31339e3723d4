//! What can be wrong with a configuration file.

use std::path::PathBuf;

use crate::error::{RetryClass, Retryable};

/// A configuration that cannot be used. The text names the line or the key, never a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "cannot read the configuration {}: {source}; name the file with --config or $MMREPL_CONFIG",
        path.display()
    )]
    Read {
        /// The file that was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read, but what it says is wrong.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ConfigError>,
    },
    /// The text is not TOML, or a value has the wrong type.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A key that mmrepl does not know; a typing error would otherwise be ignored silently.
    #[error("line {line}: unknown key `{key}`{}", nearest.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// Counted from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The known key that is spelled most like it.
        nearest: Option<String>,
    },
    /// Every problem that validation found.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// A command named a node that the file does not have.
    #[error("there is no node `{name}` in the configuration; it has {known}")]
    NoSuchNode {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A command named a link from a node to itself.
    #[error("`{link}` starts and ends at the same node; name two different nodes")]
    SameEnds {
        /// The link asked for.
        link: String,
    },
}

impl Retryable for ConfigError {
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}
