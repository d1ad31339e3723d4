//! One target transaction: open, write, check, move the position, commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::{Entry, Stamp};
use crate::apply::plan::copies::Copies;
use crate::apply::plan::group::{GroupBuilder, Segment};
use crate::apply::send::positions::{Positions, witness};
use crate::apply::send::prepared::{BEGIN, Prepared};
use crate::apply::send::skips::Skips;
use crate::apply::send::workers::{Workers, reset};
use crate::apply::settle::fetch::Fetcher;
use crate::apply::settle::inserted::Inserted;
use crate::apply::settle::ledger::Ledger;
use crate::apply::shape::origins::Origins;
use crate::apply::target::statement::{Sql, Target};
use crate::apply::target::tables::{Remark, Tables};
use crate::apply::write::floors::Floors;
use crate::assemble::{Change, Piece, TxEnd};
use crate::catalog::position::Witness;
use crate::catalog::read_ahead::ReadAhead;
use crate::commit_time::CommitTime;
use crate::conflict::{RECORDED_PER_MINUTE, Seen, delete_clock};
use crate::failpoint::failpoint;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::relation::Relation;
use crate::wire::{Batch, Outcome, Session};

/// What has been written, for `status`; reset by `take_counts`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Source transactions with at least one row.
    pub transactions: u64,
    /// Source row changes.
    pub rows: u64,
    /// Changes that met a write their source did not know of.
    pub conflicts: u64,
}

impl Counts {
    /// What is in the pieces.
    pub(in crate::apply) fn of(pieces: &[Piece]) -> Self {
        let rows = |piece: &Piece| piece.changes.iter().filter(|c| c.is_data()).count() as u64;
        Self {
            transactions: pieces.iter().filter(|piece| wrote(piece)).count() as u64,
            rows: pieces.iter().map(rows).sum(),
            conflicts: 0,
        }
    }

    pub(in crate::apply) fn add(&mut self, more: Self) {
        self.transactions += more.transactions;
        self.rows += more.rows;
        self.conflicts += more.conflicts;
    }
}

/// What a commit on the target returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Where the source's stream goes on.
    pub source_end: Lsn,
    /// The target's WAL holds the commit once it is flushed up to here.
    pub target_written: Lsn,
    /// How far the target's WAL was flushed just then.
    pub target_flushed: Lsn,
}

/// When the target's clock is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum ClockCheck {
    /// Before anything is written, and at the end.
    Early,
    /// At the end only.
    Late,
}

/// The statements that open a target transaction, when it is not open yet.
pub(in crate::apply) struct Opening(Vec<(Sql, Option<String>)>);

impl Opening {
    /// Pushes them; returns how many.
    pub(in crate::apply) fn push(&self, batch: &mut Batch<'_>) -> Result<usize, ApplyError> {
        for (sql, parameter) in &self.0 {
            let parameters: Vec<_> = parameter.iter().map(|text| Some(text.as_bytes())).collect();
            batch
                .push(sql, &parameters)
                .map_err(|source| ApplyError::target(source, None))?;
        }
        Ok(self.0.len())
    }
}

/// Writes one link's changes to its target.
///
/// Not cancel-safe: a call that is dropped half-way leaves a transaction open on the session, so
/// drop the applier with it (the server rolls back).
pub struct Applier {
    pub(in crate::apply) session: Session,
    pub(in crate::apply) catalog: Arc<tokio_postgres::Client>,
    pub(in crate::apply) fetcher: Fetcher,
    pub(in crate::apply) tables: Tables,
    pub(in crate::apply) origins: Origins,
    pub(in crate::apply) source: NodeName,
    pub(in crate::apply) counts: Counts,
    pub(in crate::apply) floors: Floors,
    pub(in crate::apply) ledger: Ledger,
    pub(in crate::apply) inserted: Vec<Inserted>,
    /// Tables in which the open transaction alone makes shadows.
    pub(in crate::apply) locked: BTreeSet<u32>,
    pub(in crate::apply) copies: Copies,
    /// Of the rows that were looked at last, most were to be judged.
    pub(in crate::apply) locks_at_once: bool,
    /// Tables that are known to have tombstones.
    pub(in crate::apply) with_tombstones: BTreeSet<u32>,
    /// The newest commit time in the transaction being written.
    pub(in crate::apply) newest: CommitTime,
    /// The last source transaction of the one in hand.
    pub(in crate::apply) witness: Witness,
    /// What the source's transaction in hand has said of its clock.
    pub(in crate::apply) delete_clock: Option<i64>,
    /// The newest write of the target that the source had seen, in a running transaction.
    pub(in crate::apply) highest_seen: Option<CommitTime>,
    /// Tables that a running transaction has asked for tombstones.
    pub(in crate::apply) looked_for_tombstones: BTreeSet<u32>,
    /// Where the position row stands, and where it will once everything sent ahead is committed.
    pub(in crate::apply) position: Positions,
    /// Sessions that write beside `session`.
    pub(in crate::apply) workers: Workers,
    /// What a person lets go by.
    pub(in crate::apply) skips: Skips,
    /// Rows that statements for single rows were given in the open transaction, where they count
    /// what they write.
    pub(in crate::apply) counted: u64,
    is_open: bool,
}

