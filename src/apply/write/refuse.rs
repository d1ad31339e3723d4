//! Pushes what refuses a batch where a key was deleted or inserted meanwhile, and the lock that
//! keeps other links' deletes away from inserts.

use crate::apply::encode::params::text_array;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::target::statement::{Sql, Statement, Target};
use crate::apply::write::floors::Floors;
use crate::wire::{Batch, WireError};

/// Pushes the question whether rows of one table that are inserted were deleted later, or without
/// the source's knowledge, failing where any such delete is found.
pub(in crate::apply) fn push_refusal(
    batch: &mut Batch<'_>,
    floors: &mut Floors,
    rows: &[&RowChange],
) -> Result<(), ApplyError> {
    let Some(target) = rows.first().map(|row| &row.target) else {
        return Ok(());
    };
    let floors = floors.arrays(rows.iter().map(|row| (row.since, &row.seen)));
    let sql = target.finding_none(target.sql(Statement::DeletesAbove));
    let keys = rows.iter().map(|row| &row.key);
    push_question(batch, (target, &sql), &keys, floors)
}

/// Pushes the question whether there are rows of one table that are to be none, failing where any
/// is found.
pub(in crate::apply) fn push_refusal_of_rows(
    batch: &mut Batch<'_>,
    rows: &[&RowChange],
) -> Result<(), ApplyError> {
    let Some(target) = rows.first().map(|row| &row.target) else {
        return Ok(());
    };
    let sql = target.finding_none(target.sql(Statement::StillThere));
    let keys = rows.iter().map(|row| &row.key);
    push_question(batch, (target, &sql), &keys, Vec::new())
}

pub(in crate::apply) fn push_question<'a>(
    batch: &mut Batch<'_>,
    (target, sql): (&Target, &Sql),
    keys: &(impl Iterator<Item = &'a KeyValues> + Clone),
    floors: Vec<Vec<u8>>,
) -> Result<(), ApplyError> {
    let columns = keys.clone().next().map_or(0, Vec::len);
    let column = |index: usize| text_array(keys.clone().map(move |key| Some(key[index].as_ref())));
    let arrays: Vec<Vec<u8>> = (0..columns).map(column).chain(floors).collect();
    batch
        .push_binary(sql, &arrays)
        .map_err(|source| ApplyError::target(source, Some(target.map.label())))
}

/// First half of the advisory locks' keys ("mmrp"); the second is the table's OID on the target.
const LOCK_CLASS: i32 = 0x6d6d_7270;

/// Two-key advisory locks have signed halves; an OID is none.
pub(in crate::apply) fn lock(function: &str, oid: u32) -> Sql {
    let key = i32::from_ne_bytes(oid.to_ne_bytes());
    format!("select pg_catalog.{function}({LOCK_CLASS}, {key})").into()
}

/// Pushes the lock for inserts into `target`, where other links may write it too. Gives how many
/// statements that took.
pub(in crate::apply) fn push_insert_lock(
    batch: &mut Batch<'_>,
    target: &Target,
) -> Result<usize, WireError> {
    if target.guard().pair {
        return Ok(0);
    }
    batch.push(
        &lock("pg_advisory_xact_lock_shared", target.map.table.oid),
        &[],
    )?;
    Ok(1)
}
