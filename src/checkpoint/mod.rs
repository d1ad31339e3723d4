//! The daemon's own memory of how far each link is: a checked cache of the truth, never the truth.
//!
//! The truth is a row on the target (design: "Exactly once"). This store may be deleted, lost or
//! fall back at any time without loss of data; its worth is the cross-check against that row. It is
//! a sled 0.34 store behind two fences that sled needs: an interrupted snapshot
//! (`snap.*.generating`) makes every later open fail and is deleted first, and `flush_async` can
//! hang for ever and is never called. A store that is damaged all the same is moved aside, with an
//! [`OpenNotice`] that says so.
//!
//! One thread owns the store. A save is accepted at once and is durable when its future ends;
//! saves that arrive within [`FLUSH_INTERVAL`] of the last flush share the next one.

mod folder;
mod lock;
mod peek;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{RetryClass, Retryable};
use crate::ids::LinkName;
use crate::lsn::Lsn;

pub use peek::{Peek, peek};
pub use record::{Checkpoint, RecordError};
pub use writer::FLUSH_INTERVAL;

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

fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

impl CheckpointError {
    fn directory(path: &Path, doing: &'static str, source: io::Error) -> Self {
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

/// The store was damaged: it was kept under another name and an empty one took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenNotice {
    /// Where the damaged store lies now.
    pub moved_to: PathBuf,
    /// What was found.
    pub cause: String,
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

/// The open store of one daemon; clones share it. The last one to go closes it.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    writer: Arc<writer::Writer>,
}

impl Checkpoints {
    /// Opens (or makes) the store below `data_dir`, for this process alone.
    ///
    /// Blocks for as long as the disk takes, and up to a second while a status command looks into
    /// the store: call it before the runtime starts or in `spawn_blocking`.
    pub fn open(data_dir: &Path) -> Result<(Self, Option<OpenNotice>), CheckpointError> {
        Self::open_with(data_dir, FLUSH_INTERVAL)
    }

    fn open_with(
        data_dir: &Path,
        flush_interval: std::time::Duration,
    ) -> Result<(Self, Option<OpenNotice>), CheckpointError> {
        let lock = lock::DirLock::exclusive(data_dir)?;
        let (store, records, notice) = store::Store::open_or_renew(data_dir)?;
        let writer = writer::Writer::start(lock, store, records, flush_interval)?;
        Ok((
            Self {
                writer: Arc::new(writer),
            },
            notice,
        ))
    }

    /// The last durable checkpoint of `link`. Does not touch the disk.
    pub fn load(&self, link: &LinkName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.writer.durable(link)
    }

    /// Stores `checkpoint`; the future ends when it, or a later one of the link, is on disk.
    ///
    /// A position below one that was accepted for the same servers, timelines and slot is refused.
    /// Cancel safety: an accepted checkpoint is written even when the future is dropped.
    pub async fn save(
        &self,
        link: &LinkName,
        checkpoint: Checkpoint,
    ) -> Result<(), CheckpointError> {
        let done = self.writer.submit(link, Some(checkpoint))?;
        done.await.unwrap_or(Err(CheckpointError::Closed))
    }

    /// Forgets `link`, durably when the future ends.
    pub async fn forget(&self, link: &LinkName) -> Result<(), CheckpointError> {
        let done = self.writer.submit(link, None)?;
        done.await.unwrap_or(Err(CheckpointError::Closed))
    }

    /// Writes what is accepted, closes the store and gives the directory free; later saves fail.
    pub async fn close(&self) {
        let writer = Arc::clone(&self.writer);
        // A panic of the writer thread has been logged by the panic hook; there is nothing to add.
        let _ = tokio::task::spawn_blocking(move || writer.stop()).await;
    }

    /// How many times the store was flushed to disk since it was opened.
    pub fn flushes(&self) -> u64 {
        self.writer.flushes()
    }
}
