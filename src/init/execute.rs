//! Runs a plan, in the order that `init` documents.

use std::collections::HashMap;

use super::compare::{self, Difference, Shared, Tables};
use super::copy::{self, Pair, Stamp};
use super::observe::NodeState;
use super::overwrite::Locked;
use super::overwritten::SetAside;
use super::plan::{LinkWork, Plan, Step, StepKind};
use super::session::{self, Session};
use super::slots::{self, MadeSlots};
use super::{InitError, InitOptions, Progress, fingerprints, gaps, join, overwrite, overwritten};
use crate::catalog::table::Table;
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::migrate;

/// Remembers which file each table has, to know a rewrite by (`apply::rewrites`).
const LOOK_AT_FILES: &str = "select mmrepl.look_at_files()";

/// What every part of the execution needs.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a InitOptions,
    pub(super) plan: &'a Plan,
    pub(super) sessions: &'a [Session],
}

impl<'a> Work<'a> {
    pub(super) fn session(&self, node: &NodeName) -> &'a Session {
        session::of(self.sessions, node)
    }

    pub(super) fn state(&self, node: &NodeName) -> &'a NodeState {
        let mut states = self.plan.states.iter();
        states
            .find(|state| state.name == *node)
            .expect("every node was observed before planning")
    }

    /// A node's tables by schema and name.
    pub(super) fn tables(&self, node: &NodeName) -> Tables<'a> {
        self.state(node)
            .tables
            .iter()
            .map(|state| (state.table.id(), &state.table))
            .collect()
    }
}

/// Executes the plan.
pub(super) async fn execute(
    config: &Config,
    options: &InitOptions,
    plan: &Plan,
    sessions: &mut [Session],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    for step in &plan.prepare {
        run(step, sessions).await?;
        progress.step(step);
    }
    for step in &plan.publish {
        run(step, sessions).await?;
        progress.step(step);
    }
    let work = Work {
        config,
        options,
        plan,
        sessions,
    };
    join::join(&work, progress).await?;
    make_links(&work, progress).await?;
    gaps::close(&work, progress).await?;
    for session in work.sessions {
        session
            .batch("look at the files of tables", LOOK_AT_FILES)
            .await?;
        fingerprints::note(session).await?;
    }
    Ok(())
}

pub(super) async fn run(step: &Step, sessions: &mut [Session]) -> Result<(), InitError> {
    let mut sessions = sessions.iter_mut();
    let session = sessions.find(|session| *session.name() == step.node);
    let session = session.expect("init goes on only when every node was reached");
    match step.kind {
        StepKind::Transaction => session.transaction(&step.what, &step.sql).await,
        StepKind::Fingerprinted => {
            let sql = fingerprints::around(&step.sql);
            session.transaction(&step.what, &sql).await
        }
        StepKind::Migrate => {
            let done = migrate::migrate(&mut session.client).await;
            let node = step.node.clone();
            match done.map_err(|source| InitError::Migrate { node, source }) {
                Ok(_) => Ok(()),
                Err(error) => Err(session.blaming_event_triggers(error).await),
            }
        }
    }
}

/// Slots, rows, positions. When it fails, the slots it made are dropped again: without a position
/// row they would be made anew by the next run in any case, and until then they would hold WAL.
async fn make_links(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    if work.plan.links.is_empty() {
        return Ok(());
    }
    let mut made: Vec<MadeSlots> = Vec::new();
    let mut locked: Vec<Locked> = Vec::new();
    let result = make_links_with(work, (&mut made, &mut locked), progress).await;
    if result.is_err() {
        // The first error is the one to report.
        let _ = overwrite::release(work, &locked).await;
        for slots in made {
            let session = work.session(&slots.node);
            for (link, _) in &slots.starts {
                let slot = slot_name(&work.config.cluster, &link.to);
                // The first error is the one to report.
                let _ = slots::drop_slot(session, &slot).await;
            }
        }
    }
    result
}

