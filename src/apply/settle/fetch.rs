//! Reading an unchanged large value from the source, only when a row needs it.
//!
//! `pgoutput` leaves out large values that an update did not touch (manual 55.9, `TupleData`, `u`).
//! Where the target's row cannot supply them, they are read from the source's row of the same key
//! as it is now. A value changed there since then arrives later with its own version; a row that is
//! gone there will be followed by its delete.
//!
//! The source must show the received transactions before it is asked: what it shows a moment
//! earlier is not the row of this key any more, or not yet. See `visible`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::apply::error::ApplyError;
use crate::apply::settle::visible::shows;
use crate::apply::shape::mapping::{KeyValues, TableMap};
use crate::apply::shape::op::Put;
use crate::apply::sql;
use crate::commit_time::CommitTime;
use crate::config::conninfo::ConnInfo;
use crate::pgoutput::{Tuple, Value};
use crate::wire::Session;

/// How long to wait between two looks at a source that does not show a transaction yet.
const VISIBLE_POLL: Duration = Duration::from_millis(1);
/// How many looks before the attempt is given up, to be retried with the others' delays.
const VISIBLE_LOOKS_MAX: u32 = 1_000;

/// A session on the source, opened when first needed.
pub struct Fetcher {
    info: ConnInfo,
    application_name: String,
    session: Option<Session>,
    /// The transactions being applied, which the source must show.
    applying: Vec<u32>,
}

impl Fetcher {
    /// Will connect to the source at `info` when a value is needed.
    pub fn new(info: ConnInfo, application_name: String) -> Self {
        Self {
            info,
            application_name,
            session: None,
            applying: Vec::new(),
        }
    }

    /// Values will be needed for changes of these transactions.
    pub(in crate::apply) fn applying(&mut self, xids: impl Iterator<Item = u32>) {
        self.applying.clear();
        self.applying.extend(xids);
    }

    /// The row with its missing values filled in; `None` when the source no longer has the row.
    pub async fn complete(
        &mut self,
        map: &TableMap,
        key: &KeyValues,
        put: &Put,
    ) -> Result<Option<Tuple>, ApplyError> {
        let missing = missing_of(&put.values);
        if missing.is_empty() {
            return Ok(Some(put.values.clone()));
        }
        let row = self.read_shown(map, (key, None), &missing).await?;
        Ok(row.map(|row| filled(&put.values, &missing, row)))
    }

    /// `values` with what is missing filled in, if the source's row is still the one that was
    /// written at `time`; else as they are. For the history: never a value of another write.
    pub async fn complete_exactly(
        &mut self,
        map: &TableMap,
        (key, time): (&KeyValues, CommitTime),
        values: Tuple,
    ) -> Result<Tuple, ApplyError> {
        let missing = missing_of(&values);
        if missing.is_empty() {
            return Ok(values);
        }
        let row = self.read_shown(map, (key, Some(time)), &missing).await?;
        Ok(match row {
            Some(row) => filled(&values, &missing, row),
            None => values,
        })
    }

    fn failed(&mut self, map: &TableMap, source: crate::wire::WireError) -> ApplyError {
        self.session = None;
        ApplyError::Fetch {
            table: map.label(),
            source,
        }
    }

    /// Reads once the source shows the transactions being applied.
    async fn read_shown(
        &mut self,
        map: &TableMap,
        which: (&KeyValues, Option<CommitTime>),
        columns: &[usize],
    ) -> Result<Option<Vec<Option<Bytes>>>, ApplyError> {
        for _ in 0..VISIBLE_LOOKS_MAX {
            let read = self.read(map, which, columns).await;
            let (snapshot, row) = read.map_err(|source| self.failed(map, source))?;
            if self.applying.iter().all(|xid| shows(&snapshot, *xid)) {
                return Ok(row);
            }
            tokio::time::sleep(VISIBLE_POLL).await;
        }
        Err(ApplyError::NotShown { table: map.label() })
    }

    /// What the source shows of the row, and by which snapshot.
    async fn read(
        &mut self,
        map: &TableMap,
        (key, written_at): (&KeyValues, Option<CommitTime>),
        columns: &[usize],
    ) -> Result<(String, Option<Vec<Option<Bytes>>>), crate::wire::WireError> {
        if self.session.is_none() {
            let session = Session::connect(&self.info, &self.application_name, &[]).await?;
            self.session = Some(session);
        }
        let session = self.session.as_mut().expect("opened just above");
        let time = written_at.map(|time| time.to_string());
        let sql: Arc<str> = sql::fetch::fetch(map, columns, time.is_some()).into();
        let mut batch = session.batch();
        let key = key.iter().map(|value| Some(value.as_ref()));
        let time = time.as_ref().map(|time| Some(time.as_bytes()));
        let parameters: Vec<Option<&[u8]>> = key.chain(time).collect();
        batch.push(&sql, &parameters)?;
        let mut outcomes = batch.run().await.map_err(|failed| failed.error)?;
        let mut outcome = outcomes.pop().unwrap_or_default();
        let snapshot = outcome.get(0, 0, "what the source shows")?;
        let found = outcome.flag(0, 1, "whether the source has a row")?;
        let row = outcome.rows.pop().filter(|_| found);
        Ok((snapshot, row.map(|mut row| row.split_off(2))))
    }
}

fn missing_of(values: &Tuple) -> Vec<usize> {
    let columns = values.0.iter().enumerate();
    let missing = columns.filter(|(_, value)| **value == Value::Unchanged);
    missing.map(|(index, _)| index).collect()
}

fn filled(values: &Tuple, missing: &[usize], row: Vec<Option<Bytes>>) -> Tuple {
    let mut filled = values.clone();
    let values = filled.values_mut();
    for (index, value) in missing.iter().zip(row) {
        values[*index] = value.map_or(Value::Null, Value::Text);
    }
    filled
}
