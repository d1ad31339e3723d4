//! Groups that are sent ahead: everything, the commit included, in one batch, and the next group
//! before the first is answered.
//!
//! The daemon then never waits for a round trip while the target has work: it prepares one group
//! while the target writes another, and a distant target is kept busy by several. Three things make
//! that safe:
//!
//! - Each statement fails unless it takes every row it was given (`sql_ahead`), and with it the
//!   whole transaction. Nothing that needs a look is committed without one: the group is then
//!   applied again step by step (`rows`, `settle`).
//! - After a failure the server skips the rest of the batch, and refuses later batches while the
//!   failed transaction is open: `begin` is not accepted there.
//! - A commit may itself fail and leave no transaction open. So each transaction moves the position
//!   row only from where the one before it leaves it (`mmrepl.finish`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::{Entry, RowChange};
use crate::apply::plan::choose::{Approach, Plan, plan};
use crate::apply::plan::group::Segment;
use crate::apply::plan::touched::Touched;
use crate::apply::send::positions::witness;
use crate::apply::send::transaction::{Applier, ClockCheck, Committed, Counts, newest, push_all};
use crate::apply::settle::emptied::push_no_newer_truncates;
use crate::apply::sql::kind::Kind;
use crate::apply::sql::strict::ALL_COUNTED;
use crate::apply::target::statement::Target;
use crate::apply::write::floors::Floors;
use crate::apply::write::push::Pusher;
use crate::apply::write::refuse::push_refusal;
use crate::apply::write::source_times::push_source_times;
use crate::apply::write::tombstones::{oids, push_no_tombstones, push_tombstones};
use crate::assemble::{Piece, TxEnd};
use crate::error::{RetryClass, Retryable};
use crate::failpoint::failpoint;
use crate::wire::{Batch, BatchError, Pending, Session};

/// From so many rows on the target's clock is looked at before they are written, not only after.
/// Fewer are soon written, should it be in vain.
const CHECKED_EARLY_FROM: u64 = 50;

/// A group, or a part of a large transaction, that was sent and is not answered yet.
#[derive(Debug)]
#[must_use = "what is not collected may have failed"]
pub struct Sent {
    /// Whose session it was sent on.
    worker: usize,
    pending: Pending,
    /// Set where the commit was sent with it.
    end: Option<TxEnd>,
    counts: Counts,
    /// Statements whose failure says something about a table, by their place in the batch.
    telling: Vec<(usize, Telling)>,
}

/// What the failure of a statement tells.
#[derive(Debug, Clone)]
enum Telling {
    /// Rows cannot be copied into the table, or few of them cannot.
    NoCopy(Arc<Target>, bool),
    /// One of the tables has tombstones.
    Tombstones(Vec<u32>),
}

/// What pieces write, ready to be sent.
pub struct Ready {
    segments: Vec<Segment>,
    /// What the source's transaction before had said of its clock.
    clock: Option<i64>,
}

impl Ready {
    /// Which rows that are.
    pub fn touched(&self) -> Touched {
        Touched::of(&self.segments)
    }
}

/// The entries of a segment, and how they are written.
pub(in crate::apply) type Planned<'a> = (Plan<'a>, &'a [Entry]);

/// Puts segments into a batch whose every statement takes all its rows or fails.
struct Sending<'a> {
    floors: &'a mut Floors,
    with_tombstones: &'a BTreeSet<u32>,
    telling: &'a mut Vec<(usize, Telling)>,
}

