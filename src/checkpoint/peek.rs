//! A look at the checkpoints of a daemon that does not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::lock::DirLock;
use super::record::Checkpoint;
use super::store::{STORE_DIR, Store};
use super::{CheckpointError, by};
use crate::ids::LinkName;

/// What a look into a data directory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// There is no store: the daemon never ran here, or its folder was deleted.
    Absent,
    /// A daemon holds the store; ask that one.
    Locked {
        /// Its process, as it wrote it down.
        pid: Option<u32>,
    },
    /// Every checkpoint in the store.
    Found(BTreeMap<LinkName, Checkpoint>),
}

impl std::fmt::Display for Peek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("no checkpoints on this machine"),
            Self::Locked { pid } => write!(f, "the store is held by a running daemon{}", by(*pid)),
            Self::Found(records) => write!(f, "{} checkpoints", records.len()),
        }
    }
}

/// Reads the store below `data_dir` while no daemon runs. Blocks.
///
/// sled writes even to read, and a file made by root would lock the daemon's user out: so the files
/// are copied while the lock keeps a daemon from starting, and the copy is read.
pub fn peek(data_dir: &Path) -> Result<Peek, CheckpointError> {
    let lock = match DirLock::shared(data_dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Peek::Absent),
        Err(CheckpointError::Locked { pid, .. }) => return Ok(Peek::Locked { pid }),
        Err(error) => return Err(error),
    };
    let store = data_dir.join(STORE_DIR);
    if !store.is_dir() {
        return Ok(Peek::Absent);
    }
    let copy = TempDir::new()?;
    copy_dir(&store, &copy.0)
        .map_err(|e| CheckpointError::directory(&store, "copying it for a look", e))?;
    drop(lock);
    Store::read_all(&copy.0).map(Peek::Found)
}

/// A directory of this process alone, deleted on drop.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Result<Self, CheckpointError> {
        use std::os::unix::fs::DirBuilderExt;
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos());
        let name = format!("mmrepl-peek-{}-{number}-{nanos:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // `create` fails when the name is taken, so nobody else can have prepared it.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| CheckpointError::directory(&path, "making a copy to look at", e))?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Left-overs are a nuisance in the temporary folder, not an error of the look.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
