//! Rows that a guarded statement did not take: look, decide, write, each for all of them at once.
//!
//! What was decided between writes that did not know of each other is recorded (`conflict`).

use std::borrow::Cow;

use crate::apply::encode::params;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::plan::decide::{Decision, decide, incoming, is_by_knowledge};
use crate::apply::send::transaction::Applier;
use crate::apply::settle::record::Record;
use crate::apply::shape::merging::Grave;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql::kind::UpdateGuard;
use crate::apply::target::statement::Statement;
use crate::apply::write::pending;
use crate::apply::write::push::{keyed, update_of, written};
use crate::apply::write::refuse::push_insert_lock;
use crate::apply::write::tombstones::{leaving, push_leaving, push_tombstone, push_tombstone_of};
use crate::conflict::{Local, Rank, Verdict, Version, rival};
use crate::pgoutput::Tuple;
use crate::wire::{Batch, Outcome, WireError};

/// The column of `sql::one_row::see_row` and of `sql::tombstones::tombstones` that says whether
/// this very transaction wrote it.
const WRITTEN_HERE: usize = 3;
/// The column of a look that says whether nobody knows when the row was written; where time
/// decides.
const FORGED_COLUMN: usize = 4;

/// What a row is that this very transaction wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Own {
    /// One that a statement for many rows took: nothing is left to do.
    Done,
    /// An earlier change of the same transaction: it is older.
    Older,
}

/// What of a key this very transaction wrote.
#[derive(Debug, Clone, Copy)]
pub(in crate::apply) struct WrittenHere {
    row: bool,
    tombstone: bool,
}

impl WrittenHere {
    /// A statement for many rows took the change: it wrote the row, or deleted it. The tombstone's
    /// version is then still the one that the trigger found in the target's own row.
    fn is_what(self, change: &RowChange) -> bool {
        match change.op {
            RowOp::Put(_) => self.row,
            RowOp::Delete(_) => self.tombstone && !self.row,
        }
    }
}

/// What is written for a change that won.
pub(in crate::apply) enum Act {
    /// The columns that were sent replace those of the row.
    Overwrite(Put),
    /// A new row.
    Insert(Tuple),
    /// Delete and insert, for rows with a value that only an insert may set.
    Replace(Tuple),
    /// The row goes.
    Delete,
    /// There is no row; this statement leaves the tombstone.
    LeaveTombstone(Statement),
    /// The same, with what two deletes know.
    JoinDeletes(Rank),
    /// Delete and insert without a trace of the delete; where rows merge.
    Exchange(Tuple),
    /// The row goes and leaves this; where rows merge.
    Bury(Grave),
    /// There is no row, but this of it; where rows merge.
    Remember(Grave),
}

/// What holds a key, and what of it this transaction wrote.
pub(in crate::apply) type Held = (Local, WrittenHere);
/// A change with what becomes of it.
type Settled<'a> = (&'a RowChange, Option<Record>, Option<Act>);
/// What is judged of a change, in turn, and what the target holds for its key.
type Judged<'a> = (Vec<Cow<'a, RowChange>>, &'a Local);

