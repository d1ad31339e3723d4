//! A server whose clock a test sets while it runs (libfaketime).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mmrepl::local::ServerOptions;
use tempfile::TempDir;

/// Where Debian and others put the library.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// A clock that a server reads, in seconds ahead of the true one.
pub struct Clock {
    dir: TempDir,
    library: &'static str,
}

impl Clock {
    /// A clock that is `ahead` seconds ahead; nothing, and a line that says so, where the library
    /// is missing.
    pub fn ahead(ahead: i64) -> Option<Self> {
        let library = PLACES.into_iter().find(|place| Path::new(place).exists());
        let Some(library) = library else {
            println!("skipped: no libfaketime on this machine (Debian: apt-get install faketime)");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("mmrepl-clock-").tempdir();
        let dir = dir.unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { dir, library };
        clock.set(ahead);
        Some(clock)
    }

    /// Sets it.
    pub fn set(&self, ahead: i64) {
        let new = self.dir.path().join("new");
        fs::write(&new, format!("{ahead:+}s\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        // In one step: a server never reads half of it.
        fs::rename(new, self.file()).unwrap();
    }

    /// A server that reads this clock, and only this one: timeouts go by the true one.
    pub fn options(&self) -> ServerOptions {
        ServerOptions::default()
            .with_env("LD_PRELOAD", self.library)
            .with_env("FAKETIME_TIMESTAMP_FILE", &self.file().to_string_lossy())
            .with_env("FAKETIME_NO_CACHE", "1")
            .with_env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}
