//! The fast way: one guarded statement per row, all of a segment in one round trip.

use std::sync::Arc;

use super::error::ApplyError;
use super::floors::Floors;
use super::group::{Entry, Put, RowChange, RowOp, WholeRowChange};
use super::params;
use super::sql::{self, UpdateGuard};
use super::target::{Sql, Statement, Target};
use super::transaction::Applier;
use crate::pgoutput::Tuple;
use crate::wire::Batch;
use crate::wire::WireError;

/// The statement that takes a row if nothing newer is there.
enum Attempt {
    /// Pushed; it tells by its row count whether it took the row.
    Pushed,
    /// No such statement: the row must be settled.
    Settle,
}

impl Applier {
    /// Writes the rows of a segment, then settles those that were not taken.
    pub(super) async fn write_rows(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        let mut outstanding = Vec::new();
        let mut pushed = Vec::new();
        let opening = self.opening();
        let mut batch = self.session.batch();
        let prefix = opening.push(&mut batch)?;
        for (index, entry) in entries.iter().enumerate() {
            match push(&mut batch, entry, &mut self.floors)? {
                Attempt::Pushed => pushed.push(index),
                Attempt::Settle => outstanding.push(index),
            }
        }
        let outcomes = batch.run().await.map_err(|failed| {
            let statement = failed.index.and_then(|index| index.checked_sub(prefix));
            let entry = statement
                .and_then(|index| pushed.get(index))
                .map(|i| &entries[*i]);
            ApplyError::target(
                failed.error,
                entry.map(|entry| target_of(entry).map.label()),
            )
        })?;
        self.opened();
        let mut inserted: Vec<&RowChange> = Vec::new();
        for (index, outcome) in pushed.iter().zip(&outcomes[prefix..]) {
            match &entries[*index] {
                Entry::Row(_) if outcome.affected == 0 => outstanding.push(*index),
                Entry::Row(row) if is_insert(row) => inserted.push(row),
                Entry::Row(_) | Entry::WholeRow(_) => {}
            }
        }
        outstanding.sort_unstable();
        let rows: Vec<&RowChange> = outstanding
            .iter()
            .filter_map(|index| entries[*index].row())
            .collect();
        self.settle(&rows).await?;
        self.refuse_deleted(&inserted).await
    }

    /// Writes one change of a table without a key.
    pub(super) async fn write_whole_row(
        &mut self,
        change: &WholeRowChange,
    ) -> Result<(), ApplyError> {
        let mut batch = self.session.batch();
        push_whole_row(&mut batch, change)
            .map_err(|source| ApplyError::target(source, Some(change.target.map.label())))?;
        let done = batch.run().await;
        done.map_err(|failed| ApplyError::target(failed.error, Some(change.target.map.label())))?;
        Ok(())
    }
}

fn target_of(entry: &Entry) -> &Arc<Target> {
    match entry {
        Entry::Row(row) => &row.target,
        Entry::WholeRow(row) => &row.target,
    }
}

fn is_insert(row: &RowChange) -> bool {
    matches!(&row.op, RowOp::Put(put) if put.insert)
}

fn push(batch: &mut Batch<'_>, entry: &Entry, floors: &mut Floors) -> Result<Attempt, ApplyError> {
    let label = || Some(target_of(entry).map.label());
    match entry {
        Entry::Row(row) => push_row(batch, row, floors),
        Entry::WholeRow(change) => push_whole_row(batch, change).map(|()| Attempt::Pushed),
    }
    .map_err(|source| ApplyError::target(source, label()))
}

fn push_row(
    batch: &mut Batch<'_>,
    row: &RowChange,
    floors: &mut Floors,
) -> Result<Attempt, WireError> {
    match &row.op {
        RowOp::Delete(_) => {
            let parameters = guarded(floors, row);
            batch.push(row.target.sql(Statement::DeleteOlder), &parameters)?;
        }
        RowOp::Put(put) if put.insert && !row.target.map.table.can_skip_duplicates => {
            return Ok(Attempt::Settle);
        }
        RowOp::Put(put) if put.is_whole() && put.insert => {
            batch.push(
                row.target.sql(Statement::InsertNew),
                &written(&row.target, &put.values),
            )?;
        }
        RowOp::Put(put) if !put.is_whole() && put.moved => return Ok(Attempt::Settle),
        RowOp::Put(put) => {
            let how = if put.is_whole() {
                UpdateGuard::Older
            } else {
                UpdateGuard::SameWriter
            };
            let (sql, columns) = update_of(&row.target, put, how);
            let mut parameters = match how {
                UpdateGuard::Older => guarded(floors, row),
                _ => keyed(row),
            };
            parameters.extend(
                columns
                    .iter()
                    .map(|index| params::value(&put.values.0[*index])),
            );
            batch.push(&sql, &parameters)?;
        }
    }
    Ok(Attempt::Pushed)
}

/// The update that writes what the source sent, and the columns it takes as parameters.
pub(super) fn update_of(target: &Target, put: &Put, how: UpdateGuard) -> (Sql, Vec<usize>) {
    let sent = |index: usize| put.values.0[index] != crate::pgoutput::Value::Unchanged;
    let columns = sql::updated_columns(&target.map, sent);
    (target.update(&columns, how), columns)
}

/// The floors and the key, the first parameters of guarded statements.
fn guarded<'a>(floors: &'a mut Floors, row: &'a RowChange) -> Vec<Option<&'a [u8]>> {
    let floors = floors.texts(row.time, &row.seen);
    let mut parameters: Vec<_> = floors.iter().map(|text| Some(text.as_bytes())).collect();
    parameters.extend(keyed(row));
    parameters
}

/// The key, the first parameters of statements by key.
pub(super) fn keyed(row: &RowChange) -> Vec<Option<&[u8]>> {
    row.key.iter().map(|value| Some(value.as_ref())).collect()
}

/// The values of the columns that an insert writes.
pub(super) fn written<'a>(target: &Target, values: &'a Tuple) -> Vec<Option<&'a [u8]>> {
    let columns = target.map.columns.iter().zip(&values.0);
    columns
        .filter(|(column, _)| column.written)
        .map(|(_, value)| params::value(value))
        .collect()
}

fn push_whole_row(batch: &mut Batch<'_>, change: &WholeRowChange) -> Result<(), WireError> {
    let target = &change.target;
    match (&change.old, &change.new) {
        (None, Some(new)) => batch.push(target.sql(Statement::Insert), &written(target, new)),
        (Some(old), None) => batch.push(target.sql(Statement::DeleteWhole), &written(target, old)),
        (Some(old), Some(new)) => {
            let mut parameters = written(target, new);
            parameters.extend(written(target, old));
            batch.push(target.sql(Statement::UpdateWhole), &parameters)
        }
        (None, None) => Ok(()),
    }
}
