//! Keys that were inserted while somebody deleted them: found before the commit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::send::transaction::Applier;
use crate::apply::settle::inserted::Inserted;
use crate::apply::settle::record::Record;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::refuse::push_question;
use crate::commit_time::CommitTime;
use crate::conflict::{Held, Rank, Verdict, Version};
use crate::wire::{Outcome, WireError};

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
    pub(in crate::apply) fn note_inserted<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a RowChange>,
    ) {
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
    pub(in crate::apply) async fn refuse_deleted(
        &mut self,
        fresh: &[&RowChange],
    ) -> Result<(), ApplyError> {
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
            let floors = self.floors.arrays(rows.iter().map(|row| {
                let seen = row.unseen.map_or(&nothing, |change| &change.seen);
                (row.time, seen)
            }));
            let Some(target) = rows.first().map(|row| row.target) else {
                continue;
            };
            let keys = rows.iter().map(|row| row.key);
            push_question(
                &mut batch,
                (target, target.sql(Statement::DeletesAbove)),
                &keys,
                floors,
            )?;
        }
        let outcomes = batch.run().await;
        outcomes.map_err(|failed| ApplyError::target(failed.error, None))
    }

    /// What the deletes found mean for the keys. Gives back those that merge with what was deleted.
    fn judge<'a>(
        &mut self,
        rows: &[Candidate<'a>],
        outcome: &Outcome,
        records: &mut Vec<(Cow<'a, RowChange>, Record)>,
    ) -> Result<Vec<&'a RowChange>, ApplyError> {
        let mut merging: Vec<&RowChange> = Vec::new();
        for found in 0..outcome.rows.len() {
            let column = |column| outcome.text(found, column).map(str::as_bytes);
            let what = "which key was deleted";
            let row = outcome.get::<usize>(found, 0, what).and_then(|number| {
                let row = rows.get(number.wrapping_sub(1));
                row.ok_or(WireError::Unreadable { what })
            });
            let failed = |source| ApplyError::target(source, None);
            let row = row.map_err(failed)?;
            let held = Held {
                rank: Rank::read(column(3)),
                version: self.origins.version(column(1), column(2)).map_err(failed)?,
            };
            let wins = self.wins_over(&held, (row.target, row.time), row.rank);
            let merges = row.target.versions().merging().is_some();
            if !wins && !merges {
                return Err(ApplyError::Overtaken);
            }
            let there = |change: &&RowChange| merging.iter().any(|there| there.key == change.key);
            merging.extend(row.unseen.filter(|change| merges && !there(change)));
            let known = |change: &&RowChange| records.iter().any(|(c, _)| c.key == change.key);
            if let Some(change) = row.unseen.filter(|change| !known(change)) {
                records.extend(self.records_over(change, &held));
            }
        }
        Ok(merging)
    }

    /// Whether a write of the source, made at `time`, wins over what the target held.
    fn wins_over(
        &self,
        held: &Held,
        (target, time): (&Target, CommitTime),
        rank: Option<&Rank>,
    ) -> bool {
        let node = self.source.clone();
        Version { time, node }.wins_over(rank, held, target.versions().tie())
    }

    /// The records of an insert over a delete that the source did not know: of each of its writes,
    /// up to the one that won.
    fn records_over<'a>(
        &mut self,
        change: &'a RowChange,
        held: &Held,
    ) -> Vec<(Cow<'a, RowChange>, Record)> {
        let mut records = Vec::new();
        let Some(delete) = &held.version else {
            return records;
        };
        let target = &change.target;
        let merges = target.versions().merging().is_some();
        let writes = if merges {
            vec![Cow::Borrowed(change)]
        } else {
            change.one_by_one()
        };
        for write in writes {
            let wins = self.wins_over(held, (target, write.since), write.rank.as_ref());
            if delete.node != self.source && !write.seen.includes(delete) {
                self.counts.conflicts += 1;
                if self.ledger.take(target) {
                    let verdict = if wins {
                        Verdict::Apply
                    } else {
                        Verdict::Discard
                    };
                    let rival = (delete, held.rank.as_ref());
                    let record = Record::new(&write, verdict, rival, false);
                    records.push((write, record));
                }
            }
            if wins {
                break;
            }
        }
        records
    }

    async fn write_records(
        &mut self,
        records: &[(Cow<'_, RowChange>, Record)],
    ) -> Result<(), ApplyError> {
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
