//! Plays a history on nodes in memory and says whether they end equal.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use mmrepl::apply::pure::Target;
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::Version;
use mmrepl::conflict::unique::admitted;
use mmrepl::ids::NodeName;

use crate::applying::Applying;
use crate::aside::bring_back;
use crate::by_hand::Pasts;
use crate::history::{History, How, Link, NAMES, Step, Strategy, Write};
use crate::node::{Effect, KEY_COUNT, Node, Stamp, State, Values};
use crate::table;
use crate::versions::Kept;

static NODE_NAMES: LazyLock<Vec<NodeName>> =
    LazyLock::new(|| NAMES.iter().map(|name| name.parse().unwrap()).collect());

/// By rule, source, size of the cluster (two nodes, more) and replica identity (default, full).
type Targets = [[[[Arc<Target>; 2]; 2]; 3]; 7];

static TARGETS: LazyLock<Targets> = LazyLock::new(|| {
    Strategy::ALL.map(|strategy| {
        [0, 1, 2].map(|source| {
            [true, false]
                .map(|pair| [false, true].map(|full| table::target(strategy, source, pair, full)))
        })
    })
});

/// The newest write of a key by any application: what every node must have in the end.
#[derive(Clone, Copy, Debug)]
struct Newest {
    version: Kept,
    time: i64,
    node: u8,
    values: Option<Values>,
}

/// Two or three nodes.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// True time; the clocks are ahead of it.
    now: i64,
    ahead: [u8; 3],
    strategy: Strategy,
    full: bool,
    newest: [Option<Newest>; KEY_COUNT],
    pub(crate) fresh: u16,
    pub(crate) pasts: Pasts,
}

impl Cluster {
    pub(crate) fn new(nodes: u8, strategy: Strategy, full: bool, ahead: [u8; 3]) -> Self {
        Self {
            nodes: vec![Node::default(); usize::from(nodes)],
            now: 1,
            ahead,
            strategy,
            full,
            newest: [None; KEY_COUNT],
            fresh: 0,
            pasts: Pasts::default(),
        }
    }

