//! Tables that join links which are already at work: made after the first `init`.
//!
//! A stream delivers what is written from the moment its table is published, so that moment must be
//! the same on every node, with equal rows. The new tables (and only they) are locked against
//! writes on all nodes, compared or copied, and published in the transactions that hold the locks.
//! For empty tables that takes milliseconds.

use super::copy::Stamp;
use super::rows::{copy_in_transaction, differences};
use super::session::Session;
use super::step::Step;
use super::work::Work;
use super::{InitError, Progress, compare, copy, fingerprints, gaps, overwrite, publication};
use crate::catalog::table::Table;
use crate::ids::{LinkName, NodeName};
use crate::lsn::Lsn;

/// A table by schema and name.
type TableId = (String, String);

/// Lets the plan's new tables join, some at a time.
pub(super) async fn join(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    for ids in work
        .plan
        .joining
        .chunks(publication::TABLES_PER_TRANSACTION)
    {
        let joined = join_some(work, ids, progress).await;
        let end = if joined.is_ok() { "commit" } else { "rollback" };
        let mut ended = Ok(());
        for node in &work.plan.join_nodes {
            let result = work.session(node).batch("publish new tables", end).await;
            ended = ended.and(result);
        }
        leave_origins(work).await?;
        joined?;
        ended?;
        for node in &work.plan.join_nodes {
            let what = format!("published {} new table(s)", ids.len());
            progress.step(&Step::new(node, what, Vec::new()));
        }
    }
    Ok(())
}

/// Whether a node sends one of the tables already: then rows may be under way.
fn is_sent(work: &Work<'_>, ids: &[TableId]) -> bool {
    let states = work.plan.states.iter().flat_map(|state| &state.tables);
    let sent = states.filter(|state| state.published.is_some());
    let mut names = sent.map(|state| state.table.id());
    names.any(|(schema, name)| ids.contains(&(schema.to_owned(), name.to_owned())))
}

/// Leaves every transaction open, for the caller to end.
async fn join_some(
    work: &Work<'_>,
    ids: &[TableId],
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    if is_sent(work, ids) {
        gaps::settle(work, progress).await?;
    }
    enter_origins(work).await?;
    let time = match &work.options.copy_from {
        Some(from) => Some(copy::clock(work.session(from)).await?),
        None => None,
    };
    for node in &work.plan.join_nodes {
        work.session(node)
            .batch("lock new tables", &lock(work, node, ids))
            .await?;
    }
    match (&work.options.copy_from, time) {
        (Some(from), Some(time)) => {
            for to in targets(work, from) {
                let link = LinkName {
                    from: from.clone(),
                    to,
                };
                let stamp = Stamp {
                    lsn: now(work.session(from)).await?,
                    time: time.clone(),
                };
                copy_in_transaction(work, &link, &stamp, ids).await?;
            }
        }
        _ if work.options.assume_identical => {}
        _ => {
            let (found, _) = differences(work, &work.plan.join_nodes, ids).await?;
            if !found.is_empty() {
                return Err(compare::refuse(&found));
            }
        }
    }
    for node in &work.plan.join_nodes {
        if let Some(sql) = publish(work, node, ids) {
            let sql = format!("{sql}; {}", fingerprints::TAKE);
            work.session(node).batch("publish new tables", &sql).await?;
        }
    }
    Ok(())
}

/// The nodes that receive rows from `from`.
fn targets(work: &Work<'_>, from: &NodeName) -> Vec<NodeName> {
    work.plan
        .join_nodes
        .iter()
        .filter(|node| *node != from)
        .cloned()
        .collect()
}

async fn enter_origins(work: &Work<'_>) -> Result<(), InitError> {
    if let Some(from) = &work.options.copy_from {
        for to in targets(work, from) {
            copy::enter_origin(work.config, work.session(&to), from).await?;
        }
    }
    Ok(())
}

async fn leave_origins(work: &Work<'_>) -> Result<(), InitError> {
    let Some(from) = &work.options.copy_from else {
        return Ok(());
    };
    for to in targets(work, from) {
        // Entering may have failed for a later node; the earlier ones are left all the same.
        overwrite::leave_origin(work.session(&to)).await?;
    }
    Ok(())
}

fn tables<'a>(work: &Work<'a>, node: &NodeName, ids: &[TableId]) -> Vec<&'a Table> {
    let tables = work.tables(node);
    ids.iter()
        .filter_map(|id| tables.get(&(&*id.0, &*id.1)).copied())
        .collect()
}

/// Share row exclusive keeps writers out and readers in. Same order on every node: by name.
fn lock(work: &Work<'_>, node: &NodeName, ids: &[TableId]) -> String {
    let names: Vec<String> = tables(work, node, ids)
        .into_iter()
        .map(Table::only)
        .collect();
    format!(
        "begin; lock table {} in share row exclusive mode",
        names.join(", ")
    )
}

/// Publishes the tables that the node does not publish yet.
fn publish(work: &Work<'_>, node: &NodeName, ids: &[TableId]) -> Option<String> {
    let missing = publication::missing(work.state(node));
    let listed = |table: &&Table| {
        ids.iter()
            .any(|id| table.id() == (id.0.as_str(), id.1.as_str()))
    };
    let tables: Vec<&Table> = missing
        .into_iter()
        .map(|state| &state.table)
        .filter(listed)
        .collect();
    (!tables.is_empty()).then(|| publication::add(tables.into_iter()))
}

async fn now(session: &Session) -> Result<Lsn, InitError> {
    let end = crate::catalog::wal::inserted(&session.client).await;
    end.map_err(InitError::catalog(session.name()))
}
