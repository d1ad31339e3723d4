//! What the door shows and can do.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::commit_time::CommitTime;
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::status::model::{ClusterStatus, LinkStatus};
use crate::status::monitor::LinkMonitor;
use crate::status::node::NodeMonitor;

/// Pauses and resumes links so that it outlives the daemon.
pub trait PauseControl: Send + Sync {
    /// Writes the wish down on the source server and tells the link. The error is a sentence.
    fn set_paused<'a>(
        &'a self,
        link: &'a LinkName,
        paused: bool,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// A link towards this node, as its own daemon tells it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The link.
    pub link: LinkName,
    /// Its status, or a sentence that says why nobody told.
    pub status: Result<LinkStatus, String>,
}

/// Knows the links towards this node, which other daemons run.
pub trait IncomingLinks: Send + Sync {
    /// Asks about all of them; ends within a second or two.
    fn incoming(&self) -> BoxFuture<'_, Vec<Incoming>>;
}

/// What the door shows and can do.
#[derive(Clone)]
pub struct AdminState {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This daemon's node.
    pub node: NodeName,
    /// The links this daemon runs.
    pub links: Vec<LinkMonitor>,
    /// What else it knows of its node.
    pub about_node: NodeMonitor,
    /// Pauses and resumes them.
    pub control: Arc<dyn PauseControl>,
    /// The links that end here.
    pub incoming: Arc<dyn IncomingLinks>,
}

impl AdminState {
    pub(super) fn snapshots(&self, now: CommitTime) -> Vec<LinkStatus> {
        self.links.iter().map(|link| link.snapshot(now)).collect()
    }

    pub(super) fn status(&self, now: CommitTime) -> ClusterStatus {
        ClusterStatus {
            cluster: self.cluster.clone(),
            at: now,
            links: self.snapshots(now),
            nodes: vec![self.about_node.snapshot()],
        }
    }
}
