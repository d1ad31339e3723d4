//! What each link needs, by the verdict on its history. Pure.

use super::noted::LEAVES_OUT_SINCE;
use super::state::NodeState;
use crate::catalog::slots::SlotState;
use crate::config::Config;
use crate::ids::{LinkName, NodeName, SystemId, slot_name};
use crate::lineage::{Cause, EndFacts, Finding, LinkFacts, Pair, judge};

/// What a link needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCondition {
    /// Nothing.
    Complete,
    /// A slot and a position row: it was never set up, or a setup did not end.
    Fresh {
        /// A slot without a position row is there and must go first.
        slot_left: bool,
    },
    /// The slot of an unfinished setup is in use by that process.
    InUse(i32),
    /// Nothing but a word of a person: its target moved to another server with all that it had.
    Moved(Box<Finding>),
    /// It was set up, and changes are lost.
    Broken {
        /// The verdict.
        finding: Box<Finding>,
        /// Whether a slot is there.
        slot_left: bool,
        /// The process that uses it.
        active_pid: Option<i32>,
    },
}

/// A link and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) link: LinkName,
    pub(super) condition: LinkCondition,
}

impl LinkState {
    pub(super) fn is_complete(&self) -> bool {
        matches!(
            self.condition,
            LinkCondition::Complete | LinkCondition::Moved(_)
        )
    }
}

/// The condition of every link.
pub(super) fn conditions(config: &Config, states: &[NodeState]) -> Vec<LinkState> {
    let links = config.links().into_iter();
    links
        .filter_map(|link| {
            Some(LinkState {
                condition: condition(&pair(config, &link, states)?),
                link,
            })
        })
        .collect()
}

/// The verdict on every link that was set up and cannot go on.
pub(super) fn findings(config: &Config, states: &[NodeState]) -> Vec<Finding> {
    let broken = |state: LinkState| match state.condition {
        LinkCondition::Broken { finding, .. } | LinkCondition::Moved(finding) => Some(*finding),
        _ => None,
    };
    let conditions = conditions(config, states).into_iter();
    conditions.filter_map(broken).collect()
}

/// Links that cannot go on, or may not be able to, although their slots are in use.
pub(super) fn doubtful(config: &Config, states: &[NodeState]) -> Vec<LinkName> {
    let doubtful = |state: &LinkState| {
        let from = states.iter().find(|from| from.name == state.link.from);
        let slot = from.and_then(|from| from.slots.get(&state.link.to));
        let in_use = slot.is_some_and(|slot| slot.active_pid.is_some());
        in_use && (!state.is_complete() || from.is_some_and(|from| predates(from, &state.link.to)))
    };
    let conditions = conditions(config, states).into_iter();
    let doubtful = conditions.filter(doubtful);
    doubtful.map(|state| state.link).collect()
}

fn pair(config: &Config, link: &LinkName, states: &[NodeState]) -> Option<Pair> {
    let of = |name: &NodeName| states.iter().find(|state| state.name == *name);
    let (from, to) = (of(&link.from)?, of(&link.to)?);
    Some(Pair {
        from: end(from),
        to: end(to),
        forward: facts(config, from, to),
        backward: facts(config, to, from),
    })
}

fn end(state: &NodeState) -> EndFacts {
    let here = state.nodes.iter().find(|row| row.here);
    EndFacts {
        node: state.name.clone(),
        system_id: state.server.system_id,
        timeline: state.server.timeline,
        database: state.server.database.clone(),
        flushed: state.flushed,
        here: here.map(|row| row.name.clone()),
        set_up_on: here.and_then(|row| row.system_id.parse().ok().map(SystemId)),
        dropped: state.dropped.clone(),
    }
}

fn facts(config: &Config, from: &NodeState, to: &NodeState) -> LinkFacts {
    let mut positions = to.positions.iter();
    LinkFacts {
        slot_name: slot_name(&config.cluster, &to.name),
        position: positions
            .find(|position| position.source == from.name)
            .cloned(),
        slot: from.slots.get(&to.name).cloned(),
        proof: from.proofs.get(&to.name).copied().unwrap_or_default(),
        known: from.known.get(&to.name).cloned().unwrap_or_default(),
        predates_publication: predates_publication(from, &to.name),
    }
}

/// Whether the slot for `to` cannot go on because its publication was made after what it has to
/// send. A slot that is in use sends.
pub(super) fn predates_publication(from: &NodeState, to: &NodeName) -> bool {
    let slot = from.slots.get(to);
    let sends = slot.is_some_and(|slot| slot.active_pid.is_some());
    predates(from, to) && !sends
}

fn predates(from: &NodeState, to: &NodeName) -> bool {
    let predates = from.noted.predated.get(to).copied().unwrap_or_default();
    predates && from.server.major() < LEAVES_OUT_SINCE
}

fn condition(pair: &Pair) -> LinkCondition {
    let slot = pair.forward.slot.as_ref();
    let active_pid = slot.and_then(|slot: &SlotState| slot.active_pid);
    match judge(pair) {
        Ok(_) => LinkCondition::Complete,
        Err(finding) => match (&finding.cause, active_pid) {
            (Cause::NoPosition { .. } | Cause::Dropped { .. }, Some(pid)) => {
                LinkCondition::InUse(pid)
            }
            (Cause::NoPosition { .. } | Cause::Dropped { .. }, None) => LinkCondition::Fresh {
                slot_left: slot.is_some(),
            },
            (Cause::Upgraded { node, .. }, _) if *node == pair.to.node => {
                LinkCondition::Moved(finding)
            }
            _ => LinkCondition::Broken {
                finding,
                slot_left: slot.is_some(),
                active_pid,
            },
        },
    }
}
