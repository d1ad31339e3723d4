//! Clusters whose rows merge: do all nodes end with the same rows, and with the right ones?
//!
//! `row` is a row with its clocks, `node` plays applications and triggers, `applying` stands for a
//! target and lets the product decide. What must come out is said once more here, from the list of
//! all writes, without joins.

mod applying;
mod node;
mod row;

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use mmrepl::apply::pure::Target;
use mmrepl::commit_time::CommitTime;

use crate::history::{History, How, Link, NAMES, Step, Strategy};
use crate::rng::Rng;
use node::{Did, Node};
use row::{KEY_COUNT, State};

/// Histories for each size of cluster.
const HISTORIES: u64 = 6_000;

/// By source, then whether columns are decided each by itself, then size (two nodes, more).
static TARGETS: LazyLock<[[[Arc<Target>; 2]; 2]; 3]> = LazyLock::new(|| {
    [0, 1, 2].map(|source| {
        [false, true]
            .map(|by_column| [true, false].map(|pair| row::target(source, by_column, pair)))
    })
});

/// A write of an application.
#[derive(Clone, Copy, Debug)]
struct Event {
    key: usize,
    /// Clock and node.
    stamp: (i64, u8),
    did: Did,
}

struct Cluster {
    nodes: Vec<Node>,
    now: i64,
    ahead: [u8; 3],
    by_column: bool,
    events: Vec<Event>,
    fresh: u16,
}

impl Cluster {
    fn new(history: &History, by_column: bool) -> Self {
        Self {
            nodes: vec![Node::default(); usize::from(history.nodes)],
            now: 1,
            ahead: history.ahead,
            by_column,
            events: Vec::new(),
            fresh: 0,
        }
    }

