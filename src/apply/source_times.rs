//! Transactions that share a target transaction in a cluster of three and more nodes: what keeps
//! the rows' own times.
//!
//! A target transaction has one commit time, and a group carries its members' newest. A row of an
//! earlier member then looks later than it is. Between two nodes that never matters: its source's
//! next write follows in the stream, and what the target writes comes after the group by the clock
//! rule. A third node may have written the row in between, though, and its write, arriving later,
//! must win. So the group also keeps, for each row with an earlier time, when that was
//! (`mmrepl.source_time`): one row per table, with hashes of the keys beside the times.
//!
//! Only looks need it. A guarded statement asks whether a row is older than the change, and the
//! group's time is never before the row's own: what it takes, it takes rightly, and what it does
//! not take is looked at (`Guard::time_of`).
//!
//! Some changes are not grouped here (`Applier::goes_apart`): truncates and rows without a key,
//! whose times have no place in that table, and rules that know no order.
//!
//! Housekeeping forgets the times once nothing can arrive any more that was written before them.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::error::ApplyError;
use super::group::{Entry, RowChange};
use super::mapping::TableMap;
use super::params::{text_array, time_array};
use super::sql::key_of;
use super::target::{Statement, Target};
use super::transaction::Applier;
use crate::assemble::{Change, Piece};
use crate::catalog::key_text::key_expression;
use crate::catalog::table::KeyColumn;
use crate::commit_time::CommitTime;
use crate::conflict::Tie;
use crate::wire::Batch;

/// Keeps the times of rows of one table. Parameters: one text array per key column, the times.
///
/// The number of a transaction long ago may come round again.
pub(super) fn keep(map: &TableMap) -> String {
    let keys = key_of(map);
    let (mut arrays, mut names) = (String::new(), String::new());
    for position in 1..=keys.len() {
        let _ = write!(arrays, "${position}::text[], ");
        let _ = write!(names, "k{position}, ");
    }
    let value =
        |index: usize, column: &KeyColumn| format!("k.k{}::{}", index + 1, column.type_name);
    let key = map.table.key.as_ref();
    let text = key.map_or_else(String::new, |key| key_expression(key, value));
    format!(
        "insert into mmrepl.source_time (xid, relation, keys, times) \
         select pg_current_xact_id()::xid::text::int8, {}, \
         array_agg(hashtextextended(({text})::text collate \"C\", 0)), array_agg(k.at) \
         from unnest({arrays}${}::timestamptz[]) k({names}at) \
         on conflict (xid, relation) do update set keys = excluded.keys, times = excluded.times, \
         left_at = excluded.left_at",
        map.table.oid,
        keys.len() + 1,
    )
}

/// The rows of one table whose times are kept, each key once.
struct Kept<'a> {
    target: &'a Arc<Target>,
    rows: Vec<&'a RowChange>,
}

/// What must be kept of segments that are stamped with `stamp`, by table.
fn kept<'a>(segments: &[&'a [Entry]], stamp: CommitTime) -> Vec<Kept<'a>> {
    let mut tables: Vec<Kept<'a>> = Vec::new();
    let mut places: HashMap<u32, usize> = HashMap::new();
    let mut known: HashSet<(u32, &[bytes::Bytes])> = HashSet::new();
    // A key's last write counts.
    for entry in segments.iter().rev().flat_map(|entries| entries.iter()) {
        let Some(row) = entry.row().filter(|row| !row.target.guard().pair) else {
            continue;
        };
        let oid = row.target.map.table.oid;
        if segments.len() > 1 && !known.insert((oid, &row.key)) {
            continue;
        }
        if row.time == stamp {
            continue;
        }
        let place = *places.entry(oid).or_insert_with(|| {
            tables.push(Kept {
                target: &row.target,
                rows: Vec::new(),
            });
            tables.len() - 1
        });
        tables[place].rows.push(row);
    }
    tables
}

/// Pushes what keeps the times of rows in a transaction that is stamped with `stamp`.
pub(super) fn push_source_times(
    batch: &mut Batch<'_>,
    segments: &[&[Entry]],
    stamp: CommitTime,
) -> Result<(), ApplyError> {
    for Kept { target, rows } in kept(segments, stamp) {
        let columns = key_of(&target.map).len();
        let column =
            |index: usize| text_array(rows.iter().map(|row| Some(row.key[index].as_ref())));
        let mut arrays: Vec<Vec<u8>> = (0..columns).map(column).collect();
        arrays.push(time_array(rows.iter().map(|row| row.time)));
        let pushed = batch.push_binary(target.sql(Statement::SourceTimes), &arrays);
        pushed.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
    }
    Ok(())
}

impl Applier {
    /// Whether each of these transactions must be a target transaction of its own.
    pub async fn goes_apart(&mut self, pieces: &[Piece]) -> Result<bool, ApplyError> {
        if pieces.len() < 2 || self.origins.is_pair() {
            return Ok(false);
        }
        let mut last = None;
        for change in pieces.iter().flat_map(|piece| &piece.changes) {
            if matches!(change, Change::Truncate { .. }) {
                return Ok(true);
            }
            let Some(relation) = change.relation() else {
                continue;
            };
            if last.is_some_and(|last| Arc::ptr_eq(last, relation)) {
                continue;
            }
            last = Some(relation);
            if !has_order(&*self.target(relation).await?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keeps the times of rows that were written step by step.
    pub(super) async fn keep_source_times(
        &mut self,
        segments: &[&[Entry]],
    ) -> Result<(), ApplyError> {
        let mut batch = self.session.batch();
        push_source_times(&mut batch, segments, self.newest)?;
        if batch.is_empty() {
            return Ok(());
        }
        let done = batch.run().await;
        done.map(drop)
            .map_err(|failed| ApplyError::target(failed.error, None))
    }
}

/// Of two writes of a key one is the newer, and the key has a place to say so.
fn has_order(target: &Target) -> bool {
    let versions = target.versions();
    target.map.key.is_some() && versions.merging().is_none() && versions.tie() != Tie::Known
}
