//! What happens in a cluster, as data: made at random, made shorter, printed for a person.
//!
//! The model plays a history in memory, `tests/it/histories.rs` on real servers.

use std::fmt;

/// Rows have these keys, from 0.
pub const KEYS: u8 = 3;
/// The names of the nodes. Ties go to the one that sorts last: west, then north, then east.
pub const NAMES: [&str; 3] = ["east", "west", "north"];
/// The unique values have these numbers, from 1.
const VALUES: u8 = 2;
/// Most steps of a random history.
const STEPS_MAX: u64 = 18;

/// One statement of an application, on the table `t (id, small, large, taken)`. The large value is
/// one that the stream leaves out where it has not changed; the last is unique. A statement that
/// would make a duplicate does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Insert the row, or write both values where it is there.
    Put(u8),
    /// Write the small value, where the row is there.
    Small(u8),
    /// Write the large value, where the row is there.
    Large(u8),
    /// Give the row another key, where it is there and no row has that key.
    Move(u8, u8),
    /// Take the unique value with this number (0: NULL) and write the small value; insert the row
    /// where it is not there.
    Take(u8, u8),
    /// Delete the row, where it is there.
    Delete(u8),
    /// Empty the table.
    Truncate,
}

/// The rule of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// By commit time.
    #[default]
    LastWriteWins,
    /// By a column of the application.
    VersionColumn,
    /// By a clock in the row.
    HybridClock,
    /// By the number of edits, then the earlier.
    FirstWriteWins,
    /// By the edits of each node.
    NodePriority,
    /// By what each write knew; a person decides between the others.
    Manual,
    /// By what each write knew; a function makes one row of the others.
    Custom,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::LastWriteWins,
        Self::VersionColumn,
        Self::HybridClock,
        Self::FirstWriteWins,
        Self::NodePriority,
        Self::Manual,
        Self::Custom,
    ];

    /// Whether versions say what a write knew. No row is kept aside then.
    pub fn is_by_knowledge(self) -> bool {
        matches!(self, Self::Manual | Self::Custom)
    }

    /// Whether rows carry their version; then the stream has whole old rows.
    pub fn is_in_row(self) -> bool {
        self != Self::LastWriteWins
    }
}

/// What happens next. Nodes and links are indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An application commits these writes as one transaction.
    Commit(u8, Vec<Write>),
    /// The link applies up to so many transactions.
    Deliver(Link, u8, How),
    /// Time passes, in ticks of every clock.
    Tick(u8),
    /// The node's server crashes and comes back without what it had not flushed.
    Crash(u8),
    /// The node flushes its WAL.
    Flush(u8),
    /// The link's last transaction is delivered a second time.
    Again(Link),
    /// Rows that are kept aside on a node return, where they can.
    Return(u8),
}

/// How transactions are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Merged where that is allowed, net change by net change.
    Grouped,
    /// One by one, change by change, as after an error.
    InOrder,
    /// One by one, each change a part of its own, as large transactions are.
    InParts,
}

/// From one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The node written to.
    pub from: u8,
    /// The node applied to.
    pub to: u8,
}

/// A cluster and what happens in it. In the end everything is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How many nodes.
    pub nodes: u8,
    /// The rule of the table.
    pub strategy: Strategy,
    /// The table has `REPLICA IDENTITY FULL`.
    pub full: bool,
    /// How far the clock of each node is ahead.
    pub ahead: [u8; 3],
    /// What happens.
    pub steps: Vec<Step>,
}

/// A source of random numbers: gives one below its argument.
pub type Below<'a> = &'a mut dyn FnMut(u64) -> u64;

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("random numbers here are small")
}

fn key(below: Below<'_>) -> u8 {
    // Most writes meet on the first key.
    small(below(5)).saturating_sub(5 - KEYS)
}

fn write(below: Below<'_>) -> Write {
    match below(21) {
        16..=20 => Write::Take(key(below), small(below(u64::from(VALUES) + 1))),
        0..=3 => Write::Put(key(below)),
        4..=6 => Write::Small(key(below)),
        7..=8 => Write::Large(key(below)),
        9..=11 => Write::Delete(key(below)),
        12..=13 => {
            let from = key(below);
            Write::Move(from, (from + 1 + small(below(u64::from(KEYS) - 1))) % KEYS)
        }
        14 => Write::Take(key(below), 1),
        _ => Write::Truncate,
    }
}

/// A transaction of one to three writes.
pub fn commit(below: Below<'_>, nodes: u8) -> Step {
    let node = small(below(u64::from(nodes)));
    let writes = [1, 1, 1, 2, 3][usize::from(small(below(5)))];
    Step::Commit(node, (0..writes).map(|_| write(below)).collect())
}

fn link(below: Below<'_>, nodes: u8) -> Link {
    let from = small(below(u64::from(nodes)));
    let to = (from + 1 + small(below(u64::from(nodes) - 1))) % nodes;
    Link { from, to }
}

fn how(below: Below<'_>) -> How {
    match below(8) {
        0..=5 => How::Grouped,
        6 => How::InOrder,
        _ => How::InParts,
    }
}

