//! The fast way: guarded statements, all of a segment in one round trip.

use std::collections::BTreeSet;

use super::copy::copy_text;
use super::crossing::push_insert_lock;
use super::error::ApplyError;
use super::floors::Floors;
use super::group::{Entry, Put, RowChange, RowOp, WholeRowChange};
use super::params::{self, text_array};
use super::plan::{Kind, Plan, RowSet, plan};
use super::settle::Own;
use super::sql::{self, UpdateGuard};
use super::target::{Sql, Statement, Target};
use super::transaction::Applier;
use crate::commit_time::CommitTime;
use crate::error::{RetryClass, Retryable};
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Batch, BatchError, Outcome, WireError};

/// The rows of one pushed statement.
enum Pushed<'a> {
    /// One row, or a change of a table without a key.
    One(&'a Entry),
    /// Many rows.
    Set(&'a RowSet<'a>),
}

impl<'a> Pushed<'a> {
    fn rows(&self) -> Vec<&'a RowChange> {
        match self {
            Self::One(entry) => entry.row().into_iter().collect(),
            Self::Set(set) => set.rows.clone(),
        }
    }

    fn label(&self) -> String {
        match self {
            Self::One(Entry::Row(row)) => row.target.map.label(),
            Self::One(Entry::WholeRow(row)) => row.target.map.label(),
            Self::Set(set) => set.target.map.label(),
        }
    }

    /// The table that rows are copied into.
    fn copied_into(&self) -> Option<u32> {
        match self {
            Self::Set(set) if set.kind == Kind::Copy => Some(set.target.map.table.oid),
            _ => None,
        }
    }

    /// Every row was taken, as the statement's row count says.
    fn is_taken(&self, outcome: &Outcome) -> bool {
        outcome.affected >= self.rows().len() as u64
    }
}

/// What the statements of a plan did.
struct Attempted<'a> {
    pushed: Vec<Pushed<'a>>,
    /// One for each pushed statement.
    outcomes: Vec<Outcome>,
    /// Tables that were inserted into and have no tombstones.
    without_tombstones: Vec<u32>,
}

impl Applier {
    /// Writes the rows of a segment, then settles those that were not taken.
    pub(super) async fn write_rows(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        let plan = plan(entries, &mut self.copies);
        let Attempted {
            pushed,
            outcomes,
            without_tombstones,
        } = self.attempt(&plan, entries).await?;
        let (mut untaken, mut taken) = (Vec::new(), Vec::new());
        for (statement, outcome) in pushed.iter().zip(&outcomes) {
            let rows = statement.rows();
            if statement.is_taken(outcome) {
                taken.extend(rows);
            } else {
                untaken.extend(rows);
            }
        }
        // A statement for many rows may have taken some of them.
        taken.extend(self.settle(&untaken, Own::Done).await?);
        self.settle(&plan.settle, Own::Older).await?;
        self.leave_versions(&taken).await?;
        let may_be_deleted = |row: &&RowChange| {
            is_insert(row) && !without_tombstones.contains(&row.target.map.table.oid)
        };
        taken.retain(may_be_deleted);
        self.refuse_deleted(&taken).await
    }

