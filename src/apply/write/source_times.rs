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
//! In a table without a key the text of the whole row stands for it: only a truncate asks. (Of
//! equal rows that are applied together all then count as written when the last one was.)
//!
//! Some changes are not grouped here (`Applier::goes_apart`): truncates, rows that cannot be told
//! apart, and rules that know no order.
//!
//! Housekeeping forgets the times once nothing can arrive any more that was written before them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apply::encode::params::{text_array, time_array};
use crate::apply::error::ApplyError;
use crate::apply::plan::change::Entry;
use crate::apply::sql::source_times::types_of;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::push::written;
use crate::commit_time::CommitTime;
use crate::wire::Batch;

/// What tells a row from others, as texts, and when it was written.
type KeptRow<'a> = (Vec<Option<&'a [u8]>>, CommitTime);

/// The rows of one table whose times are kept.
struct TimesOfTable<'a> {
    target: &'a Arc<Target>,
    rows: Vec<KeptRow<'a>>,
}

/// The table and the row that an entry leaves there, or the key that it leaves a tombstone for.
fn row_of(entry: &Entry) -> Option<(&Arc<Target>, KeptRow<'_>)> {
    match entry {
        Entry::Row(row) => {
            let key = row.key.iter().map(|value| Some(value.as_ref())).collect();
            Some((&row.target, (key, row.time)))
        }
        Entry::WholeRow(row) => {
            let values = written(&row.target, row.new.as_ref()?);
            Some((&row.target, (values, row.time)))
        }
    }
}

/// What must be kept of segments that are stamped with `stamp`, by table. Of several writes of a
/// key the last one comes first, which is where it is looked for.
fn kept<'a>(segments: &[&'a [Entry]], stamp: CommitTime) -> Vec<TimesOfTable<'a>> {
    let mut tables: Vec<TimesOfTable<'a>> = Vec::new();
    let mut places: HashMap<u32, usize> = HashMap::new();
    for entry in segments
        .iter()
        .rev()
        .flat_map(|entries| entries.iter().rev())
    {
        let Some((target, row)) = row_of(entry) else {
            continue;
        };
        if row.1 == stamp && segments.len() == 1 && target.map.key.is_some() {
            continue;
        }
        let place = *places.entry(target.map.table.oid).or_insert_with(|| {
            let rows = Vec::new();
            tables.push(TimesOfTable { target, rows });
            tables.len() - 1
        });
        tables[place].rows.push(row);
    }
    tables
}

/// Pushes what keeps the times of rows in a transaction that is stamped with `stamp`.
pub(in crate::apply) fn push_source_times(
    batch: &mut Batch<'_>,
    segments: &[&[Entry]],
    stamp: CommitTime,
) -> Result<(), ApplyError> {
    for TimesOfTable { target, rows } in kept(segments, stamp) {
        let columns = types_of(&target.map).len();
        let column = |index: usize| text_array(rows.iter().map(|(values, _)| values[index]));
        let mut arrays: Vec<Vec<u8>> = (0..columns).map(column).collect();
        arrays.push(time_array(rows.iter().map(|(_, time)| *time)));
        let pushed = batch.push_binary(target.sql(Statement::SourceTimes), &arrays);
        pushed.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
    }
    Ok(())
}
