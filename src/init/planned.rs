//! Everything that `init` will do, once it is known. Pure.

use super::InitOptions;
use super::publication;
use super::state::{NodeState, TableState};
use super::step::Step;
use crate::catalog::names::literal;
use crate::catalog::position::RESET_POSITION;
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};

/// A link whose slot and position row are made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkWork {
    pub(super) link: LinkName,
    /// An old slot goes first.
    pub(super) slot_left: bool,
}

/// Everything `init` will do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Schema, node rows, origins, identities, triggers: node by node.
    pub(super) prepare: Vec<Step>,
    /// Publications of nodes that nobody reads yet.
    pub(super) publish: Vec<Step>,
    /// Tables that join links which are already at work, by schema and name.
    pub(super) joining: Vec<(String, String)>,
    /// The nodes whose working links they join.
    pub(super) join_nodes: Vec<NodeName>,
    /// Tables whose writes were not all sent, to be compared.
    pub(super) gaps: Vec<(String, String)>,
    /// Links to make.
    pub(super) links: Vec<LinkWork>,
    /// Nodes whose rows are replaced by those of `--copy-from`.
    pub(super) copy_to: Vec<NodeName>,
    /// What was found, for the steps that look again.
    pub(super) states: Vec<NodeState>,
}

impl Plan {
    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.prepare.is_empty()
            && self.publish.is_empty()
            && self.joining.is_empty()
            && self.gaps.is_empty()
            && self.links.is_empty()
    }

    /// Every step in order, with those that depend on what the servers answer written out.
    pub(super) fn steps_for_show(&self, config: &Config, options: &InitOptions) -> Vec<Step> {
        let mut steps: Vec<Step> = self.prepare.iter().chain(&self.publish).cloned().collect();
        for node in &self.join_nodes {
            let listed = |state: &&TableState| {
                self.joining
                    .iter()
                    .any(|(schema, name)| state.table.id() == (schema, name))
            };
            let state = self.states.iter().find(|state| state.name == *node);
            let tables: Vec<_> = state
                .iter()
                .flat_map(|s| &s.tables)
                .filter(listed)
                .collect();
            if !tables.is_empty() {
                let what = format!("lock, compare and publish {} new table(s)", tables.len());
                let sql = publication::add(tables.iter().map(|state| &state.table));
                steps.push(Step::new(node, what, vec![sql]));
            }
        }
        steps.extend(self.links.iter().map(|work| slot_step(config, work)));
        if !self.links.is_empty() && !options.assume_identical && options.copy_from.is_none() {
            steps.extend(self.states.iter().map(|state| {
                Step::new(&state.name, "compare rows with the other nodes", Vec::new())
            }));
        }
        steps.extend(self.copy_to.iter().map(|node| {
            Step::new(
                node,
                "replace the rows of every table by the copied node's",
                Vec::new(),
            )
        }));
        steps.extend(self.links.iter().map(|work| {
            let what = format!("write the position of {}", work.link);
            Step::new(&work.link.to, what, vec![RESET_POSITION.trim().to_owned()])
        }));
        steps
    }
}

/// Shown in a dry run: the slot itself is made through the replication protocol, with a snapshot.
fn slot_step(config: &Config, work: &LinkWork) -> Step {
    let slot = literal(&slot_name(&config.cluster, &work.link.to));
    let drop = work
        .slot_left
        .then(|| format!("select pg_catalog.pg_drop_replication_slot({slot})"));
    let make = format!("select pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput')");
    let what = format!("make the replication slot of {}", work.link);
    Step::new(
        &work.link.from,
        what,
        drop.into_iter().chain([make]).collect(),
    )
}
