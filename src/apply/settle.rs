//! Rows that a guarded statement did not take: look, decide, write.

use super::error::ApplyError;
use super::group::{Put, RowChange, RowOp};
use super::rows::{keyed, update_of, written};
use super::sql::UpdateGuard;
use super::target::{Sql, Statement};
use super::transaction::Applier;
use crate::conflict::{Incoming, Local, Verdict, Version, Write, resolve};
use crate::pgoutput::Tuple;
use crate::wire::Outcome;

impl Applier {
    /// Settles one key by the case table of `conflict::resolve`, under the row's lock.
    pub(super) async fn settle(&mut self, row: &RowChange) -> Result<(), ApplyError> {
        let local = self.look(row).await?;
        let write = match row.op {
            RowOp::Put(_) => Write::Put,
            RowOp::Delete => Write::Delete,
        };
        let version = Version {
            time: row.time,
            node: self.source.clone(),
        };
        let verdict = resolve(&Incoming { write, version }, &local);
        self.count_conflict(row, &local, verdict);
        match (verdict, &row.op) {
            (Verdict::Discard, _) => Ok(()),
            (Verdict::Apply, RowOp::Put(put)) => self.put(row, put, &local).await,
            (Verdict::Apply, RowOp::Delete) => self.delete(row, &local).await,
        }
    }

    /// A conflict is a change that lost, or an insert that met a row of another node.
    fn count_conflict(&mut self, row: &RowChange, local: &Local, verdict: Verdict) {
        let met_insert = matches!(&row.op, RowOp::Put(put) if put.insert)
            && local
                .row
                .as_ref()
                .is_some_and(|row| !self.wrote(row.as_ref()));
        if verdict == Verdict::Discard || met_insert {
            self.counts.conflicts += 1;
        }
    }

    /// Locks the row and reads its version, and those of the tombstones that cover its key.
    ///
    /// The lock is taken first: when a local delete is under way it waits for it, and the second
    /// statement, with a snapshot of its own, sees the tombstone.
    async fn look(&mut self, row: &RowChange) -> Result<Local, ApplyError> {
        let key: Vec<Option<&[u8]>> = row.key.iter().map(|value| Some(value.as_ref())).collect();
        let statements = [
            row.target.sql(Statement::LockRow),
            row.target.sql(Statement::Tombstones),
        ];
        let outcomes = self
            .run_on(row, statements.map(|sql| (sql, key.as_slice())))
            .await?;
        let mut versions = outcomes.iter().map(|outcome| self.versions(outcome));
        let row = versions.next().and_then(|rows| rows.into_iter().next());
        Ok(Local {
            row,
            tombstones: versions.next().unwrap_or_default(),
        })
    }

    fn versions(&self, outcome: &Outcome) -> Vec<Option<Version>> {
        let column = |row: &[Option<bytes::Bytes>], index: usize| row.get(index).cloned().flatten();
        let version = |row: &Vec<Option<bytes::Bytes>>| {
            self.origins
                .version(column(row, 0).as_deref(), column(row, 1).as_deref())
        };
        outcome.rows.iter().map(version).collect()
    }

    /// True when this link's source wrote the version.
    fn wrote(&self, version: Option<&Version>) -> bool {
        version.is_some_and(|version| version.node == self.source)
    }

    async fn put(&mut self, row: &RowChange, put: &Put, local: &Local) -> Result<(), ApplyError> {
        let in_place = local
            .row
            .as_ref()
            .is_some_and(|row| self.wrote(row.as_ref()))
            && !put.moved;
        if in_place {
            return self.overwrite(row, put).await;
        }
        let Some(values) = self
            .fetcher
            .complete(&row.target.map, &row.key, put)
            .await?
        else {
            // The source has deleted the row since; that delete is on its way.
            return Ok(());
        };
        let whole = Put {
            values,
            ..put.clone()
        };
        match local.row {
            None => self.insert(row, &whole.values).await,
            Some(_) if sets_identity(row) => self.replace(row, &whole.values).await,
            Some(_) => self.overwrite(row, &whole).await,
        }
    }

    async fn overwrite(&mut self, row: &RowChange, put: &Put) -> Result<(), ApplyError> {
        let (sql, columns) = update_of(&row.target, put, UpdateGuard::Decided);
        let time = row.time.to_string();
        let mut parameters = keyed(&time, row);
        let values = columns
            .iter()
            .map(|index| super::params::value(&put.values.0[*index]));
        parameters.extend(values);
        self.run_on(row, [(&sql, parameters.as_slice())])
            .await
            .map(drop)
    }

    async fn insert(&mut self, row: &RowChange, values: &Tuple) -> Result<(), ApplyError> {
        let sql = row.target.sql(Statement::Insert);
        self.run_on(row, [(sql, written(&row.target, values).as_slice())])
            .await?;
        self.note_inserted(std::iter::once(row));
        Ok(())
    }

    /// Delete and insert, for rows with a value that only an insert may set.
    async fn replace(&mut self, row: &RowChange, values: &Tuple) -> Result<(), ApplyError> {
        let key: Vec<Option<&[u8]>> = row.key.iter().map(|value| Some(value.as_ref())).collect();
        let values = written(&row.target, values);
        let delete = (row.target.sql(Statement::Delete), key.as_slice());
        let insert = (row.target.sql(Statement::Insert), values.as_slice());
        self.run_on(row, [delete, insert]).await.map(drop)
    }

    async fn delete(&mut self, row: &RowChange, local: &Local) -> Result<(), ApplyError> {
        let key: Vec<Option<&[u8]>> = row.key.iter().map(|value| Some(value.as_ref())).collect();
        let statement = match local.row {
            Some(_) => Statement::Delete,
            None => Statement::LeaveTombstone,
        };
        self.run_on(row, [(row.target.sql(statement), key.as_slice())])
            .await
            .map(drop)
    }

    /// Runs a few statements of one row in one round trip.
    async fn run_on<const N: usize>(
        &mut self,
        row: &RowChange,
        statements: [(&Sql, &[Option<&[u8]>]); N],
    ) -> Result<Vec<Outcome>, ApplyError> {
        let failed = |source| ApplyError::target(source, Some(row.target.map.label()));
        let mut batch = self.session.batch();
        for (sql, parameters) in statements {
            batch.push(sql, parameters).map_err(failed)?;
        }
        batch.run().await.map_err(|error| failed(error.error))
    }
}

/// True for tables with a `GENERATED ALWAYS AS IDENTITY` column outside the key.
fn sets_identity(row: &RowChange) -> bool {
    row.target
        .map
        .columns
        .iter()
        .any(|column| column.identity_always && !column.in_key)
}
