//! What a daemon tells about its own node, beside its links.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::commit_time::CommitTime;
use crate::damage::Damage;
use crate::ids::NodeName;

/// One node, as its daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// The memory of deletes on its server; nothing until it was looked at.
    pub tombstones: Option<TombstoneStatus>,
    /// Rows that lost a unique value; nothing until its server was looked at.
    #[serde(default)]
    pub shadows: Option<ShadowStatus>,
    /// What on its server is not as `init` made it.
    #[serde(default)]
    pub damage: Vec<Damage>,
}

/// The rows kept aside on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// How many there are.
    pub kept: u64,
    /// How many returned, or were replaced by a newer version, since the daemon started.
    pub gone: u64,
}

/// The tombstones on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneStatus {
    /// How many there are; the server's own estimate beyond 100,000.
    pub kept: u64,
    /// When the oldest was left.
    pub oldest: Option<CommitTime>,
    /// Pruned since the daemon started.
    pub pruned: u64,
    /// When some were last pruned.
    pub pruned_at: Option<CommitTime>,
    /// Why tombstones older than the retention are still there.
    pub waits_for: Option<String>,
}

/// The shared record of one node; clones are the same record.
#[derive(Clone, Debug)]
pub struct NodeMonitor {
    inner: Arc<Mutex<NodeStatus>>,
}

impl NodeMonitor {
    /// A node that was not looked at yet.
    pub fn new(node: NodeName) -> Self {
        let status = NodeStatus {
            node,
            tombstones: None,
            shadows: None,
            damage: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(status)),
        }
    }

    /// What is known.
    pub fn snapshot(&self) -> NodeStatus {
        self.lock().clone()
    }

    /// Notes what is damaged. True when that is new.
    pub fn set_damage(&self, damage: Vec<Damage>) -> bool {
        let mut status = self.lock();
        let new = status.damage != damage;
        status.damage = damage;
        new
    }

    /// Notes how many rows are kept aside, and how many are not any more.
    pub fn set_shadows(&self, kept: u64, gone: u64) {
        let mut status = self.lock();
        let shadows = status.shadows.get_or_insert_default();
        shadows.kept = kept;
        shadows.gone += gone;
    }

    /// Notes how many tombstones there are and when the oldest was left.
    pub fn set_tombstones(&self, kept: u64, oldest: Option<CommitTime>) {
        self.tombstones(|tombstones| {
            tombstones.kept = kept;
            tombstones.oldest = oldest;
        });
    }

    /// Counts pruned tombstones.
    pub fn add_pruned(&self, count: u64, now: CommitTime) {
        self.tombstones(|tombstones| {
            tombstones.pruned += count;
            tombstones.pruned_at = Some(now);
        });
    }

    /// Says why expired tombstones stay, or that none do. True when that is new.
    pub fn set_waits_for(&self, reason: Option<String>) -> bool {
        let mut new = false;
        self.tombstones(|tombstones| {
            new = tombstones.waits_for != reason;
            tombstones.waits_for = reason;
        });
        new
    }

    fn tombstones(&self, change: impl FnOnce(&mut TombstoneStatus)) {
        change(self.lock().tombstones.get_or_insert_default());
    }

    /// A panic elsewhere leaves plain values here, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, NodeStatus> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
