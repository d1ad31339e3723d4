//! Rows that a guarded statement did not take: look, decide, write, each for all of them at once.

use super::crossing::push_insert_lock;
use super::decide::{Decision, decide, wrote};
use super::error::ApplyError;
use super::group::{Put, RowChange, RowOp};
use super::params;
use super::rows::{keyed, update_of, written};
use super::sql::UpdateGuard;
use super::target::Statement;
use super::transaction::Applier;
use crate::conflict::{Local, Version};
use crate::pgoutput::Tuple;
use crate::wire::{Batch, Outcome, WireError};

/// What a row is that this very transaction wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// One that a statement for many rows took: nothing is left to do.
    Done,
    /// An earlier change of the same transaction: it is older.
    Older,
}

/// What is written for a change that won.
enum Act {
    /// The columns that were sent replace those of the row.
    Overwrite(Put),
    /// A new row.
    Insert(Tuple),
    /// Delete and insert, for rows with a value that only an insert may set.
    Replace(Tuple),
    /// The row goes.
    Delete,
    /// There is no row; the tombstone stays.
    LeaveTombstone,
}

impl Applier {
    /// Settles keys by the case table of `conflict::resolve`. No key comes twice.
    ///
    /// A change that loses is found without a lock: what holds the key can only become newer. The
    /// others are looked at again under their rows' locks and then written.
    pub(super) async fn settle(&mut self, rows: &[&RowChange], own: Own) -> Result<(), ApplyError> {
        if rows.is_empty() {
            return Ok(());
        }
        let seen = self.look(rows, Statement::SeeRow).await?;
        let mut winning = Vec::new();
        for (row, (local, written_here)) in rows.iter().zip(&seen) {
            if *written_here && own == Own::Done {
                continue;
            }
            match decide(row, local, &self.source) {
                Decision::Discard => self.counts.conflicts += 1,
                _ => winning.push(*row),
            }
        }
        if winning.is_empty() {
            return Ok(());
        }
        let mut locals = self.look(&winning, Statement::LockRow).await?;
        let looked = winning
            .iter()
            .copied()
            .zip(locals.iter().map(|seen| &seen.0));
        if self.wait_for_inserts(looked).await? {
            locals = self.look(&winning, Statement::LockRow).await?;
        }
        let mut acts = Vec::with_capacity(winning.len());
        for (row, (local, _)) in winning.into_iter().zip(&locals) {
            if let Some(act) = self.act(row, local).await? {
                acts.push((row, act));
            }
        }
        self.carry_out(&acts).await
    }

