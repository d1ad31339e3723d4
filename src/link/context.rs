//! What a link needs to know.

use std::time::Duration;

use super::home::Home;
use super::others::Foreign;
use crate::checkpoint::Checkpoints;
use crate::config::Node;
use crate::conflict::Rules;
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::status::monitor::LinkMonitor;

/// What a link needs to know.
#[derive(Clone)]
pub struct LinkContext {
    /// The cluster.
    pub cluster: ClusterName,
    /// The link.
    pub link: LinkName,
    /// The node it starts at.
    pub source: Node,
    /// The node it applies to.
    pub target: Node,
    /// Every node of the cluster.
    pub nodes: Vec<NodeName>,
    /// Which of two versions of a row stays.
    pub rules: Rules,
    /// How long to wait for the target's clock.
    pub max_clock_skew: Duration,
    /// Whether large transactions are applied while they are running on the source.
    pub streaming: bool,
    /// How many sessions write to the target at once.
    pub apply_workers: usize,
    /// Conflicts recorded per table and minute before only a sample is.
    pub recorded_per_minute: u64,
    /// What the daemon remembers.
    pub checkpoints: Checkpoints,
    /// What `status` shows, and whether the link is paused.
    pub monitor: LinkMonitor,
    /// Whether others write on the source, too.
    pub foreign: Foreign,
    /// Whether the source is the server that its peers mean.
    pub home: Home,
}

impl LinkContext {
    /// Tells the link, when it does not know yet.
    pub fn set_paused(&self, paused: bool) {
        let known = *self.monitor.paused().borrow();
        match (known, paused) {
            (false, true) => self.monitor.pause(),
            (true, false) => self.monitor.resume(),
            _ => {}
        }
    }
}
