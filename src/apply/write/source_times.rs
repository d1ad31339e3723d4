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
use std::fmt::Write as _;
use std::sync::Arc;

use crate::apply::encode::params::{text_array, time_array};
use crate::apply::error::ApplyError;
use crate::apply::plan::group::Entry;
use crate::apply::send::transaction::Applier;
use crate::apply::shape::mapping::TableMap;
use crate::apply::sql::one_row::row_text;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::push::written;
use crate::assemble::{Change, Piece};
use crate::catalog::key_text::key_expression;
use crate::catalog::position::Witness;
use crate::commit_time::CommitTime;
use crate::conflict::Tie;
use crate::wire::Batch;

/// Keeps the times of rows of one table. Parameters: one text array per column of the key, or per
/// written column where there is none; the times.
///
/// The number of a transaction long ago may come round again.
pub(in crate::apply) fn keep(map: &TableMap) -> String {
    let types = types_of(map);
    let (mut arrays, mut names) = (String::new(), String::new());
    for position in 1..=types.len() {
        let _ = write!(arrays, "${position}::text[], ");
        let _ = write!(names, "k{position}, ");
    }
    let value = |index: usize| format!("k.k{}::{}", index + 1, types[index]);
    let text = match &map.table.key {
        Some(key) => format!("({})::text", key_expression(key, |index, _| value(index))),
        None => row_text((0..types.len()).map(value)),
    };
    format!(
        "insert into mmrepl.source_time (xid, relation, keys, times) \
         select pg_current_xact_id()::xid::text::int8, {}, \
         array_agg(hashtextextended({text} collate \"C\", 0)), array_agg(k.at) \
         from unnest({arrays}${}::timestamptz[]) k({names}at) \
         on conflict (xid, relation) do update set keys = excluded.keys, times = excluded.times, \
         left_at = excluded.left_at",
        map.table.oid,
        types.len() + 1,
    )
}

/// The types of what tells a row of the table from others.
fn types_of(map: &TableMap) -> Vec<&str> {
    match &map.table.key {
        Some(key) => key.columns.iter().map(|c| c.type_name.as_str()).collect(),
        None => map
            .written()
            .map(|index| map.columns[index].type_name.as_str())
            .collect(),
    }
}

/// What tells a row from others, as texts, and when it was written.
type KeptRow<'a> = (Vec<Option<&'a [u8]>>, CommitTime);

/// The rows of one table whose times are kept.
struct Kept<'a> {
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
fn kept<'a>(segments: &[&'a [Entry]], stamp: CommitTime) -> Vec<Kept<'a>> {
    let mut tables: Vec<Kept<'a>> = Vec::new();
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
            tables.push(Kept { target, rows });
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
    for Kept { target, rows } in kept(segments, stamp) {
        let columns = types_of(&target.map).len();
        let column = |index: usize| text_array(rows.iter().map(|(values, _)| values[index]));
        let mut arrays: Vec<Vec<u8>> = (0..columns).map(column).collect();
        arrays.push(time_array(rows.iter().map(|(_, time)| *time)));
        let pushed = batch.push_binary(target.sql(Statement::SourceTimes), &arrays);
        pushed.map_err(|source| ApplyError::target(source, Some(target.map.label())))?;
    }
    Ok(())
}

impl Applier {
    /// Whether somebody may ask when the rows of these transactions were written, if they are
    /// applied together.
    pub(in crate::apply) fn keeps_times(&self, pieces: &[Piece]) -> bool {
        pieces.len() > 1 && !self.origins.is_pair()
    }

    /// Whether each of these transactions must be a target transaction of its own.
    pub async fn goes_apart(&mut self, pieces: &[Piece]) -> Result<bool, ApplyError> {
        if !self.keeps_times(pieces) {
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
    pub(in crate::apply) async fn keep_source_times(
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

/// Of two writes of a row one is the newer, and there is a place to say so.
fn has_order(target: &Target) -> bool {
    let (map, versions) = (&target.map, target.versions());
    let castable = |index: usize| {
        let column = map.table.column(&map.columns[index].name);
        column.is_some_and(|column| column.cast_type.is_some())
    };
    let told_apart = map.key.is_some() || map.written().all(castable);
    told_apart && versions.merging().is_none() && versions.tie() != Tie::Known
}

/// The last transaction of these, which shows later that the source still has all of them.
pub(in crate::apply) fn witness(pieces: &[Piece]) -> Witness {
    let last = pieces.last().map(|piece| piece.header);
    last.map_or_else(Witness::default, |header| Witness {
        xid: header.xid,
        time: header.kept_time,
    })
}
