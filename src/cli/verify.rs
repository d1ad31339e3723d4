//! `mmrepl verify`: compares the nodes' tables while they are in use.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use super::output;
use super::shared::{ConfigArg, refuse};
use super::waiting::watched;
use crate::ids::NodeName;
use crate::verify::report::{Report, TableReport};
use crate::verify::{Options, Progress, RepairOptions, verify};

/// The command line of `mmrepl verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Compare only this table, with or without its schema; may be given again
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Compare values as they print: 1.0 is not 1.00
    #[arg(long)]
    pub exact: bool,
    /// Count the rows, too, that point at nothing by a foreign key
    #[arg(long)]
    pub foreign_keys: bool,
    /// How many of a table's rows that differ are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// How many tables are compared at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Read in only so many percent of the time, to leave the servers to others
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub share: u8,
    /// Mending.
    #[command(flatten)]
    pub mending: RepairArgs,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// Whether and how differences are mended.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// Mend what differs by each table's own rule: the newest write of a row counts. What is
    /// replaced is kept in the history, and `mmrepl conflicts restore` brings it back
    #[arg(long)]
    pub repair: bool,
    /// Only say what --repair would do
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// Whose rows count where no version decides
    #[arg(long, value_name = "NODE", requires = "repair")]
    pub from: Option<NodeName>,
}

/// Prints what differs. Exit code 0 when all tables are equal, 1 when rows differ or point at
/// nothing, 2 when that cannot be said.
pub async fn run(args: &VerifyArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let options = Options {
        tables: args.table.clone(),
        exact: args.exact,
        foreign_keys: args.foreign_keys,
        limit: args.limit,
        jobs: usize::from(args.jobs),
        share: f64::from(args.share) / 100.0,
        repair: args.mending.repair.then(|| RepairOptions {
            dry_run: args.mending.dry_run,
            from: args.mending.from.clone(),
        }),
    };
    let teller = Teller {
        is_asked: !args.json && std::io::stderr().is_terminal(),
    };
    match watched(&config, "verify", verify(&config, &options, &teller)).await {
        Ok(report) => {
            print(&report, args.json);
            ExitCode::from(report.exit_code())
        }
        Err(error) => refuse(&error),
    }
}

fn print(report: &Report, json: bool) {
    if json {
        let value = serde_json::to_value(report).unwrap_or_default();
        output::json(&value);
    } else {
        output::line(&report.words().trim_end());
    }
}

/// Tells a person at a terminal how it goes.
struct Teller {
    is_asked: bool,
}

impl Progress for Teller {
    fn table(&self, done: &TableReport, left: usize) {
        if !self.is_asked {
            return;
        }
        let rows = done.rows.values().max().copied().unwrap_or_default();
        let line = format!(
            "{}: {rows} rows in {:.1} s, {left} table(s) left",
            done.table, done.seconds
        );
        // A terminal that is gone changes nothing.
        let _ = writeln!(std::io::stderr(), "{}", crate::text::visible(&line));
    }
}
