//! Settling keys of tables whose rows merge: lock, look at all of it, join, write.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::plan::decide::{Decision, decide};
use crate::apply::send::transaction::Applier;
use crate::apply::settle::ordered::{Act, failed};
use crate::apply::shape::merging::{Grave, Kept, Merged};
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql::merging::ROW_COLUMNS;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::push::keyed;
use crate::conflict::Local;
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Outcome, WireError};

/// What was found for a key: versions, values.
type Found = (Local, Kept);

impl Applier {
    /// Joins each change with what the target has for its key. No key comes twice.
    pub(in crate::apply) async fn settle_merging(
        &mut self,
        rows: &[&RowChange],
    ) -> Result<(), ApplyError> {
        if rows.is_empty() {
            return Ok(());
        }
        let inserted = self.join_rows(rows).await?;
        if !inserted.is_empty() {
            // An insert may have waited for a delete of the key; its tombstone is visible now.
            self.join_rows(&inserted).await?;
        }
        Ok(())
    }

    /// Gives back what was inserted.
    async fn join_rows<'a>(
        &mut self,
        rows: &[&'a RowChange],
    ) -> Result<Vec<&'a RowChange>, ApplyError> {
        let mut found = self.look_whole(rows).await?;
        let looked = rows
            .iter()
            .copied()
            .zip(found.iter().map(|(local, _)| local));
        if self.wait_for_inserts(looked).await? {
            found = self.look_whole(rows).await?;
        }
        let (mut settled, mut inserted) = (Vec::with_capacity(rows.len()), Vec::new());
        for (row, (local, kept)) in rows.iter().zip(&found) {
            let merging = row.target.versions().merging();
            let change = self.whole_change(row).await?;
            let Some((merging, change)) = merging.zip(change) else {
                continue;
            };
            let wins = decide(row, local, &self.source) != Decision::Discard;
            let (merged, verdict) = merging.merge(&change.op, change.rank.as_ref(), kept, wins);
            let record = self.record(row, local, verdict).await;
            let act = act_of(row, merged);
            if matches!(act, Some(Act::Insert(_))) {
                inserted.push(*row);
            }
            settled.push((*row, record, act));
        }
        self.carry_out(&settled).await.map(|()| inserted)
    }

    /// The change with all values. Nothing where the source has deleted the row since: that delete
    /// is on its way.
    async fn whole_change(&mut self, row: &RowChange) -> Result<Option<RowChange>, ApplyError> {
        let RowOp::Put(put) = &row.op else {
            return Ok(Some(row.clone()));
        };
        let map = &row.target.map;
        let completed = self.fetcher.complete(map, &row.key, put).await?;
        Ok(completed.map(|values| RowChange {
            op: RowOp::Put(Put {
                values,
                ..put.clone()
            }),
            ..row.clone()
        }))
    }

    async fn look_whole(&mut self, rows: &[&RowChange]) -> Result<Vec<Found>, ApplyError> {
        let mut batch = self.session.batch();
        for row in rows {
            let key = keyed(row);
            for statement in [Statement::LockRow, Statement::Tombstones] {
                batch
                    .push(row.target.sql(statement), &key)
                    .map_err(|source| failed(row, source))?;
            }
        }
        let outcomes = batch.run().await.map_err(|error| {
            let row = error.index.and_then(|index| rows.get(index / 2));
            ApplyError::target(error.error, row.map(|row| row.target.map.label()))
        })?;
        let found = rows.iter().zip(outcomes.chunks(2));
        let found = found.map(|(row, pair)| {
            let kept = kept(&row.target, pair).map_err(|source| failed(row, source))?;
            Ok((self.local(row, pair)?, kept))
        });
        found.collect()
    }
}

fn act_of(row: &RowChange, merged: Merged) -> Option<Act> {
    let put = |values| Put {
        values,
        insert: false,
        moved: false,
    };
    match merged {
        Merged::Nothing => None,
        Merged::Insert(values) => Some(Act::Insert(values)),
        Merged::Update {
            changed,
            row: whole,
        } => Some(if sets_identity(row, &changed) {
            Act::Exchange(whole)
        } else {
            Act::Overwrite(put(changed))
        }),
        Merged::Delete(grave) => Some(Act::Bury(grave)),
        Merged::Remember(grave) => Some(Act::Remember(grave)),
    }
}

/// True when a value changes that only an insert may set.
fn sets_identity(row: &RowChange, changed: &Tuple) -> bool {
    let mut columns = row.target.map.columns.iter().zip(changed.0.iter());
    columns.any(|(column, value)| {
        column.identity_always && !column.in_key && *value != Value::Unchanged
    })
}

/// What a tombstone of a row that merges holds beside the version.
const IMAGE: &str = "the columns that a tombstone remembers";

/// The row and the tombstone as the target's statements told them.
fn kept(target: &Target, outcomes: &[Outcome]) -> Result<Kept, WireError> {
    let row = outcomes.first().and_then(|outcome| outcome.rows.first());
    let value = |value: &Option<bytes::Bytes>| {
        let copied = value.as_deref().map(bytes::Bytes::copy_from_slice);
        copied.map_or(Value::Null, Value::Text)
    };
    let row = row.map(|row| Tuple(row[ROW_COLUMNS..].iter().map(value).collect()));
    let grave = outcomes.get(1).filter(|outcome| !outcome.rows.is_empty());
    let grave = grave.map(|outcome| grave_of(target, outcome)).transpose()?;
    Ok(Kept { row, grave })
}

fn grave_of(target: &Target, outcome: &Outcome) -> Result<Grave, WireError> {
    let (mut rank, mut image) = (None, None);
    for row in 0..outcome.rows.len() {
        rank = rank.max(outcome.optional(row, 2, "the version of a tombstone")?);
        let there: Option<String> = outcome.optional(row, 3, IMAGE)?;
        image = image.or(there);
    }
    let image = image.map(|image| image_of(target, &image)).transpose()?;
    Ok(Grave { rank, image })
}

/// The row of a tombstone, in the order of the source's columns.
fn image_of(target: &Target, image: &str) -> Result<Tuple, WireError> {
    let list: Result<Vec<Option<String>>, _> = serde_json::from_str(image);
    let list = list.map_err(|_| WireError::Unreadable { what: IMAGE })?;
    let columns = target.map.columns.iter().map(|column| {
        let mut pairs = list.chunks(2);
        let pair = pairs.find(|pair| pair[0].as_deref() == Some(&column.name))?;
        pair.get(1).cloned().flatten()
    });
    let value = |value: Option<String>| value.map_or(Value::Null, |text| Value::Text(text.into()));
    Ok(Tuple(columns.map(value).collect()))
}
