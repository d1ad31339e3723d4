//! `mmrepl conflicts`: the history of every node.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::output;
use super::shared::{ConfigArg, FAILED};
use crate::config::{Config, Node};
use crate::history::{
    Conflict, ConflictId, Filter, HistoryError, Resolved, StatsLine, Take, history, one, render,
    resolve, restore, stats,
};
use crate::status::gather::sentence;
use crate::wire::control;

/// How long one node may take.
const NODE_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do with the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// One line per conflict, the newest first
    #[default]
    List,
    /// Both rows of one conflict side by side
    Show,
    /// Counts per table, kind and outcome
    Stats,
    /// Bring the losing write of one conflict back, as a new write on the node that decided
    Restore,
    /// Decide a pending conflict (strategy manual): write one of the two rows anew, for every node
    Resolve,
}

/// The command line of `mmrepl conflicts`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConflictsArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// What to do
    #[arg(value_enum, default_value_t)]
    pub action: Action,
    /// Which conflict, for show, restore and resolve: east-17
    #[arg(required_if_eq_any([("action", "show"), ("action", "restore"), ("action", "resolve")]))]
    pub id: Option<ConflictId>,
    /// For resolve: whose row stays, that of the node which holds the record or the incoming one
    #[arg(long, value_enum, required_if_eq("action", "resolve"))]
    pub take: Option<Take>,
    /// Only conflicts that wait for a person
    #[arg(long)]
    pub pending: bool,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
    /// Only what was decided no longer ago than this: 2h, 7d
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub since: Option<Duration>,
    /// Only this table: orders or public.orders
    #[arg(long)]
    pub table: Option<String>,
    /// At most so many of each node
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: i64,
}

/// Runs it. Exit code 0, or 2 when a node could not be asked or the wish not be done.
pub async fn run(args: &ConflictsArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => return fail(&sentence(&error)),
    };
    match (args.action, &args.id) {
        (Action::Show, Some(id)) => shown(args, &config, id).await,
        (Action::Restore, Some(id)) => restored(args, &config, id).await,
        (Action::Resolve, Some(id)) => decided(args, &config, id).await,
        (Action::Stats, _) => statistics(args, &config).await,
        _ => listed(args, &config).await,
    }
}

fn fail(sentence: &str) -> ExitCode {
    output::error(&sentence);
    ExitCode::from(FAILED)
}

fn application_name(config: &Config) -> String {
    format!("mmrepl {} conflicts", config.cluster)
}

async fn client(config: &Config, node: &Node) -> Result<tokio_postgres::Client, HistoryError> {
    let connected = control(&node.dsn, &application_name(config)).await;
    connected.map_err(|source| HistoryError::Node {
        node: node.name.to_string(),
        what: "connect",
        source,
    })
}

/// Asks within the limit.
async fn in_time<T>(
    node: &Node,
    asked: impl Future<Output = Result<T, HistoryError>>,
) -> Result<T, HistoryError> {
    let answer = tokio::time::timeout(NODE_TIMEOUT, asked).await;
    answer.unwrap_or_else(|_| {
        Err(HistoryError::Silent {
            node: node.name.to_string(),
        })
    })
}

/// A node that could not be asked, and why.
type Unreachable = (String, String);

/// What every node that answers says, and the others.
async fn ask_all<T>(
    config: &Config,
    ask: impl AsyncFn(&Node) -> Result<Vec<T>, HistoryError>,
) -> (Vec<T>, Vec<Unreachable>) {
    let asked = config
        .nodes
        .iter()
        .map(async |node| in_time(node, ask(node)).await);
    let answers = join_all(asked).await;
    let (mut all, mut unreachable) = (Vec::new(), Vec::new());
    for (node, answer) in config.nodes.iter().zip(answers) {
        match answer {
            Ok(some) => all.extend(some),
            Err(error) => unreachable.push((node.name.to_string(), sentence(&error))),
        }
    }
    (all, unreachable)
}

fn filter(args: &ConflictsArgs) -> Filter {
    Filter {
        since: args.since,
        table: args.table.clone(),
        pending: args.pending,
        limit: args.limit,
    }
}

async fn listed(args: &ConflictsArgs, config: &Config) -> ExitCode {
    let filter = filter(args);
    let (mut conflicts, unreachable) = ask_all(config, async |node| {
        history(&client(config, node).await?, &node.name, &filter).await
    })
    .await;
    conflicts.sort_by_key(|conflict| std::cmp::Reverse(conflict.decided_at));
    finish(args, ("conflicts", &conflicts), &unreachable, |conflicts| {
        render::list(conflicts)
    })
}

