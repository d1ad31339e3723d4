//! The command line: one module per command, exit codes as documented in each.

pub mod check;
pub mod conflicts;
pub mod control;
pub mod demo;
#[cfg(test)]
mod documented_tests;
pub mod drop;
pub mod init;
mod log_format;
mod log_pipe;
mod logs;
mod output;
pub mod rewritten;
pub mod run;
mod shared;
pub mod skip;
pub mod status;
pub mod verify;
mod waiting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use log_format::LogFormat;
pub use shared::{ConfigArg, FAILED};
use shared::{on_threads, refuse};

/// Active-active replication for stock PostgreSQL 14 to 19.
#[derive(Debug, Parser)]
#[command(
    name = "mmrepl",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// How log lines are written to standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "MMREPL_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Which cluster; it may stand before the command or behind it.
    #[command(flatten)]
    pub config: ConfigArg,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check every node, then make or complete what replication needs on all of them
    Init(init::InitArgs),
    /// The daemon: every link that starts at a node, until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Show every link of the cluster
    Status(status::StatusArgs),
    /// Find everything that would keep the cluster from working, each with the command that mends
    /// it
    Check(check::CheckArgs),
    /// Compare the nodes' tables while they are in use
    Verify(verify::VerifyArgs),
    /// Look at decided conflicts, and bring losing values back
    Conflicts(conflicts::ConflictsArgs),
    /// Pause a link; it stays paused when its daemon restarts
    Pause(control::ControlArgs),
    /// Resume a paused link
    Resume(control::ControlArgs),
    /// Say whose rows count where a table was rewritten and nobody kept when rows were written
    Rewritten(rewritten::RewrittenArgs),
    /// Go on without a change that cannot be applied; it is kept in the history
    Skip(skip::SkipArgs),
    /// Remove everything that init made
    Drop(drop::DropArgs),
    /// Two throw-away primaries and both daemons on this machine, to play with
    Demo(demo::DemoArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if std::env::args_os().any(|argument| argument == "--json") {
        output::errors_are_json();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    if let Err(error) = logs::start(cli.log_format) {
        return refuse(&error);
    }
    let code = run(cli.command);
    log_pipe::flush();
    code
}

/// Help goes where it was asked for; a mistake in the command line is an error like any other.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !output::are_errors_json() {
        // Nobody reads it; the exit code says the same.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED));
    }
    let words = error.to_string();
    let words = words.trim_start_matches("error: ").lines().next();
    refuse(&words.unwrap_or("the command line is not understood"))
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Run(args) => run::run(args),
        Command::Init(args) => on_threads(1, init::run(&args)),
        Command::Status(args) => on_threads(1, status::run(&args)),
        Command::Check(args) => on_threads(1, check::run(&args)),
        Command::Verify(args) => on_threads(2, verify::run(&args)),
        Command::Conflicts(args) => on_threads(1, conflicts::run(&args)),
        Command::Pause(args) => on_threads(1, control::run(&args, true)),
        Command::Resume(args) => on_threads(1, control::run(&args, false)),
        Command::Rewritten(args) => on_threads(1, rewritten::run(&args)),
        Command::Skip(args) => on_threads(1, skip::run(&args)),
        Command::Drop(args) => on_threads(1, drop::run(&args)),
        Command::Demo(args) => on_threads(1, demo::run(&args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_may_be_named_before_the_command_or_behind_it() {
        for line in ["mmrepl --config /c status", "mmrepl status --config /c"] {
            let parsed = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Status(args) = parsed.command else {
                panic!("{line} is no status")
            };
            let config = args.config.config;
            assert_eq!(
                config.as_deref(),
                Some(std::path::Path::new("/c")),
                "{line}"
            );
        }
    }

    #[test]
    fn the_documented_commands_parse() {
        for line in [
            "mmrepl init --dry-run --copy-from east",
            "mmrepl init --assume-identical --json",
            "mmrepl run --node east --data-dir /tmp/x --log-format json",
            "mmrepl status --json",
            "mmrepl check --config /tmp/c.toml",
            "mmrepl verify --table t --jobs 4 --exact --foreign-keys --limit 5 --json",
            "mmrepl verify --repair --dry-run --from east",
            "mmrepl conflicts",
            "mmrepl conflicts --json --since 2h --table orders",
            "mmrepl conflicts show east-17 --json",
            "mmrepl conflicts stats --config /tmp/c.toml",
            "mmrepl conflicts restore east-17",
            "mmrepl pause east->west",
            "mmrepl drop --node west --yes",
            "mmrepl demo --script",
            "mmrepl --config /tmp/c.toml conflicts show east-17",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        let both = Cli::try_parse_from([
            "mmrepl",
            "init",
            "--assume-identical",
            "--copy-from",
            "east",
        ]);
        assert!(both.is_err(), "only one of them can be meant");
        let which = Cli::try_parse_from(["mmrepl", "conflicts", "show"]);
        assert!(which.is_err(), "show what?");
    }
}