impl Applier {
    /// Settles keys by the case table of `conflict::resolve`. No key comes twice.
    ///
    /// A change that loses without a conflict is found without a lock: what holds the key can only
    /// become newer. The others are looked at again under their rows' locks, then written. Gives
    /// back those with which nothing was left to do.
    pub(in crate::apply) async fn settle<'a>(
        &mut self,
        rows: &[&'a RowChange],
        own: Own,
    ) -> Result<Vec<&'a RowChange>, ApplyError> {
        let merges = |row: &&RowChange| row.target.versions().merging().is_some();
        let (merging, rows): (Vec<&RowChange>, Vec<&'a RowChange>) =
            rows.iter().copied().partition(merges);
        Box::pin(self.settle_merging(&merging)).await?;
        let custom = |row: &&RowChange| row.target.versions().rule().custom().is_some();
        let (custom, rows): (Vec<&RowChange>, Vec<&'a RowChange>) =
            rows.iter().copied().partition(custom);
        Box::pin(self.settle_custom(&custom)).await?;
        let (done, mut rest) = self.settle_ordered(&rows, own).await?;
        while !rest.is_empty() {
            let rows: Vec<&RowChange> = rest.iter().collect();
            rest = self.settle_ordered(&rows, Own::Older).await?.1;
        }
        Ok(done)
    }

    /// The same where one write takes the place of another. Gives back as well what follows on
    /// writes that were judged apart.
    async fn settle_ordered<'a>(
        &mut self,
        rows: &[&'a RowChange],
        own: Own,
    ) -> Result<(Vec<&'a RowChange>, Vec<RowChange>), ApplyError> {
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (done, concerned, mut locals) = self.concerned(rows, own).await?;
        if concerned.is_empty() {
            return Ok((done, Vec::new()));
        }
        let looked = concerned
            .iter()
            .copied()
            .zip(locals.iter().map(|seen| &seen.0));
        if self.wait_for_inserts(looked).await? {
            locals = self.look(&concerned, Statement::LockRow).await?;
        }
        let looked = concerned.iter().zip(locals.iter().map(|seen| &seen.0));
        let judged: Vec<Judged<'_>> = looked
            .map(|(row, local)| (self.judged(row, local), local))
            .collect();
        let claims = self.claims(&judged);
        self.refuse_rivals(claims).await?;
        let (mut settled, mut rest) = (Vec::with_capacity(judged.len()), Vec::new());
        for (writes, local) in &judged {
            for (index, write) in writes.iter().enumerate() {
                let write = write.as_ref();
                let act = self.act(write, local).await?;
                let decision = decide(write, local, &self.source);
                let record = self.record(write, local, decision.verdict()).await;
                settled.push((write, record, act));
                if decision != Decision::Discard {
                    // What the source wrote on top of it is judged against it.
                    let later = writes[index + 1..].iter().map(|row| row.as_ref().clone());
                    rest.extend(RowChange::together(later));
                    break;
                }
            }
        }
        self.carry_out(&settled).await?;
        Ok((done, rest))
    }

    /// Those with which nothing is left to do; those that are to be judged, with what holds their
    /// keys, locked.
    ///
    /// The first look is in vain where most are to be judged. Then the next rows are locked at
    /// once.
    async fn concerned<'a>(
        &mut self,
        rows: &[&'a RowChange],
        own: Own,
    ) -> Result<(Vec<&'a RowChange>, Vec<&'a RowChange>, Vec<Held>), ApplyError> {
        let locks = self.locks_at_once;
        let how = if locks {
            Statement::LockRow
        } else {
            Statement::SeeRow
        };
        let seen = self.look(rows, how).await?;
        let (mut done, mut concerned, mut locals) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (local, written_here)) in rows.iter().copied().zip(seen) {
            let loses = || decide(row, &local, &self.source) == Decision::Discard;
            if own == Own::Done && written_here.is_what(row) {
                done.push(row);
            } else if self.has_rival(row, &local) || !loses() {
                concerned.push(row);
                locals.push((local, written_here));
            }
        }
        self.locks_at_once = concerned.len() * 2 > rows.len();
        if !locks && !concerned.is_empty() {
            locals = self.look(&concerned, Statement::LockRow).await?;
        }
        Ok((done, concerned, locals))
    }

