//! `--copy-from` where the links to other nodes are in order: a person asks for it because rows
//! differ, or may.
//!
//! So rows are compared. Where writers are busy, rows under way differ too: a table counts as equal
//! once it was equal in one look, and a row differs only where it did so in two looks, with
//! everything delivered in between that was written before. Nodes that have the copied one's rows
//! are left alone; on the others it is told, table by table, what each side alone has, and then
//! their rows are replaced like those of a node whose link is broken.

use std::collections::BTreeSet;

use super::apart::{self, Counts, Keys};
use super::compare::{self, Tables};
use super::execute::execute;
use super::plan;
use super::planned::Plan;
use super::rows::{all_tables, differences, open_snapshot};
use super::session::Session;
use super::step::Step;
use super::work::Work;
use super::{InitError, InitOptions, Progress, gaps, observe, overwrite};
use crate::check::facts::NodeFacts;
use crate::config::Config;
use crate::ids::NodeName;

/// How often tables are compared again whose rows may have been under way.
const ROUNDS: usize = 4;
/// Of so many rows it is remembered that they differ, over all tables; more are not counted.
const KEYS_MAX: usize = 1_000_000;

/// A table in which a node differs from the copied one.
struct Different {
    table: (String, String),
    node: NodeName,
    /// The rows that differ, and whether those are all; nothing where that was not counted.
    keys: Option<(Keys, bool)>,
}

/// Compares the nodes whose rows were not copied already, and copies to those that differ. Returns
/// whether anything was (or would be) changed.
pub(super) async fn copy(
    config: &Config,
    options: &InitOptions,
    (from, copied, facts): (&NodeName, &[NodeName], &[NodeFacts]),
    (sessions, progress): (&mut [Session], &mut dyn Progress),
) -> Result<bool, InitError> {
    let names = config.nodes.iter().map(|node| &node.name);
    let left = names.filter(|name| *name != from && !copied.contains(name));
    let left: Vec<NodeName> = left.cloned().collect();
    if left.is_empty() {
        return Ok(false);
    }
    let states = observe::observe_all(config, sessions, facts).await?;
    let work = Work {
        config,
        options,
        plan: &Plan {
            states: states.clone(),
            ..Plan::default()
        },
        sessions,
    };
    let differ = compare(&work, from, &left, progress).await?;
    if differ.is_empty() {
        return Ok(false);
    }
    let plan = plan::plan(config, options, (&states, &differ))?;
    carry_out(config, options, (&plan, sessions), progress).await?;
    Ok(true)
}

/// Shows the plan in a dry run, or executes it.
pub(super) async fn carry_out(
    config: &Config,
    options: &InitOptions,
    (plan, sessions): (&Plan, &mut [Session]),
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    if options.dry_run {
        for step in plan.steps_for_show(config, options) {
            progress.step(&step);
        }
        return Ok(());
    }
    if let Some(from) = &options.copy_from {
        overwrite::check(config, plan, from, sessions).await?;
    }
    execute(config, options, plan, sessions, progress).await
}

/// The nodes that differ, each told with its tables.
async fn compare(
    work: &Work<'_>,
    from: &NodeName,
    others: &[NodeName],
    progress: &mut dyn Progress,
) -> Result<BTreeSet<NodeName>, InitError> {
    let mut found = tables(work, from, others, progress).await?;
    if !found.is_empty() {
        rows(work, from, (&mut found, progress)).await?;
    }
    for other in others {
        let here = found.iter().filter(|different| different.node == *other);
        let told: Vec<String> = here.map(|different| different.told(from)).collect();
        if told.is_empty() {
            let tables = all_tables(work).len();
            let what = format!("compared {tables} table(s) with {from}: equal");
            progress.step(&Step::new(other, what, Vec::new()));
        }
        for what in told {
            progress.step(&Step::new(other, what, Vec::new()));
        }
    }
    Ok(found.into_iter().map(|different| different.node).collect())
}

impl Different {
    fn told(&self, from: &NodeName) -> String {
        let (schema, name) = &self.table;
        let table = crate::catalog::names::readable(schema, name);
        let counts = match &self.keys {
            Some((keys, is_all)) => Counts::of(keys, !is_all).told([from, &self.node]),
            None => "too many rows to count".to_owned(),
        };
        format!("does not have the rows of {from} in {table}: {counts}")
    }
}

