//! The sled store itself: open with repair, read everything, write a batch. All of it blocks.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::record::{self, Checkpoint};
use super::{CheckpointError, OpenNotice};
use crate::commit_time::CommitTime;
use crate::ids::LinkName;

/// Directory of the store below the data directory.
pub(super) const STORE_DIR: &str = "checkpoints";
/// Page cache of sled; its default is 1 GiB. Some bytes per link are kept, 16 MiB is plenty.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How long sled may take to let go of a folder …
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
/// … and how often it is asked.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// Every checkpoint of the store.
pub(super) type Records = BTreeMap<LinkName, Checkpoint>;

/// Why a store did not open.
enum OpenFailure {
    /// What is on disk cannot be used, now or later.
    Damaged(String),
    /// The disk or the directory failed; what is on it may be sound.
    Failed(CheckpointError),
}

/// An open sled store.
pub(super) struct Store {
    db: sled::Db,
    dir: PathBuf,
}

impl Store {
    /// Opens the store below `data_dir`; a damaged one is moved aside and a new one started.
    pub(super) fn open_or_renew(
        data_dir: &Path,
    ) -> Result<(Self, Records, Option<OpenNotice>), CheckpointError> {
        let dir = data_dir.join(STORE_DIR);
        let cause = match open(&dir) {
            Ok((store, records)) => return Ok((store, records, None)),
            Err(OpenFailure::Failed(error)) => return Err(error),
            Err(OpenFailure::Damaged(cause)) => cause,
        };
        let stamp = CommitTime::now().to_string().replace(':', "");
        let moved_to = data_dir.join(format!("{STORE_DIR}.damaged-{stamp}"));
        std::fs::rename(&dir, &moved_to)
            .map_err(|e| CheckpointError::directory(&dir, "moving a damaged store aside", e))?;
        let (store, records) = open(&dir).map_err(|e| e.into_error(&dir))?;
        Ok((store, records, Some(OpenNotice { moved_to, cause })))
    }

    /// The data directory that holds the store.
    pub(super) fn data_dir(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Reads every record of the store in `dir` without moving anything aside.
    pub(super) fn read_all(dir: &Path) -> Result<Records, CheckpointError> {
        open(dir)
            .map(|(_, records)| records)
            .map_err(|e| e.into_error(dir))
    }

    /// Writes (or, for `None`, removes) checkpoints and flushes them to disk.
    pub(super) fn write<'a>(
        &self,
        changes: impl Iterator<Item = (&'a LinkName, Option<&'a Checkpoint>)>,
    ) -> Result<(), CheckpointError> {
        let write = || {
            for (link, checkpoint) in changes {
                self.put(link, checkpoint)?;
            }
            // The synchronous flush; see the module's page on `flush_async`.
            self.db
                .flush()
                .map(drop)
                .map_err(|e| self.failed("flushing a checkpoint", e))
        };
        catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
            let bug = sled::Error::ReportableBug(panic_text(&*panic));
            Err(self.failed("writing a checkpoint", bug))
        })
    }

    fn put(&self, link: &LinkName, checkpoint: Option<&Checkpoint>) -> Result<(), CheckpointError> {
        let key = link.to_string();
        let result = match checkpoint {
            None => self.db.remove(key),
            Some(checkpoint) => {
                let record =
                    record::encode(link, checkpoint).map_err(|source| CheckpointError::Record {
                        link: link.clone(),
                        source,
                    })?;
                self.db.insert(key, &record[..])
            }
        };
        result
            .map(drop)
            .map_err(|e| self.failed("writing a checkpoint", e))
    }

    fn failed(&self, doing: &'static str, source: sled::Error) -> CheckpointError {
        CheckpointError::Store {
            dir: self.dir.clone(),
            doing,
            source,
        }
    }
}

impl OpenFailure {
    fn into_error(self, dir: &Path) -> CheckpointError {
        match self {
            Self::Damaged(cause) => CheckpointError::Corrupt {
                dir: dir.to_owned(),
                cause,
            },
            Self::Failed(error) => error,
        }
    }
}

fn open(dir: &Path) -> Result<(Store, Records), OpenFailure> {
    remove_interrupted_snapshots(dir).map_err(OpenFailure::Failed)?;
    // sled asserts in places what a damaged file can break; a panic is one more kind of damage.
    catch_unwind(AssertUnwindSafe(|| open_and_read(dir)))
        .unwrap_or_else(|panic| Err(OpenFailure::Damaged(panic_text(&*panic))))
}

/// The folder is ours already (`lock`). A store that was closed a moment ago may still hold sled's
/// own lock: its threads let go of it after the last handle is dropped.
fn open_when_released(config: &sled::Config) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        match config.open() {
            Err(error) if is_locked(&error) && Instant::now() < deadline => sleep(RELEASE_POLL),
            opened => return opened,
        }
    }
}

/// sled says so in words only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

fn open_and_read(dir: &Path) -> Result<(Store, Records), OpenFailure> {
    let failed = |source| open_failure(dir, source);
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let db = open_when_released(&config).map_err(failed)?;
    let mut records = Records::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(failed)?;
        let (link, checkpoint) = read_entry(&key, &value).map_err(OpenFailure::Damaged)?;
        records.insert(link, checkpoint);
    }
    Ok((
        Store {
            db,
            dir: dir.to_owned(),
        },
        records,
    ))
}

fn read_entry(key: &[u8], value: &[u8]) -> Result<(LinkName, Checkpoint), String> {
    let name = std::str::from_utf8(key).map_err(|e| e.to_string())?;
    let link: LinkName = name.parse().map_err(|e| format!("{e}"))?;
    let checkpoint = record::decode(&link, value).map_err(|e| format!("{link}: {e}"))?;
    Ok((link, checkpoint))
}

/// A kill while sled wrote a snapshot leaves `snap.<n>.generating`, which sled 0.34 then takes for
/// a snapshot and finds damaged on every open. The snapshot before it and the log are intact.
fn remove_interrupted_snapshots(dir: &Path) -> Result<(), CheckpointError> {
    let failed = |e| CheckpointError::directory(dir, "removing an interrupted snapshot", e);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn open_failure(dir: &Path, source: sled::Error) -> OpenFailure {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match source {
        sled::Error::Io(ref e)
            if !matches!(e.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            let dir = dir.to_owned();
            OpenFailure::Failed(CheckpointError::Store {
                dir,
                doing: "opening it",
                source,
            })
        }
        sled::Error::Corruption { .. } => OpenFailure::Damaged("checksums do not match".to_owned()),
        damaged => OpenFailure::Damaged(damaged.to_string()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("sled panicked")
        .to_owned()
}