async fn statistics(args: &ConflictsArgs, config: &Config) -> ExitCode {
    let filter = filter(args);
    let (mut lines, unreachable) = ask_all(config, async |node| {
        stats(&client(config, node).await?, &node.name, &filter).await
    })
    .await;
    lines.sort_by_key(|line: &StatsLine| (line.schema.clone(), line.table.clone()));
    finish(args, ("stats", &lines), &unreachable, |lines| {
        render::stats(lines)
    })
}

fn finish<T: serde::Serialize>(
    args: &ConflictsArgs,
    (name, found): (&str, &[T]),
    unreachable: &[Unreachable],
    render: impl Fn(&[T]) -> String,
) -> ExitCode {
    if args.json {
        let nodes: Vec<_> = unreachable
            .iter()
            .map(|(node, error)| json!({"node": node, "error": error}))
            .collect();
        output::json(&json!({name: found, "unreachable": nodes}));
    } else {
        output::line(&render(found).trim_end());
    }
    for (node, error) in unreachable {
        output::error(&format!("the history of {node} is not shown: {error}"));
    }
    if unreachable.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

async fn shown(args: &ConflictsArgs, config: &Config, id: &ConflictId) -> ExitCode {
    let found = async {
        let node = config.node(&id.node).map_err(|error| sentence(&error))?;
        let asked = async { one(&client(config, node).await?, id, false).await };
        in_time(node, asked).await.map_err(|error| sentence(&error))
    };
    match found.await {
        Ok(conflict) if args.json => {
            output::json(&json!(conflict));
            ExitCode::SUCCESS
        }
        Ok(conflict) => {
            output::line(&render::show(&conflict).trim_end());
            ExitCode::SUCCESS
        }
        Err(sentence) => fail(&sentence),
    }
}

async fn restored(args: &ConflictsArgs, config: &Config, id: &ConflictId) -> ExitCode {
    let done = async {
        let node = config.node(&id.node).map_err(|error| sentence(&error))?;
        let work = async { restore(&mut client(config, node).await?, id).await };
        in_time(node, work).await.map_err(|error| sentence(&error))
    };
    match done.await {
        Ok(done) if args.json => {
            output::json(&json!({"id": id.to_string(), "did": done.did, "node": id.node}));
            ExitCode::SUCCESS
        }
        Ok(done) => {
            output::line(&report(&done.conflict, done.did));
            ExitCode::SUCCESS
        }
        Err(sentence) => fail(&sentence),
    }
}

async fn decided(args: &ConflictsArgs, config: &Config, id: &ConflictId) -> ExitCode {
    let take = args.take.unwrap_or(Take::Local);
    let done = async {
        let node = config.node(&id.node).map_err(|error| sentence(&error))?;
        let work = async { resolve(&mut client(config, node).await?, id, take).await };
        in_time(node, work).await.map_err(|error| sentence(&error))
    };
    match done.await {
        Ok(done) if args.json => {
            let (id, node, took) = (id.to_string(), &id.node, take.as_str());
            output::json(&json!({"id": id, "did": done.did, "took": took, "node": node}));
            ExitCode::SUCCESS
        }
        Ok(done) => {
            output::line(&verdict(&done, take));
            ExitCode::SUCCESS
        }
        Err(sentence) => fail(&sentence),
    }
}

fn verdict(done: &Resolved, take: Take) -> String {
    let (table, id) = (done.conflict.table_name(), &done.conflict.id);
    let from = match take {
        Take::Local => &id.node,
        Take::Remote => &done.conflict.link.from,
    };
    match done.did {
        "unchanged" => format!("resolved {id}: the row of {table} is deleted on both sides"),
        "deleted" => format!(
            "resolved {id}: the row of {table} is deleted, as on {from}; this is a new write and is replicated"
        ),
        did => format!(
            "resolved {id}: {did} the row of {table} with what {from} has; this is a new write and is replicated"
        ),
    }
}

fn report(conflict: &Conflict, did: &str) -> String {
    let (table, node) = (conflict.table_name(), &conflict.id.node);
    let loser = conflict.loser().node.as_ref();
    let from = loser.map_or("?", |node| node.as_str());
    match did {
        "unchanged" if conflict.loser().row.is_none() => {
            format!("the row of {table} is gone already; nothing to delete on {node}")
        }
        "unchanged" => format!("the row of {table} is there already; nothing to write on {node}"),
        "deleted" => format!(
            "deleted the row of {table} on {node}, as {from} had; this is a new write and is replicated"
        ),
        did => format!(
            "{did} the row of {table} on {node} with what {from} had written; this is a new write and is replicated"
        ),
    }
}
