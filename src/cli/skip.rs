//! `mmrepl skip LINK --transaction LSN`: a person's way past a change that cannot be applied.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::output;
use super::shared::{ConfigArg, FAILED};
use crate::catalog::position::read_position;
use crate::catalog::skips::{ask_to_skip, skipped};
use crate::ids::LinkName;
use crate::lsn::Lsn;
use crate::status::gather::sentence;
use crate::wire::control;

/// A blocked link tries again every few seconds; then it is done.
const DONE_MAX: Duration = Duration::from_secs(30);
const DONE_POLL: Duration = Duration::from_millis(250);

/// The command line of `mmrepl skip`.
#[derive(Clone, Debug, clap::Args)]
pub struct SkipArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The link, in quotes because of the shell: 'east->west'
    pub link: LinkName,
    /// The transaction that blocks the link, as the reason in `mmrepl status` names it
    #[arg(long, value_name = "LSN")]
    pub transaction: Lsn,
    /// Only changes of this table, as schema.table; all of the transaction without it
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Do it: the target will not have these changes
    #[arg(long, short)]
    pub yes: bool,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0, or 2 when it cannot be done.
pub async fn run(args: &SkipArgs) -> ExitCode {
    match skip(args).await {
        Ok(changes) => {
            report(args, changes);
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            output::error(&sentence);
            ExitCode::from(FAILED)
        }
    }
}

fn what(args: &SkipArgs) -> String {
    let table = args.table.as_ref();
    let of_table = table.map_or_else(|| "all changes".into(), |t| format!("the changes of {t}"));
    format!(
        "{of_table} in transaction {} of {}",
        args.transaction, args.link.from
    )
}

async fn skip(args: &SkipArgs) -> Result<Option<i64>, String> {
    let config = args.config.load().map_err(|error| sentence(&error))?;
    let (source, target) = config.link(&args.link).map_err(|error| sentence(&error))?;
    if !args.yes {
        return Err(format!(
            "{} would be missing on {} and go to the history of conflicts there: say --yes to do it",
            what(args),
            target.name
        ));
    }
    let name = format!("mmrepl {} skip", config.cluster);
    let client = control(&target.dsn, &name)
        .await
        .map_err(|error| sentence(&error))?;
    let position = read_position(&client, &source.name).await;
    let position = position.map_err(|error| sentence(&error))?;
    let wish = (args.transaction, args.table.as_deref().unwrap_or(""));
    let done = async || {
        let done = skipped(&client, &source.name, wish).await;
        done.map_err(|error| sentence(&error))
    };
    if let Some(changes) = done().await? {
        return Ok(Some(changes));
    }
    let position = position.ok_or_else(|| format!("{} has never been set up", args.link))?;
    // What came from others than the cluster may be behind everything else.
    let applied = position.others_lsn.unwrap_or(position.end_lsn);
    if args.transaction < applied.min(position.end_lsn) {
        return Err(format!(
            "{} has passed transaction {} already (it stands at {})",
            args.link, args.transaction, position.end_lsn
        ));
    }
    let asked = ask_to_skip(&client, &source.name, wish).await;
    asked.map_err(|error| sentence(&error))?;
    let began = Instant::now();
    while began.elapsed() < DONE_MAX {
        if let Some(changes) = done().await? {
            return Ok(Some(changes));
        }
        tokio::time::sleep(DONE_POLL).await;
    }
    Ok(None)
}

fn report(args: &SkipArgs, changes: Option<i64>) {
    let (link, node) = (&args.link, &args.link.to);
    if args.json {
        output::json(&serde_json::json!({
            "link": link.to_string(),
            "transaction": args.transaction.to_string(),
            "table": args.table,
            "changes": changes,
        }));
        return;
    }
    output::line(&match changes {
        Some(changes) => format!(
            "skipped {}: {changes} change(s), kept in the history of {node} (`mmrepl conflicts list`)",
            what(args)
        ),
        None => format!(
            "{link} will skip {} when it comes to it; its daemon does not seem to be there yet",
            what(args)
        ),
    });
}
