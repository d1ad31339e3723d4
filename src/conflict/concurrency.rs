//! Which writes were made without knowledge of each other: what is recorded as a conflict.
//!
//! Versions alone decide who wins. A conflict is something narrower: two writes of one key on two
//! nodes, neither made with the other's in view. Everyday back-and-forth edits are none.
//!
//! ```text
//! west's WAL  ── change a ─── row of b ─ marker "applied east up to t" ─ commit ── change c ──▶
//!                  │                         ▲                                       │
//!                  │ did not know b          │ b was made on east at t               │ knew b
//! ```
//!
//! The target of a change asks: had the source applied the write that my row has now, when it made
//! this change? The source's own WAL answers. The last act of every apply transaction is a
//! *marker*: a logical message, not part of the transaction, that names the node whose writes were
//! just applied and the newest commit time among them. The daemon that reads the source's stream
//! meets the marker there and keeps, for every position, what the source had [`Seen`] by then.
//!
//! Why the *position of the change record* is what must be compared, and why it is exact for a row:
//!
//! 1. A marker is delivered when decoding reaches it; a transaction when decoding reaches its
//!    commit. So all markers before a commit are known when its changes arrive, but some of them
//!    may lie behind a change of that transaction. Each change has its own position, which says
//!    which markers lie before it.
//! 2. The apply transaction writes the row (locking it), then the marker, then commits (letting the
//!    row go). A local change of the same row waits for that lock or holds it: its record lies
//!    either before the row write, so before the marker, or after the commit, so after the marker.
//! 3. Where the apply transaction did not touch the row, because what was there is newer, the local
//!    row was written before, without knowledge, and that change lies before the marker as well.
//! 4. A marker whose transaction then fails says too much until the retry has succeeded. It can
//!    only keep a record from being written; it never decides who wins.
//!
//! Times stand for transactions: "applied up to t" is taken for every write of that node with a
//! time up to t. Two transactions that commit in the same instant may enter the WAL the other way
//! round than their times say, by microseconds; a change made exactly between applying those two
//! may go unrecorded. The other error, a record without a conflict, cannot come from this.
//!
//! For a change that lies before everything the daemon remembers (its transaction was open while
//! the daemon was started), nothing counts as seen: one record too many rather than one missing.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Incoming, Local, Version, Write};
use crate::commit_time::CommitTime;
use crate::ids::{ClusterName, NodeName};
use crate::lsn::Lsn;

/// The prefix of mmrepl's logical messages.
pub const MARKER_PREFIX: &str = "mmrepl";

/// Most points in time that a [`SeenHistory`] keeps; then it keeps fewer of the older ones.
pub const SEEN_HISTORY_MAX: usize = 8192;

/// What a node had applied from each other node: everything up to a commit time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Few nodes: a list is faster than a map.
    nodes: Vec<(NodeName, CommitTime)>,
}

/// The text is not a JSON object of node names and microseconds.
#[derive(Debug, thiserror::Error)]
#[error("not an object of node names and microseconds")]
pub struct BadSeen;

impl Seen {
    /// The newest commit time of `node` that had been applied; `None` when nothing had.
    pub fn of(&self, node: &NodeName) -> Option<CommitTime> {
        let found = self.nodes.iter().find(|(name, _)| name == node)?;
        Some(found.1)
    }

    /// The newest commit time of all that had been applied.
    pub fn newest(&self) -> Option<CommitTime> {
        self.nodes.iter().map(|(_, time)| *time).max()
    }

    /// Everything of `node` up to `time` has been applied, too.
    pub fn note(&mut self, node: &NodeName, time: CommitTime) {
        match self.nodes.iter_mut().find(|(name, _)| name == node) {
            Some((_, known)) => *known = time.max(*known),
            None => self.nodes.push((node.clone(), time)),
        }
    }

    /// What both say.
    fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (node, time) in &other.nodes {
            both.note(node, *time);
        }
        both
    }

    /// Whether a write of this version had been applied.
    pub fn includes(&self, version: &Version) -> bool {
        self.of(&version.node)
            .is_some_and(|time| version.time <= time)
    }

    /// The newest time of `node` such that a write up to it is both known to the source and older
    /// than a change made at `time`: nothing to decide and nothing to record. `None`: no such time.
    pub fn floor(&self, node: &NodeName, time: CommitTime) -> Option<CommitTime> {
        Some(self.of(node)?.min(time.plus_micros(-1)))
    }
}

