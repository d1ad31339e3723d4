//! `mmrepl status`: what every link of the cluster is doing.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::output;
use super::shared::ConfigArg;
use crate::status::cluster::Verdict;
use crate::status::gather::{gather, sentence};
use crate::status::model::ClusterStatus;
use crate::status::render::render;

/// To the upper left corner, and clear what is below (ECMA-48).
const REDRAW: &str = "\x1b[H\x1b[J";

/// The command line of `mmrepl status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print one JSON object (with --watch, one per line and look) for programs
    #[arg(long)]
    pub json: bool,
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// How long between two looks
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// A daemon's data directory on this machine, for when that daemon does not run
    #[arg(long, env = "MMREPL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Prints the status. Exit code 0: all links well, 1: some link is not, 2: could not tell.
pub async fn run(args: &StatusArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => {
            output::error(&sentence(&error));
            return ExitCode::from(Verdict::Unknown.exit_code());
        }
    };
    let mut last = Verdict::Unknown;
    let watching = async {
        loop {
            let status = gather(&config, args.data_dir.clone()).await;
            last = Verdict::of(&status);
            if print(args, &status).is_err() || !args.watch {
                break;
            }
            tokio::time::sleep(args.interval).await;
        }
    };
    tokio::select! {
        () = watching => {}
        // Without a handler Ctrl-C ends the process by itself, so an error here needs no answer.
        _ = tokio::signal::ctrl_c() => {}
    }
    ExitCode::from(last.exit_code())
}

/// An error means that nobody reads any more.
fn print(args: &StatusArgs, status: &ClusterStatus) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    if args.json {
        writeln!(out, "{}", json(status, args.watch))?;
    } else {
        let redraw = if args.watch && terminal { REDRAW } else { "" };
        write!(out, "{redraw}{}", render(status, terminal && !no_color()))?;
    }
    out.flush()
}

fn json(status: &ClusterStatus, one_line: bool) -> String {
    let text = if one_line {
        serde_json::to_string(status)
    } else {
        serde_json::to_string_pretty(status)
    };
    text.expect("the status has only string keys")
}

/// <https://no-color.org>: any value but the empty one.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: StatusArgs,
    }

    #[test]
    fn the_command_line_is_that_of_the_interface() {
        let line = Line::parse_from(["status", "--json", "--watch", "--config", "/c.toml"]);
        assert!(line.args.json && line.args.watch);
        assert_eq!(line.args.interval, Duration::from_secs(1));
        let line = Line::parse_from(["status", "--interval", "250ms", "--data-dir", "/d"]);
        assert_eq!(line.args.interval, Duration::from_millis(250));
        assert_eq!(line.args.data_dir, Some("/d".into()));
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_read_is_exit_code_2() {
        let line = Line::parse_from(["status", "--config", "/nonexistent/cluster.toml"]);
        assert_eq!(run(&line.args).await, ExitCode::from(2));
    }

    #[test]
    fn a_watching_program_gets_one_object_per_line() {
        let at = crate::commit_time::CommitTime::from_postgres_micros(0);
        let status = ClusterStatus {
            cluster: "shop".parse().unwrap(),
            at,
            links: Vec::new(),
            nodes: Vec::new(),
        };
        assert_eq!(json(&status, true).lines().count(), 1);
        let read = |text: &str| serde_json::from_str::<ClusterStatus>(text).unwrap();
        assert_eq!(read(&json(&status, true)), read(&json(&status, false)));
    }
}
