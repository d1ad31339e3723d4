//! Rule `manual`: a person resolves what waits, one by one, until nothing does.

use std::collections::BTreeSet;
use std::sync::Arc;

use mmrepl::assemble::Change;

use crate::cluster::Cluster;
use crate::history::{How, Link, NAMES, Strategy};
use crate::node::{Act, KEY_COUNT, Node, Pending, Row, Stamp, State, Values, whole};
use crate::rng::Rng;
use crate::versions::{self, Kept};

/// Decisions after which a history counts as one that never ends.
const DECISIONS_MAX: usize = 500;

/// A write with all writes of its key that were known when it was made, and itself.
#[derive(Clone, Debug)]
struct Made {
    key: usize,
    version: Kept,
    node: u8,
    values: Option<Values>,
    past: BTreeSet<usize>,
}

/// What was known, stated without versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pasts(Vec<Made>);

impl Pasts {
    /// What a state of this version knows. One that stands for several deletes is no single write.
    fn of(&self, key: usize, version: Kept) -> BTreeSet<usize> {
        let own = || self.0.iter().filter(|made| made.key == key);
        if let Some(made) = own().find(|made| made.version == version) {
            return made.past.clone();
        }
        let known = own().filter(|made| versions::knows(version, made.version));
        known.flat_map(|made| made.past.iter().copied()).collect()
    }

    pub(crate) fn add(
        &mut self,
        key: usize,
        befores: &[Kept],
        (version, node, values): (Kept, u8, Option<Values>),
    ) {
        let known = befores.iter().flat_map(|before| self.of(key, *before));
        let past = known.chain([self.0.len()]).collect();
        self.0.push(Made {
            key,
            version,
            node,
            values,
            past,
        });
    }

    /// The writes of a key that no other write of it knew: node, values.
    pub(crate) fn strangers(&self, key: usize) -> Vec<(u8, Option<Values>)> {
        let own = || {
            self.0
                .iter()
                .enumerate()
                .filter(|(_, made)| made.key == key)
        };
        let is_known =
            |index: usize| own().any(|(other, made)| other != index && made.past.contains(&index));
        let strangers = own().filter(|(index, _)| !is_known(*index));
        strangers
            .map(|(_, made)| (made.node, made.values))
            .collect()
    }

    /// Versions say exactly what was known.
    fn check(&self) -> Result<(), String> {
        for one in &self.0 {
            for (index, other) in self.0.iter().enumerate() {
                let knew = one.past.contains(&index);
                let same_key = one.key == other.key;
                if same_key && versions::knows(one.version, other.version) != knew {
                    return Err(format!("{one:?} knew {other:?}: {knew}\n"));
                }
            }
        }
        Ok(())
    }
}

/// Where something waits: node, key, source.
fn waiting(nodes: &[Node]) -> Vec<(u8, usize, usize)> {
    let all = (0..nodes.len()).flat_map(|node| {
        (0..KEY_COUNT).flat_map(move |key| (0..3).map(move |source| (node, key, source)))
    });
    let waits =
        all.filter(|(node, key, source)| nodes[*node].state.pending[*key][*source].is_some());
    let number = |node| u8::try_from(node).expect("three at most");
    waits
        .map(|(node, key, source)| (number(node), key, source))
        .collect()
}

impl Cluster {
    /// Resolves until nothing waits; then all nodes must be equal.
    pub(crate) fn end_by_hand(&mut self) -> Result<(), String> {
        let mut rng = Rng::new(u64::from(self.fresh));
        for _ in 0..DECISIONS_MAX {
            let waiting = waiting(&self.nodes);
            let Some(last) = u64::try_from(waiting.len()).ok().filter(|count| *count > 0) else {
                self.deliver_all();
                if crate::by_hand::waiting(&self.nodes).is_empty() {
                    return self.all_equal();
                }
                continue;
            };
            let pick = usize::try_from(rng.below(last)).expect("a few");
            let (node, key, source) = waiting[pick];
            self.resolve(node, (key, source), rng.below(2) == 0);
            self.deliver_some(&mut rng);
        }
        Err(format!("decisions never end\n{}", self.report()))
    }

