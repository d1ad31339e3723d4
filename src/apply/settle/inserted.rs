//! Keys that were inserted after a look at their tombstones.

use std::sync::Arc;

use crate::apply::shape::mapping::KeyValues;
use crate::apply::target::statement::Target;
use crate::commit_time::CommitTime;
use crate::conflict::Rank;

/// A key that was inserted after a look at its tombstones, and the commit time from which a delete
/// of it was newer.
pub(in crate::apply) struct Inserted {
    pub(in crate::apply) target: Arc<Target>,
    pub(in crate::apply) key: KeyValues,
    pub(in crate::apply) time: CommitTime,
    pub(in crate::apply) rank: Option<Rank>,
}