async fn make_links_with(
    work: &Work<'_>,
    (made, locked): (&mut Vec<MadeSlots>, &mut Vec<Locked>),
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let mut stamp = None;
    for node in slot_order(work) {
        let session = work.session(&node);
        if work.options.copy_from.as_ref() == Some(&node) {
            overwrite::lock_all(work, &node, locked).await?;
            wait_for_peers(work, &node, made, progress).await?;
            overwrite::wait_delivered(work, &node, locked, progress).await?;
            stamp = Some(copy::clock(session).await?);
        }
        let links: Vec<&LinkWork> = work
            .plan
            .links
            .iter()
            .filter(|link| link.link.from == node)
            .collect();
        if let Some(slots) = slots::make(work.config, session, &links).await? {
            for (link, start) in &slots.starts {
                let what = format!("made the replication slot of {link}, which begins at {start}");
                progress.step(&Step::new(&node, what, Vec::new()));
            }
            made.push(slots);
        }
    }
    match (&work.options.copy_from, stamp) {
        (Some(from), Some(time)) => overwrite::copy_all(work, from, &time, made, progress).await?,
        _ if !work.options.assume_identical => compare_all(work, made, progress).await?,
        _ => {}
    }
    let all = made
        .iter()
        .flat_map(|slots| slots.starts.iter().map(move |start| (slots, start)));
    for (slots, (link, start)) in all {
        let source = &work.state(&link.from).server;
        let target = work.session(&link.to);
        let witness = slots::leave_witness(work.session(&link.from), link).await?;
        let known = (&slots.known, witness);
        // What was written on a node until it was locked has been overwritten there.
        let own = locked.iter().find(|locked| locked.node == link.from);
        let start = own.map_or(*start, |own| own.at.max(*start));
        slots::write_position(target, source, (link, start), known).await?;
        progress.step(&Step::new(
            &link.to,
            format!("wrote the position of {link}"),
            Vec::new(),
        ));
    }
    Ok(())
}

/// The node that is copied comes last: its snapshot must hold what the others' slots leave out.
fn slot_order(work: &Work<'_>) -> Vec<NodeName> {
    let mut nodes: Vec<NodeName> = work.sessions.iter().map(|s| s.name().clone()).collect();
    nodes.sort_by_key(|node| work.options.copy_from.as_ref() == Some(node));
    nodes
}

/// In a larger cluster, waits until the node to copy has applied what its peers wrote before the
/// slots that were just made on them: those slots do not deliver it to the new node.
async fn wait_for_peers(
    work: &Work<'_>,
    node: &NodeName,
    made: &[MadeSlots],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    for slots in made {
        let link = LinkName {
            from: slots.node.clone(),
            to: node.clone(),
        };
        let remade = work.plan.links.iter().any(|work| work.link == link);
        if let Some((_, start)) = slots.starts.first().filter(|_| !remade) {
            overwrite::wait_for(work, &link, *start, progress).await?;
        }
    }
    Ok(())
}

/// Opens a read transaction, on the snapshot of the node's new slots where it has some.
pub(super) async fn open_snapshot(session: &Session, made: &[MadeSlots]) -> Result<(), InitError> {
    session
        .batch(
            "open a snapshot",
            "begin isolation level repeatable read read only",
        )
        .await?;
    let slots = made.iter().find(|slots| slots.node == *session.name());
    let Some(slots) = slots.filter(|slots| !slots.snapshot.is_empty()) else {
        return Ok(());
    };
    let sql = format!(
        "set transaction snapshot {}",
        crate::catalog::names::literal(&slots.snapshot)
    );
    session.batch("open a snapshot", &sql).await
}

/// Compares every table between the two ends of every link that was made.
async fn compare_all(
    work: &Work<'_>,
    made: &[MadeSlots],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let pairs = pairs(work);
    let nodes: Vec<NodeName> = work.sessions.iter().map(|s| s.name().clone()).collect();
    for node in &nodes {
        open_snapshot(work.session(node), made).await?;
    }
    let ids: Vec<(String, String)> = all_tables(work);
    let found = differences(work, &nodes, &ids).await;
    for node in &nodes {
        work.session(node)
            .batch("close the snapshot", "commit")
            .await?;
    }
    let (mut found, compared) = found?;
    found.retain(|difference| pairs.contains(&difference.nodes));
    if !found.is_empty() {
        return Err(compare::refuse(&found));
    }
    let what = format!(
        "compared {} table(s), of which {compared} hold rows: equal",
        ids.len()
    );
    for node in &nodes {
        progress.step(&Step::new(node, what.clone(), Vec::new()));
    }
    Ok(())
}

/// Both orders of every pair of nodes with a link to make.
fn pairs(work: &Work<'_>) -> Vec<(NodeName, NodeName)> {
    let links = work.plan.links.iter().map(|work| &work.link);
    links
        .flat_map(|link| {
            [
                (link.from.clone(), link.to.clone()),
                (link.to.clone(), link.from.clone()),
            ]
        })
        .collect()
}

/// Every table that takes part. The preflight made sure that all nodes have the same.
pub(super) fn all_tables(work: &Work<'_>) -> Vec<(String, String)> {
    let tables = work
        .plan
        .states
        .iter()
        .take(1)
        .flat_map(|state| &state.tables);
    tables
        .map(|state| (state.table.schema.clone(), state.table.name.clone()))
        .collect()
}