impl fmt::Display for Seen {
    /// As JSON: `{"west":822873600000000}`. Names need no escaping.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (node, time)) in self.nodes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}\"{node}\":{}", time.as_postgres_micros())?;
        }
        f.write_str("}")
    }
}

impl FromStr for Seen {
    type Err = BadSeen;

    fn from_str(text: &str) -> Result<Self, BadSeen> {
        let nodes: std::collections::BTreeMap<NodeName, i64> =
            serde_json::from_str(text).map_err(|_| BadSeen)?;
        let time = CommitTime::from_postgres_micros;
        Ok(Self {
            nodes: nodes.into_iter().map(|(n, t)| (n, time(t))).collect(),
        })
    }
}

/// What an apply transaction leaves in the WAL of the node it ran on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Several clusters may share a database.
    pub cluster: ClusterName,
    /// The node whose writes were applied.
    pub node: NodeName,
    /// Where the last of their commits stands in that node's WAL.
    pub commit_lsn: Lsn,
    /// The newest of their commit times.
    pub time: CommitTime,
}

impl fmt::Display for Marker {
    /// `applied shop west 0/17EA0E8 822873600000000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, node, lsn) = (&self.cluster, &self.node, self.commit_lsn);
        let micros = self.time.as_postgres_micros();
        write!(f, "applied {cluster} {node} {lsn} {micros}")
    }
}

impl Marker {
    /// Reads the content of a message; `None` for one that is no marker.
    pub fn parse(prefix: &str, content: &[u8]) -> Option<Self> {
        if prefix != MARKER_PREFIX {
            return None;
        }
        let mut words = std::str::from_utf8(content).ok()?.split(' ');
        let marker = match words.next()? {
            "applied" => Self {
                cluster: words.next()?.parse().ok()?,
                node: words.next()?.parse().ok()?,
                commit_lsn: words.next()?.parse().ok()?,
                time: CommitTime::from_postgres_micros(words.next()?.parse().ok()?),
            },
            _ => return None,
        };
        words.next().is_none().then_some(marker)
    }
}

/// What a node had seen, for every position of its WAL that may still be asked for.
#[derive(Clone, Debug)]
pub struct SeenHistory {
    /// From this position on, this had been seen; in the order of the WAL.
    points: VecDeque<(Lsn, Arc<Seen>)>,
    nothing: Arc<Seen>,
}

impl SeenHistory {
    /// At position `from` the node had seen `base`.
    pub fn new(from: Lsn, base: Seen) -> Self {
        Self {
            points: VecDeque::from([(from, Arc::new(base))]),
            nothing: Arc::default(),
        }
    }

    /// Goes on where an earlier connection to the same WAL left off, if that one `remembered` what
    /// lies before: a transaction may have made changes long before the position from which it is
    /// sent again.
    #[must_use]
    pub fn after(self, remembered: &Self) -> Self {
        let (Some((from, base)), Some((first, _))) =
            (self.points.front().cloned(), remembered.points.front())
        else {
            return self;
        };
        if *first > from {
            return self;
        }
        let before = remembered.points.iter().filter(|(at, _)| *at < from);
        let mut points: VecDeque<_> = before.cloned().collect();
        points.push_back((from, Arc::new(remembered.at(from).with(&base))));
        let later = remembered.points.iter().filter(|(at, _)| *at > from);
        points.extend(later.map(|(at, seen)| (*at, Arc::new(seen.with(&base)))));
        Self { points, ..self }
    }

    /// A marker stands at `lsn`. One that was noted before changes nothing.
    pub fn note(&mut self, lsn: Lsn, marker: &Marker) {
        let Some((from, last)) = self.points.back() else {
            return;
        };
        let after = Lsn::new(lsn.as_u64().saturating_add(1));
        if after <= *from {
            return;
        }
        let mut seen = Seen::clone(last);
        seen.note(&marker.node, marker.time);
        self.points.push_back((after, Arc::new(seen)));
        if self.points.len() > SEEN_HISTORY_MAX {
            self.thin_out();
        }
    }

