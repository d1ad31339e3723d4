//! `mmrepl drop`: removes everything that init made.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use super::shared::{ConfigArg, FAILED};
use super::waiting::watched;
use crate::config::Config;
use crate::ids::NodeName;
use crate::init::{DropOptions, DropReport, Dropped, Records, drop_nodes};

/// The command line of `mmrepl drop`.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // A command line is made of switches.
pub struct DropArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Take only this node out of the cluster
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// The node will not come back: it is not asked, the others forget it
    #[arg(long, requires = "node")]
    pub lost: bool,
    /// Do not ask; without a terminal nobody can be asked
    #[arg(long, short)]
    pub yes: bool,
    /// Write rows kept aside and the history of conflicts to this new file first
    #[arg(long, value_name = "FILE", conflicts_with = "discard")]
    pub save: Option<PathBuf>,
    /// Let rows kept aside and the history of conflicts go
    #[arg(long)]
    pub discard: bool,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// Says what was removed. Exit code 0, or 2 when something is left.
pub async fn run(args: &DropArgs) -> ExitCode {
    match dropped(args).await {
        Ok(report) => {
            print(args, &report);
            if report.left.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            }
        }
        Err(sentence) => {
            output::error(&sentence);
            ExitCode::from(FAILED)
        }
    }
}

async fn dropped(args: &DropArgs) -> Result<DropReport, String> {
    let config = args.config.load().map_err(|error| error.to_string())?;
    if !args.yes && !io::stdin().is_terminal() {
        return Err(
            "nothing was dropped: nobody can be asked without a terminal, say --yes".to_owned(),
        );
    }
    if !args.yes && !confirmed(&config, args.node.as_ref()) {
        return Err("nothing was dropped".to_owned());
    }
    let records = match &args.save {
        Some(path) => Records::Save(path.clone()),
        None if args.discard => Records::Discard,
        None => Records::Refuse,
    };
    let options = DropOptions {
        only: args.node.clone(),
        lost: args.lost,
        records,
    };
    let report = watched(&config, "drop", drop_nodes(&config, &options)).await;
    report.map_err(|error| error.to_string())
}

/// Asks the person at the terminal.
fn confirmed(config: &Config, node: Option<&NodeName>) -> bool {
    let what = node.map_or_else(
        || format!("all of cluster {}", config.cluster),
        |node| format!("node {node} of cluster {}", config.cluster),
    );
    let mut stderr = io::stderr();
    let _ = write!(
        stderr,
        "Drop replication of {what}? Rows stay as they are. [y/N] "
    );
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn print(args: &DropArgs, report: &DropReport) {
    if args.json {
        output::json(&serde_json::json!(report));
        return;
    }
    for Dropped { node, removed } in &report.nodes {
        let what = if removed.is_empty() {
            "nothing to drop".to_owned()
        } else {
            format!("dropped {}", removed.join(", "))
        };
        output::line(&format!("{node}: {what}"));
    }
    for note in &report.notes {
        output::line(note);
    }
    for left in &report.left {
        output::error(&left.reason);
    }
}
