//! The two ways to the daemon's own server: `dsn`, by which its peers reach it, and `local_dsn`, by
//! which the daemon does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Node;
use crate::config::conninfo::ConnInfo;

/// The way of the peers, where the daemon goes another one.
#[derive(Clone, Debug, Default)]
pub struct Home {
    for_peers: Option<ConnInfo>,
    /// It was said that nobody knows where that leads.
    told: Arc<AtomicBool>,
}

impl Home {
    /// For the daemon of `own`, as it is in the file.
    pub fn of(own: &Node) -> Self {
        Self {
            for_peers: own.local_dsn.as_ref().map(|_| own.dsn.clone()),
            told: Arc::default(),
        }
    }

    /// The way of the peers, where the daemon goes another one.
    pub(super) fn for_peers(&self) -> Option<&ConnInfo> {
        self.for_peers.as_ref()
    }

    /// Whether somebody was told that nobody knows. From now on, yes.
    pub(super) fn was_told(&self) -> bool {
        self.told.swap(true, Ordering::Relaxed)
    }
}
