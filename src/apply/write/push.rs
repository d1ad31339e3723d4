//! A plan's statements with their parameters, put into a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::apply::encode::params;
use crate::apply::encode::params::text_array;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::{Entry, RowChange, WholeRowChange};
use crate::apply::plan::choose::{Plan, RowSet};
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql;
use crate::apply::sql::kind::{Kind, UpdateGuard};
use crate::apply::sql::strict::Expected;
use crate::apply::target::statement::{Sql, Statement, Target, Whole};
use crate::apply::write::copy_data::{copy_binary, copy_text};
use crate::apply::write::floors::Floors;
use crate::apply::write::refuse::{push_insert_lock, push_refusal, push_refusal_of_rows};
use crate::commit_time::CommitTime;
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Batch, Outcome, WireError};

/// Puts the statements of a plan into a batch.
pub(in crate::apply) struct Pusher<'a, 's> {
    /// The batch.
    pub(in crate::apply) batch: &'a mut Batch<'s>,
    /// The link's floors.
    pub(in crate::apply) floors: &'a mut Floors,
    /// A statement that does not take all its rows is to fail.
    pub(in crate::apply) all_or_nothing: bool,
}

/// The rows of one pushed statement.
pub(in crate::apply) enum Pushed<'a> {
    /// One row, or a change of a table without a key.
    One(&'a Entry),
    /// Many rows.
    Set(&'a RowSet<'a>),
}

impl<'a> Pushed<'a> {
    /// The rows, without those of tables that have no key.
    pub(in crate::apply) fn rows(&self) -> Vec<&'a RowChange> {
        match self {
            Self::One(entry) => entry.row().into_iter().collect(),
            Self::Set(set) => set.rows().collect(),
        }
    }

    /// `schema.table`.
    pub(in crate::apply) fn label(&self) -> String {
        match self {
            Self::One(Entry::Row(row)) => row.target.map.label(),
            Self::One(Entry::WholeRow(row)) => row.target.map.label(),
            Self::Set(set) => set.target.map.label(),
        }
    }

    /// The rows that are copied.
    pub(in crate::apply) fn copied(&self) -> Option<&'a RowSet<'a>> {
        match self {
            Self::Set(set) if set.kind == Kind::Copy => Some(set),
            _ => None,
        }
    }

    /// Every row was taken, as the statement's row count says.
    pub(in crate::apply) fn is_taken(&self, outcome: &Outcome) -> bool {
        outcome.affected >= self.rows().len() as u64
    }
}

impl Pusher<'_, '_> {
    /// Pushes what must hold before the statements of a plan; gives how many statements that took.
    ///
    /// Guarded statements know nothing of rows that are kept aside: a table must have none, and get
    /// none before this transaction ends.
    pub(in crate::apply) fn guards(
        &mut self,
        plan: &Plan<'_>,
        entries: &[Entry],
    ) -> Result<usize, ApplyError> {
        let mut count = self.refuse_shadows(entries)? + self.refuse_what_is_there(&plan.gone)?;
        for target in plan.inserted_into() {
            count += push_insert_lock(self.batch, target)
                .map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
        }
        for target in plan.copied_into_as_binary() {
            let pushed = self.batch.push(target.sql(Statement::ExpectTypes), &[]);
            pushed.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
            count += 1;
        }
        Ok(count)
    }

    /// Pushes the questions whether what came and went is there, or was deleted, after all.
    fn refuse_what_is_there(&mut self, gone: &[&RowChange]) -> Result<usize, ApplyError> {
        let mut tables: BTreeMap<u32, Vec<&RowChange>> = BTreeMap::new();
        for row in gone {
            let oid = row.target.map.table.oid;
            tables.entry(oid).or_default().push(row);
        }
        for rows in tables.values() {
            push_refusal(self.batch, self.floors, rows)?;
            push_refusal_of_rows(self.batch, rows)?;
        }
        Ok(2 * tables.len())
    }

    fn refuse_shadows(&mut self, entries: &[Entry]) -> Result<usize, ApplyError> {
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
        let sql = "select mmrepl.refuse_shadows($1)".into();
        let pushed = self.batch.push(&sql, &[Some(array.as_slice())]);
        pushed.map_err(|source| ApplyError::target(source, None))?;
        Ok(1)
    }