impl Applier {
    /// `session` holds the link's replication origin; `catalog` is another connection to the
    /// target. The position row stands at `position`.
    pub fn new(
        (session, position): (Session, Lsn),
        catalog: Arc<tokio_postgres::Client>,
        fetcher: Fetcher,
        tables: Tables,
        origins: Origins,
    ) -> Self {
        Self {
            floors: Floors::new(&origins),
            ledger: Ledger::new(RECORDED_PER_MINUTE),
            source: origins.source().clone(),
            session,
            catalog,
            fetcher,
            tables,
            origins,
            counts: Counts::default(),
            inserted: Vec::new(),
            locked: BTreeSet::new(),
            copies: Copies::default(),
            locks_at_once: false,
            with_tombstones: BTreeSet::new(),
            position: Positions::at(position),
            newest: CommitTime::default(),
            witness: Witness::default(),
            highest_seen: None,
            looked_for_tombstones: BTreeSet::new(),
            delete_clock: None,
            workers: Workers::default(),
            skips: Skips::default(),
            counted: 0,
            is_open: false,
        }
    }

    /// Records at most so many conflicts per table and minute, then samples.
    #[must_use]
    pub fn recording(mut self, per_minute: u64) -> Self {
        self.ledger = Ledger::new(per_minute);
        self
    }

    /// The target's tables are not what they were when this applier met them: a constraint that it
    /// does not know has refused a row.
    pub fn forget_tables(&mut self) {
        self.tables.forget();
    }

    /// The target's tables are being read meanwhile.
    #[must_use]
    pub fn reading_ahead(mut self, ahead: ReadAhead) -> Self {
        self.tables.read_ahead(ahead);
        self
    }

    /// What an earlier applier of the link learned about copying into the target's tables.
    #[must_use]
    pub fn copying(mut self, copies: Copies) -> Self {
        self.copies = copies;
        self
    }

    /// The position after the last commit that was answered.
    pub fn position(&self) -> Lsn {
        self.position.committed
    }

    /// Another applier of the link has moved the position and counted what it wrote.
    pub fn moved_by(&mut self, other: &mut Self) {
        self.position = other.position;
        self.counts.add(other.take_counts());
    }

    /// Locks are waited for no longer than this. Nothing may be open or on its way.
    pub async fn limit_lock_waits(&mut self, limit: &str) -> Result<(), ApplyError> {
        let set = format!("set lock_timeout = '{limit}'");
        let done = self.session.simple(&set).await;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// A large transaction that commits at `end` is begun again, and then no row of it copied.
    pub fn copy_none_until(&mut self, end: Lsn) {
        self.copies.none_until(end);
    }

    /// What this one has learned.
    pub fn take_copies(&mut self) -> Copies {
        std::mem::take(&mut self.copies)
    }

    /// What an operator should know of the tables that were met since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        self.tables.take_remarks()
    }

    /// A connection to the target for questions beside the applying.
    pub fn catalog(&self) -> Arc<tokio_postgres::Client> {
        Arc::clone(&self.catalog)
    }

    /// What has been written since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Applies whole transactions as one target transaction.
    pub async fn apply_group(&mut self, pieces: &[Piece]) -> Result<Option<Committed>, ApplyError> {
        let Some(end) = pieces.last().and_then(|piece| piece.end) else {
            return Ok(None);
        };
        self.newest = newest(pieces);
        self.witness = witness(pieces);
        self.fetcher
            .applying(pieces.iter().map(|piece| piece.header.xid));
        self.write_grouped(pieces).await?;
        let seen = pieces.last().map(|piece| Arc::clone(piece.seen.at_end()));
        self.commit(end, &seen.unwrap_or_default()).await.map(Some)
    }

