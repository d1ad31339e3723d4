//! What went wrong with the store of checkpoints, and what was done about it.

use super::record::RecordError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use crate::error::{RetryClass, Retryable};
use crate::ids::LinkName;
use crate::lsn::Lsn;

/// What went wrong with the store of checkpoints.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another process has the data directory.
    #[error(
        "the data directory {dir} is in use by another mmrepl process{}: stop that one, or give this one its own --data-dir",
        by(*.pid)
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it, as it wrote it down itself.
        pid: Option<u32>,
    },
    /// A file or directory could not be read or written.
    #[error(
        "{path} cannot be used while {doing}: make it writable for this user, or give another --data-dir"
    )]
    Directory {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// sled could not read or write, most often because the disk is full.
    #[error("the checkpoint store {dir} failed while {doing}: make room on the disk or mend it")]
    Store {
        /// The directory of the store.
        dir: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// sled's answer.
        source: sled::Error,
    },
    /// The store is damaged and this reader may not move it aside.
    #[error(
        "the checkpoint store {dir} is damaged ({cause}): the daemon will start a new one by itself"
    )]
    Corrupt {
        /// The directory of the store.
        dir: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A checkpoint of the same history lies before the one that was accepted earlier.
    #[error(
        "the checkpoint of {link} would go back from {accepted} to {offered}: this is a fault in mmrepl, please report it"
    )]
    Backwards {
        /// The link.
        link: LinkName,
        /// The position accepted earlier.
        accepted: Lsn,
        /// The lower position that was refused.
        offered: Lsn,
    },
    /// The checkpoint cannot be written as a record.
    #[error("the checkpoint of {link} cannot be stored")]
    Record {
        /// The link.
        link: LinkName,
        /// Why not.
        source: RecordError,
    },
    /// The store was closed before the checkpoint was written.
    #[error("the checkpoint store is closed: the daemon is stopping")]
    Closed,
}

pub(super) fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// The store was damaged: it was kept under another name and an empty one took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenNotice {
    /// Where the damaged store lies now.
    pub moved_to: PathBuf,
    /// What was found.
    pub cause: String,
}

impl CheckpointError {
    pub(super) fn directory(path: &Path, doing: &'static str, source: io::Error) -> Self {
        Self::Directory {
            path: path.to_owned(),
            doing,
            source: Arc::new(source),
        }
    }
}

impl Retryable for CheckpointError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Store { .. } | Self::Closed | Self::Corrupt { .. } => RetryClass::Transient,
            Self::Locked { .. } | Self::Directory { .. } => RetryClass::Operator,
            Self::Backwards { .. } | Self::Record { .. } => RetryClass::Definite,
        }
    }
}

impl fmt::Display for OpenNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the checkpoint store was damaged ({}) and lies now at {}; a new one was started, the positions come from the targets, nothing is lost",
            self.cause,
            self.moved_to.display()
        )
    }
}