    /// Sends every statement of the plan and reads what each did.
    ///
    /// The last ones ask whether the tables inserted into have any tombstones: most have none, and
    /// what a table does not have now, the inserts cannot have missed (see `refuse_deleted`).
    async fn attempt<'a>(
        &mut self,
        plan: &'a Plan<'a>,
        entries: &[Entry],
    ) -> Result<Attempted<'a>, ApplyError> {
        let mut pushed = Vec::new();
        let opening = self.opening();
        let mut batch = self.session.batch();
        let mut prefix = opening.push(&mut batch)?;
        prefix += push_refuse_shadows(&mut batch, entries)?;
        let inserted_into = plan.inserted_into();
        for target in &inserted_into {
            prefix += push_insert_lock(&mut batch, target)
                .map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
        }
        let floors = &mut self.floors;
        for set in &plan.first {
            push_set(&mut batch, set, &mut pushed, floors)?;
        }
        for (entry, kind) in &plan.singles {
            push_one(&mut batch, entry, kind.as_ref(), floors)?;
            pushed.push(Pushed::One(entry));
        }
        for set in &plan.last {
            push_set(&mut batch, set, &mut pushed, floors)?;
        }
        for target in &inserted_into {
            batch
                .push(target.sql(Statement::AnyTombstone), &[])
                .map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
        }
        let outcomes = batch.run().await;
        let mut outcomes = outcomes.map_err(|failed| self.refused(failed, prefix, &pushed))?;
        self.opened();
        let answers = outcomes.split_off(prefix + pushed.len());
        let without = inserted_into.iter().zip(answers);
        let without = without.filter(|(_, answer)| answer.rows.is_empty());
        Ok(Attempted {
            without_tombstones: without.map(|(target, _)| target.map.table.oid).collect(),
            outcomes: outcomes.split_off(prefix),
            pushed,
        })
    }

    /// What failed, and whether only because rows were copied.
    fn refused(&mut self, failed: BatchError, prefix: usize, pushed: &[Pushed<'_>]) -> ApplyError {
        let place = failed.index.and_then(|index| index.checked_sub(prefix));
        let statement = place.and_then(|index| pushed.get(index));
        let table = statement.and_then(Pushed::copied_into);
        let label = statement.map(Pushed::label);
        match table {
            Some(table) if failed.error.retry_class() != RetryClass::Transient => {
                self.copies.failed(table);
                ApplyError::CopyRefused {
                    table: label.unwrap_or_default(),
                    source: failed.error,
                }
            }
            _ => ApplyError::target(failed.error, label),
        }
    }

    /// Leaves the version of each delete that was taken, where rows carry theirs: the trigger has
    /// left what a delete made here would have.
    async fn leave_versions(&mut self, taken: &[&RowChange]) -> Result<(), ApplyError> {
        let deletes = taken
            .iter()
            .filter(|row| matches!(row.op, RowOp::Delete(_)) && row.target.versions().is_in_row());
        let deletes: Vec<&RowChange> = deletes.copied().collect();
        if deletes.is_empty() {
            return Ok(());
        }
        let label = |row: &RowChange| Some(row.target.map.label());
        let mut batch = self.session.batch();
        for row in &deletes {
            push_tombstone(&mut batch, row)
                .map_err(|source| ApplyError::target(source, label(row)))?;
        }
        let done = batch.run().await;
        done.map_err(|failed| {
            let row = failed.index.and_then(|index| deletes.get(index));
            ApplyError::target(failed.error, row.and_then(|row| label(row)))
        })
        .map(drop)
    }

    /// Writes one change of a table without a key.
    pub(super) async fn write_whole_row(
        &mut self,
        change: &WholeRowChange,
    ) -> Result<(), ApplyError> {
        let label = || Some(change.target.map.label());
        let mut batch = self.session.batch();
        push_whole_row(&mut batch, change).map_err(|source| ApplyError::target(source, label()))?;
        let done = batch.run().await;
        done.map_err(|failed| ApplyError::target(failed.error, label()))
            .map(drop)
    }
}

/// Guarded statements know nothing of rows that are kept aside: a table must have none, and get
/// none before this transaction ends. Gives how many statements that takes.
fn push_refuse_shadows(batch: &mut Batch<'_>, entries: &[Entry]) -> Result<usize, ApplyError> {
    let rows = entries.iter().filter_map(Entry::row);
    let tables: BTreeSet<u32> = rows
        .filter(|row| row.target.has_rivals())
        .map(|row| row.target.map.table.oid)
        .collect();
    if tables.is_empty() {
        return Ok(0);
    }
    let oids: Vec<String> = tables.iter().map(u32::to_string).collect();
    let array = params::array_literal(oids.iter().map(|oid| Some(oid.as_bytes())));
    batch
        .push(
            &"select mmrepl.refuse_shadows($1)".into(),
            &[Some(array.as_slice())],
        )
        .map_err(|source| ApplyError::target(source, None))?;
    Ok(1)
}

fn is_insert(row: &RowChange) -> bool {
    matches!(&row.op, RowOp::Put(put) if put.insert)
}

/// Pushes one statement for the set, or one for each row where that is cheaper.
fn push_set<'a>(
    batch: &mut Batch<'_>,
    set: &'a RowSet<'a>,
    pushed: &mut Vec<Pushed<'a>>,
    floors: &mut Floors,
) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::target(source, Some(set.target.map.label()));
    if set.kind == Kind::Copy {
        let sql = set.target.set(&set.kind);
        batch.push_copy(&sql, &copy_text(set)).map_err(failed)?;
        pushed.push(Pushed::Set(set));
        return Ok(());
    }
    if set.pays() {
        let arrays = arrays_of(set, floors);
        let sql = set.target.set(&set.kind);
        batch.push_binary(&sql, &arrays).map_err(failed)?;
        pushed.push(Pushed::Set(set));
        return Ok(());
    }
    for entry in &set.entries {
        push_one(batch, entry, Some(&set.kind), floors)?;
        pushed.push(Pushed::One(entry));
    }
    Ok(())
}

/// One array of times for each floor, where the statement has a guard with floors.
fn floor_arrays(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let versions = set.target.versions();
    let stamp = |time, seen| (versions.floor_time(time), seen);
    match set.kind {
        Kind::Delete => floors.arrays(set.rows.iter().map(|row| stamp(row.time, &row.seen))),
        Kind::Update(_, UpdateGuard::SameWriter) | Kind::Insert | Kind::Copy => Vec::new(),
        Kind::Update(..) => floors.arrays(set.rows.iter().map(|row| stamp(row.since, &row.seen))),
    }
}

