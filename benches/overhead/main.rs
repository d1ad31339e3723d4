//! `make overhead`: what an application's own writes cost in a table that mmrepl replicates.
//!
//! One pair of servers for each major, without daemons. A plain table stands beside one table for
//! each rule; the statements are the same, in turn. What counts is the CPU time of the backend that
//! writes, user and system (`/proc/PID/schedstat`), and the WAL. Every table has been deleted from
//! before, as every table in use has: the triggers find tombstones in it.
//!
//! | variable | |
//! |---|---|
//! | `MMREPL_BENCH_MAJOR` | such as `15,18`; by default 15, 17 and 18 |
//! | `MMREPL_BENCH_ONLY` | such as `last_write_wins,manual`; by default all rules |
//! | `MMREPL_BENCH_AT_ONCE` | 1: how many statements are on their way at once (pipelining) |
//! | `MMREPL_BENCH_BINARY` | another build of mmrepl |
//! | `MMREPL_BENCH_RUNS` | 3: how often everything is repeated; the least of them is shown |
//! | `MMREPL_BENCH_ROWS` | 20000 rows for single statements; ten times as many for those of many |
#![allow(
    clippy::disallowed_methods,
    reason = "an answer that is not as expected ends a bench"
)]
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../drain/process.rs"]
#[allow(dead_code)]
mod process;
mod report;
mod rules;
mod writer;

use mmrepl::local::{ServerBinaries, ServerOptions, find_major};

use common::{Cluster, Side};
use rules::Rule;
use writer::{Measure, Spent, Writer};

/// What is run, from the environment.
struct Settings {
    majors: Vec<u32>,
    rules: Vec<&'static Rule>,
    runs: i64,
    rows: i64,
    at_once: i64,
}

fn list(name: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_default();
    let words = text.split(',').map(|word| word.trim().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    let number = text.parse().ok();
    number.expect("a bench's setting is a number")
}

impl Settings {
    fn read() -> Self {
        let majors = list("MMREPL_BENCH_MAJOR");
        let only = list("MMREPL_BENCH_ONLY");
        let wanted = |rule: &&Rule| only.is_empty() || only.iter().any(|name| name == rule.name);
        let single = |name, default| list(name).first().map_or(default, |text| number(text));
        Self {
            majors: if majors.is_empty() {
                vec![15, 17, 18]
            } else {
                majors.iter().map(|major| number(major)).collect()
            },
            rules: rules::ALL.iter().filter(wanted).collect(),
            runs: single("MMREPL_BENCH_RUNS", 3),
            rows: single("MMREPL_BENCH_ROWS", 20_000),
            at_once: single("MMREPL_BENCH_AT_ONCE", 1),
        }
    }
}

#[tokio::main]
async fn main() {
    let settings = Settings::read();
    for major in &settings.majors {
        let binaries = find_major(*major).expect("server binaries: run `make servers`");
        let (version, columns) = measure(&settings, &binaries).await;
        println!("{}", report::table(&version, &columns));
    }
}

/// The server's version, and what the plain table and each rule's cost.
async fn measure(
    settings: &Settings,
    binaries: &ServerBinaries,
) -> (String, Vec<(&'static str, Spent)>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = ServerOptions::default()
        .with("max_wal_size", "16GB")
        .with("checkpoint_timeout", "1h")
        .with("full_page_writes", "off")
        .with("autovacuum", "off");
    let east = Side::start(binaries, &dir.path().join("east"), &options).await;
    let west = Side::start(binaries, &dir.path().join("west"), &options).await;
    for side in [&east, &west] {
        side.run(&rules::schema(&settings.rules)).await;
    }
    let nodes = [("east", east.dsn()), ("west", west.dsn())];
    let config = rules::config(&settings.rules);
    Cluster::new(dir.path(), &nodes, &config).run(&["init"]);
    let mut writer = Writer::connect(&east.socket_dsn(), settings.rows, settings.at_once).await;
    let tables: Vec<&'static str> = std::iter::once(rules::PLAIN)
        .chain(settings.rules.iter().map(|rule| rule.name))
        .collect();
    let mut columns: Vec<(&'static str, Spent)> = Vec::new();
    for table in tables {
        writer.fill(table).await;
        columns.push((table, Spent::default()));
    }
    for _ in 0..settings.runs {
        for measure in Measure::ALL {
            for (table, spent) in &mut columns {
                spent.add(measure, writer.measure(table, measure).await);
            }
        }
    }
    let version = "select split_part(current_setting('server_version'), ' ', 1)";
    (east.value(version).await, columns)
}
