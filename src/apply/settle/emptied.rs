//! Tables without a key that were emptied on the target: what is older than that goes, too.
//!
//! Such a table has no tombstones of single rows, but a truncate leaves one for the whole table.
//! The source may have written a row before the truncate without knowing of it: there the truncate
//! takes the row, so here the row must not come. That holds for deletes as well, because an equal
//! row may have been inserted since.
//!
//! A truncate locks the table against every writer. So who holds the lock of a writer sees all
//! truncates that come before its own transaction, and those that follow take its rows.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::{Entry, WholeRowChange};
use crate::apply::send::transaction::Applier;
use crate::apply::settle::record::incoming_arrays;
use crate::apply::target::statement::{Statement, Target};
use crate::commit_time::CommitTime;
use crate::conflict::{Held, Kind, Made, Tie, Verdict, Version};
use crate::wire::Batch;

/// The tables without a key among these, each with the time of its oldest change.
fn tables(entries: &[Entry]) -> BTreeMap<u32, (&Arc<Target>, CommitTime)> {
    let mut tables = BTreeMap::new();
    for entry in entries {
        if let Entry::WholeRow(row) = entry {
            let table = tables.entry(row.target.map.table.oid);
            let oldest = table.or_insert((&row.target, row.time));
            oldest.1 = oldest.1.min(row.time);
        }
    }
    tables
}

/// Pushes the question whether a table that was just written was emptied later than one of the
/// changes was made: then it fails.
pub(in crate::apply) fn push_no_newer_truncates(
    batch: &mut Batch<'_>,
    entries: &[Entry],
) -> Result<(), ApplyError> {
    for (target, oldest) in tables(entries).into_values() {
        let sql = target.finding_none(target.sql(Statement::NewerTruncate));
        batch
            .push(&sql, &[Some(oldest.to_string().as_bytes())])
            .map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
    }
    Ok(())
}

impl Applier {
    /// The entries without those that are older than a truncate of their table, which are recorded.
    pub(in crate::apply) async fn not_emptied<'a>(
        &mut self,
        entries: &'a [Entry],
    ) -> Result<Cow<'a, [Entry]>, ApplyError> {
        let tables = tables(entries);
        if tables.is_empty() {
            return Ok(Cow::Borrowed(entries));
        }
        let emptied = self.emptied(tables).await?;
        if emptied.is_empty() {
            return Ok(Cow::Borrowed(entries));
        }
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Entry::WholeRow(row) => match self.taker(row, &emptied) {
                    Some(truncate) => self.record_taken(row, truncate).await?,
                    None => kept.push(entry.clone()),
                },
                Entry::Row(_) => kept.push(entry.clone()),
            }
        }
        Ok(Cow::Owned(kept))
    }

    /// Keeps truncates of these tables away; gives those that were.
    async fn emptied(
        &mut self,
        tables: BTreeMap<u32, (&Arc<Target>, CommitTime)>,
    ) -> Result<HashMap<u32, Vec<Held>>, ApplyError> {
        self.open().await?;
        let mut batch = self.session.batch();
        for (target, _) in tables.values() {
            for statement in [Statement::HoldTable, Statement::Truncates] {
                batch
                    .push(target.sql(statement), &[])
                    .map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
            }
        }
        let outcomes = batch.run().await;
        let outcomes = outcomes.map_err(|failed| ApplyError::target(failed.error, None))?;
        let mut emptied = HashMap::new();
        for ((relation, (target, _)), pair) in tables.iter().zip(outcomes.chunks(2)) {
            let held = self.origins.held(&pair[1]);
            let held =
                held.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
            if !held.is_empty() {
                emptied.insert(*relation, held);
            }
        }
        Ok(emptied)
    }

    /// The truncate that takes the row.
    fn taker<'a>(
        &self,
        row: &WholeRowChange,
        emptied: &'a HashMap<u32, Vec<Held>>,
    ) -> Option<&'a Version> {
        let (time, node) = (row.time, self.source.clone());
        let change = Version { time, node };
        let truncates = emptied.get(&row.target.map.table.oid)?;
        let newer = |held: &&Held| !change.wins_over(None, held, Tie::Later);
        truncates.iter().find(newer)?.version.as_ref()
    }

    /// Records what a truncate takes, unless it was known to the source or takes a delete.
    async fn record_taken(
        &mut self,
        row: &WholeRowChange,
        truncate: &Version,
    ) -> Result<(), ApplyError> {
        let Some(new) = &row.new else {
            return Ok(());
        };
        if row.seen.includes(truncate) {
            return Ok(());
        }
        self.counts.conflicts += 1;
        if !self.ledger.take(&row.target) {
            return Ok(());
        }
        let made = if row.old.is_some() {
            Made::Update
        } else {
            Made::Insert
        };
        let (names, values) = incoming_arrays(&row.target, new);
        let (time, emptied) = (row.time.to_string(), truncate.time.to_string());
        let parameters = [
            self.source.as_str().as_bytes(),
            self.origins.target().as_str().as_bytes(),
            Kind::of(made, false).as_str().as_bytes(),
            Verdict::Discard.outcome().as_bytes(),
            &names,
            &values,
            time.as_bytes(),
            emptied.as_bytes(),
            truncate.node.as_str().as_bytes(),
        ];
        let mut batch = self.session.batch();
        let pushed = batch.push(
            row.target.sql(Statement::RecordTaken),
            &parameters.map(Some),
        );
        let failed = |source| ApplyError::target(source, Some(row.target.map.label()));
        pushed.map_err(failed)?;
        let done = batch.run().await;
        done.map(drop).map_err(|error| failed(error.error))
    }
}
