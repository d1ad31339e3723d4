//! Runs a plan, in the order that `init` documents.

use super::catch_up;
use super::compare::{self};
use super::copy::{self};
use super::overwrite::Locked;
use super::planned::{LinkWork, Plan};
use super::rows::{all_tables, differences, open_snapshot};
use super::session::Session;
use super::slots::{self, MadeSlots};
use super::step::{Step, StepKind};
use super::work::Work;
use super::{InitError, InitOptions, Progress, fingerprints, gaps, join, overwrite};
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::migrate;

/// Remembers which file each table has, to know a rewrite by (`apply::rewrites`).
const LOOK_AT_FILES: &str = "select mmrepl.look_at_files()";

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
            catch_up::wait_for(work, &link, *start, progress).await?;
        }
    }
    Ok(())
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