impl Sending<'_> {
    fn segment(
        &mut self,
        batch: &mut Batch<'_>,
        (plan, entries): &Planned<'_>,
    ) -> Result<(), ApplyError> {
        let mut statements = Pusher {
            batch,
            floors: self.floors,
            all_or_nothing: true,
        };
        statements.guards(plan, entries)?;
        let first = statements.batch.len();
        let pushed = statements.plan(plan)?;
        let copies = pushed.iter().zip(first..);
        self.telling.extend(copies.filter_map(|(statement, place)| {
            let set = statement.copied()?;
            let failing = Telling::NoCopy(Arc::clone(set.target), set.is_of_few);
            Some((place, failing))
        }));
        push_no_newer_truncates(batch, entries)?;
        let rows = entries.iter().filter_map(Entry::row);
        push_tombstones(batch, rows.filter(|row| row.leaves_version()))?;
        let tables = oids(plan.inserted_into());
        let (with, without): (Vec<u32>, Vec<u32>) = tables
            .into_iter()
            .partition(|oid| self.with_tombstones.contains(oid));
        for oid in with {
            push_refusal(batch, self.floors, &inserts(entries, oid))?;
        }
        if !without.is_empty() {
            push_no_tombstones(batch, &without)?;
            let place = batch.len() - 1;
            self.telling.push((place, Telling::Tombstones(without)));
        }
        Ok(())
    }
}

impl Applier {
    /// Prepares pieces for [`Applier::send`].
    pub async fn ready(&mut self, pieces: &[Piece]) -> Result<Ready, ApplyError> {
        let clock = self.delete_clock;
        let segments = self.segments(pieces).await?;
        Ok(Ready { segments, clock })
    }

    /// Sends pieces as one target transaction, or as the next part of one that is open, without
    /// waiting for an answer: on the session of `worker`, `beside` other groups or alone. Where a
    /// row needs a look first, nothing is sent and `None` given.
    pub async fn send(
        &mut self,
        (pieces, ready): (&[Piece], Ready),
        (worker, beside): (usize, bool),
    ) -> Result<Option<Sent>, ApplyError> {
        let planned =
            rows_only(&ready.segments).and_then(|rows| self.plans(&rows, Approach::Ahead));
        if let Some(planned) = planned {
            self.prepare_turn(worker, beside);
            self.change_to(worker);
            let sent = self.send_plans(pieces, &planned).await;
            self.change_to(0);
            return sent.map(|sent| Some(Sent { worker, ..sent }));
        }
        self.delete_clock = ready.clock;
        Ok(None)
    }

