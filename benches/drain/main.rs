//! `make bench`: the same backlogs drained by the server's own subscription, by pglogical and by
//! mmrepl; then latency, the highest rate, a slow network, and conflicts.
//!
//! One source has a target for each engine. A backlog is written while all engines are off; then
//! one after the other is switched on, and the time until its target has everything is taken. So
//! all of them read the same WAL. The tables must be equal afterwards.
//!
//! Everything measured is kept in target/bench/results.jsonl, from which the document is made: runs
//! may be spread over several invocations. With `--write` the result replaces docs/performance.md.
//!
//! | variable | |
//! |---|---|
//! | `MMREPL_BENCH_ONLY` | the beginnings of parts' names, such as `w1,w4`; see below |
//! | `MMREPL_BENCH_MAJOR` | such as `15,18`; by default the newest, and the one with pglogical |
//! | `MMREPL_BENCH_RUNS` | 3 |
//! | `MMREPL_BENCH_ROWS` | the same for all workloads instead of their own sizes |
//! | `MMREPL_BENCH_SCALE` | of pgbench, 10 |
//! | `MMREPL_BENCH_SECONDS` | of writing at a fixed rate, 20 |
//! | `MMREPL_BENCH_RATES` | such as `4000`, instead of the steps of `rate` |
//! | `MMREPL_BENCH_RESUME` | 1: only the runs that this build lacks |
//! | `MMREPL_BENCH_BINARY` | another build of mmrepl |
//!
//! Parts: `w1` to `w6` (backlogs), `socket/w1` … (the source by its
//! Unix-domain socket), `workers/w1` … (several sessions), `mesh/w1` … (three nodes),
//! `rtt/w1` … and `rtt/network` (far apart), `steady`, `rate`, `conflicts`; `none` only makes the
//! document.
#![allow(
    clippy::disallowed_methods,
    reason = "an answer that is not as expected ends a bench"
)]
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod conflicts;
mod drain;
mod engine;
mod machine;
mod micro;
mod network;
mod pgbench;
mod plot;
mod process;
#[allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub)]
#[path = "../../tests/support/proxy.rs"]
mod proxy;
mod report;
mod results;
mod rig;
mod settings;
mod steady;
mod summary;
mod tables;
mod workload;

use mmrepl::local::{ServerBinaries, find_any, find_major};

use common::{Side, pglogical};
use results::Results;
use settings::Settings;

#[tokio::main]
async fn main() {
    let settings = Settings::read();
    let mut results = Results::read();
    for binaries in binaries(&settings) {
        drain::measure(&settings, &binaries, &mut results).await;
        steady::measure(&settings, &binaries, &mut results).await;
        network::measure(&settings, &binaries, &mut results).await;
        conflicts::measure(&settings, &binaries, &mut results).await;
    }
    println!("{}", report::document(&results));
    if std::env::args().any(|argument| argument == "--write") {
        report::write_all(&results);
    }
}

/// The servers that are measured.
fn binaries(settings: &Settings) -> Vec<ServerBinaries> {
    let found = |major: &u32| find_major(*major).expect("server binaries: run `make servers`");
    let mut all: Vec<ServerBinaries> = settings.majors.iter().map(found).collect();
    if all.is_empty() {
        all.extend(pglogical::find());
        let newest = find_any().expect("server binaries: run `make servers`");
        if all.iter().all(|binaries| binaries.major != newest.major) {
            all.push(newest);
        }
    }
    all
}

/// The version of a server, without its packager's additions.
async fn side_of(side: &Side) -> String {
    side.value("select split_part(current_setting('server_version'), ' ', 1)")
        .await
}