/// The parameters of a statement for many rows: the floors, then an array for each column.
fn arrays_of(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let mut arrays = floor_arrays(set, floors);
    if set.kind != Kind::Insert {
        let keys = set.rows.first().map_or(0, |row| row.key.len());
        let key = |index: usize| {
            set.rows
                .iter()
                .map(move |row| Some(row.key[index].as_ref()))
        };
        arrays.extend((0..keys).map(|index| text_array(key(index))));
    }
    if matches!(set.kind, Kind::Delete) && set.target.versions().is_in_row() {
        let texts: Vec<Option<String>> = set.rows.iter().map(|row| rank_text(row)).collect();
        let texts = texts.iter().map(|text| text.as_ref().map(String::as_bytes));
        arrays.push(text_array(texts));
    }
    let columns: Vec<usize> = match &set.kind {
        Kind::Delete => vec![],
        Kind::Update(columns, _) => columns.clone(),
        Kind::Insert | Kind::Copy => set.target.map.written().collect(),
    };
    let value = |index: usize| {
        set.rows.iter().map(move |row| match &row.op {
            RowOp::Put(put) => params::value(&put.values.0[index]),
            RowOp::Delete(_) => None,
        })
    };
    arrays.extend(columns.into_iter().map(|index| text_array(value(index))));
    arrays
}

fn push_one(
    batch: &mut Batch<'_>,
    entry: &Entry,
    kind: Option<&Kind>,
    floors: &mut Floors,
) -> Result<(), ApplyError> {
    let (done, target) = match (entry, kind) {
        (Entry::Row(row), Some(kind)) => (push_row(batch, row, kind, floors), &row.target),
        (Entry::WholeRow(change), _) => (push_whole_row(batch, change), &change.target),
        (Entry::Row(_), None) => return Ok(()),
    };
    done.map_err(|source| ApplyError::target(source, Some(target.map.label())))
}

fn push_row(
    batch: &mut Batch<'_>,
    row: &RowChange,
    kind: &Kind,
    floors: &mut Floors,
) -> Result<(), WireError> {
    match (kind, &row.op) {
        (Kind::Insert, RowOp::Put(put)) => batch.push(
            row.target.sql(Statement::InsertNew),
            &written(&row.target, &put.values),
        ),
        (Kind::Update(columns, how), RowOp::Put(put)) => {
            let mut parameters = match how {
                UpdateGuard::Older => guarded(floors, row, row.since),
                _ => keyed(row),
            };
            parameters.extend(
                columns
                    .iter()
                    .map(|index| params::value(&put.values.0[*index])),
            );
            batch.push(&row.target.update(columns, *how), &parameters)
        }
        _ => {
            let rank = rank_text(row);
            let mut parameters = guarded(floors, row, row.time);
            if row.target.versions().is_in_row() {
                parameters.push(rank.as_ref().map(String::as_bytes));
            }
            batch.push(row.target.sql(Statement::DeleteOlder), &parameters)
        }
    }
}

/// The update that writes what the source sent, and the columns it takes as parameters.
pub(super) fn update_of(target: &Target, put: &Put, how: UpdateGuard) -> (Sql, Vec<usize>) {
    let sent = |index: usize| put.values.0[index] != Value::Unchanged;
    let columns = sql::updated_columns(&target.map, sent);
    (target.update(&columns, how), columns)
}

/// The floors of a change made at `time` and its key, the first parameters of guarded statements.
fn guarded<'a>(
    floors: &'a mut Floors,
    row: &'a RowChange,
    time: CommitTime,
) -> Vec<Option<&'a [u8]>> {
    let floors = floors.texts(row.target.versions().floor_time(time), &row.seen);
    let mut parameters: Vec<_> = floors.iter().map(|text| Some(text.as_bytes())).collect();
    parameters.extend(keyed(row));
    parameters
}

/// The version that a change's row carries, as the server reads it.
fn rank_text(row: &RowChange) -> Option<String> {
    row.rank.as_ref().map(ToString::to_string)
}

/// Pushes the statement that leaves the tombstone of a delete, with the delete's own version.
pub(super) fn push_tombstone(batch: &mut Batch<'_>, row: &RowChange) -> Result<(), WireError> {
    push_tombstone_of(batch, row, rank_text(row).as_deref())
}

/// The same with this version.
pub(super) fn push_tombstone_of(
    batch: &mut Batch<'_>,
    row: &RowChange,
    version: Option<&str>,
) -> Result<(), WireError> {
    let mut parameters = keyed(row);
    if row.target.versions().is_in_row() {
        parameters.push(version.map(str::as_bytes));
    }
    batch.push(row.target.sql(Statement::LeaveTombstone), &parameters)
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
