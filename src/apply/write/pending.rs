//! Conflicts that wait for a person (rule `manual`).
//!
//! They are records like any other, with the outcome `pending`, and they are more than history: as
//! long as one stands, the nodes differ on purpose. So they are never left out, and the versions
//! that a decision must know of stand in them. A write that knows the incoming one ends them.

use crate::apply::plan::change::RowChange;
use crate::apply::target::statement::Statement;
use crate::apply::write::push::keyed;
use crate::commit_time::CommitTime;
use crate::conflict::{Local, Rank, Version};
use crate::ids::NodeName;
use crate::wire::{Batch, WireError};

/// When and where what the target holds was written: by the server's memory, else by its version.
pub(in crate::apply) fn rival(row: &RowChange, local: &Local, target: &NodeName) -> Version {
    let held = local.row.iter().chain(&local.tombstones);
    if let Some(version) = held.filter_map(|held| held.version.clone()).max() {
        return version;
    }
    let nodes = row.target.versions().rule().places().unwrap_or_default();
    let known = local.known();
    let writer = known.as_ref().and_then(|known| known.writer(nodes));
    let (time, node) = writer.unwrap_or((CommitTime::default(), target));
    Version {
        time,
        node: node.clone(),
    }
}

/// Pushes the statement that makes the record just pushed wait.
pub(in crate::apply) fn push_pend(
    batch: &mut Batch<'_>,
    source: &str,
    row: &RowChange,
) -> Result<(), WireError> {
    let mut parameters = vec![Some(source.as_bytes())];
    parameters.extend(keyed(row));
    batch.push(row.target.sql(Statement::Pend), &parameters)
}

/// Pushes the statement that ends what waits for a decision about writes that are `known`.
pub(in crate::apply) fn push_supersede(
    batch: &mut Batch<'_>,
    row: &RowChange,
    known: &Rank,
) -> Result<(), WireError> {
    let known = known.to_string();
    let mut parameters = vec![Some(known.as_bytes())];
    parameters.extend(keyed(row));
    batch.push(row.target.sql(Statement::Supersede), &parameters)
}