    fn deliver_some(&mut self, rng: &mut Rng) {
        match rng.below(3) {
            0 => {}
            1 => self.deliver_all(),
            _ => {
                let count = u64::try_from(self.nodes.len()).expect("three at most");
                let pick = |below| u8::try_from(below).expect("three at most");
                let from = pick(rng.below(count));
                let to = (from + 1 + pick(rng.below(count - 1))) % pick(count);
                self.tick(1);
                self.deliver(Link { from, to }, 2, How::InOrder);
            }
        }
    }

    fn resolve(&mut self, node: u8, (key, source): (usize, usize), remote: bool) {
        let made = (self.clock(node), node);
        let target = Arc::clone(self.target(node));
        let own = &mut self.nodes[usize::from(node)];
        let (before, waits) = (own.state.version(key), own.state.pending[key][source]);
        let waits = waits.expect("picked because it waits");
        let act = Act {
            strategy: Strategy::Manual,
            relation: &target.map.relation,
            made,
            fresh: 0,
        };
        let changes = resolved(&act, &mut own.state, (key, &waits), remote);
        own.state.pending[key][source] = None;
        own.state.supersede(key, own.state.version(key));
        own.state.stamp(made.0, node);
        own.flushed = own.state;
        let version = own.state.version(key);
        if !changes.is_empty() {
            own.log(made.0, changes);
            let values = own.state.values()[key];
            self.pasts
                .add(key, &[before, waits.known], (version, node, values));
        }
    }

    pub(crate) fn all_equal(&self) -> Result<(), String> {
        self.pasts.check()?;
        let first = &self.nodes[0].state;
        let known =
            |state: &State| std::array::from_fn::<_, KEY_COUNT, _>(|key| state.version(key));
        let equal = |node: &Node| {
            node.state.values() == first.values() && known(&node.state) == known(first)
        };
        if self.nodes.iter().all(equal) {
            return Ok(());
        }
        Err(self.report())
    }

    /// Nothing was lost unseen: what is not known to a node waits there.
    pub(crate) fn report_waiting(&self) -> String {
        let waits = waiting(&self.nodes).into_iter().map(|(node, key, source)| {
            let (node, source) = (NAMES[usize::from(node)], NAMES[source]);
            format!("{key} waits on {node} for {source}\n")
        });
        waits.collect()
    }
}

/// What `mmrepl conflicts resolve` writes.
fn resolved(
    act: &Act<'_>,
    state: &mut State,
    (key, waits): (usize, &Pending),
    remote: bool,
) -> Vec<Change> {
    let before = state.rows[key];
    let row = |(small, large, taken): Values, known| Row {
        small,
        large,
        taken,
        version: Some(versions::knowing(known, act.made)),
        stamp: Stamp::Own,
    };
    let mut changes = Vec::new();
    let is_gone = match (before, waits.values) {
        (Some(there), values) => {
            let own = there.values();
            let wanted = if remote { values } else { Some(own) };
            let known = Some(versions::joined(there.version, waits.known));
            let new = row(wanted.unwrap_or(own), known);
            state.rows[key] = Some(new);
            changes.push(Change::Update {
                relation: Arc::clone(act.relation),
                old: Some(act.image(key, there)),
                new: whole(act.strategy, key, new),
            });
            wanted.is_none()
        }
        (None, Some(values)) => {
            let new = row(values, waits.known);
            state.rows[key] = Some(new);
            changes.push(Change::Insert {
                relation: Arc::clone(act.relation),
                new: whole(act.strategy, key, new),
            });
            changes.extend(act.lift(state, key));
            !remote
        }
        // Deleted on both sides since: every node joins the two deletes.
        (None, None) => {
            let both = versions::joined(state.version(key), waits.known);
            state.remember(key, Some(both));
            false
        }
    };
    if is_gone {
        changes.extend(act.delete(state, key));
    }
    changes
}