    fn target(&self, source: u8) -> &'static Arc<Target> {
        let size = usize::from(self.nodes.len() > 2);
        &TARGETS[usize::from(source)][usize::from(self.by_column)][size]
    }

    fn clock(&self, node: u8) -> i64 {
        self.now + i64::from(self.ahead[usize::from(node)])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(node, writes) => {
                let made = (self.clock(*node), *node);
                let relation = &self.target(*node).map.relation;
                let act = node::Act::new(made, relation, self.by_column);
                let events = self.nodes[usize::from(*node)].commit(&act, writes, &mut self.fresh);
                self.events.extend(events);
            }
            Step::Deliver(link, most, how) => self.deliver(*link, usize::from(*most), *how),
            Step::Tick(ticks) => self.now += i64::from(*ticks),
            Step::Crash(node) => self.nodes[usize::from(*node)].crash(),
            Step::Flush(node) => self.nodes[usize::from(*node)].flush(),
            Step::Again(link) => self.deliver_again(*link),
            // Nothing is kept aside here.
            Step::Return(_) => {}
        }
    }

    fn deliver(&mut self, link: Link, most: usize, how: How) {
        let (from, to) = (usize::from(link.from), usize::from(link.to));
        let position = self.nodes[to].state.positions[from];
        let end = self.nodes[from]
            .wal
            .len()
            .min(position.saturating_add(most));
        let merged = self.nodes.len() == 2 && how == How::Grouped;
        let mut next = position;
        while next < end {
            let until = if merged { end } else { next + 1 };
            let state = self.apply(link, (next, until), how);
            self.nodes[to].state = state;
            self.nodes[to].state.positions[from] = until;
            next = until;
        }
    }

    /// What one target transaction leaves.
    fn apply(&mut self, link: Link, (first, until): (usize, usize), how: How) -> State {
        let pieces = &self.nodes[usize::from(link.from)].wal[first..until];
        let times = pieces.iter().map(|piece| piece.header.commit_time);
        let newest = times.max().map_or(0, CommitTime::as_postgres_micros);
        // The clock rule: the link waits.
        self.now += (newest + 1 - self.clock(link.to)).max(0);
        let state = &self.nodes[usize::from(link.to)].state;
        let target = self.target(link.from);
        let source = NAMES[usize::from(link.from)].parse().unwrap();
        let applying = applying::Applying::new(state, target, source, self.by_column);
        match how {
            How::Grouped => applying.group(pieces),
            How::InOrder => applying.in_order(&pieces[0]),
            How::InParts => applying.in_parts(&pieces[0]),
        }
    }

    /// Once more, as if the position had been lost: nothing may change.
    fn deliver_again(&mut self, link: Link) {
        let (from, to) = (usize::from(link.from), usize::from(link.to));
        let before = self.nodes[to].state;
        if let Some(last) = before.positions[from].checked_sub(1) {
            let after = self.apply(link, (last, last + 1), How::Grouped);
            assert_eq!(after, before, "applied twice");
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.now += 100;
        let nodes = u8::try_from(self.nodes.len()).expect("three at most");
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if from != to {
                self.deliver(Link { from, to }, usize::MAX, How::Grouped);
            }
        }
        let states: Vec<State> = self.nodes.iter().map(|node| node.state).collect();
        let wanted: [Option<(u16, u16, i64)>; KEY_COUNT] =
            std::array::from_fn(|key| self.wanted(key));
        let equal = states.iter().all(|state| {
            state.rows == states[0].rows && state.values() == wanted && state.buried(&states[0])
        });
        let sums = (0..KEY_COUNT).all(|key| self.sum_is_right(key));
        if equal && sums {
            return Ok(());
        }
        let mut text = format!("wanted {wanted:?}\n");
        for (name, state) in NAMES.iter().zip(&states) {
            let _ = writeln!(text, "{name}: {state:#?}");
        }
        Err(text)
    }

    fn events(&self, key: usize) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.key == key)
    }

    /// What must be there in the end: each value from the newest write that set it.
    fn wanted(&self, key: usize) -> Option<(u16, u16, i64)> {
        let newest = |of: &dyn Fn(&Event) -> bool| {
            let events = self.events(key).filter(|event| of(event));
            events.max_by_key(|event| (event.stamp.0, NAMES[usize::from(event.stamp.1)]))
        };
        let last = newest(&|_| true)?;
        if last.did == Did::Gone {
            return None;
        }
        let base = newest(&|event| matches!(event.did, Did::Made { .. }))?;
        let Did::Made { count: from, .. } = base.did else {
            unreachable!("just selected")
        };
        let sums = (0..3).filter_map(|node| {
            let own = |event: &Event| {
                event.stamp.1 == node && event.stamp.0 > base.stamp.0 && event.did.sum().is_some()
            };
            newest(&own)?.did.sum()
        });
        let count = from + sums.sum::<i64>();
        if !self.by_column {
            return last
                .did
                .values()
                .map(|(small, large)| (small, large, count));
        }
        let small = newest(&|event| event.did.set().0)?.did.values()?.0;
        let large = newest(&|event| event.did.set().1)?.did.values()?.1;
        Some((small, large, count))
    }

    /// A row that was made once and never deleted has the sum of all changes.
    fn sum_is_right(&self, key: usize) -> bool {
        let made = self
            .events(key)
            .filter(|event| matches!(event.did, Did::Made { .. }));
        let gone = self.events(key).any(|event| event.did == Did::Gone);
        if gone || made.count() != 1 {
            return true;
        }
        let sum: i64 = self.events(key).map(|event| event.did.delta()).sum();
        let counts = self.nodes.iter().map(|node| node.state.rows[key]);
        counts
            .into_iter()
            .all(|row| row.is_some_and(|row| row.count == sum))
    }
}

fn play(history: &History, by_column: bool) -> Result<(), String> {
    let mut cluster = Cluster::new(history, by_column);
    history.steps.iter().for_each(|step| cluster.step(step));
    cluster.end()
}

fn many(nodes: u8, by_column: bool) {
    let asked = std::env::var("MMREPL_MODEL_HISTORIES").ok();
    let count = asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(HISTORIES);
    let mut rng = Rng::from_env(11);
    for number in 0..count {
        let mut own = rng.fork();
        let history = History::random(&mut |bound| own.below(bound), nodes, Strategy::HybridClock);
        if play(&history, by_column).is_err() {
            let shortest = history.shortest(|shorter| play(shorter, by_column).is_err());
            let how = play(&shortest, by_column).unwrap_err();
            panic!("history {number} diverges; the shortest that does:\n{shortest}{how}");
        }
    }
}

#[test]
fn two_nodes_end_equal_under_column_merge() {
    many(2, true);
}

#[test]
fn three_nodes_end_equal_under_column_merge() {
    many(3, true);
}

#[test]
fn two_nodes_end_equal_with_counters() {
    many(2, false);
}

#[test]
fn three_nodes_end_equal_with_counters() {
    many(3, false);
}
