//! The fast way: guarded statements, all of a segment in one round trip.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::{Entry, RowChange, WholeRowChange};
use crate::apply::plan::choose::{Approach, Plan, plan};
use crate::apply::send::transaction::{Applier, ClockCheck};
use crate::apply::settle::ordered::Own;
use crate::apply::write::push::{Pushed, Pusher, push_whole_row};
use crate::apply::write::tombstones::{
    have_tombstones, oids, push_tombstones, push_which_have_tombstones,
};
use crate::error::{RetryClass, Retryable};
use crate::wire::{BatchError, Outcome};

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
    pub(in crate::apply) async fn write_rows(
        &mut self,
        entries: &[Entry],
    ) -> Result<(), ApplyError> {
        let entries = &*self.not_emptied(entries).await?;
        let plan = plan(entries, &mut self.copies, Approach::StepByStep);
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
            row.is_insert() && !without_tombstones.contains(&row.target.map.table.oid)
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
        let opening = self.opening(ClockCheck::Early);
        let mut batch = self.session.batch();
        let mut prefix = opening.push(&mut batch)?;
        let mut statements = Pusher {
            batch: &mut batch,
            floors: &mut self.floors,
            all_or_nothing: false,
        };
        prefix += statements.guards(plan, entries)?;
        let pushed = statements.plan(plan)?;
        let inserted_into = oids(plan.inserted_into());
        if !inserted_into.is_empty() {
            push_which_have_tombstones(&mut batch, &inserted_into)?;
        }
        let outcomes = batch.run().await;
        let mut outcomes = outcomes.map_err(|failed| self.refused(failed, prefix, &pushed))?;
        self.opened();
        let answer = outcomes.split_off(prefix + pushed.len()).pop();
        let with = have_tombstones(answer.as_ref())?;
        let mut without_tombstones = inserted_into;
        without_tombstones.retain(|oid| !with.contains(oid));
        self.with_tombstones.extend(with);
        self.with_tombstones
            .retain(|oid| !without_tombstones.contains(oid));
        Ok(Attempted {
            without_tombstones,
            outcomes: outcomes.split_off(prefix),
            pushed,
        })
    }

    /// What failed, and whether only because rows were copied.
    fn refused(&mut self, failed: BatchError, prefix: usize, pushed: &[Pushed<'_>]) -> ApplyError {
        let place = failed.index.and_then(|index| index.checked_sub(prefix));
        let statement = place.and_then(|index| pushed.get(index));
        let copied = statement.and_then(Pushed::copied);
        let label = statement.map(Pushed::label);
        match copied {
            Some(set) if failed.error.retry_class() != RetryClass::Transient => {
                self.copies.failed(set.target.map.table.oid);
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
        let deletes = taken.iter().copied().filter(|row| row.leaves_version());
        let deletes: Vec<&RowChange> = deletes.collect();
        if deletes.is_empty() {
            return Ok(());
        }
        let mut batch = self.session.batch();
        push_tombstones(&mut batch, deletes.iter().copied())?;
        let done = batch.run().await;
        done.map_err(|failed| {
            let row = failed.index.and_then(|index| deletes.get(index));
            ApplyError::target(failed.error, row.map(|row| row.target.map.label()))
        })
        .map(drop)
    }

    /// Writes one change of a table without a key.
    pub(in crate::apply) async fn write_whole_row(
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