    /// What is judged of a change: all of it together, unless the target holds a write that the
    /// source did not know. Then it is each write in turn, as if they had come one by one.
    fn judged<'a>(&self, row: &'a RowChange, local: &Local) -> Vec<Cow<'a, RowChange>> {
        if is_by_knowledge(row) || !self.has_rival(row, local) {
            return vec![Cow::Borrowed(row)];
        }
        row.one_by_one()
    }

    /// The writes that may take unique values.
    fn claims<'a>(&self, judged: &'a [Judged<'_>]) -> Vec<&'a RowChange> {
        let all = judged.iter().flat_map(|(writes, local)| {
            let writes = writes.iter().map(AsRef::as_ref);
            writes.map(move |write: &RowChange| (write, *local))
        });
        let wins = |(write, local): &(&RowChange, &Local)| {
            write.target.has_rivals() && decide(write, local, &self.source) != Decision::Discard
        };
        all.filter(wins).map(|(write, _)| write).collect()
    }

    /// Whether the target holds a write that the source did not know at one of its writes.
    fn has_rival(&self, row: &RowChange, local: &Local) -> bool {
        let writes = row.one_by_one();
        let mut all = std::iter::once(row).chain(writes.iter().map(AsRef::as_ref));
        all.any(|write| self.rival(write, local).is_some())
    }

    /// What on the target the source did not know when it made the change.
    fn rival(&self, row: &RowChange, local: &Local) -> Option<Version> {
        if is_by_knowledge(row) {
            let pending = decide(row, local, &self.source) == Decision::Pending;
            return pending.then(|| pending::rival(row, local, self.origins.target()));
        }
        rival(&incoming(row, row.time, &self.source), local, &row.seen).cloned()
    }

    /// Counts a conflict; gives the record of it unless there are too many.
    pub(in crate::apply) async fn record(
        &mut self,
        row: &RowChange,
        local: &Local,
        verdict: Verdict,
    ) -> Option<Record> {
        let rival = self.rival(row, local)?;
        self.counts.conflicts += 1;
        let waits = is_by_knowledge(row);
        if !waits && !self.ledger.take(&row.target) {
            return None;
        }
        let known = if waits {
            local.known()
        } else {
            local.rank_of(&rival).cloned()
        };
        let mut record = Record::new(row, verdict, (&rival, known.as_ref()), local.row.is_some());
        record.waits = waits;
        self.complete_record(row, &mut record).await;
        Some(record)
    }

    /// Reads the versions of the rows and of the tombstones that cover their keys.
    ///
    /// A row comes before its tombstones: with a lock it waits for a local delete under way, and
    /// the second statement, with a snapshot of its own, sees the tombstone.
    async fn look(&mut self, rows: &[&RowChange], how: Statement) -> Result<Vec<Held>, ApplyError> {
        let mut batch = self.session.batch();
        for row in rows {
            let key = keyed(row);
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
        let pairs = rows.iter().zip(outcomes.chunks(2));
        let held = pairs.map(|(row, pair)| {
            let local = self.local(row, pair)?;
            let by_time = !row.target.versions().is_in_row() && !pair[0].rows.is_empty();
            let what = "whether a row was rewritten";
            let forged = by_time
                && pair[0]
                    .flag(0, FORGED_COLUMN, what)
                    .map_err(|source| failed(row, source))?;
            self.refuse_forged(row, &local, forged)?;
            Ok((local, written_here(row, how, pair)?))
        });
        held.collect()
    }

    /// What holds the key.
    pub(in crate::apply) fn local(
        &self,
        row: &RowChange,
        outcomes: &[Outcome],
    ) -> Result<Local, ApplyError> {
        let versions = outcomes.iter().map(|outcome| self.origins.held(outcome));
        let versions: Result<Vec<_>, _> = versions.collect();
        let mut versions = versions.map_err(|source| failed(row, source))?.into_iter();
        Ok(Local {
            row: versions.next().and_then(|rows| rows.into_iter().next()),
            tombstones: versions.next().unwrap_or_default(),
        })
    }

    /// What is to be done, the row being locked; nothing where it is not or no longer needed.
    async fn act(&mut self, row: &RowChange, local: &Local) -> Result<Option<Act>, ApplyError> {
        match (decide(row, local, &self.source), &row.op) {
            (Decision::Delete, _) => Ok(Some(Act::Delete)),
            (Decision::LeaveTombstone, _) => {
                let statement = if is_by_knowledge(row) {
                    Statement::LeaveTombstone
                } else {
                    leaving(row, &local.tombstones, &self.source)
                };
                Ok(Some(Act::LeaveTombstone(statement)))
            }
            (Decision::Overwrite, RowOp::Put(put)) if !sets_identity(row) => {
                Ok(Some(Act::Overwrite(put.clone())))
            }
            (Decision::Overwrite | Decision::Complete, RowOp::Put(put)) => {
                self.complete(row, put, local).await
            }
            (Decision::JoinDeletes(known), _) => Ok(Some(Act::JoinDeletes(known))),
            (Decision::Overtaken, _) => Err(ApplyError::Overtaken),
            _ => Ok(None),
        }
    }

    async fn complete(
        &mut self,
        row: &RowChange,
        put: &Put,
        local: &Local,
    ) -> Result<Option<Act>, ApplyError> {
        let completed = self
            .fetcher
            .complete(&row.target.map, &row.key, put)
            .await?;
        let Some(values) = completed else {
            // The source has deleted the row since; that delete is on its way. What comes before it
            // does not meet once more what this write has won over.
            let leaves = local.row.is_none() && !is_by_knowledge(row);
            let act = Act::LeaveTombstone(Statement::LeaveNeededTombstone);
            return Ok(leaves.then_some(act));
        };
        Ok(Some(match local.row {
            None => Act::Insert(values),
            Some(_) if sets_identity(row) => Act::Replace(values),
            Some(_) => Act::Overwrite(Put {
                values,
                ..put.clone()
            }),
        }))
    }

    pub(in crate::apply) async fn carry_out(
        &mut self,
        settled: &[Settled<'_>],
    ) -> Result<(), ApplyError> {
        let mut owners = Vec::with_capacity(settled.len());
        let nodes = (self.source.as_str(), self.origins.target().as_str());
        let mut batch = self.session.batch();
        for (row, record, act) in settled {
            if let Some(record) = record {
                // First: it copies the row that is there.
                Self::push_record(&mut batch, nodes, row, record)
                    .map_err(|source| failed(row, source))?;
            }
            if let Some(act) = act {
                push(&mut batch, row, act)
                    .and_then(|()| supersede(&mut batch, row, act))
                    .map_err(|source| failed(row, source))?;
            }
            owners.resize(batch.len(), *row);
        }
        batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| owners.get(index));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        let is_insert = |act: &Option<Act>| matches!(act, Some(Act::Insert(_)));
        let inserted = settled.iter().filter(|(_, _, act)| is_insert(act));
        self.note_inserted(inserted.map(|(row, _, _)| *row));
        Ok(())
    }
}

pub(in crate::apply) fn push(
    batch: &mut Batch<'_>,
    row: &RowChange,
    act: &Act,
) -> Result<(), WireError> {
    let target = &row.target;
    match act {
        Act::Overwrite(put) => {
            let (sql, columns) = update_of(target, put, UpdateGuard::Decided);
            let mut parameters = keyed(row);
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
            batch.push(target.sql(Statement::Delete), &keyed(row))?;
            batch.push(target.sql(Statement::Insert), &written(target, values))
        }
        Act::Delete => {
            batch.push(target.sql(Statement::Delete), &keyed(row))?;
            if target.versions().is_in_row() {
                push_tombstone(batch, row)?;
            }
            Ok(())
        }
        Act::LeaveTombstone(statement) => push_leaving(batch, row, *statement),
        Act::JoinDeletes(known) => {
            let version = (Statement::LeaveTombstone, Some(&*known.to_string()));
            push_tombstone_of(batch, row, version)
        }
        Act::Exchange(values) => {
            batch.push(target.sql(Statement::Delete), &keyed(row))?;
            push_grave(batch, row, &Grave::default())?;
            batch.push(target.sql(Statement::Insert), &written(target, values))
        }
        Act::Bury(grave) => {
            batch.push(target.sql(Statement::Delete), &keyed(row))?;
            push_grave(batch, row, grave)
        }
        Act::Remember(grave) => push_grave(batch, row, grave),
    }
}

/// Ends the conflicts that waited for a decision about writes which this one knows.
pub(in crate::apply) fn supersede(
    batch: &mut Batch<'_>,
    row: &RowChange,
    act: &Act,
) -> Result<(), WireError> {
    let known = match act {
        Act::JoinDeletes(known) => Some(known),
        _ => row.rank.as_ref(),
    };
    match known {
        Some(known) if is_by_knowledge(row) => pending::push_supersede(batch, row, known),
        _ => Ok(()),
    }
}

/// Pushes the statement that leaves a tombstone with the image of the row.
fn push_grave(batch: &mut Batch<'_>, row: &RowChange, grave: &Grave) -> Result<(), WireError> {
    let rank = grave.rank.as_ref().map(ToString::to_string);
    let image = grave.image.as_ref().map(|image| {
        let columns = row.target.map.columns.iter().zip(image.0.iter());
        let written = columns.filter(|(column, _)| column.written);
        params::array_literal(
            written
                .flat_map(|(column, value)| [Some(column.name.as_bytes()), params::value(value)]),
        )
    });
    let mut parameters = keyed(row);
    parameters.push(rank.as_ref().map(String::as_bytes));
    parameters.push(image.as_deref());
    batch.push(row.target.sql(Statement::LeaveTombstone), &parameters)
}

pub(in crate::apply) fn failed(row: &RowChange, source: WireError) -> ApplyError {
    ApplyError::target(source, Some(row.target.map.label()))
}

/// True for tables with a `GENERATED ALWAYS AS IDENTITY` column outside the key.
pub(in crate::apply) fn sets_identity(row: &RowChange) -> bool {
    row.target
        .map
        .columns
        .iter()
        .any(|column| column.identity_always && !column.in_key)
}

/// What of the key this transaction wrote. The statements that look at whole rows have the row's
/// own columns in that place, and do not say it.
fn written_here(
    row: &RowChange,
    how: Statement,
    outcomes: &[Outcome],
) -> Result<WrittenHere, ApplyError> {
    let here = |outcome: Option<&Outcome>, says_it: bool| {
        let Some(outcome) = outcome.filter(|_| says_it) else {
            return Ok(false);
        };
        let flags = (0..outcome.rows.len())
            .map(|row| outcome.flag(row, WRITTEN_HERE, "whether this transaction wrote a row"));
        let mut any = false;
        for flag in flags {
            any |= flag?;
        }
        Ok::<_, WireError>(any)
    };
    let versions = row.target.versions();
    let whole = how == Statement::LockRow && versions.looks_whole();
    let read = || {
        Ok(WrittenHere {
            row: here(outcomes.first(), !whole)?,
            tombstone: here(outcomes.get(1), versions.merging().is_none())?,
        })
    };
    read().map_err(|source| failed(row, source))
}
