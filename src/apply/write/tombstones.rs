//! Pushes the statements that leave tombstones of deletes.

use std::sync::Arc;

use crate::apply::encode::params::array_literal;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::sql::strict::finding_none;
use crate::apply::sql::tombstones::WITH_TOMBSTONES;
use crate::apply::target::statement::{Sql, Statement, Target};
use crate::apply::write::push::{keyed, rank_text};
use crate::conflict::{Held, Version};
use crate::ids::NodeName;
use crate::wire::{Batch, Outcome, WireError};

/// Pushes the statement that leaves the tombstone of a delete, with the delete's own version.
pub(in crate::apply) fn push_tombstone(
    batch: &mut Batch<'_>,
    row: &RowChange,
) -> Result<(), WireError> {
    push_leaving(batch, row, Statement::LeaveTombstone)
}

/// Pushes a statement that leaves the tombstone of a delete, with the delete's own version.
pub(in crate::apply) fn push_leaving(
    batch: &mut Batch<'_>,
    row: &RowChange,
    statement: Statement,
) -> Result<(), WireError> {
    push_tombstone_of(batch, row, (statement, rank_text(row).as_deref()))
}

/// The statement that leaves the tombstone of a delete by `source` where there is no row, but these
/// `tombstones`. One that the source did not know of stays beside it: what the source writes next
/// does not know of it either.
pub(in crate::apply) fn leaving(
    row: &RowChange,
    tombstones: &[Held],
    source: &NodeName,
) -> Statement {
    let unknown = |delete: &Version| delete.node != *source && !row.seen.includes(delete);
    let mut versions = tombstones.iter().filter_map(|held| held.version.as_ref());
    if versions.any(unknown) {
        Statement::LeaveTombstoneBeside
    } else {
        Statement::LeaveNeededTombstone
    }
}

/// Pushes a statement that leaves the tombstone of a delete, with a version given as text.
pub(in crate::apply) fn push_tombstone_of(
    batch: &mut Batch<'_>,
    row: &RowChange,
    (statement, version): (Statement, Option<&str>),
) -> Result<(), WireError> {
    let mut parameters = keyed(row);
    if row.target.versions().is_in_row() {
        parameters.push(version.map(str::as_bytes));
    }
    batch.push(row.target.sql(statement), &parameters)
}

/// Pushes the statements that leave the tombstones of several deletes.
pub(in crate::apply) fn push_tombstones<'a>(
    batch: &mut Batch<'_>,
    deletes: impl Iterator<Item = &'a RowChange>,
) -> Result<(), ApplyError> {
    for row in deletes {
        push_tombstone(batch, row)
            .map_err(|source| ApplyError::target(source, Some(row.target.map.label())))?;
    }
    Ok(())
}

/// Pushes the question which of the tables have any tombstone. Most have none.
pub(in crate::apply) fn push_which_have_tombstones(
    batch: &mut Batch<'_>,
    tables: &[u32],
) -> Result<(), ApplyError> {
    push_of_tables(batch, &WITH_TOMBSTONES.into(), tables)
}

/// The tables in the answer to that question.
pub(in crate::apply) fn have_tombstones(answer: Option<&Outcome>) -> Result<Vec<u32>, ApplyError> {
    let table = |outcome: &Outcome, row| outcome.get(row, 0, "a table with tombstones");
    let tables = answer.iter().flat_map(|outcome| {
        let rows = 0..outcome.rows.len();
        rows.map(|row| table(outcome, row))
    });
    let tables: Result<Vec<u32>, _> = tables.collect();
    tables.map_err(|source| ApplyError::target(source, None))
}

/// Pushes a statement that fails where one of the tables has tombstones.
pub(in crate::apply) fn push_no_tombstones(
    batch: &mut Batch<'_>,
    tables: &[u32],
) -> Result<(), ApplyError> {
    push_of_tables(batch, &finding_none(WITH_TOMBSTONES).into(), tables)
}

fn push_of_tables(batch: &mut Batch<'_>, sql: &Sql, tables: &[u32]) -> Result<(), ApplyError> {
    let oids: Vec<String> = tables.iter().map(u32::to_string).collect();
    let array = array_literal(oids.iter().map(|oid| Some(oid.as_bytes())));
    let pushed = batch.push(sql, &[Some(&array)]);
    pushed.map_err(|source| ApplyError::target(source, None))
}

/// The tables' OIDs on the target.
pub(in crate::apply) fn oids<'a>(targets: impl IntoIterator<Item = &'a Arc<Target>>) -> Vec<u32> {
    let oid = |target: &Arc<Target>| target.map.table.oid;
    targets.into_iter().map(oid).collect()
}
