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

mod error;
mod folder;
mod lock;
mod peek;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use crate::ids::LinkName;

use error::by;
pub use error::{CheckpointError, OpenNotice};
pub use peek::{Peek, peek};
pub use record::{Checkpoint, RecordError};
pub use writer::FLUSH_INTERVAL;

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
