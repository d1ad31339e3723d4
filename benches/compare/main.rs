//! `make compare`: the same conflicts given to the server's own subscriptions, to pglogical and to
//! mmrepl.
//!
//! Every case and system gets two fresh servers. Both nodes are made equal, the links are held
//! back, both sides write, the links go on, and once everything has gone over (or the system has
//! failed again and again) the tables of both nodes are compared.
//!
//! `MMREPL_COMPARE_ONLY` (the beginning of a case's name) and `MMREPL_COMPARE_MAJOR` (of mmrepl and
//! of the subscriptions; the newest found) change what is run. With `--write` the result replaces
//! docs/comparison.md.
#![allow(
    clippy::disallowed_methods,
    reason = "an answer that is not as expected ends a bench"
)]
#![allow(clippy::print_stdout, missing_docs)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod mmrepl_links;
mod outcome;
mod pair;
mod report;
mod server_log;
mod system;

use cases::{CASES, Case};
use outcome::Outcome;
use report::Report;
use system::System;

#[tokio::main]
async fn main() {
    let only = std::env::var("MMREPL_COMPARE_ONLY").unwrap_or_default();
    let write = std::env::args().any(|argument| argument == "--write");
    assert!(
        only.is_empty() || !write,
        "the document is written for all cases only"
    );
    let (systems, skipped) = system::find_all();
    let mut report = Report::new(&systems, skipped);
    for case in CASES.iter().filter(|case| case.name.starts_with(&only)) {
        report.add(case.name, play_everywhere(case, &systems).await);
        report.print_last();
    }
    println!("\n{report}");
    if write {
        report.write();
    }
}

/// The systems at once: most of the time they wait.
async fn play_everywhere(case: &'static Case, systems: &[System]) -> Vec<(String, Outcome)> {
    let play = |system: &System| tokio::spawn(pair::play(case, system.clone()));
    let playing: Vec<_> = systems.iter().map(play).collect();
    let mut outcomes = Vec::new();
    for played in playing {
        outcomes.push(
            played
                .await
                .expect("a case that cannot be played fails the run"),
        );
    }
    outcomes
}
