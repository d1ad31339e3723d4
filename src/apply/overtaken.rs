//! Keys that were inserted while somebody deleted them: found before the commit.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ApplyError;
use super::group::RowChange;
use super::mapping::KeyValues;
use super::params::array_literal;
use super::record::Record;
use super::target::{Statement, Target};
use super::transaction::Applier;
use crate::commit_time::CommitTime;
use crate::conflict::{Held, Rank, Verdict, Version};
use crate::wire::{Batch, Outcome};

/// A key that was inserted after a look at its tombstones, and the commit time from which a delete
/// of it was newer.
pub(super) struct Inserted {
    target: Arc<Target>,
    key: KeyValues,
    time: CommitTime,
    rank: Option<Rank>,
}

/// A key that was inserted.
struct Candidate<'a> {
    target: &'a Arc<Target>,
    key: &'a KeyValues,
    time: CommitTime,
    rank: Option<&'a Rank>,
    /// Set where nobody has looked at the key's tombstones yet.
    unseen: Option<&'a RowChange>,
}

impl Applier {
    /// Remembers keys that were inserted after a look, for `refuse_deleted`.
    pub(super) fn note_inserted<'a>(&mut self, rows: impl Iterator<Item = &'a RowChange>) {
        let merges = |row: &&RowChange| row.target.versions().merging().is_some();
        let noted = rows.filter(|row| !merges(row)).map(|row| Inserted {
            target: Arc::clone(&row.target),
            key: row.key.clone(),
            time: row.since,
            rank: row.rank.clone(),
        });
        self.inserted.extend(noted);
    }

    /// Makes sure that no key just inserted was deleted by a local transaction in between, and
    /// records inserts (`fresh`: taken without a look) over a delete that the source did not know.
    ///
    /// An insert may have waited for a local delete of the same key to commit; that delete's
    /// tombstone is visible only to a statement that starts afterwards, which is this one.
    pub(super) async fn refuse_deleted(&mut self, fresh: &[&RowChange]) -> Result<(), ApplyError> {
        let noted = std::mem::take(&mut self.inserted);
        let looked_at = noted.iter().map(|row| Candidate {
            target: &row.target,
            key: &row.key,
            time: row.time,
            rank: row.rank.as_ref(),
            unseen: None,
        });
        let fresh = fresh.iter().map(|row| Candidate {
            target: &row.target,
            key: &row.key,
            time: row.since,
            rank: row.rank.as_ref(),
            unseen: Some(row),
        });
        let mut by_table: HashMap<u32, Vec<Candidate<'_>>> = HashMap::new();
        for row in looked_at.chain(fresh) {
            let oid = row.target.map.table.oid;
            by_table.entry(oid).or_default().push(row);
        }
        if by_table.is_empty() {
            return Ok(());
        }
        let tables: Vec<Vec<Candidate<'_>>> = by_table.into_values().collect();
        let outcomes = self.deletes_above(&tables).await?;
        let (mut records, mut merging) = (Vec::new(), Vec::new());
        for (rows, outcome) in tables.iter().zip(&outcomes) {
            merging.extend(self.judge(rows, outcome, &mut records)?);
        }
        self.write_records(&records).await?;
        Box::pin(self.settle_merging(&merging)).await
    }

    async fn deletes_above(
        &mut self,
        tables: &[Vec<Candidate<'_>>],
    ) -> Result<Vec<Outcome>, ApplyError> {
        let nothing = Arc::default();
        let mut batch = self.session.batch();
        for rows in tables {
            let floors: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    let seen = row.unseen.map_or(&nothing, |change| &change.seen);
                    self.floors.texts(row.time, seen).to_vec()
                })
                .collect();
            push_question(&mut batch, rows, &floors)?;
        }
        let outcomes = batch.run().await;
        outcomes.map_err(|failed| ApplyError::target(failed.error, None))
    }

    /// What the deletes found mean for the keys. Gives back those that merge with what was deleted.
    fn judge<'a>(
        &mut self,
        rows: &[Candidate<'a>],
        outcome: &Outcome,
        records: &mut Vec<(&'a RowChange, Record)>,
    ) -> Result<Vec<&'a RowChange>, ApplyError> {
        let mut merging: Vec<&RowChange> = Vec::new();
        for found in 0..outcome.rows.len() {
            let column = |column| outcome.text(found, column).map(str::as_bytes);
            let index = outcome.text(found, 0).and_then(|n| n.parse::<usize>().ok());
            let row = index.and_then(|n| rows.get(n.wrapping_sub(1)));
            let Some(row) = row else { continue };
            let held = Held {
                rank: Rank::read(column(3)),
                version: self.origins.version(column(1), column(2)),
            };
            let insert = Version {
                time: row.time,
                node: self.source.clone(),
            };
            let wins = insert.wins_over(row.rank, &held, row.target.versions().tie());
            let merges = row.target.versions().merging().is_some();
            if !wins && !merges {
                return Err(ApplyError::Overtaken);
            }
            let there = |change: &&RowChange| merging.iter().any(|there| there.key == change.key);
            merging.extend(row.unseen.filter(|change| merges && !there(change)));
            let (Some(change), Some(delete)) = (row.unseen, held.version) else {
                continue;
            };
            if delete.node == self.source {
                continue;
            }
            if change.seen.includes(&delete) || records.iter().any(|(c, _)| c.key == change.key) {
                continue;
            }
            self.counts.conflicts += 1;
            if self.ledger.take(row.target) {
                let verdict = if wins {
                    Verdict::Apply
                } else {
                    Verdict::Discard
                };
                let record = Record::new(change, verdict, (&delete, held.rank.as_ref()), false);
                records.push((change, record));
            }
        }
        Ok(merging)
    }

    async fn write_records(&mut self, records: &[(&RowChange, Record)]) -> Result<(), ApplyError> {
        if records.is_empty() {
            return Ok(());
        }
        let nodes = (self.source.as_str(), self.origins.target().as_str());
        let failed = |source| ApplyError::target(source, None);
        let mut batch = self.session.batch();
        for (change, record) in records {
            Self::push_record(&mut batch, nodes, change, record).map_err(failed)?;
        }
        let done = batch.run().await;
        done.map_err(|error| failed(error.error)).map(drop)
    }
}

fn push_question(
    batch: &mut Batch<'_>,
    rows: &[Candidate<'_>],
    floors: &[Vec<String>],
) -> Result<(), ApplyError> {
    let (Some(first), Some(first_floors)) = (rows.first(), floors.first()) else {
        return Ok(());
    };
    let keys = (0..first.key.len())
        .map(|index| array_literal(rows.iter().map(|row| Some(row.key[index].as_ref()))));
    let times = (0..first_floors.len())
        .map(|index| array_literal(floors.iter().map(|row| Some(row[index].as_bytes()))));
    let arrays: Vec<Vec<u8>> = keys.chain(times).collect();
    let parameters: Vec<Option<&[u8]>> =
        arrays.iter().map(|array| Some(array.as_slice())).collect();
    let statement = first.target.sql(Statement::DeletesAbove);
    let label = || Some(first.target.map.label());
    batch
        .push(statement, &parameters)
        .map_err(|source| ApplyError::target(source, label()))
}