    /// Applies one whole transaction in its own order, change by change.
    pub async fn apply_in_order(&mut self, piece: &Piece) -> Result<Option<Committed>, ApplyError> {
        self.apply_part(piece, true).await
    }

    /// Applies one part of a large transaction; commits with the last part.
    pub async fn apply_part(
        &mut self,
        piece: &Piece,
        in_order: bool,
    ) -> Result<Option<Committed>, ApplyError> {
        self.newest = self.time_of(piece);
        self.witness = witness(std::slice::from_ref(piece));
        self.fetcher.applying(std::iter::once(piece.header.xid));
        if in_order {
            self.write_in_order(piece).await?;
            self.count(std::slice::from_ref(piece));
        } else {
            self.write_grouped(std::slice::from_ref(piece)).await?;
        }
        match piece.end {
            Some(end) => self.commit(end, piece.seen.at_end()).await.map(Some),
            None => Ok(None),
        }
    }

    async fn write_grouped(&mut self, pieces: &[Piece]) -> Result<(), ApplyError> {
        let segments = self.segments(pieces).await?;
        for segment in &segments {
            match segment {
                Segment::Rows(entries) => self.write_rows(entries).await?,
                Segment::Truncate(targets, stamp) => self.truncate(targets, stamp).await?,
            }
        }
        if self.keeps_times(pieces) {
            let rows: Vec<&[Entry]> = segments.iter().filter_map(Segment::rows).collect();
            self.keep_source_times(&rows).await?;
        }
        self.count(pieces);
        Ok(())
    }

    pub(in crate::apply) async fn segments(
        &mut self,
        pieces: &[Piece],
    ) -> Result<Vec<Segment>, ApplyError> {
        let mut group = GroupBuilder::default();
        if let Some(last) = pieces.last() {
            self.copies.begin(last.header.final_lsn);
        }
        let changes = pieces.iter().flat_map(|piece| &piece.changes);
        self.tables.meet_all(&self.catalog, changes).await?;
        let respelled = self.respelled(pieces).await?;
        for piece in pieces {
            for (index, change) in piece.changes.iter().enumerate() {
                let stamp = self.stamp_of(piece, index);
                if let Change::Truncate { relations, .. } = change {
                    group.truncate(self.targets(relations).await?, stamp);
                } else if let Some(relation) = change.relation() {
                    let target = self.target(relation).await?;
                    match respelled.in_place(change, &target) {
                        None => group.row(change, &target, &stamp)?,
                        Some(change) => {
                            group.respells();
                            group.row(&change, &target, &stamp)?;
                        }
                    }
                }
            }
        }
        Ok(group.finish())
    }

    /// When the change at `index` was made, and what its source had seen by then. Every change must
    /// be asked for, in order.
    pub(in crate::apply) fn stamp_of(&mut self, piece: &Piece, index: usize) -> Stamp {
        if piece.first && index == 0 {
            self.delete_clock = None;
        }
        if let Change::Message { prefix, content } = &piece.changes[index] {
            self.delete_clock = delete_clock(prefix, content).or(self.delete_clock);
        }
        Stamp {
            time: piece.header.commit_time,
            seen: Arc::clone(piece.seen.of(index)),
            delete_clock: self.delete_clock,
        }
    }

    pub(in crate::apply) fn count(&mut self, pieces: &[Piece]) {
        self.counts.add(Counts::of(pieces));
    }

    pub(in crate::apply) async fn target(
        &mut self,
        relation: &Arc<Relation>,
    ) -> Result<Arc<Target>, ApplyError> {
        self.tables.target(&self.catalog, relation).await
    }

    pub(in crate::apply) async fn targets(
        &mut self,
        relations: &[Arc<Relation>],
    ) -> Result<Vec<Arc<Target>>, ApplyError> {
        let mut targets = Vec::with_capacity(relations.len());
        for relation in relations {
            targets.push(self.target(relation).await?);
        }
        Ok(targets)
    }

    /// What must be sent before the first change: `begin`, and the clock rule (see `conflict`),
    /// which holds at the end in any case: what is written before that would only be in vain.
    pub(in crate::apply) fn opening(&self, clock: ClockCheck) -> Opening {
        if self.is_open {
            return Opening(Vec::new());
        }
        let early = clock == ClockCheck::Early && self.newest != CommitTime::MAX;
        let clock = early.then(|| {
            let newest = Some(self.newest.to_string());
            ("select mmrepl.require_clock($1)".into(), newest)
        });
        let begin = (BEGIN.into(), None);
        Opening(std::iter::once(begin).chain(clock).collect())
    }

