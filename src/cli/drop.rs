//! `mmrepl drop`: removes everything that init made.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::{ConfigArg, FAILED, output};
use crate::config::Config;
use crate::ids::NodeName;
use crate::init::{DropReport, Dropped, drop_nodes};

/// The command line of `mmrepl drop`.
#[derive(Clone, Debug, clap::Args)]
pub struct DropArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Take only this node out of the cluster
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
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
    if let Some(name) = &args.node {
        config.node(name).map_err(|error| error.to_string())?;
    }
    if !args.yes && io::stdin().is_terminal() && !confirmed(&config, args.node.as_ref()) {
        return Err("nothing was dropped".to_owned());
    }
    let report = drop_nodes(&config, args.node.as_ref()).await;
    report.map_err(|error| error.to_string())
}

/// Asks the person at the terminal; programs and pipes are not asked.
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
    for left in &report.left {
        output::error(&left.reason);
    }
}