/// Compares tables between all pairs of nodes, in the sessions' open transactions. Returns what
/// differs and how many tables hold rows.
pub(super) async fn differences(
    work: &Work<'_>,
    nodes: &[NodeName],
    ids: &[(String, String)],
) -> Result<(Vec<Difference>, usize), InitError> {
    let tables: Vec<Tables<'_>> = nodes.iter().map(|node| work.tables(node)).collect();
    let filled = filled(work, nodes, &tables, ids).await?;
    let mut found = Vec::new();
    for id in &filled {
        let shared = compare::shared((&id.0, &id.1), &tables);
        let mut digests = Vec::new();
        for (node, tables) in nodes.iter().zip(&tables) {
            if let Some(table) = tables.get(&(id.0.as_str(), id.1.as_str())) {
                digests.push((
                    node,
                    compare::digest(work.session(node), table, &shared).await?,
                ));
            }
        }
        found.extend(unequal(&shared, &digests));
    }
    Ok((found, filled.len()))
}

/// The tables of `ids` that hold rows on some node.
async fn filled(
    work: &Work<'_>,
    nodes: &[NodeName],
    tables: &[Tables<'_>],
    ids: &[(String, String)],
) -> Result<Vec<(String, String)>, InitError> {
    let mut with_rows: HashMap<(&str, &str), bool> = HashMap::new();
    for (node, tables) in nodes.iter().zip(tables) {
        let here: Vec<&Table> = ids
            .iter()
            .filter_map(|id| tables.get(&(&*id.0, &*id.1)).copied())
            .collect();
        let answers = compare::with_rows(work.session(node), &here).await?;
        for (table, answer) in here.into_iter().zip(answers) {
            *with_rows.entry(table.id()).or_default() |= answer;
        }
    }
    let has = |id: &&(String, String)| with_rows.get(&(&*id.0, &*id.1)).copied().unwrap_or(false);
    Ok(ids.iter().filter(has).cloned().collect())
}

fn unequal(shared: &Shared, digests: &[(&NodeName, compare::Digest)]) -> Vec<Difference> {
    let mut found = Vec::new();
    for (at, (a, digest_a)) in digests.iter().enumerate() {
        for (b, digest_b) in digests
            .iter()
            .skip(at + 1)
            .filter(|(_, other)| other != digest_a)
        {
            found.push(Difference {
                table: shared.readable(),
                nodes: ((*a).clone(), (*b).clone()),
                rows: (digest_a.rows, digest_b.rows),
            });
        }
    }
    found
}

/// Empties the target's tables and fills them, in the sessions' open transactions. Returns how many
/// tables and rows were copied, and how many rows that were overwritten are kept in the history.
pub(super) async fn copy_in_transaction(
    work: &Work<'_>,
    link: &LinkName,
    stamp: &Stamp,
    ids: &[(String, String)],
) -> Result<(usize, u64, u64), InitError> {
    let (source, target) = (work.session(&link.from), work.session(&link.to));
    let tables = [work.tables(&link.from), work.tables(&link.to)];
    let of = |at: usize| -> Vec<&Table> {
        ids.iter()
            .filter_map(|id| tables[at].get(&(&*id.0, &*id.1)).copied())
            .collect()
    };
    let (there, here) = (of(0), of(1));
    let with_rows = compare::with_rows(target, &here).await?;
    let old = here.iter().zip(with_rows).filter(|(_, filled)| *filled);
    let old: Vec<&Table> = old.map(|(table, _)| *table).collect();
    let aside = set_all_aside((source, target), &old, &tables).await?;
    copy::clear(target, stamp, &old).await?;
    let filled = compare::with_rows(source, &there).await?;
    let (mut count, mut rows) = (0, 0);
    for (from, _) in there.iter().zip(filled).filter(|(_, filled)| *filled) {
        let Some(to) = tables[1].get(&from.id()) else {
            continue;
        };
        let shared = compare::shared(from.id(), &tables);
        rows += copy::rows(
            source,
            target,
            Pair {
                from,
                to,
                shared: &shared,
            },
        )
        .await?;
        count += 1;
    }
    copy::forget_deletes(target, &here).await?;
    for from in there {
        if let Some(to) = tables[1].get(&from.id()) {
            rows += copy::shadows(source, target, (from, to)).await?;
            copy::siblings(source, target, (from, to)).await?;
        }
    }
    let mut kept = 0;
    for aside in &aside {
        kept += overwritten::record(target, link, &stamp.time, aside).await?;
    }
    Ok((count, rows, kept))
}

/// Sets aside the rows of the tables that are about to be emptied and differ.
async fn set_all_aside<'a>(
    sessions: (&Session, &Session),
    old: &[&'a Table],
    tables: &[Tables<'a>; 2],
) -> Result<Vec<SetAside<'a>>, InitError> {
    let mut aside = Vec::new();
    for here in old {
        let Some(there) = tables[0].get(&here.id()) else {
            continue;
        };
        let shared = compare::shared(here.id(), tables);
        aside.extend(overwritten::set_aside(sessions, (there, here), shared).await?);
    }
    Ok(aside)
}
