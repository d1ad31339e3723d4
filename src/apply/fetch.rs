//! Reading an unchanged large value from the source, only when a row needs it.
//!
//! `pgoutput` leaves out large values that an update did not touch (manual 55.9, `TupleData`, `u`).
//! Where the target's row cannot supply them, they are read from the source's row of the same key
//! as it is now. A value changed there since then arrives later with its own version; a row that is
//! gone there will be followed by its delete.

use std::sync::Arc;

use bytes::Bytes;

use super::error::ApplyError;
use super::group::Put;
use super::mapping::{KeyValues, TableMap};
use super::sql;
use crate::config::conninfo::ConnInfo;
use crate::pgoutput::{Tuple, Value};
use crate::wire::Session;

/// A session on the source, opened when first needed.
pub struct Fetcher {
    info: ConnInfo,
    application_name: String,
    session: Option<Session>,
}

impl Fetcher {
    /// Will connect to the source at `info` when a value is needed.
    pub fn new(info: ConnInfo, application_name: String) -> Self {
        Self {
            info,
            application_name,
            session: None,
        }
    }

    /// The row with its missing values filled in; `None` when the source no longer has the row.
    pub async fn complete(
        &mut self,
        map: &TableMap,
        key: &KeyValues,
        put: &Put,
    ) -> Result<Option<Tuple>, ApplyError> {
        let missing: Vec<usize> = (0..put.values.0.len())
            .filter(|index| put.values.0[*index] == Value::Unchanged)
            .collect();
        if missing.is_empty() {
            return Ok(Some(put.values.clone()));
        }
        let row = self.read(map, key, &missing).await.map_err(|source| {
            self.session = None;
            ApplyError::Fetch {
                table: map.label(),
                source,
            }
        })?;
        Ok(row.map(|row| filled(&put.values, &missing, row)))
    }

    async fn read(
        &mut self,
        map: &TableMap,
        key: &KeyValues,
        columns: &[usize],
    ) -> Result<Option<Vec<Option<Bytes>>>, crate::wire::WireError> {
        if self.session.is_none() {
            let session = Session::connect(&self.info, &self.application_name, &[]).await?;
            self.session = Some(session);
        }
        let session = self.session.as_mut().expect("opened just above");
        let sql: Arc<str> = sql::fetch(map, columns).into();
        let mut batch = session.batch();
        let key: Vec<Option<&[u8]>> = key.iter().map(|value| Some(value.as_ref())).collect();
        batch.push(&sql, &key)?;
        let outcomes = batch.run().await.map_err(|failed| failed.error)?;
        Ok(outcomes
            .into_iter()
            .next()
            .and_then(|outcome| outcome.rows.into_iter().next()))
    }
}

fn filled(values: &Tuple, missing: &[usize], row: Vec<Option<Bytes>>) -> Tuple {
    let mut values = values.clone();
    for (index, value) in missing.iter().zip(row) {
        values.0[*index] = value.map_or(Value::Null, Value::Text);
    }
    values
}
