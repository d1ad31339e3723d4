//! Which transactions share a target transaction in a cluster of three and more nodes, and what
//! then keeps the times of their rows (`write::source_times`).

use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::Entry;
use crate::apply::send::transaction::Applier;
use crate::apply::target::statement::Target;
use crate::apply::write::source_times::push_source_times;
use crate::assemble::{Change, Piece};
use crate::conflict::Tie;

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
        let changes = pieces.iter().flat_map(|piece| &piece.changes);
        self.tables.meet_all(&self.catalog, changes).await?;
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