    /// The table as a link from `source` writes it.
    pub(crate) fn target(&self, source: u8) -> &'static Arc<Target> {
        let strategies = Strategy::ALL.iter();
        let rule = strategies
            .take_while(|strategy| **strategy != self.strategy)
            .count();
        let of_source = &TARGETS[rule][usize::from(source)];
        &of_source[usize::from(!self.is_pair())][usize::from(self.full)]
    }

    pub(crate) fn clock(&self, node: u8) -> i64 {
        self.now + i64::from(self.ahead[usize::from(node)])
    }

    fn is_pair(&self) -> bool {
        self.nodes.len() == 2
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(node, writes) => self.commit(*node, writes),
            Step::Deliver(link, most, how) => {
                self.deliver(*link, usize::from(*most), *how);
            }
            Step::Tick(ticks) => self.tick(*ticks),
            Step::Crash(node) => {
                let node = &mut self.nodes[usize::from(*node)];
                node.state = node.flushed;
            }
            Step::Flush(node) => {
                let node = &mut self.nodes[usize::from(*node)];
                node.flushed = node.state;
            }
            Step::Return(node) => self.bring_back(usize::from(*node)),
            Step::Again(link) => self.deliver_again(*link),
        }
    }

    pub(crate) fn tick(&mut self, ticks: u8) {
        self.now += i64::from(ticks);
    }

    pub(crate) fn commit(&mut self, node: u8, writes: &[Write]) {
        let time = self.clock(node);
        let table = (self.strategy, &self.target(node).map.relation);
        let state = self.nodes[usize::from(node)].state;
        let mut before: [Kept; KEY_COUNT] = std::array::from_fn(|key| state.version(key));
        let effects =
            self.nodes[usize::from(node)].commit((time, node), writes, table, &mut self.fresh);
        for effect in effects {
            if self.strategy.is_by_knowledge() {
                let (key, values, version) = effect;
                self.pasts.add(key, &[before[key]], (version, node, values));
                before[key] = version;
            }
            self.remember((time, node), effect);
        }
    }

    /// An independent statement of the rule: the greater version wins, then the later write (the
    /// earlier under one rule), then the later name.
    fn remember(&mut self, (time, node): (i64, u8), (key, values, version): Effect) {
        let name = |node: u8| NAMES[usize::from(node)];
        let known = &mut self.newest[key];
        let wins = known.is_none_or(|known| {
            let by_time = match self.strategy {
                Strategy::FirstWriteWins => known.time.cmp(&time),
                _ => time.cmp(&known.time),
            };
            let by_name = name(node).cmp(name(known.node));
            version.cmp(&known.version).then(by_time).then(by_name) != Ordering::Less
        });
        if wins {
            *known = Some(Newest {
                version,
                time,
                node,
                values,
            });
        }
    }

    /// Applies what waits on a link, up to `most` transactions.
    pub(crate) fn deliver(&mut self, link: Link, most: usize, how: How) {
        let (from, to) = (usize::from(link.from), usize::from(link.to));
        let position = self.nodes[to].state.positions[from];
        let end = self.nodes[from]
            .wal
            .len()
            .min(position.saturating_add(most));
        let merged = self.is_pair() && how == How::Grouped;
        let mut next = position;
        while next < end {
            let until = if merged { end } else { next + 1 };
            if self.apply(link, (next, until), how).is_none() {
                for single in next..until {
                    self.apply(link, (single, single + 1), How::InOrder)
                        .expect("in order nothing is overtaken");
                }
            }
            next = until;
        }
    }

    /// One target transaction; nothing when it was rolled back.
    fn apply(&mut self, link: Link, (first, until): (usize, usize), how: How) -> Option<()> {
        let (from, to) = (usize::from(link.from), usize::from(link.to));
        let pieces = &self.nodes[from].wal[first..until];
        let times = pieces
            .iter()
            .map(|piece| piece.header.commit_time.as_postgres_micros());
        let newest = times.max()?;
        // The clock rule: the link waits.
        self.now += (newest + 1 - self.clock(link.to)).max(0);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let seen = (link.from, &source.state);
        let table = (self.strategy, self.target(link.from));
        let applying = Applying::begin(&target.state, &NODE_NAMES, seen, table);
        let applied = match how {
            How::Grouped => applying.group(pieces),
            How::InOrder => applying.in_order(&pieces[0]),
            How::InParts => applying.in_parts(&pieces[0]),
        };
        let mut state: State = applied.ok()?;
        // `mmrepl.advance_position` refuses a position that is not ahead.
        if until <= state.positions[from] {
            return None;
        }
        state.positions[from] = until;
        state.stamp(newest, link.from);
        self.nodes[to].state = state;
        Some(())
    }

    fn deliver_again(&mut self, link: Link) {
        let (from, to) = (usize::from(link.from), usize::from(link.to));
        let before = self.nodes[to].state;
        let Some(last) = before.positions[from].checked_sub(1) else {
            return;
        };
        assert_eq!(
            self.apply(link, (last, last + 1), How::Grouped),
            None,
            "applied twice"
        );
        assert_eq!(self.nodes[to].state, before);
    }

    /// Delivers everything, and says how the nodes differ from each other or from the rule.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.tick(100);
        self.deliver_all();
        if self.strategy == Strategy::Manual {
            return self.end_by_hand();
        }
        if self.strategy == Strategy::Custom {
            return self.end_by_function();
        }
        (0..self.nodes.len()).for_each(|node| self.bring_back(node));
        let wanted = self.admitted();
        let equal = self.nodes.iter().all(|node| node.state.values() == wanted);
        if equal && (self.is_pair() || self.versions_agree()) {
            Ok(())
        } else {
            Err(self.report())
        }
    }

    pub(crate) fn deliver_all(&mut self) {
        let nodes = u8::try_from(self.nodes.len()).expect("three at most");
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if from != to {
                self.deliver(Link { from, to }, usize::MAX, How::Grouped);
            }
        }
    }

    fn bring_back(&mut self, node: usize) {
        bring_back(&mut self.nodes[node].state, &NODE_NAMES, self.strategy);
    }

    /// What every node must show: the newest writes, less those that lose their unique value.
    fn admitted(&self) -> [Option<Values>; KEY_COUNT] {
        let newest = self.newest.iter().enumerate();
        let rows = newest.filter_map(|(key, newest)| {
            let newest = newest.as_ref()?;
            let version = Version {
                time: CommitTime::from_postgres_micros(newest.time),
                node: NODE_NAMES[usize::from(newest.node)].clone(),
            };
            Some((version, (key, newest.values?)))
        });
        let mut wanted = [None; KEY_COUNT];
        let are_rivals = |a: &(usize, Values), b: &(usize, Values)| a.1.2 != 0 && a.1.2 == b.1.2;
        for (_, (key, values)) in admitted(rows.collect(), are_rivals) {
            wanted[key] = Some(values);
        }
        wanted
    }

    /// In a mesh, where nothing is merged, every node also has every version.
    fn versions_agree(&self) -> bool {
        let versions = |node: &Node| {
            let version = |key: usize| version(&node.state, key);
            std::array::from_fn::<_, KEY_COUNT, _>(version)
        };
        let first = versions(&self.nodes[0]);
        self.nodes[1..].iter().all(|node| versions(node) == first)
    }

    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for (name, node) in NAMES.iter().zip(&self.nodes) {
            let _ = writeln!(text, "{name}: {}", rows(&node.state));
        }
        text += &self.report_waiting();
        for (key, newest) in self.newest.iter().enumerate() {
            if let Some(newest) = newest {
                let (time, node) = (newest.time, NAMES[usize::from(newest.node)]);
                let _ = writeln!(
                    text,
                    "newest of {key}: {:?} {:?} at {time} by {node}",
                    newest.values, newest.version
                );
            }
        }
        text
    }
}

