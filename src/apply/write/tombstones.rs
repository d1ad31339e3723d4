//! Pushes the statements that leave tombstones of deletes.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::target::statement::Statement;
use crate::apply::write::push::{keyed, rank_text};
use crate::conflict::{Held, Version};
use crate::ids::NodeName;
use crate::wire::{Batch, WireError};

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
