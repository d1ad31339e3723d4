//! `pgbench`, where it is installed.

use std::path::PathBuf;

use mmrepl::local::{MAJORS, find_all};
use tokio::process::Command;

use crate::common::Side;

/// Of any major: it talks to all of them. Debian's package of the server brings it.
fn program() -> Option<PathBuf> {
    let debian = |major: u32| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/pgbench"));
    let debian = MAJORS.rev().map(debian).find(|path| path.is_file());
    debian.or_else(|| find_all().iter().find_map(|found| found.tool("pgbench")))
}

pub(crate) fn is_here() -> bool {
    program().is_some()
}

/// Runs to its end; gives what it printed. `options` are set for its sessions.
pub(crate) async fn run(side: &Side, options: &str, arguments: &[&str]) -> String {
    let program = program().expect("asked before whether it is here");
    let output = Command::new(program)
        .env("PGOPTIONS", options)
        .args(["-n", "-h", "127.0.0.1", "-U", "postgres"])
        .args(["-p", &side.port().to_string()])
        .args(arguments)
        .arg("postgres")
        .output()
        .await
        .expect("pgbench can be started");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench {arguments:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `tps = 498.7 (without initial connection time)` in what it printed.
pub(crate) fn tps(report: &str) -> f64 {
    let line = report.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("pgbench tells its tps")
}
