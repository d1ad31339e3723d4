//! Conflict records: what is written to `mmrepl.conflict`, in the transaction that decides.

use std::sync::Arc;

use crate::apply::encode::params;
use crate::apply::encode::params::array_literal;
use crate::apply::error::ApplyError;
use crate::apply::plan::change::{RowChange, Stamp};
use crate::apply::send::transaction::Applier;
use crate::apply::shape::mapping::KeyValues;
use crate::apply::shape::op::RowOp;
use crate::apply::sql;
use crate::apply::target::statement::{Statement, Target};
use crate::apply::write::pending;
use crate::conflict::{Kind, Rank, Verdict, Version};
use crate::pgoutput::{Tuple, Value};
use crate::wire::{Batch, WireError};

/// A conflict to be recorded.
pub(in crate::apply) struct Record {
    pub kind: Kind,
    pub verdict: Verdict,
    /// The write on the target that the source did not know.
    pub rival: Version,
    /// The version that the rival has in its row.
    pub rank: Option<Rank>,
    /// The target held a row, not only the memory of a delete.
    pub met_row: bool,
    /// The incoming row, as far as it is known; nothing of a delete.
    pub row: Option<Tuple>,
    /// Whether a person decides.
    pub waits: bool,
    /// The key of the target's row, where it is another one.
    pub held: Option<KeyValues>,
}

impl Record {
    /// What `change` met: a row, or (`met_row` is false) the memory of a delete.
    pub(in crate::apply) fn new(
        change: &RowChange,
        verdict: Verdict,
        (rival, rank): (&Version, Option<&Rank>),
        met_row: bool,
    ) -> Self {
        let incoming = match &change.op {
            RowOp::Put(put) => Some(put.values.clone()),
            RowOp::Delete(_) => None,
        };
        Self {
            kind: Kind::of(change.made, met_row),
            verdict,
            met_row,
            rival: rival.clone(),
            rank: rank.cloned(),
            row: incoming,
            waits: false,
            held: None,
        }
    }

    /// What the row of `change` met under another key: a row with the same unique value.
    pub(in crate::apply) fn unique(
        row: Tuple,
        verdict: Verdict,
        (held, rival): (&KeyValues, &Version),
    ) -> Self {
        Self {
            kind: Kind::Unique,
            verdict,
            met_row: true,
            rival: rival.clone(),
            rank: None,
            row: Some(row),
            waits: false,
            held: Some(held.clone()),
        }
    }
}

impl Applier {
    /// Pushes the statement that records a conflict of `change`.
    pub(in crate::apply) fn push_record(
        batch: &mut Batch<'_>,
        (source, target): (&str, &str),
        change: &RowChange,
        record: &Record,
    ) -> Result<(), WireError> {
        let key = array_literal(change.key.iter().map(|value| Some(value.as_ref())));
        let (names, values) = record
            .row
            .as_ref()
            .map(|row| incoming_arrays(&change.target, row))
            .unzip();
        let (time, rival_time) = (change.time.to_string(), record.rival.time.to_string());
        let ranks = [&change.rank, &record.rank];
        let ranks = ranks.map(|rank| rank.as_ref().map(ToString::to_string));
        let mut parameters = vec![
            Some(source.as_bytes()),
            Some(target.as_bytes()),
            Some(key.as_slice()),
            Some(record.kind.as_str().as_bytes()),
            Some(record.verdict.outcome().as_bytes()),
            names.as_deref(),
            values.as_deref(),
            Some(time.as_bytes()),
            Some(rival_time.as_bytes()),
            Some(record.rival.node.as_str().as_bytes()),
            ranks[0].as_ref().map(String::as_bytes),
            ranks[1].as_ref().map(String::as_bytes),
            Some(if record.met_row { b"true" } else { b"false" }),
        ];
        debug_assert_eq!(parameters.len(), sql::history::RECORD_PARAMETERS);
        let held = record.held.as_ref().unwrap_or(&change.key);
        parameters.extend(held.iter().map(|value| Some(value.as_ref())));
        batch.push(change.target.sql(Statement::Record), &parameters)?;
        if record.waits {
            pending::push_pend(batch, source, change)?;
        }
        Ok(())
    }

    /// Fills in large values that the stream left out, where the source still has that very row.
    pub(in crate::apply) async fn complete_record(
        &mut self,
        change: &RowChange,
        record: &mut Record,
    ) {
        let Some(values) = record.row.clone() else {
            return;
        };
        let map = &change.target.map;
        let version = (&change.key, change.time);
        // The decision does not hang on it: what cannot be read is left out of the record.
        if let Ok(values) = self.fetcher.complete_exactly(map, version, values).await {
            record.row = Some(values);
        }
    }

    /// Records the rows that the source of a truncate did not know, and tells whether some of the
    /// rows are newer and must stay.
    pub(in crate::apply) async fn record_truncate(
        &mut self,
        target: &Arc<Target>,
        stamp: &Stamp,
    ) -> Result<bool, ApplyError> {
        let mut parameters: Vec<String> = self.floors.texts(stamp.time, &stamp.seen).to_vec();
        parameters.push(stamp.time.to_string());
        let judge = sql::truncate::judge_rows(&target.map, target.guard());
        let judged = self
            .run_one(&judge, &texts(&parameters), Some(target))
            .await?;
        let count = |column| {
            let count = judged.get(0, column, "how many rows a truncate meets");
            count.map_err(|source| ApplyError::target(source, Some(target.map.label())))
        };
        let (unknown, newer): (u64, u64) = (count(0)?, count(1)?);
        let rewritten = judged.flag(0, 2, "whether rows were rewritten");
        if rewritten.map_err(|source| ApplyError::target(source, Some(target.map.label())))? {
            return Err(self.rewritten(target));
        }
        self.counts.conflicts += unknown;
        let recorded = if unknown > 0 {
            self.ledger.take_many(target, unknown)
        } else {
            0
        };
        if recorded > 0 {
            parameters.extend([
                self.source.to_string(),
                self.origins.target().to_string(),
                recorded.to_string(),
            ]);
            let third = target.third();
            let record = sql::truncate::record_truncated(&target.map, target.guard(), third);
            self.run_one(&record, &texts(&parameters), Some(target))
                .await?;
        }
        Ok(newer > 0)
    }
}

fn texts(parameters: &[String]) -> Vec<Option<&[u8]>> {
    parameters
        .iter()
        .map(|text| Some(text.as_bytes()))
        .collect()
}

/// Names and values of what is known of an incoming row.
pub(in crate::apply) fn incoming_arrays(target: &Target, row: &Tuple) -> (Vec<u8>, Vec<u8>) {
    let known = || {
        let columns = target.map.columns.iter().zip(row.0.iter());
        columns.filter(|(column, value)| column.written && **value != Value::Unchanged)
    };
    let names = array_literal(known().map(|(column, _)| Some(column.name.as_bytes())));
    let values = array_literal(known().map(|(_, value)| params::value(value)));
    (names, values)
}