/// When and where the key was last written: its row, else its newest tombstone.
fn version(state: &State, key: usize) -> Option<(Kept, i64, &'static str)> {
    let named = |(version, stamp): (Kept, Stamp)| match stamp {
        Stamp::At(time, node) => (version, time, NAMES[usize::from(node)]),
        Stamp::Own => unreachable!("no transaction is under way"),
    };
    let own = state.tombstones[key].map(|own| (own.version, own.stamp));
    let emptied = state.emptied.map(|stamp| (None, stamp));
    let kept = state.shadows[key].map(|own| (own.version, own.stamp()));
    match state.rows[key].map(|row| (row.version, row.stamp)).or(kept) {
        Some(held) => Some(named(held)),
        None => [own, emptied].into_iter().flatten().map(named).max(),
    }
}

fn rows(state: &State) -> String {
    let rows = state.rows.iter().enumerate();
    let shown = rows.filter_map(|(key, row)| {
        row.map(|row| {
            format!(
                "{key} = {:?} {:?} {:?}",
                row.values(),
                row.version,
                row.stamp
            )
        })
    });
    let gone = state.tombstones.iter().enumerate();
    let gone = gone.filter_map(|(key, own)| {
        own.map(|own| format!("{key} gone {:?} {:?}", own.version, own.stamp))
    });
    let kept = state.shadows.iter().enumerate();
    let kept = kept.filter_map(|(key, own)| own.map(|own| format!("{key} aside {own:?}")));
    shown.chain(gone).chain(kept).collect::<Vec<_>>().join(", ")
}

/// Plays a history to its end.
pub(crate) fn play(history: &History) -> Result<(), String> {
    let mut cluster = Cluster::new(history.nodes, history.strategy, history.full, history.ahead);
    history.steps.iter().for_each(|step| cluster.step(step));
    cluster.end()
}
