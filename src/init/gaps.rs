//! Writes that were left out of a node's stream while somebody had changed its publication.
//!
//! The publication is mended in a moment, and what was left out meanwhile comes to no other node by
//! itself. So whoever sees such a change, the daemon or `init`, notes the tables in `mmrepl.gap`.
//! `init` compares their rows; where they are equal the note goes, where they differ a person says
//! whose rows count.

use std::collections::BTreeSet;

use super::catch_up;
use super::noted::LEAVES_OUT_SINCE;
use super::publication::remember_publication;
use super::rows::{differences, open_snapshot};
use super::session::Session;
use super::state::{NodeState, TableState};
use super::step::Step;
use super::work::Work;
use super::{InitError, Progress, compare, undelivered};
use crate::catalog::CatalogError;
use crate::catalog::gap::note_sql;
use crate::catalog::names::{literal, readable};
use crate::lsn::Lsn;
use crate::wire::RowExt;

/// How often rows are compared again that may have been under way.
const ROUNDS: usize = 4;

/// Whether whatever was written before the publication was made anew has been left out.
fn has_left_all_out(state: &NodeState) -> bool {
    state.server.major() >= LEAVES_OUT_SINCE && state.noted.predated.values().any(|anew| *anew)
}

/// What the publication leaves out of a table right now; nothing where it sends everything.
fn left_out(state: &NodeState, table: &TableState) -> Option<String> {
    let was_set_up =
        table.published.is_some() || state.noted.sent_before.contains(&table.table.oid);
    if !was_set_up || state.slots.is_empty() {
        return None;
    }
    if has_left_all_out(state) {
        return Some("all writes".to_owned());
    }
    let publication = state.publication.as_ref()?;
    if publication.all_tables {
        return None;
    }
    if table.published.is_none() {
        return Some("all writes".to_owned());
    }
    if table.is_restricted() {
        return Some("some rows or columns".to_owned());
    }
    let said = publication.faults.iter().filter_map(|fault| {
        let kind = fault.strip_prefix("does not send ");
        let partitions = table.table.partitioned && fault.contains("partitions");
        kind.filter(|kind| KINDS.contains(kind))
            .or(partitions.then_some("changes of partitions"))
    });
    let said: Vec<&str> = said.collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// Kinds of changes that a publication may leave out.
const KINDS: [&str; 4] = ["inserts", "updates", "deletes", "truncates"];

/// The tables that the publication leaves something of out right now.
pub(super) fn open(state: &NodeState) -> Vec<(&TableState, String)> {
    let with = |table| left_out(state, table).map(|left_out| (table, left_out));
    state.tables.iter().filter_map(with).collect()
}

/// The tables whose writes were not all sent: those on record, and those that are left out now.
pub(super) fn tables(states: &[NodeState]) -> Vec<(String, String)> {
    let mut found = BTreeSet::new();
    for state in states {
        let on_record = state.noted.gaps.iter();
        found.extend(on_record.map(|gap| (gap.schema.clone(), gap.name.clone())));
        let open = open(state).into_iter().map(|(table, _)| &table.table);
        found.extend(open.map(|table| (table.schema.clone(), table.name.clone())));
    }
    let known = |id: &(String, String)| {
        let mut tables = states.iter().flat_map(|state| &state.tables);
        tables.any(|table| table.table.id() == (&id.0, &id.1))
    };
    // A table that is gone, or takes part no longer, has nothing to compare.
    found.retain(known);
    found.into_iter().collect()
}

/// The statements that note what is left out right now.
pub(super) fn note(state: &NodeState) -> Vec<String> {
    let open = open(state);
    let gaps: Vec<[&str; 3]> = open
        .iter()
        .map(|(table, left_out)| [&*table.table.schema, &*table.table.name, &**left_out])
        .collect();
    let mut sql: Vec<String> = note_sql(&gaps).into_iter().collect();
    if has_left_all_out(state) && state.publication.is_some() {
        sql.push(remember_publication(None));
    }
    sql
}

/// Compares the tables that had a gap, and forgets the gaps where all nodes have the same rows, or
/// where the command line has said whose count.
pub(super) async fn close(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    let ids = &work.plan.gaps;
    if ids.is_empty() {
        return Ok(());
    }
    let mut forget = Vec::new();
    for session in work.sessions {
        forget.push(forget_those_of(session, ids).await?);
    }
    let joined = |id: &&(String, String)| work.plan.joining.contains(id);
    let left: Vec<_> = ids.iter().filter(|id| !joined(id)).cloned().collect();
    if work.options.copy_from.is_none() && !work.options.assume_identical {
        compare(work, left, progress).await?;
    }
    for (session, sql) in work.sessions.iter().zip(&forget) {
        session.batch("forget gaps", sql).await?;
    }
    let what = format!("{} table(s) that might differ are equal", ids.len());
    for session in work.sessions {
        progress.step(&Step::new(session.name(), what.clone(), Vec::new()));
    }
    Ok(())
}

/// The statement that forgets the gaps of these tables as they are now: one that is noted while
/// rows are compared stays.
async fn forget_those_of(session: &Session, ids: &[(String, String)]) -> Result<String, InitError> {
    let row =
        |(schema, name): &(String, String)| format!("({}, {})", literal(schema), literal(name));
    let rows: Vec<String> = ids.iter().map(row).collect();
    let sql = format!(
        "select coalesce(pg_catalog.string_agg(pg_catalog.quote_literal(g.ctid), ', '), 'null')
         from mmrepl.gap g where (schema_name, table_name) in ({})",
        rows.join(", ")
    );
    let row = session.client.query_one(&sql, &[]).await;
    let row = row.map_err(CatalogError::query("read mmrepl.gap"));
    let row = row.map_err(InitError::catalog(session.name()))?;
    let places: String = row.read(0).map_err(InitError::unread(session.name()))?;
    Ok(format!("delete from mmrepl.gap where ctid in ({places})"))
}

async fn compare(
    work: &Work<'_>,
    mut ids: Vec<(String, String)>,
    progress: &mut dyn Progress,
) -> Result<(), InitError> {
    let nodes: Vec<_> = work.sessions.iter().map(|s| s.name().clone()).collect();
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        settle(work, progress).await?;
        for session in work.sessions {
            open_snapshot(session, &[]).await?;
        }
        let differ = differences(work, &nodes, &ids).await;
        for session in work.sessions {
            session.batch("close the snapshot", "commit").await?;
        }
        found = differ?.0;
        let differs = |(schema, name): &(String, String)| {
            let name = readable(schema, name);
            found.iter().any(|difference| difference.table == name)
        };
        ids.retain(differs);
        if ids.is_empty() {
            return Ok(());
        }
    }
    Err(compare::refuse(&found))
}

/// Waits until every link that streams has delivered what was written before.
pub(super) async fn settle(work: &Work<'_>, progress: &mut dyn Progress) -> Result<(), InitError> {
    for link in work.config.links() {
        if undelivered::is_streaming(work.config, &link, work.sessions).await? {
            let point = flushed(work.session(&link.from)).await?;
            catch_up::wait_for(work, &link, point, progress).await?;
        }
    }
    Ok(())
}

async fn flushed(session: &Session) -> Result<Lsn, InitError> {
    let flushed = crate::catalog::wal::flushed(&session.client).await;
    flushed.map_err(InitError::catalog(session.name()))
}