    /// Keeps every other of the older half. What is asked for in between is answered with what had
    /// been seen a little earlier.
    fn thin_out(&mut self) {
        let half = self.points.len() / 2;
        let mut index = 0;
        self.points.retain(|_| {
            index += 1;
            index > half || index % 2 == 1
        });
    }

    /// The newest of it, and the position from which on it holds.
    pub fn newest(&self) -> (Lsn, Arc<Seen>) {
        let newest = self.points.back();
        newest.map_or_else(|| (Lsn::MAX, Arc::clone(&self.nothing)), Clone::clone)
    }

    /// What the node had seen when it wrote the record at `lsn`.
    pub fn at(&self, lsn: Lsn) -> &Arc<Seen> {
        // Nearly always the newest: look from the end.
        let point = self.points.iter().rev().find(|(from, _)| *from <= lsn);
        point.map_or(&self.nothing, |(_, seen)| seen)
    }
}

/// The write that `incoming` did not know of and competes with, where the target holds one.
///
/// Two deletes of one key do not compete. A version that is no longer known is old.
pub fn rival<'a>(incoming: &Incoming, local: &'a Local, seen: &Seen) -> Option<&'a Version> {
    let unknown = |held: &&Version| held.node != incoming.version.node && !seen.includes(held);
    match &local.row {
        Some(row) => row.version.as_ref().filter(unknown),
        None if incoming.write == Write::Delete => None,
        None => {
            let deletes = local.tombstones.iter().filter_map(|t| t.version.as_ref());
            deletes.filter(unknown).max()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflict::Held;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn time(micros: i64) -> CommitTime {
        CommitTime::from_postgres_micros(micros)
    }

    fn seen(list: &[(&str, i64)]) -> Seen {
        let mut seen = Seen::default();
        for (name, micros) in list {
            seen.note(&node(name), time(*micros));
        }
        seen
    }

    fn marker(name: &str, micros: i64) -> Marker {
        Marker {
            cluster: "shop".parse().unwrap(),
            node: node(name),
            commit_lsn: Lsn::new(0x1_0000_0002),
            time: time(micros),
        }
    }

    fn version(micros: i64, name: &str) -> Version {
        Version {
            time: time(micros),
            node: node(name),
        }
    }

    #[test]
    fn markers_are_read_as_written() {
        let written = marker("west", -5);
        assert_eq!(written.to_string(), "applied shop west 1/2 -5");
        let read = |text: &str| Marker::parse(MARKER_PREFIX, text.as_bytes());
        assert_eq!(read(&written.to_string()), Some(written.clone()));
        assert_eq!(Marker::parse("other", written.to_string().as_bytes()), None);
        for text in ["", "applied", "applied shop west 1/2", "x shop west 1/2 3"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("applied shop west 1/2 3 4"), None);
        assert_eq!(Marker::parse(MARKER_PREFIX, b"applied \xff"), None);
    }

    #[test]
    fn what_was_seen_is_read_as_written() {
        let written = seen(&[("west", 7), ("north", 9)]);
        let read: Seen = written.to_string().parse().unwrap();
        assert_eq!(read.of(&node("west")), Some(time(7)));
        assert_eq!(read.of(&node("north")), Some(time(9)));
        assert_eq!(read.of(&node("south")), None);
        assert_eq!("{}".parse::<Seen>().unwrap(), Seen::default());
        assert!("[]".parse::<Seen>().is_err());
    }

    #[test]
    fn a_change_knows_the_markers_before_it() {
        let mut history = SeenHistory::new(Lsn::new(100), seen(&[("west", 1)]));
        history.note(Lsn::new(200), &marker("west", 2));
        history.note(Lsn::new(300), &marker("north", 5));
        let west = |lsn| history.at(Lsn::new(lsn)).of(&node("west"));
        assert_eq!(west(99), None);
        assert_eq!(west(100), Some(time(1)));
        assert_eq!(west(200), Some(time(1)));
        assert_eq!(west(201), Some(time(2)));
        assert_eq!(west(301), Some(time(2)));
        assert_eq!(history.at(Lsn::new(999)).of(&node("north")), Some(time(5)));
    }

    #[test]
    fn what_an_earlier_connection_remembered_counts() {
        let mut earlier = SeenHistory::new(Lsn::new(100), seen(&[("west", 1)]));
        earlier.note(Lsn::new(200), &marker("west", 2));
        let later = SeenHistory::new(Lsn::new(300), seen(&[("west", 3)])).after(&earlier);
        let west = |history: &SeenHistory, lsn| history.at(Lsn::new(lsn)).of(&node("west"));
        assert_eq!(west(&later, 150), Some(time(1)));
        assert_eq!(west(&later, 250), Some(time(2)));
        assert_eq!(west(&later, 300), Some(time(3)));
        // One that begins later knows less.
        let first = SeenHistory::new(Lsn::new(50), seen(&[("west", 0)])).after(&later);
        assert_eq!(west(&first, 50), Some(time(0)));
        assert_eq!(west(&first, 250), Some(time(0)));
    }

    #[test]
    fn a_marker_that_comes_again_changes_nothing() {
        let mut history = SeenHistory::new(Lsn::new(100), Seen::default());
        history.note(Lsn::new(200), &marker("west", 2));
        history.note(Lsn::new(150), &marker("west", 1));
        history.note(Lsn::new(200), &marker("west", 2));
        assert_eq!(history.points.len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_never_claims_too_much() {
        let mut history = SeenHistory::new(Lsn::new(1), Seen::default());
        let last = 10 * SEEN_HISTORY_MAX as u64;
        for n in 1..=last {
            history.note(Lsn::new(n * 10), &marker("west", n.cast_signed()));
        }
        assert!(history.points.len() <= SEEN_HISTORY_MAX);
        for n in [1, 77, 4096, last / 2, last - 1] {
            let found = history.at(Lsn::new(n * 10 + 5)).of(&node("west"));
            assert!(found <= Some(time(n.cast_signed())), "{n}: {found:?}");
        }
        let newest = history.at(Lsn::new(last * 10 + 5)).of(&node("west"));
        assert_eq!(newest, Some(time(last.cast_signed())));
    }

    #[test]
    fn the_floor_is_below_both() {
        let seen = seen(&[("west", 10)]);
        assert_eq!(seen.floor(&node("west"), time(20)), Some(time(10)));
        assert_eq!(seen.floor(&node("west"), time(10)), Some(time(9)));
        assert_eq!(seen.floor(&node("north"), time(20)), None);
    }

    fn put(micros: i64) -> Incoming {
        Incoming {
            write: Write::Put,
            version: version(micros, "east"),
            rank: None,
        }
    }

    fn row(version: Option<Version>) -> Local {
        Local {
            row: Some(Held::at(version)),
            tombstones: vec![],
        }
    }

    #[test]
    fn only_what_the_source_had_not_applied_competes() {
        let seen = seen(&[("west", 10)]);
        let competes = |local: &Local| rival(&put(20), local, &seen).is_some();
        assert!(!competes(&row(Some(version(10, "west")))));
        assert!(competes(&row(Some(version(11, "west")))));
        assert!(competes(&row(Some(version(1, "north")))));
        assert!(!competes(&row(Some(version(99, "east")))));
        assert!(!competes(&row(None)));
        assert!(!competes(&Local::default()));
    }

    #[test]
    fn a_put_competes_with_a_delete_and_two_deletes_do_not() {
        let gone = Local {
            row: None,
            tombstones: [Some(version(3, "west")), Some(version(5, "west")), None]
                .map(Held::at)
                .into(),
        };
        let seen = seen(&[("west", 4)]);
        assert_eq!(rival(&put(9), &gone, &seen), Some(&version(5, "west")));
        let delete = Incoming {
            write: Write::Delete,
            ..put(9)
        };
        assert_eq!(rival(&delete, &gone, &seen), None);
        assert!(rival(&delete, &row(Some(version(5, "west"))), &seen).is_some());
    }
}