    /// Reads the versions of the rows and of the tombstones that cover their keys.
    ///
    /// A row comes before its tombstones: with a lock it waits for a local delete under way, and
    /// the second statement, with a snapshot of its own, sees the tombstone.
    async fn look(
        &mut self,
        rows: &[&RowChange],
        how: Statement,
    ) -> Result<Vec<(Local, bool)>, ApplyError> {
        let mut batch = self.session.batch();
        for row in rows {
            let key = key_parameters(row);
            for statement in [how, Statement::Tombstones] {
                batch
                    .push(row.target.sql(statement), &key)
                    .map_err(|source| failed(row, source))?;
            }
        }
        let outcomes = batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| rows.get(index / 2));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        Ok(outcomes.chunks(2).map(|pair| self.local(pair)).collect())
    }

    /// What holds the key, and whether this transaction wrote the row.
    fn local(&self, outcomes: &[Outcome]) -> (Local, bool) {
        let written_here = outcomes.first().and_then(|row| row.text(0, 2)) == Some("true");
        let mut versions = outcomes.iter().map(|outcome| self.versions(outcome));
        let local = Local {
            row: versions.next().and_then(|rows| rows.into_iter().next()),
            tombstones: versions.next().unwrap_or_default(),
        };
        (local, written_here)
    }

    fn versions(&self, outcome: &Outcome) -> Vec<Option<Version>> {
        let column = |row: usize, column| {
            outcome
                .text(row, column)
                .map(str::as_bytes)
                .map(<[u8]>::to_vec)
        };
        let version = |row| {
            let (micros, origin) = (column(row, 0), column(row, 1));
            self.origins.version(micros.as_deref(), origin.as_deref())
        };
        (0..outcome.rows.len()).map(version).collect()
    }

    /// What is to be done, the row being locked; nothing where it is not or no longer needed.
    async fn act(&mut self, row: &RowChange, local: &Local) -> Result<Option<Act>, ApplyError> {
        match (decide(row, local, &self.source), &row.op) {
            (Decision::Delete, _) => Ok(Some(Act::Delete)),
            (Decision::LeaveTombstone, _) => Ok(Some(Act::LeaveTombstone)),
            (Decision::Overwrite, RowOp::Put(put)) => Ok(Some(Act::Overwrite(put.clone()))),
            (Decision::Complete, RowOp::Put(put)) => self.complete(row, put, local).await,
            (Decision::Overtaken, _) => Err(ApplyError::Overtaken),
            (Decision::Discard | Decision::Overwrite | Decision::Complete, _) => {
                self.counts.conflicts += 1;
                Ok(None)
            }
        }
    }

    async fn complete(
        &mut self,
        row: &RowChange,
        put: &Put,
        local: &Local,
    ) -> Result<Option<Act>, ApplyError> {
        if put.insert && local.row.is_some() && !wrote(&self.source, local) {
            self.counts.conflicts += 1;
        }
        let completed = self
            .fetcher
            .complete(&row.target.map, &row.key, put)
            .await?;
        // Without an answer the source has deleted the row since; that delete is on its way.
        Ok(completed.map(|values| match local.row {
            None => Act::Insert(values),
            Some(_) if sets_identity(row) => Act::Replace(values),
            Some(_) => Act::Overwrite(Put {
                values,
                ..put.clone()
            }),
        }))
    }

    async fn carry_out(&mut self, acts: &[(&RowChange, Act)]) -> Result<(), ApplyError> {
        let mut owners = Vec::with_capacity(acts.len());
        let mut batch = self.session.batch();
        for (row, act) in acts {
            push(&mut batch, row, act).map_err(|source| failed(row, source))?;
            owners.resize(batch.len(), *row);
        }
        batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| owners.get(index));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        let inserted = acts.iter().filter(|(_, act)| matches!(act, Act::Insert(_)));
        self.note_inserted(inserted.map(|(row, _)| *row));
        Ok(())
    }
}

fn push(batch: &mut Batch<'_>, row: &RowChange, act: &Act) -> Result<(), WireError> {
    let target = &row.target;
    match act {
        Act::Overwrite(put) => {
            let (sql, columns) = update_of(target, put, UpdateGuard::Decided);
            let time = row.time.to_string();
            let mut parameters = keyed(&time, row);
            let values = columns
                .iter()
                .map(|index| params::value(&put.values.0[*index]));
            parameters.extend(values);
            batch.push(&sql, &parameters)
        }
        Act::Insert(values) => {
            push_insert_lock(batch, target)?;
            batch.push(target.sql(Statement::Insert), &written(target, values))
        }
        Act::Replace(values) => {
            batch.push(target.sql(Statement::Delete), &key_parameters(row))?;
            batch.push(target.sql(Statement::Insert), &written(target, values))
        }
        Act::Delete => batch.push(target.sql(Statement::Delete), &key_parameters(row)),
        Act::LeaveTombstone => {
            batch.push(target.sql(Statement::LeaveTombstone), &key_parameters(row))
        }
    }
}

fn key_parameters(row: &RowChange) -> Vec<Option<&[u8]>> {
    row.key.iter().map(|value| Some(value.as_ref())).collect()
}

fn failed(row: &RowChange, source: WireError) -> ApplyError {
    ApplyError::target(source, Some(row.target.map.label()))
}

/// True for tables with a `GENERATED ALWAYS AS IDENTITY` column outside the key.
fn sets_identity(row: &RowChange) -> bool {
    row.target
        .map
        .columns
        .iter()
        .any(|column| column.identity_always && !column.in_key)
}
