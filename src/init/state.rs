//! What a node has already, as `init` found it.

use std::collections::HashMap;

use super::follow::EventTriggers;
use super::leftovers::Leftover;
use super::made::Made;
use super::noted::Noted;
use super::own::{KeyIndex, OwnFunction};
use super::triggers::{There, Trigger};
use crate::catalog::dropped::DroppedNode;
use crate::catalog::position::Position;
use crate::catalog::server::Server;
use crate::catalog::slots::SlotState;
use crate::catalog::table::Table;
use crate::ids::NodeName;
use crate::lineage::{Known, Proof};
use crate::lsn::Lsn;

/// One node as `init` found it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The node.
    pub name: NodeName,
    pub(super) server: Server,
    /// Whether schema `mmrepl` is there, in whatever state.
    pub(super) has_schema: bool,
    /// Migrations that have not run.
    pub(super) pending: Vec<&'static str>,
    pub(super) tables: Vec<TableState>,
    pub(super) publication: Option<PublicationState>,
    pub(super) event_triggers: EventTriggers,
    /// What is not as it was made in schema `mmrepl`.
    pub(super) made: Made,
    /// What is left on tables that take part no longer.
    pub(super) leftovers: Vec<Leftover>,
    /// Rows of `mmrepl.node`: name, whether it is this server, system id, origin.
    pub(super) nodes: Vec<NodeRow>,
    /// Nodes that were taken out of the cluster.
    pub(super) dropped: Vec<DroppedNode>,
    /// Origins of this cluster by name.
    pub(super) origins: HashMap<String, u32>,
    pub(super) positions: Vec<Position>,
    /// Slots of this cluster by peer.
    pub(super) slots: HashMap<NodeName, SlotState>,
    /// How far its WAL is flushed.
    pub(super) flushed: Lsn,
    /// By peer: whether this server still has what that one applied last.
    pub(super) proofs: HashMap<NodeName, Proof>,
    /// What is noted of writes that were not sent.
    pub(super) noted: Noted,
    /// By peer: what that one was known to have flushed.
    pub(super) known: HashMap<NodeName, Vec<Known>>,
}

/// A row of `mmrepl.node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) here: bool,
    pub(super) system_id: String,
    pub(super) origin_id: Option<u32>,
    /// The rules that the server's own daemon goes by.
    pub(super) rules: Option<String>,
}

impl NodeState {
    /// Whether `init` has been here: its schema, or what is left where that was dropped.
    pub(super) fn was_set_up(&self) -> bool {
        self.has_schema || !self.slots.is_empty() || !self.origins.is_empty()
    }
}

/// The publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicationState {
    /// What of its options is not as it must be, as words: `does not send deletes`.
    pub(super) faults: Vec<String>,
    /// It was made `for all tables`, which cannot be altered.
    pub(super) all_tables: bool,
    /// Whole schemas that it publishes beside the tables.
    pub(super) schemas: Vec<String>,
}

/// A table's part in the publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Only some rows or columns are sent: there is a WHERE clause or a column list.
    pub(super) restricted: bool,
}

/// A table that takes part.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) table: Table,
    /// The index of its key.
    pub(super) key_index: Option<KeyIndex>,
    /// The index of `replica identity using index`.
    pub(super) identity_index: Option<String>,
    /// Nothing where it is not published.
    pub(super) published: Option<Published>,
    /// Whether it seems to hold rows; by statistics, which need no lock.
    pub(super) seems_filled: bool,
    pub(super) triggers: Vec<Trigger>,
    /// The functions that are its own.
    pub(super) functions: Vec<OwnFunction>,
    pub(super) partitions: Vec<PartitionState>,
}

impl TableState {
    /// What there is of ours on it.
    pub(super) fn there(&self) -> There<'_> {
        There {
            triggers: &self.triggers,
            functions: &self.functions,
        }
    }

    /// Whether only some of its rows or columns are sent.
    pub(super) fn is_restricted(&self) -> bool {
        self.published.is_some_and(|published| published.restricted)
    }
}

/// A partition, at any depth, of a table that takes part.
#[derive(Clone, Debug)]
pub(super) struct PartitionState {
    pub(super) oid: u32,
    pub(super) qualified: String,
    pub(super) replica_identity: char,
    pub(super) identity_index: Option<String>,
    /// The partition's own part of the root's key index.
    pub(super) key_index: Option<String>,
    pub(super) triggers: Vec<Trigger>,
}

impl PartitionState {
    /// What there is of ours on it.
    pub(super) fn there(&self) -> There<'_> {
        There {
            triggers: &self.triggers,
            functions: &[],
        }
    }
}
