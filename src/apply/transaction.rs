//! One target transaction: open, write, check, move the position, commit.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ApplyError;
use super::fetch::Fetcher;
use super::group::{GroupBuilder, RowChange, Segment};
use super::mapping::KeyValues;
use super::origins::Origins;
use super::params::array_literal;
use super::tables::Tables;
use super::target::{Sql, Statement, Target};
use crate::assemble::{Change, Piece, TxEnd};
use crate::commit_time::CommitTime;
use crate::failpoint::failpoint;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::relation::Relation;
use crate::wire::{Batch, Session};

/// Opens a target transaction, whatever the server's defaults are.
const BEGIN: &str = "begin isolation level read committed read write";

/// What has been written, for `status`; reset by `take_counts`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Source transactions with at least one row.
    pub transactions: u64,
    /// Source row changes.
    pub rows: u64,
    /// Changes that met a competing write.
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

/// A key that was inserted, and the commit time from which a delete of it was newer.
type Inserted = (Arc<Target>, KeyValues, CommitTime);

/// Formats commit times, remembering the last: rows of one transaction share theirs.
#[derive(Default)]
pub(super) struct CommitTimeText {
    last: Option<(CommitTime, String)>,
}

impl CommitTimeText {
    /// The time as a `timestamptz` literal.
    pub(super) fn text(&mut self, time: CommitTime) -> &str {
        if self.last.as_ref().is_none_or(|(last, _)| *last != time) {
            self.last = Some((time, time.to_string()));
        }
        self.last.as_ref().map_or("", |(_, text)| text)
    }
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
    inserted: Vec<Inserted>,
    /// The newest commit time in the transaction being written.
    newest: CommitTime,
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
            source: origins.source().clone(),
            session,
            catalog,
            fetcher,
            tables,
            origins,
            counts: Counts::default(),
            inserted: Vec::new(),
            newest: CommitTime::default(),
            is_open: false,
        }
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
        self.write_grouped(pieces).await?;
        self.commit(end).await.map(Some)
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
        if in_order {
            self.write_in_order(piece).await?;
            self.count(std::slice::from_ref(piece));
        } else {
            self.write_grouped(std::slice::from_ref(piece)).await?;
        }
        match piece.end {
            Some(end) => self.commit(end).await.map(Some),
            None => Ok(None),
        }
    }

    async fn write_grouped(&mut self, pieces: &[Piece]) -> Result<(), ApplyError> {
        for segment in self.segments(pieces).await? {
            match segment {
                Segment::Rows(entries) => self.write_rows(&entries).await?,
                Segment::Truncate(targets, time) => self.truncate(&targets, time).await?,
            }
        }
        self.count(pieces);
        Ok(())
    }

    async fn segments(&mut self, pieces: &[Piece]) -> Result<Vec<Segment>, ApplyError> {
        let mut group = GroupBuilder::default();
        for piece in pieces {
            let time = piece.header.commit_time;
            for change in &piece.changes {
                if let Change::Truncate { relations, .. } = change {
                    group.truncate(self.targets(relations).await?, time);
                } else if let Some(relation) = change.relation() {
                    let target = self.target(relation).await?;
                    group.row(change, &target, time)?;
                }
            }
        }
        Ok(group.finish())
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

    /// Remembers keys that were inserted, for `refuse_deleted`.
    pub(super) fn note_inserted<'a>(&mut self, rows: impl Iterator<Item = &'a RowChange>) {
        let noted = rows.map(|row| (Arc::clone(&row.target), row.key.clone(), row.since));
        self.inserted.extend(noted);
    }

    /// Makes sure that no key just inserted was deleted by a local transaction in between.
    ///
    /// An insert may have waited for a local delete of the same key to commit; that delete's
    /// tombstone is visible only to a statement that starts afterwards, which is this one.
    pub(super) async fn refuse_deleted(&mut self) -> Result<(), ApplyError> {
        let inserted = std::mem::take(&mut self.inserted);
        if inserted.is_empty() {
            return Ok(());
        }
        let mut by_table: HashMap<u32, Vec<&Inserted>> = HashMap::new();
        for row in &inserted {
            by_table.entry(row.0.map.table.oid).or_default().push(row);
        }
        let mut batch = self.session.batch();
        for rows in by_table.values() {
            push_refusal(&mut batch, rows)?;
        }
        batch
            .run()
            .await
            .map_err(|failed| ApplyError::target(failed.error, None))?;
        Ok(())
    }

    /// Moves the position, stamps the transaction with the source's commit time, commits.
    async fn commit(&mut self, end: TxEnd) -> Result<Committed, ApplyError> {
        self.open().await?;
        failpoint("after_apply");
        let (commit, ending) = (end.commit_lsn.to_string(), end.end_lsn.to_string());
        let (time, source) = (self.newest.to_string(), self.source.to_string());
        let text = |text: &'_ String| Some(text.as_bytes().to_vec());
        let statements: [(&str, Vec<Option<Vec<u8>>>); 5] = [
            (
                "select mmrepl.advance_position($1, $2, $3, $4)",
                vec![text(&source), text(&commit), text(&ending), text(&time)],
            ),
            (
                "select pg_replication_origin_xact_setup($1, $2)",
                vec![text(&commit), text(&time)],
            ),
            ("commit", vec![]),
            ("select pg_current_wal_insert_lsn()::text", vec![]),
            ("select pg_current_wal_flush_lsn()::text", vec![]),
        ];
        let answers = self.run_all(&statements).await?;
        self.is_open = false;
        failpoint("after_commit");
        Ok(Committed {
            source_end: end.end_lsn,
            target_written: answers[3],
            target_flushed: answers[4],
        })
    }

    /// Moves the position past WAL that holds nothing for this link, so that it can be recycled.
    pub async fn advance(&mut self, end: Lsn) -> Result<Committed, ApplyError> {
        let (source, ending) = (self.source.to_string(), end.to_string());
        let text = |text: &'_ String| Some(text.as_bytes().to_vec());
        let statements: [(&str, Vec<Option<Vec<u8>>>); 6] = [
            (BEGIN, vec![]),
            ("select pg_replication_origin_xact_reset()", vec![]),
            (
                "select mmrepl.advance_position($1, $2, $3, null)",
                vec![text(&source), text(&ending), text(&ending)],
            ),
            ("commit", vec![]),
            ("select pg_current_wal_insert_lsn()::text", vec![]),
            ("select pg_current_wal_flush_lsn()::text", vec![]),
        ];
        let answers = self.run_all(&statements).await?;
        Ok(Committed {
            source_end: end,
            target_written: answers[4],
            target_flushed: answers[5],
        })
    }

    /// How far the target's WAL is flushed now.
    pub async fn flushed(&mut self) -> Result<Lsn, ApplyError> {
        let answers = self
            .run_all(&[("select pg_current_wal_flush_lsn()::text", vec![])])
            .await?;
        Ok(answers[0])
    }

    /// Gives up the open transaction, so that the session can be used again.
    pub async fn rollback(&mut self) -> Result<(), ApplyError> {
        self.inserted.clear();
        self.counts = Counts::default();
        let reset = "rollback; select pg_catalog.pg_replication_origin_xact_reset()";
        let done = self.session.simple(reset).await;
        self.is_open = false;
        done.map(drop)
            .map_err(|source| ApplyError::target(source, None))
    }

    /// Runs statements in one round trip; each answer that is a WAL position is returned as one.
    async fn run_all(
        &mut self,
        statements: &[(&str, Vec<Option<Vec<u8>>>)],
    ) -> Result<Vec<Lsn>, ApplyError> {
        let failed = |source| ApplyError::target(source, None);
        let mut batch = self.session.batch();
        for (sql, parameters) in statements {
            let parameters: Vec<_> = parameters.iter().map(Option::as_deref).collect();
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

fn push_refusal(batch: &mut Batch<'_>, rows: &[&Inserted]) -> Result<(), ApplyError> {
    let Some((target, first_key, _)) = rows.first() else {
        return Ok(());
    };
    let mut times = CommitTimeText::default();
    let column =
        |index: usize| array_literal(rows.iter().map(|(_, key, _)| Some(key[index].as_ref())));
    let mut arrays: Vec<Vec<u8>> = (0..first_key.len()).map(column).collect();
    let times: Vec<String> = rows
        .iter()
        .map(|row| times.text(row.2).to_owned())
        .collect();
    arrays.push(array_literal(
        times.iter().map(|time| Some(time.as_bytes())),
    ));
    let parameters: Vec<Option<&[u8]>> =
        arrays.iter().map(|array| Some(array.as_slice())).collect();
    batch
        .push(target.sql(Statement::RefuseDeleted), &parameters)
        .map_err(|source| ApplyError::target(source, Some(target.map.label())))
}
