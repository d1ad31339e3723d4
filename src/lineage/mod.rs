//! Is the history that a link stands on still there? One verdict for the daemon, `status`, `check`
//! and `init`, so that they never contradict each other. Pure; [`gather`] asks the servers.
//!
//! The witnesses: the target's position row says what was applied, and which transaction of the
//! source was the last one, with its commit time; the source says whether it still has that one,
//! how far its WAL reaches and what its slot can still send; the daemon's checkpoint says what was
//! flushed on the target once; the servers' identifiers and `mmrepl.node` say whether they are
//! still the same servers. A server that was restored, replaced or failed over shows as a
//! contradiction between them. Then the link stops with a sentence, because going on would leave a
//! silent gap.
//!
//! Both directions between two nodes are judged together: what a node lost shows in one of them,
//! and decides what may be advised about the other. Nobody is told to copy from a side that lost.

mod cause;
pub mod gather;
mod judge;
#[cfg(test)]
mod tests;

pub use cause::{Advice, Cause, Finding};
pub use judge::{check_slot, judge};

use crate::catalog::dropped::DroppedNode;
use crate::catalog::position::Position;
use crate::catalog::slots::SlotState;
use crate::commit_time::CommitTime;
use crate::ids::{NodeName, SystemId, TimelineId};
use crate::lsn::Lsn;

/// What one server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndFacts {
    /// The node that the configuration calls it.
    pub node: NodeName,
    /// Its system identifier.
    pub system_id: SystemId,
    /// Its timeline.
    pub timeline: TimelineId,
    /// The database.
    pub database: String,
    /// How far its WAL is flushed.
    pub flushed: Lsn,
    /// The node that it was set up as; nothing where it was not set up.
    pub here: Option<String>,
    /// The system identifier that it had then.
    pub set_up_on: Option<SystemId>,
    /// Nodes that were taken out of the cluster, as far as it knows.
    pub dropped: Vec<DroppedNode>,
}

impl EndFacts {
    /// The identifier of the server on which the database stood when it was set up, where that is
    /// another one.
    pub fn moved_from(&self) -> Option<SystemId> {
        self.set_up_on.filter(|before| *before != self.system_id)
    }
}

/// Whether the source still has the last transaction that was applied from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It cannot be told: none is remembered, or it is too old for the source to know.
    #[default]
    Unknown,
    /// It has, at the same time.
    Holds,
    /// It has not, or another one in its place.
    Fails,
}

/// How far a target was once known to be flushed, by somebody beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The position in the source's WAL.
    pub durable: Lsn,
    /// When that link was set up, by the source's clock: a link made anew starts over.
    pub began: CommitTime,
    /// Whether the source still has what was applied then: where it has not, it was put back too,
    /// and the position is of a history that is gone.
    pub proof: Proof,
}

/// What is known of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Name of its slot on the source.
    pub slot_name: String,
    /// The target's row for the source.
    pub position: Option<Position>,
    /// The slot, where it exists.
    pub slot: Option<SlotState>,
    /// What the source says of the last applied transaction.
    pub proof: Proof,
    /// What the target was known to have flushed.
    pub known: Vec<Known>,
    /// Whether the slot has to read what was written before its publication was made, on a source
    /// that cannot do so.
    pub predates_publication: bool,
}

/// Two nodes and both links between them, seen from one of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The link's source.
    pub from: EndFacts,
    /// Its target.
    pub to: EndFacts,
    /// The link.
    pub forward: LinkFacts,
    /// The one the other way.
    pub backward: LinkFacts,
}

impl Pair {
    /// The same, seen from the other link.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            forward: self.backward.clone(),
            backward: self.forward.clone(),
        }
    }
}
