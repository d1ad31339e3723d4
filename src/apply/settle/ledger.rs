//! How many conflicts of a table are recorded, and how many are left out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apply::target::statement::Target;
use crate::commit_time::CommitTime;
use crate::conflict::Sampler;

/// Which conflicts are recorded, and how many were not.
pub(in crate::apply) struct Ledger {
    sampler: Sampler,
    /// Of the open transaction, by table.
    left_out: HashMap<u32, (Arc<Target>, u64)>,
}

impl Ledger {
    /// Records `limit` conflicts per table and minute, then samples.
    pub(in crate::apply) fn new(limit: u64) -> Self {
        Self {
            sampler: Sampler::new(limit),
            left_out: HashMap::new(),
        }
    }

    /// Whether a conflict in `target` is to be recorded; counts it if not.
    pub(in crate::apply) fn take(&mut self, target: &Arc<Target>) -> bool {
        let taken = self.sampler.take(target.map.table.oid, CommitTime::now());
        if !taken {
            self.leave_out(target, 1);
        }
        taken
    }

    /// How many of `wanted` conflicts in `target` are to be recorded; counts the others.
    pub(in crate::apply) fn take_many(&mut self, target: &Arc<Target>, wanted: u64) -> u64 {
        let now = CommitTime::now();
        let taken = self.sampler.take_many(target.map.table.oid, wanted, now);
        if taken < wanted {
            self.leave_out(target, wanted - taken);
        }
        taken
    }

    fn leave_out(&mut self, target: &Arc<Target>, count: u64) {
        let entry = self.left_out.entry(target.map.table.oid);
        entry.or_insert_with(|| (Arc::clone(target), 0)).1 += count;
    }

    /// The open transaction was rolled back.
    pub(in crate::apply) fn forget(&mut self) {
        self.left_out.clear();
    }

    /// What the open transaction has to count, as it commits.
    pub(in crate::apply) fn take_left_out(&mut self) -> Vec<(Arc<Target>, u64)> {
        self.left_out
            .drain()
            .map(|(_, left_out)| left_out)
            .collect()
    }
}