    /// How to write segments of rows; nothing where a row needs a look first.
    pub(in crate::apply) fn plans<'a>(
        &mut self,
        segments: &[&'a [Entry]],
        way: Approach,
    ) -> Option<Vec<Planned<'a>>> {
        let plan = |entries: &&'a [Entry]| (plan(entries, &mut self.copies, way), *entries);
        let planned: Vec<Planned<'_>> = segments.iter().map(plan).collect();
        let can_be_sent = planned.iter().all(|(plan, _)| can_be_sent(plan));
        can_be_sent.then_some(planned)
    }

    pub(in crate::apply) async fn send_plans(
        &mut self,
        pieces: &[Piece],
        planned: &[Planned<'_>],
    ) -> Result<Sent, ApplyError> {
        self.newest = newest(pieces);
        self.witness = witness(pieces);
        let last = pieces
            .last()
            .and_then(|piece| Some((piece.end?, piece.seen.at_end())));
        let single_rows = planned.iter().map(|(plan, _)| plan.single_rows());
        let single_rows: u64 = single_rows.sum();
        self.counted += single_rows;
        let ending = last.map(|(end, seen)| self.ending(end, seen));
        let so_far = || (ALL_COUNTED, vec![self.counted.to_string()]);
        let so_far = (last.is_none() && single_rows > 0).then(so_far);
        let counts = Counts::of(pieces);
        // What is inserted here meanwhile is newer than what is left out if the clock has passed.
        let soon_written = counts.rows < CHECKED_EARLY_FROM
            && ending.is_some()
            && planned.iter().all(|(plan, _)| plan.gone.is_empty());
        let opening = self.opening(if soon_written {
            ClockCheck::Late
        } else {
            ClockCheck::Early
        });
        let turn = self.workers.turn.take();
        let keeps_times = self.keeps_times(pieces);
        let mut batch = self.session.batch();
        opening.push(&mut batch)?;
        push_all(&mut batch, turn.as_ref().map(|turn| &turn.take))?;
        let mut telling = Vec::new();
        let mut sending = Sending {
            floors: &mut self.floors,
            with_tombstones: &self.with_tombstones,
            telling: &mut telling,
        };
        for segment in planned {
            sending.segment(&mut batch, segment)?;
        }
        if keeps_times {
            let rows: Vec<&[Entry]> = planned.iter().map(|(_, entries)| *entries).collect();
            push_source_times(&mut batch, &rows, self.newest)?;
        }
        push_all(
            &mut batch,
            turn.as_ref().and_then(|turn| turn.wait.as_ref()),
        )?;
        push_all(&mut batch, so_far.iter().chain(ending.iter().flatten()))?;
        let pending = batch.submit().await;
        let pending = pending.map_err(|source| ApplyError::target(source, None))?;
        self.opened();
        if let Some((end, _)) = last {
            self.position.sent = end.end_lsn;
            self.closed();
            failpoint("after_apply");
        }
        Ok(Sent {
            worker: 0,
            pending,
            end: last.map(|(end, _)| end),
            counts,
            telling,
        })
    }

    /// Waits until an answer to what was sent on the session of `worker` begins to arrive.
    /// Cancel-safe.
    pub async fn answered(&mut self, worker: usize) -> Result<(), ApplyError> {
        let answered = async |session: &mut Session| session.answered().await;
        let answered = self.on_session(worker, answered).await;
        answered.map_err(|source| ApplyError::target(source, None))
    }

    /// What became of the oldest group that was sent. After an error everything sent later is void
    /// as well: call [`Applier::rollback`] and apply it again.
    pub async fn collect(&mut self, sent: Sent) -> Result<Option<Committed>, ApplyError> {
        let pending = sent.pending;
        let collect = async |session: &mut Session| session.collect(pending).await;
        let outcomes = self.on_session(sent.worker, collect).await;
        let outcomes = outcomes.map_err(|failed| self.told(failed, &sent.telling))?;
        self.counts.add(sent.counts);
        let Some(end) = sent.end else {
            return Ok(None);
        };
        let committed = self.committed(&outcomes, end.end_lsn)?;
        failpoint("after_commit");
        Ok(Some(committed))
    }

    /// Remembers what a failure says about a table.
    fn told(&mut self, failed: BatchError, telling: &[(usize, Telling)]) -> ApplyError {
        let told = telling
            .iter()
            .find(|(place, _)| Some(*place) == failed.index);
        match told.map(|(_, told)| told) {
            Some(Telling::NoCopy(target, few)) if failed.retry_class() != RetryClass::Transient => {
                let oid = target.map.table.oid;
                if *few {
                    self.copies.failed_with_few(oid);
                } else {
                    self.copies.failed(oid);
                }
                ApplyError::CopyRefused {
                    table: target.map.label(),
                    source: failed.error,
                }
            }
            // Which of them, the next look at each will show.
            Some(Telling::Tombstones(tables)) => {
                self.with_tombstones.extend(tables);
                ApplyError::target(failed.error, None)
            }
            _ => ApplyError::target(failed.error, None),
        }
    }
}

/// The rows, where there is nothing else.
pub(in crate::apply) fn rows_only(segments: &[Segment]) -> Option<Vec<&[Entry]>> {
    segments.iter().map(Segment::rows).collect()
}

/// Every row has a statement that tells whether it took it.
fn can_be_sent(plan: &Plan<'_>) -> bool {
    let tells = |(entry, kind): &(&Entry, Option<Kind>)| match (entry, kind) {
        (Entry::Row(row), Some(Kind::Update(columns, _))) => row.target.map.sets_any(columns),
        _ => true,
    };
    plan.settle.is_empty() && plan.singles.iter().all(tells)
}

fn inserts(entries: &[Entry], table: u32) -> Vec<&RowChange> {
    let rows = entries.iter().filter_map(Entry::row);
    rows.filter(|row| row.target.map.table.oid == table && row.is_insert())
        .collect()
}
