//! One target transaction: open, write, check, move the position, commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::ApplyError;
use super::fetch::Fetcher;
use super::floors::Floors;
use super::group::{GroupBuilder, Segment, Stamp};
use super::origins::Origins;
use super::overtaken::Inserted;
use super::record::Ledger;
use super::tables::Tables;
use super::target::{Sql, Target};
use crate::assemble::{Change, Piece, TxEnd};
use crate::commit_time::CommitTime;
use crate::conflict::{Marker, RECORDED_PER_MINUTE, Seen, delete_clock};
use crate::failpoint::failpoint;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::relation::Relation;
use crate::wire::{Batch, Session};

/// Opens a target transaction, whatever the server's defaults are.
const BEGIN: &str = "begin isolation level read committed read write";

/// A statement with its parameters as text.
type Prepared = (&'static str, Vec<String>);

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

/// The statements that open a target transaction, when it is not open yet.
pub(super) struct Opening(Option<[(Sql, Option<String>); 2]>);

impl Opening {
    /// Pushes them; returns how many.
    pub(super) fn push(&self, batch: &mut Batch<'_>) -> Result<usize, ApplyError> {
        let statements = self.0.as_ref().map_or(&[][..], |list| list.as_slice());
        for (sql, parameter) in statements {
            let parameters: Vec<_> = parameter.iter().map(|text| Some(text.as_bytes())).collect();
            batch
                .push(sql, &parameters)
                .map_err(|source| ApplyError::target(source, None))?;
        }
        Ok(statements.len())
    }
}

/// Writes one link's changes to its target.
///
/// Not cancel-safe: a call that is dropped half-way leaves a transaction open on the session, so
/// drop the applier with it (the server rolls back).
pub struct Applier {
    pub(super) session: Session,
    pub(super) catalog: Arc<tokio_postgres::Client>,
    pub(super) fetcher: Fetcher,
    pub(super) tables: Tables,
    pub(super) origins: Origins,
    pub(super) source: NodeName,
    pub(super) counts: Counts,
    pub(super) floors: Floors,
    pub(super) ledger: Ledger,
    pub(super) inserted: Vec<Inserted>,
    /// Tables in which the open transaction alone makes shadows.
    pub(super) locked: BTreeSet<u32>,
    /// The newest commit time in the transaction being written.
    newest: CommitTime,
    /// What the source's transaction in hand has said of its clock.
    delete_clock: Option<i64>,
    is_open: bool,
}

impl Applier {
    /// `session` holds the link's replication origin; `catalog` is another connection to the
    /// target.
    pub fn new(
        session: Session,
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
            newest: CommitTime::default(),
            delete_clock: None,
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
        self.newest = piece.header.commit_time;
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
        for segment in self.segments(pieces).await? {
            match segment {
                Segment::Rows(entries) => self.write_rows(&entries).await?,
                Segment::Truncate(targets, stamp) => self.truncate(&targets, &stamp).await?,
            }
        }
        self.count(pieces);
        Ok(())
    }

    async fn segments(&mut self, pieces: &[Piece]) -> Result<Vec<Segment>, ApplyError> {
        let mut group = GroupBuilder::default();
        for piece in pieces {
            for (index, change) in piece.changes.iter().enumerate() {
                let stamp = self.stamp_of(piece, index);
                if let Change::Truncate { relations, .. } = change {
                    group.truncate(self.targets(relations).await?, stamp);
                } else if let Some(relation) = change.relation() {
                    let target = self.target(relation).await?;
                    group.row(change, &target, &stamp)?;
                }
            }
        }
        Ok(group.finish())
    }

    /// When the change at `index` was made, and what its source had seen by then. Every change must
    /// be asked for, in order.
    pub(super) fn stamp_of(&mut self, piece: &Piece, index: usize) -> Stamp {
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

    fn count(&mut self, pieces: &[Piece]) {
        let rows = |piece: &Piece| piece.changes.iter().filter(|c| c.is_data()).count() as u64;
        self.counts.rows += pieces.iter().map(rows).sum::<u64>();
        self.counts.transactions += pieces.iter().filter(|piece| wrote(piece)).count() as u64;
    }

    pub(super) async fn target(
        &mut self,
        relation: &Arc<Relation>,
    ) -> Result<Arc<Target>, ApplyError> {
        self.tables.target(&self.catalog, relation).await
    }

    pub(super) async fn targets(
        &mut self,
        relations: &[Arc<Relation>],
    ) -> Result<Vec<Arc<Target>>, ApplyError> {
        let mut targets = Vec::with_capacity(relations.len());
        for relation in relations {
            targets.push(self.target(relation).await?);
        }
        Ok(targets)
    }

    /// What must be sent before the first change: `begin`, and the clock rule (see `conflict`).
    pub(super) fn opening(&self) -> Opening {
        Opening((!self.is_open).then(|| {
            [
                (BEGIN.into(), None),
                (
                    "select mmrepl.require_clock($1)".into(),
                    Some(self.newest.to_string()),
                ),
            ]
        }))
    }

    /// The opening statements have gone through.
    pub(super) fn opened(&mut self) {
        self.is_open = true;
    }

    /// Opens the transaction in a round trip of its own.
    pub(super) async fn open(&mut self) -> Result<(), ApplyError> {
        if self.is_open {
            return Ok(());
        }
        let opening = self.opening();
        let mut batch = self.session.batch();
        opening.push(&mut batch)?;
        batch
            .run()
            .await
            .map_err(|failed| ApplyError::target(failed.error, None))?;
        self.opened();
        Ok(())
    }

    /// Counts what was not recorded, moves the position, leaves the marker, stamps the transaction
    /// with the source's commit time (all in `mmrepl.finish`) and commits.
    async fn commit(&mut self, end: TxEnd, seen: &Seen) -> Result<Committed, ApplyError> {
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
        let marker = Marker {
            cluster: self.origins.cluster().clone(),
            node: self.source.clone(),
            commit_lsn: end.commit_lsn,
            time: self.newest,
        };
        statements.push((
            "select mmrepl.finish($1, $2, $3, $4, $5, $6, $7)",
            vec![
                self.source.to_string(),
                end.commit_lsn.to_string(),
                end.end_lsn.to_string(),
                self.newest.to_string(),
                seen.to_string(),
                self.origins.session_origin(),
                marker.to_string(),
            ],
        ));
        let committed = self.commit_with(statements, end.end_lsn).await?;
        self.is_open = false;
        self.locked.clear();
        failpoint("after_commit");
        Ok(committed)
    }

    /// Runs what is left to do before a commit, commits, and asks where the target's WAL is.
    async fn commit_with(
        &mut self,
        mut statements: Vec<Prepared>,
        source_end: Lsn,
    ) -> Result<Committed, ApplyError> {
        statements.extend([
            ("commit", vec![]),
            ("select pg_current_wal_insert_lsn()::text", vec![]),
            ("select pg_current_wal_flush_lsn()::text", vec![]),
        ]);
        let answers = self.run_all(&statements).await?;
        let position = |back: usize| answers.iter().rev().nth(back).copied().unwrap_or_default();
        Ok(Committed {
            source_end,
            target_written: position(1),
            target_flushed: position(0),
        })
    }

    /// Moves the position past WAL that holds nothing for this link, so that it can be recycled.
    pub async fn advance(&mut self, end: Lsn, seen: &Seen) -> Result<Committed, ApplyError> {
        let parameters = vec![self.source.to_string(), end.to_string(), seen.to_string()];
        let statements: Vec<Prepared> = vec![
            (BEGIN, vec![]),
            ("select pg_replication_origin_xact_reset()", vec![]),
            (
                "select mmrepl.advance_position($1, $2, $2, null, $3)",
                parameters,
            ),
        ];
        self.commit_with(statements, end).await
    }

    /// How far the target's WAL is flushed now.
    pub async fn flushed(&mut self) -> Result<Lsn, ApplyError> {
        let answers = self
            .run_all(&[("select pg_current_wal_flush_lsn()::text", Vec::new())])
            .await?;
        Ok(answers[0])
    }

    /// Gives up the open transaction, so that the session can be used again.
    ///
    /// A failure between leaving the origin for the marker and taking it again must not leave the
    /// session without: what it then wrote would count as written on the target.
    pub async fn rollback(&mut self) -> Result<(), ApplyError> {
        self.inserted.clear();
        self.locked.clear();
        self.ledger.forget();
        self.counts = Counts::default();
        let origin = self.origins.session_origin();
        let reset = format!(
            "rollback; select pg_catalog.pg_replication_origin_xact_reset(); \
             select pg_catalog.pg_replication_origin_session_setup('{origin}') \
             where not pg_catalog.pg_replication_origin_session_is_setup()"
        );
        let done = self.session.simple(&reset).await;
        self.is_open = false;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// Runs statements in one round trip; each answer that is a WAL position is returned as one.
    async fn run_all(&mut self, statements: &[Prepared]) -> Result<Vec<Lsn>, ApplyError> {
        let failed = |source| ApplyError::target(source, None);
        let mut batch = self.session.batch();
        for (sql, parameters) in statements {
            let parameters: Vec<_> = parameters.iter().map(|p| Some(p.as_bytes())).collect();
            batch.push(&(*sql).into(), &parameters).map_err(failed)?;
        }
        let outcomes = batch.run().await.map_err(|error| failed(error.error))?;
        let lsn = |value: Option<bytes::Bytes>| -> Option<Lsn> {
            std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
        };
        let first = |outcome: &crate::wire::Outcome| {
            outcome
                .rows
                .first()
                .and_then(|row| row.first().cloned().flatten())
        };
        Ok(outcomes
            .iter()
            .map(|outcome| lsn(first(outcome)).unwrap_or_default())
            .collect())
    }
}

/// The last piece of a transaction that wrote rows.
fn wrote(piece: &Piece) -> bool {
    piece.end.is_some() && piece.changes.iter().any(Change::is_data)
}

fn newest(pieces: &[Piece]) -> CommitTime {
    pieces
        .iter()
        .map(|piece| piece.header.commit_time)
        .max()
        .unwrap_or_default()
}