    /// Pushes the statements of a plan, in its order.
    pub(in crate::apply) fn plan<'p>(
        &mut self,
        plan: &'p Plan<'p>,
    ) -> Result<Vec<Pushed<'p>>, ApplyError> {
        let mut pushed = Vec::new();
        for set in &plan.first {
            self.set(set, &mut pushed)?;
        }
        for (entry, kind) in &plan.singles {
            self.one(entry, kind.as_ref())?;
            pushed.push(Pushed::One(entry));
        }
        for set in &plan.last {
            self.set(set, &mut pushed)?;
        }
        Ok(pushed)
    }

    /// Pushes one statement for the set, or one for each row where that is cheaper.
    fn set<'p>(
        &mut self,
        set: &'p RowSet<'p>,
        pushed: &mut Vec<Pushed<'p>>,
    ) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::target(source, Some(set.target.map.label()));
        let sql = || set.target.set(&set.kind);
        if set.kind == Kind::Copy {
            self.copy(set).map_err(failed)?;
            pushed.push(Pushed::Set(set));
        } else if set.pays() {
            let arrays = match set.kind {
                Kind::DeleteListed => keys_and_floors(set, self.floors),
                _ => arrays_of(set, self.floors),
            };
            let sql = checked(self.all_or_nothing, set.target, sql(), Expected::AsGiven);
            self.batch.push_binary(&sql, &arrays).map_err(failed)?;
            pushed.push(Pushed::Set(set));
        } else {
            for entry in &set.entries {
                self.one(entry, Some(&set.kind))?;
                pushed.push(Pushed::One(entry));
            }
        }
        Ok(())
    }

    fn copy(&mut self, set: &RowSet<'_>) -> Result<(), WireError> {
        let target = set.target;
        let binary = set.is_long().then(|| copy_binary(set)).flatten();
        match binary {
            Some(data) => {
                let sql = target.sql(Statement::CopyBinary);
                self.batch.push_copy(sql, &data)
            }
            None => self
                .batch
                .push_copy(&target.set(&set.kind), &copy_text(set)),
        }
    }

    fn one(&mut self, entry: &Entry, kind: Option<&Kind>) -> Result<(), ApplyError> {
        let (done, target) = match (entry, kind) {
            (Entry::Row(row), Some(kind)) => (self.row(row, kind), &row.target),
            (Entry::WholeRow(change), _) => (push_whole_row(self.batch, change), &change.target),
            (Entry::Row(_), None) => return Ok(()),
        };
        done.map_err(|source| ApplyError::target(source, Some(target.map.label())))
    }

    fn row(&mut self, row: &RowChange, kind: &Kind) -> Result<(), WireError> {
        let (strict, rank) = (self.all_or_nothing, rank_text(row));
        let (sql, parameters) = match (kind, &row.op) {
            (Kind::Insert, RowOp::Put(put)) => (
                Arc::clone(row.target.sql(Statement::InsertNew)),
                written(&row.target, &put.values),
            ),
            (Kind::Update(columns, how), RowOp::Put(put)) => {
                let mut parameters = match how {
                    UpdateGuard::Older => guarded(self.floors, row, row.since),
                    _ => keyed(row),
                };
                let value = |index: &usize| params::value(&put.values.0[*index]);
                parameters.extend(columns.iter().map(value));
                (row.target.update(columns, *how), parameters)
            }
            _ => {
                let mut parameters = guarded(self.floors, row, row.time);
                if row.target.versions().is_in_row() {
                    parameters.push(rank.as_ref().map(String::as_bytes));
                }
                let sql = row.target.sql(Statement::DeleteOlder);
                (Arc::clone(sql), parameters)
            }
        };
        let sql = checked(strict, &row.target, sql, Expected::One);
        self.batch.push(&sql, &parameters)
    }
}

/// The statement, failing where it leaves a row out if that is asked for.
fn checked(all_or_nothing: bool, target: &Target, sql: Sql, expected: Expected) -> Sql {
    if all_or_nothing {
        target.taking_all(&sql, expected)
    } else {
        sql
    }
}

