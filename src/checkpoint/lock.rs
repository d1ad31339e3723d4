//! Who may use a data directory: one daemon, or a reader while there is none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs2::FileExt;

use super::CheckpointError;

const LOCK_FILE: &str = "mmrepl.lock";
/// How long a starting daemon waits: a status command holds the lock only while it copies 1 MB.
const DAEMON_PATIENCE: Duration = Duration::from_secs(1);
/// A reader waits too, a moment: another reader, or a process between fork and exec, may hold it.
const READER_PATIENCE: Duration = Duration::from_millis(100);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The lock of one data directory (`flock`), held until dropped or until the process dies.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory if need be and takes the lock for a daemon.
    pub(super) fn exclusive(data_dir: &Path) -> Result<Self, CheckpointError> {
        super::folder::make_private(data_dir)
            .map_err(|e| CheckpointError::directory(data_dir, "making the data directory", e))?;
        let path = data_dir.join(LOCK_FILE);
        let failed = |e| CheckpointError::directory(&path, "taking its lock", e);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if !wait_for(&file, FileExt::try_lock_exclusive, DAEMON_PATIENCE).map_err(failed)? {
            return Err(locked(data_dir, &mut file));
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Keeps a daemon from starting while a reader copies the files. Needs no right to write.
    /// `None` when there is no data directory.
    pub(super) fn shared(data_dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = data_dir.join(LOCK_FILE);
        let failed = |e| CheckpointError::directory(&path, "taking its lock", e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if wait_for(&file, FileExt::try_lock_shared, READER_PATIENCE).map_err(failed)? {
            return Ok(Some(Self { _file: file }));
        }
        Err(locked(data_dir, &mut file))
    }
}

/// `Ok(false)` when somebody else holds a lock that excludes this one for as long as `patience`.
fn wait_for(
    file: &File,
    lock: fn(&File) -> io::Result<()>,
    patience: Duration,
) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match lock(file) {
            Ok(()) => return Ok(true),
            Err(e) if e.raw_os_error() != fs2::lock_contended_error().raw_os_error() => {
                return Err(e);
            }
            Err(_) if Instant::now() >= deadline => return Ok(false),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn locked(data_dir: &Path, file: &mut File) -> CheckpointError {
    let mut text = String::new();
    // The number only decorates the message; whoever holds the lock may be writing it just now.
    let pid = file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse().ok());
    CheckpointError::Locked {
        dir: PathBuf::from(data_dir),
        pid,
    }
}
