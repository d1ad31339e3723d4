//! What every part of an execution needs.

use super::InitOptions;
use super::compare::Tables;
use super::planned::Plan;
use super::session::{self, Session};
use super::state::NodeState;
use crate::config::Config;
use crate::ids::NodeName;

/// What every part of the execution needs.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a InitOptions,
    pub(super) plan: &'a Plan,
    pub(super) sessions: &'a [Session],
}

impl<'a> Work<'a> {
    pub(super) fn session(&self, node: &NodeName) -> &'a Session {
        session::of(self.sessions, node)
    }

    pub(super) fn state(&self, node: &NodeName) -> &'a NodeState {
        let mut states = self.plan.states.iter();
        states
            .find(|state| state.name == *node)
            .expect("every node was observed before planning")
    }

    /// A node's tables by schema and name.
    pub(super) fn tables(&self, node: &NodeName) -> Tables<'a> {
        self.state(node)
            .tables
            .iter()
            .map(|state| (state.table.id(), &state.table))
            .collect()
    }
}
