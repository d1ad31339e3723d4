//! `mmrepl init`: makes or completes what replication needs.

use std::process::ExitCode;

use super::output;
use super::shared::{ConfigArg, FAILED};
use super::waiting::watched;
use crate::check::{Problem, Severity};
use crate::ids::NodeName;
use crate::init::{InitError, InitOptions, Progress, Step};

/// The command line of `mmrepl init`.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print what would be done, with the SQL, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the nodes' rows as equal without comparing them
    #[arg(long, conflicts_with = "copy_from")]
    pub assume_identical: bool,
    /// Compare the rows of all other nodes with this node's, and replace them where they differ;
    /// who writes to the others' tables waits meanwhile
    #[arg(long, value_name = "NODE")]
    pub copy_from: Option<NodeName>,
    /// Set a node up again that was dropped
    #[arg(long, value_name = "NODE")]
    pub rejoin: Option<NodeName>,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// Prints each step. Exit code 0, or 2 when it refused or failed.
pub async fn run(args: &InitArgs) -> ExitCode {
    let mut progress = Printer {
        json: args.json,
        dry_run: args.dry_run,
        ..Printer::default()
    };
    let options = InitOptions {
        dry_run: args.dry_run,
        assume_identical: args.assume_identical,
        copy_from: args.copy_from.clone(),
        rejoin: args.rejoin.clone(),
    };
    let result = match args.config.load() {
        Ok(config) => {
            watched(
                &config,
                "init",
                crate::init::init(&config, &options, &mut progress),
            )
            .await
        }
        Err(error) => Err(InitError::Config(error)),
    };
    if args.json {
        output::json(&serde_json::json!({
            "dry_run": args.dry_run,
            "changed": result.as_ref().is_ok_and(|changed| *changed) && !args.dry_run,
            "steps": progress.steps,
            "problems": progress.problems,
            "error": result.as_ref().err().map(ToString::to_string),
        }));
    } else if let Ok(changed) = &result {
        if !changed && args.copy_from.is_none() {
            output::line(&NOT_COMPARED);
        }
        output::line(&last_line(*changed, args.dry_run));
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// A person may run `init` because rows differ.
const NOT_COMPARED: &str = "every link is in order; rows were not compared \
     (mmrepl init --copy-from NODE --dry-run compares them with those of NODE)";

fn last_line(changed: bool, dry_run: bool) -> &'static str {
    match (changed, dry_run) {
        (false, _) => "nothing to do",
        (true, true) => "nothing was changed (--dry-run)",
        (true, false) => "done",
    }
}

/// Prints steps as they happen, or keeps them for the JSON object.
#[derive(Default)]
struct Printer {
    json: bool,
    dry_run: bool,
    steps: Vec<Step>,
    problems: Vec<Problem>,
}

impl Progress for Printer {
    fn step(&mut self, step: &Step) {
        if self.json {
            self.steps.push(step.clone());
            return;
        }
        output::line(&format!("{}: {}", step.node, step.what));
        if self.dry_run {
            for sql in &step.sql {
                output::line(&format!("    {};", sql.replace('\n', "\n    ")));
            }
        }
    }

    fn waiting(&mut self, sentence: &str) {
        output::waiting(sentence);
    }

    fn problem(&mut self, problem: &Problem) {
        if self.json {
            self.problems.push(problem.clone());
        } else if problem.severity != Severity::Info {
            output::line(&output::problem(problem, output::colour()));
        }
    }
}
