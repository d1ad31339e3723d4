//! Every order of a few operations on one key, with every way of delivering between them.
//!
//! `MMREPL_MODEL_EXHAUSTIVE=1` takes every kind of operation everywhere; best in a release build.

use crate::cluster::Cluster;
use crate::history::{How, Link, NAMES, Strategy, Write};

/// All that can be done to key 0. The moves bring another row in and take the row away.
const ALL: [Write; 7] = [
    Write::Put(0),
    Write::Small(0),
    Write::Large(0),
    Write::Delete(0),
    Write::Truncate,
    Write::Move(0, 1),
    Write::Move(1, 0),
];
/// What decides about rows and tombstones.
const FEW: [Write; 3] = [Write::Put(0), Write::Small(0), Write::Delete(0)];
/// The same, and what decides about tables.
const MORE: [Write; 4] = [
    Write::Put(0),
    Write::Small(0),
    Write::Delete(0),
    Write::Truncate,
];
/// What decides about a unique value that two rows want.
const UNIQUE: [Write; 4] = [
    Write::Take(0, 1),
    Write::Take(1, 1),
    Write::Delete(1),
    Write::Take(0, 0),
];
/// Ticks that pass between two operations: commit times always differ, or are equal as well.
const APART: [u8; 1] = [1];
const APART_OR_NOT: [u8; 2] = [0, 1];

/// Operations, how many of them in a row, on how many nodes.
struct Space {
    writes: &'static [Write],
    ticks: &'static [u8],
    length: usize,
    links: Vec<Link>,
    nodes: u8,
    played: u64,
}

impl Space {
    fn new(nodes: u8, length: usize, writes: &'static [Write], ticks: &'static [u8]) -> Self {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| Link { from, to }));
        Self {
            writes,
            ticks,
            length,
            links: pairs.filter(|link| link.from != link.to).collect(),
            nodes,
            played: 0,
        }
    }

    /// From an empty table, and from two rows that every node has.
    fn explore(&mut self, strategy: Strategy, full: bool) {
        let empty = Cluster::new(self.nodes, strategy, full, [0; 3]);
        let mut filled = empty.clone();
        filled.commit(0, &[Write::Put(0), Write::Put(1)]);
        for link in &self.links {
            filled.deliver(*link, 9, How::Grouped);
        }
        for start in [empty, filled] {
            self.operation(&start, &mut Vec::new());
        }
        println!("{} histories of {} operations", self.played, self.length);
    }

    fn operation(&mut self, cluster: &Cluster, path: &mut Vec<String>) {
        for node in 0..self.nodes {
            for write in self.writes {
                let mut next = cluster.clone();
                next.commit(node, &[*write]);
                path.push(format!("{}: {write}", NAMES[usize::from(node)]));
                self.between(&next, path);
                path.pop();
            }
        }
    }

    /// Delivers over no link, over each, over all; with and without a tick of the clocks before.
    fn between(&mut self, cluster: &Cluster, path: &mut Vec<String>) {
        self.played += 1;
        if let Err(how) = cluster.clone().end() {
            panic!("{path:#?}\n{how}");
        }
        if path.iter().filter(|line| line.contains(':')).count() == self.length {
            return;
        }
        let each = self.links.iter().map(|link| vec![*link]);
        let ways: Vec<Vec<Link>> = std::iter::once(vec![])
            .chain(each)
            .chain([self.links.clone()])
            .collect();
        for ticks in self.ticks {
            for way in &ways {
                let mut next = cluster.clone();
                next.tick(*ticks);
                for link in way {
                    next.deliver(*link, 9, How::Grouped);
                    path.push(link.to_string());
                }
                self.operation(&next, path);
                path.truncate(path.len() - way.len());
            }
        }
    }
}

fn is_thorough() -> bool {
    std::env::var_os("MMREPL_MODEL_EXHAUSTIVE").is_some()
}

/// As given, or everything.
fn explore(nodes: u8, length: usize, writes: &'static [Write], ticks: &'static [u8]) {
    if is_thorough() {
        Space::new(nodes, length, &ALL, &APART_OR_NOT).explore(Strategy::LastWriteWins, false);
    } else {
        Space::new(nodes, length, writes, ticks).explore(Strategy::LastWriteWins, false);
    }
}

#[test]
fn three_operations_of_any_kind_on_two_nodes() {
    explore(2, 3, &ALL, &APART_OR_NOT);
}

#[test]
fn three_operations_of_any_kind_with_whole_old_rows() {
    Space::new(2, 3, &ALL, &APART).explore(Strategy::LastWriteWins, true);
}

#[test]
fn four_operations_on_two_nodes() {
    explore(2, 4, &FEW, &APART);
}

#[test]
fn three_operations_on_three_nodes() {
    explore(3, 3, &MORE, &APART);
}

/// Deletes, and puts that know them or not: what in-row versions must get right.
#[test]
fn three_operations_on_two_nodes_under_every_other_rule() {
    for strategy in Strategy::ALL.into_iter().filter(|rule| rule.is_in_row()) {
        let writes: &[Write] = if is_thorough() { &ALL } else { &FEW };
        let ticks: &[u8] = if is_thorough() { &APART_OR_NOT } else { &APART };
        Space::new(2, 3, writes, ticks).explore(strategy, true);
    }
}

#[test]
fn four_operations_around_a_unique_value_on_two_nodes() {
    Space::new(2, 4, &UNIQUE[..3], &APART).explore(Strategy::LastWriteWins, false);
}

#[test]
fn three_operations_around_a_unique_value_on_three_nodes() {
    Space::new(3, 3, &UNIQUE, &APART).explore(Strategy::LastWriteWins, false);
}