/// One array of times for each floor, where the statement has a guard with floors.
fn floor_arrays(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let versions = set.target.versions();
    let stamp = |time, seen| (versions.floor_time(time), seen);
    match set.kind {
        Kind::Delete => floors.arrays(set.rows().map(|row| stamp(row.time, &row.seen))),
        Kind::Update(_, UpdateGuard::SameWriter) | Kind::Insert | Kind::Copy => Vec::new(),
        Kind::DeleteListed => floors_of_all(set, floors),
        Kind::Update(..) => floors.arrays(set.rows().map(|row| stamp(row.since, &row.seen))),
    }
}

/// The floors that the deletes of a list have in common.
fn floors_of_all(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let versions = set.target.versions();
    let floors_of = |row: &RowChange| floors.binary(versions.floor_time(row.time), &row.seen);
    set.rows().next().map(floors_of).unwrap_or_default()
}

/// The parameters of a delete by a list: the keys, then the floors.
fn keys_and_floors(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let keys = set.rows().map(|row| row.key.first().map(|key| &key[..]));
    let mut parameters = vec![text_array(keys)];
    parameters.extend(floors_of_all(set, floors));
    parameters
}

/// The parameters of a statement for many rows: the floors, then an array for each column.
fn arrays_of(set: &RowSet<'_>, floors: &mut Floors) -> Vec<Vec<u8>> {
    let mut arrays = floor_arrays(set, floors);
    if set.kind != Kind::Insert {
        let keys = set.rows().next().map_or(0, |row| row.key.len());
        let key = |index: usize| set.rows().map(move |row| Some(row.key[index].as_ref()));
        arrays.extend((0..keys).map(|index| text_array(key(index))));
    }
    if matches!(set.kind, Kind::Delete) && set.target.versions().is_in_row() {
        let texts: Vec<Option<String>> = set.rows().map(rank_text).collect();
        let texts = texts.iter().map(|text| text.as_ref().map(String::as_bytes));
        arrays.push(text_array(texts));
    }
    let columns: Vec<usize> = match &set.kind {
        Kind::Delete | Kind::DeleteListed => vec![],
        Kind::Update(columns, _) => columns.clone(),
        Kind::Insert | Kind::Copy => set.target.map.written().collect(),
    };
    let value = |index: usize| {
        set.puts()
            .map(move |values| params::value(&values.0[index]))
    };
    arrays.extend(columns.into_iter().map(|index| text_array(value(index))));
    arrays
}

/// The update that writes what the source sent, and the columns it takes as parameters.
pub(in crate::apply) fn update_of(
    target: &Target,
    put: &Put,
    how: UpdateGuard,
) -> (Sql, Vec<usize>) {
    let sent = |index: usize| put.values.0[index] != Value::Unchanged;
    let columns = sql::one_row::updated_columns(&target.map, sent);
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
pub(in crate::apply) fn rank_text(row: &RowChange) -> Option<String> {
    row.rank.as_ref().map(ToString::to_string)
}

/// The key, the first parameters of statements by key.
pub(in crate::apply) fn keyed(row: &RowChange) -> Vec<Option<&[u8]>> {
    row.key.iter().map(|value| Some(value.as_ref())).collect()
}

/// The values of the columns that an insert writes.
pub(in crate::apply) fn written<'a>(target: &Target, values: &'a Tuple) -> Vec<Option<&'a [u8]>> {
    let columns = target.map.columns.iter().zip(values.0.iter());
    columns
        .filter(|(column, _)| column.written)
        .map(|(_, value)| params::value(value))
        .collect()
}

/// Pushes one change of a table without a key.
pub(in crate::apply) fn push_whole_row(
    batch: &mut Batch<'_>,
    change: &WholeRowChange,
) -> Result<(), WireError> {
    let target = &change.target;
    match (&change.old, &change.new) {
        (None, Some(new)) => batch.push(target.sql(Statement::Insert), &written(target, new)),
        (Some(old), None) => batch.push(&target.whole(Whole::Delete, old), &written(target, old)),
        (Some(old), Some(new)) => {
            let mut parameters = written(target, new);
            parameters.extend(written(target, old));
            batch.push(&target.whole(Whole::Update, old), &parameters)
        }
        (None, None) => Ok(()),
    }
}
