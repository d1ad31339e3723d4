//! `mmrepl rewritten TABLE --take NODE`: whose rows count where a table was rewritten and nobody
//! kept when its rows were written (`apply::rewrites`).
//!
//! In the end every node must have the same rows, so the node whose rows count writes them again,
//! as new writes that are newer than all there is: first those that were rewritten there; then,
//! once it has applied what the others had written, what it has got since the others fell behind.
//! On the others rewritten rows then count as old, and take whatever comes.
//!
//! A node where the table was not rewritten has judged all the others' changes by their true
//! times. Taking its rows loses nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::output;
use super::shared::{ConfigArg, FAILED};
use crate::catalog::load_tables::load_table;
use crate::catalog::position::read_position;
use crate::catalog::rewrites::{
    age_forged, applied_since, has_forged_rows, renew_forged, renew_since,
};
use crate::catalog::table::Table;
use crate::config::Config;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::status::gather::sentence;
use crate::wire::{RowExt, control};

/// How long the node may take to apply what the others have written.
const APPLIED_MAX: Duration = Duration::from_secs(120);
const APPLIED_POLL: Duration = Duration::from_millis(200);
/// A mark that links pass on, so that idle nodes are waited for as well.
const MARK: &str = "select pg_catalog.pg_logical_emit_message(true, 'mmrepl.rewritten', '')::text";

/// The command line of `mmrepl rewritten`.
#[derive(Clone, Debug, clap::Args)]
pub struct RewrittenArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The table, as schema.table
    pub table: String,
    /// The node whose rows count
    #[arg(long, value_name = "NODE")]
    pub take: NodeName,
    /// Do it
    #[arg(long, short)]
    pub yes: bool,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// A node with a session on it, and the table there.
struct Place {
    name: NodeName,
    client: Client,
    table: Table,
    forged: bool,
}

/// Exit code 0, or 2 when it cannot be done.
pub async fn run(args: &RewrittenArgs) -> ExitCode {
    match decide(args).await {
        Ok(rows) => {
            if args.json {
                let take = args.take.as_str();
                output::json(&serde_json::json!({
                    "table": args.table, "take": take, "written_again": rows,
                }));
            } else {
                output::line(&format!(
                    "the rows of {} that {} has count; {rows} of them were written again there",
                    args.table, args.take
                ));
            }
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            output::error(&sentence);
            ExitCode::from(FAILED)
        }
    }
}

async fn decide(args: &RewrittenArgs) -> Result<u64, String> {
    let config = args.config.load().map_err(|error| sentence(&error))?;
    config.node(&args.take).map_err(|error| sentence(&error))?;
    let places = places(&config, &args.table).await?;
    let forged: Vec<&str> = places
        .iter()
        .filter(|place| place.forged)
        .map(|place| place.name.as_str())
        .collect();
    if forged.is_empty() {
        return Err(format!(
            "nothing is to be decided about {}: of all its rows it is known when they were written",
            args.table
        ));
    }
    if !args.yes {
        return Err(format!(
            "{} was rewritten on {}; the rows that {} has would count everywhere: say --yes to do it",
            args.table,
            forged.join(" and "),
            args.take
        ));
    }
    let (taken, others): (Vec<_>, Vec<_>) =
        places.iter().partition(|place| place.name == args.take);
    let taken = taken.first().ok_or("the node is not there")?;
    let failed = |error: crate::catalog::CatalogError| sentence(&error);
    let mut rows = renew_forged(&taken.client, &taken.table)
        .await
        .map_err(failed)?;
    if others.iter().any(|place| place.forged) {
        let since = behind_since(&others).await?;
        for other in &others {
            wait_applied(taken, other).await?;
        }
        rows += renew_since(&taken.client, &taken.table, since.as_deref())
            .await
            .map_err(failed)?;
    }
    for place in others.iter().filter(|place| place.forged) {
        age_forged(&place.client, &place.table)
            .await
            .map_err(failed)?;
    }
    Ok(rows)
}

/// Every node must be there: what is decided without one would not hold for it.
async fn places(config: &Config, table: &str) -> Result<Vec<Place>, String> {
    let (schema, name) = table
        .split_once('.')
        .ok_or_else(|| format!("`{table}` is not schema.table"))?;
    let application = format!("mmrepl {} rewritten", config.cluster);
    let mut places = Vec::new();
    for node in &config.nodes {
        let at = |error: String| format!("{}: {error}", node.name);
        let client = control(&node.dsn, &application).await;
        let client = client.map_err(|error| at(sentence(&error)))?;
        let table = load_table(&client, schema, name).await;
        let table = table.map_err(|error| at(sentence(&error)))?;
        let table = table.ok_or_else(|| at(format!("there is no table {schema}.{name}")))?;
        let forged = has_forged_rows(&client, &table).await;
        places.push(Place {
            name: node.name.clone(),
            forged: forged.map_err(|error| at(sentence(&error)))?,
            client,
            table,
        });
    }
    Ok(places)
}

/// The time up to which all of these have applied everything; nothing where that is not known.
async fn behind_since(others: &[&Place]) -> Result<Option<String>, String> {
    let mut oldest: Option<String> = None;
    for place in others.iter().filter(|place| place.forged) {
        let since = applied_since(&place.client).await;
        let Some(since) = since.map_err(|error| sentence(&error))? else {
            return Ok(None);
        };
        // One format and one time zone: the order of the texts is that of the times.
        oldest = Some(oldest.map_or(since.clone(), |oldest| oldest.min(since)));
    }
    Ok(oldest)
}

/// Waits until `taken` has applied what `other` has written by now.
async fn wait_applied(taken: &Place, other: &Place) -> Result<(), String> {
    let mark = other.client.query_one(MARK, &[]).await;
    let mark = mark.map_err(|error| format!("{}: {error}", other.name))?;
    let mark: &str = mark.read(0).map_err(|unread| sentence(&unread))?;
    let mark: Lsn = mark
        .parse()
        .map_err(|_| format!("{} gave no position", other.name))?;
    let began = Instant::now();
    loop {
        let position = read_position(&taken.client, &other.name).await;
        let position = position.map_err(|error| sentence(&error))?;
        if position.is_some_and(|position| position.end_lsn >= mark) {
            return Ok(());
        }
        if began.elapsed() > APPLIED_MAX {
            return Err(format!(
                "{} has not applied what {} wrote, so its rows cannot count yet: see `mmrepl status` for {}->{}, then run this again",
                taken.name, other.name, other.name, taken.name
            ));
        }
        tokio::time::sleep(APPLIED_POLL).await;
    }
}
