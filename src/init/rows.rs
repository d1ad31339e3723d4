//! The rows of several nodes, compared and copied in the open transactions of their sessions.

use std::collections::HashMap;

use super::InitError;
use super::compare::{self, Difference, Shared, Tables};
use super::copy::{self, Pair, Stamp};
use super::overwritten::{self, SetAside};
use super::session::Session;
use super::slots::MadeSlots;
use super::work::Work;
use crate::catalog::table::Table;
use crate::ids::{LinkName, NodeName};

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