fn step(below: Below<'_>, nodes: u8) -> Step {
    match below(35) {
        32..=34 => Step::Return(small(below(u64::from(nodes)))),
        0..=13 => commit(below, nodes),
        14..=23 => Step::Deliver(link(below, nodes), 1 + small(below(4)), how(below)),
        24..=27 => Step::Tick(1 + small(below(2))),
        28 => Step::Crash(small(below(u64::from(nodes)))),
        29..=30 => Step::Flush(small(below(u64::from(nodes)))),
        _ => Step::Again(link(below, nodes)),
    }
}

impl History {
    /// A random one.
    pub fn random(below: Below<'_>, nodes: u8, strategy: Strategy) -> Self {
        let steps = 2 + below(STEPS_MAX - 1);
        let ahead = [0; 3].map(|_: u8| [0, 0, 1, 3][usize::from(small(below(4)))]);
        Self {
            nodes,
            strategy,
            full: below(4) == 0 || strategy.is_in_row(),
            ahead,
            steps: (0..steps).map(|_| step(below, nodes)).collect(),
        }
    }

    /// The shortest history that still fails, found by leaving out and simplifying until nothing
    /// can be left out any more.
    pub fn shortest(self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut shortest = self;
        while let Some(shorter) = shortest.simpler().into_iter().find(&fails) {
            shortest = shorter;
        }
        shortest
    }

    /// Histories that are simpler by one thing.
    fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for index in 0..self.steps.len() {
            let mut less = self.clone();
            less.steps.remove(index);
            all.push(less);
        }
        for (index, step) in self.steps.iter().enumerate() {
            for simpler in simpler_steps(step) {
                let mut less = self.clone();
                less.steps[index] = simpler;
                all.push(less);
            }
        }
        for node in 0..self.ahead.len() {
            if self.ahead[node] > 0 {
                let mut less = self.clone();
                less.ahead[node] -= 1;
                all.push(less);
            }
        }
        if self.full && !self.strategy.is_in_row() {
            let full = false;
            all.push(Self {
                full,
                ..self.clone()
            });
        }
        all
    }
}

fn simpler_steps(step: &Step) -> Vec<Step> {
    match step {
        Step::Commit(node, writes) => {
            let without = |index| {
                let mut less = writes.clone();
                less.remove(index);
                Step::Commit(*node, less)
            };
            let indexes = 0..writes.len();
            let fewer = indexes.clone().filter(|_| writes.len() > 1).map(without);
            let plainer = indexes.filter(|index| !is_plain(writes[*index]));
            let plainer = plainer.map(|index| {
                let mut less = writes.clone();
                less[index] = Write::Put(0);
                Step::Commit(*node, less)
            });
            fewer.chain(plainer).collect()
        }
        Step::Deliver(link, most, how) => {
            let mut less = Vec::new();
            if *how != How::Grouped {
                less.push(Step::Deliver(*link, *most, How::Grouped));
            }
            if *most > 1 {
                less.push(Step::Deliver(*link, most - 1, *how));
            }
            less
        }
        Step::Tick(ticks) if *ticks > 1 => vec![Step::Tick(ticks - 1)],
        _ => vec![],
    }
}

fn is_plain(write: Write) -> bool {
    matches!(write, Write::Put(_))
}

fn name(node: u8) -> &'static str {
    NAMES[usize::from(node)]
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", name(self.from), name(self.to))
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key) => write!(f, "put {key}"),
            Self::Small(key) => write!(f, "small of {key}"),
            Self::Large(key) => write!(f, "large of {key}"),
            Self::Move(from, to) => write!(f, "move {from} to {to}"),
            Self::Take(key, value) => write!(f, "take {value} for {key}"),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Truncate => f.write_str("truncate"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(node, writes) => {
                let writes: Vec<String> = writes.iter().map(Write::to_string).collect();
                write!(f, "{}: {}", name(*node), writes.join(", "))
            }
            Self::Deliver(link, most, how) => {
                let how = match how {
                    How::Grouped => "",
                    How::InOrder => ", in order",
                    How::InParts => ", in parts",
                };
                write!(f, "{link} applies up to {most}{how}")
            }
            Self::Tick(ticks) => write!(f, "{ticks} ticks pass"),
            Self::Crash(node) => write!(f, "{} crashes", name(*node)),
            Self::Flush(node) => write!(f, "{} flushes", name(*node)),
            Self::Return(node) => write!(f, "rows return on {}", name(*node)),
            Self::Again(link) => write!(f, "{link} delivers its last transaction again"),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = 0..self.nodes;
        let ahead = nodes.map(|node| format!("{} +{}", name(node), self.ahead[usize::from(node)]));
        let ahead: Vec<String> = ahead.collect();
        let identity = if self.full { "full" } else { "default" };
        writeln!(
            f,
            "clocks {}; replica identity {identity}; {:?}",
            ahead.join(", "),
            self.strategy
        )?;
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "  {step}"))
    }
}
