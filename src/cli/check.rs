//! `mmrepl check`: the preflight alone.

use std::process::ExitCode;

use super::output;
use super::shared::{ConfigArg, FAILED};
use super::waiting::watched;
use crate::check::{Problem, Severity, has_errors, script};
use crate::ids::NodeName;

/// The command line of `mmrepl check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
    /// Print everything that mends one node, as a file that psql runs
    #[arg(long, value_name = "NODE")]
    pub script: Option<NodeName>,
}

/// Prints every finding. Exit code 0 when none is an error, 1 when one is, 2 when the configuration
/// cannot be used.
pub async fn run(args: &CheckArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(FAILED);
        }
    };
    let node = args.script.as_ref();
    if let Some(Err(error)) = node.map(|name| config.node(name)) {
        output::error(&error);
        return ExitCode::from(FAILED);
    }
    let problems = watched(&config, "check", crate::init::preflight(&config)).await;
    if let Some(node) = node {
        print_script(node, &problems, args.json);
    } else if args.json {
        output::json(&serde_json::json!({ "ok": !has_errors(&problems), "problems": problems }));
    } else {
        print(&problems);
    }
    if has_errors(&problems) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn print_script(node: &NodeName, problems: &[Problem], json: bool) {
    let script = script(node, problems);
    if json {
        let ok = !has_errors(problems);
        output::json(&serde_json::json!({ "ok": ok, "node": node, "script": script }));
    } else {
        output::script(&script);
    }
}

fn print(problems: &[Problem]) {
    let colour = output::colour();
    for problem in problems {
        output::line(&output::problem(problem, colour));
    }
    let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    output::line(&format!("{errors} error(s), {warnings} warning(s)"));
}