/// The tables that were not equal in any round.
async fn tables(
    work: &Work<'_>,
    from: &NodeName,
    others: &[NodeName],
    progress: &mut dyn Progress,
) -> Result<Vec<Different>, InitError> {
    let mut ids = all_tables(work);
    let mut found: Vec<Different> = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            settle(work, progress).await?;
        }
        let now = look(work, from, (others, &ids)).await?;
        let still = |different: &Different| {
            let mut before = found.iter();
            round == 0 || before.any(|b| b.table == different.table && b.node == different.node)
        };
        let now: Vec<Different> = now.into_iter().filter(still).collect();
        ids.retain(|id| now.iter().any(|different| different.table == *id));
        found = now;
        if found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Compares tables once, each node in a snapshot of its own.
async fn look(
    work: &Work<'_>,
    from: &NodeName,
    (others, ids): (&[NodeName], &[(String, String)]),
) -> Result<Vec<Different>, InitError> {
    let nodes: Vec<NodeName> = others.iter().chain([from]).cloned().collect();
    for node in &nodes {
        open_snapshot(work.session(node), &[]).await?;
    }
    let differ = differences(work, &nodes, ids).await;
    for node in &nodes {
        let session = work.session(node);
        session.batch("close the snapshot", "commit").await?;
    }
    let (differ, _) = differ?;
    let with_from = differ.into_iter().filter(|d| d.nodes.1 == *from);
    let of_table = |difference: compare::Difference| {
        let mut ids = ids.iter();
        let named = |id: &&(String, String)| {
            crate::catalog::names::readable(&id.0, &id.1) == difference.table
        };
        let table = ids.find(named)?.clone();
        Some(Different {
            table,
            node: difference.nodes.0,
            keys: None,
        })
    };
    Ok(with_from.filter_map(of_table).collect())
}

/// Counts what differs, row by row, and forgets the tables whose rows were all under way.
async fn rows(
    work: &Work<'_>,
    from: &NodeName,
    (found, progress): (&mut Vec<Different>, &mut dyn Progress),
) -> Result<(), InitError> {
    let mut sum = 0;
    for different in found.iter_mut() {
        if sum < KEYS_MAX {
            let keys = keys(work, from, different).await?;
            sum += keys.0.len();
            different.keys = Some(keys).filter(|(keys, is_all)| *is_all || !keys.is_empty());
        }
    }
    settle(work, progress).await?;
    for different in found.iter_mut() {
        let Some((before, all_before)) = different.keys.take() else {
            continue;
        };
        let (mut keys, is_all) = keys(work, from, different).await?;
        keys.retain(|key, rows| before.get(key) == Some(rows));
        let is_all = is_all && all_before;
        different.keys = Some((keys, is_all));
    }
    let was_under_way = |different: &Different| {
        let keys = different.keys.as_ref();
        keys.is_some_and(|(keys, is_all)| *is_all && keys.is_empty())
    };
    found.retain(|different| !was_under_way(different));
    Ok(())
}

async fn keys(
    work: &Work<'_>,
    from: &NodeName,
    different: &Different,
) -> Result<(Keys, bool), InitError> {
    let nodes = [from, &different.node];
    let id = (&*different.table.0, &*different.table.1);
    let tables: [Tables<'_>; 2] = nodes.map(|node| work.tables(node));
    let pair = match (tables[0].get(&id), tables[1].get(&id)) {
        (Some(there), Some(here)) => [*there, *here],
        // The preflight saw to it that every node has every table.
        _ => return Ok((Keys::new(), true)),
    };
    let shared = compare::shared(id, &tables);
    let sessions = nodes.map(|node| work.session(node));
    apart::differing(sessions, pair, &shared).await
}

/// Waits for what is under way. What cannot be delivered now is a difference like any other.
async fn settle(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    match gaps::settle(work, progress).await {
        Err(InitError::Behind { .. } | InitError::Refused(_)) => Ok(()),
        result => result,
    }
}