    /// The opening statements have gone through, or were sent ahead.
    pub(in crate::apply) fn opened(&mut self) {
        self.is_open = true;
    }

    /// The transaction is committed, or its commit was sent ahead.
    pub(in crate::apply) fn closed(&mut self) {
        self.is_open = false;
        self.counted = 0;
        self.locked.clear();
    }

    /// Opens the transaction in a round trip of its own.
    pub(in crate::apply) async fn open(&mut self) -> Result<(), ApplyError> {
        if self.is_open {
            return Ok(());
        }
        let opening = self.opening(ClockCheck::Early);
        let mut batch = self.session.batch();
        opening.push(&mut batch)?;
        batch
            .run()
            .await
            .map_err(|failed| ApplyError::target(failed.error, None))?;
        self.opened();
        Ok(())
    }

    /// Counts what was not recorded, looks at the clock, moves the position, leaves the marker,
    /// stamps the transaction with the source's commit time (all in `mmrepl.finish`) and commits.
    pub(in crate::apply) async fn commit(
        &mut self,
        end: TxEnd,
        seen: &Seen,
    ) -> Result<Committed, ApplyError> {
        self.open().await?;
        failpoint("after_apply");
        let left_out = self.ledger.take_left_out();
        let mut statements: Vec<Prepared> = Vec::with_capacity(4 + left_out.len());
        for (target, count) in left_out {
            let table = &target.map.table;
            let (source, node) = (self.source.to_string(), self.origins.target().to_string());
            let (schema, name) = (table.schema.clone(), table.name.clone());
            statements.push((
                "select mmrepl.leave_out($1, $2, $3, $4, $5)",
                vec![source, node, schema, name, count.to_string()],
            ));
        }
        statements.extend(self.ending(end, seen));
        let outcomes = self.run_all(&statements).await?;
        self.position.sent = end.end_lsn;
        let committed = self.committed(&outcomes, end.end_lsn)?;
        self.closed();
        failpoint("after_commit");
        Ok(committed)
    }

    /// Gives up the open transaction, so that the session can be used again.
    ///
    /// A failure between leaving the origin for the marker and taking it again must not leave the
    /// session without: what it then wrote would count as written on the target.
    ///
    /// What was sent ahead and is not collected yet is given up as well.
    pub async fn rollback(&mut self) -> Result<(), ApplyError> {
        self.discard_all().await?;
        self.position.sent = self.position.committed;
        self.inserted.clear();
        self.locked.clear();
        self.ledger.forget();
        self.counts = Counts::default();
        let reset = reset(&self.origins.session_origin());
        let done = self.session.simple(&reset).await;
        (self.is_open, self.counted) = (false, 0);
        done.map_err(|source| ApplyError::target(source, None))?;
        self.reset_workers().await
    }

    /// Runs statements in one round trip.
    pub(in crate::apply) async fn run_all(
        &mut self,
        statements: &[Prepared],
    ) -> Result<Vec<Outcome>, ApplyError> {
        let mut batch = self.session.batch();
        push_all(&mut batch, statements)?;
        let outcomes = batch.run().await;
        outcomes.map_err(|failed| ApplyError::target(failed.error, None))
    }
}

/// Pushes statements whose failures belong to no table.
pub(in crate::apply) fn push_all<'p>(
    batch: &mut Batch<'_>,
    statements: impl IntoIterator<Item = &'p Prepared>,
) -> Result<(), ApplyError> {
    for (sql, parameters) in statements {
        let parameters: Vec<_> = parameters.iter().map(|p| Some(p.as_bytes())).collect();
        let pushed = batch.push(&(*sql).into(), &parameters);
        pushed.map_err(|source| ApplyError::target(source, None))?;
    }
    Ok(())
}

/// The last piece of a transaction that wrote rows.
fn wrote(piece: &Piece) -> bool {
    piece.end.is_some() && piece.changes.iter().any(Change::is_data)
}

pub(in crate::apply) fn newest(pieces: &[Piece]) -> CommitTime {
    pieces
        .iter()
        .map(|piece| piece.header.commit_time)
        .max()
        .unwrap_or_default()
}
