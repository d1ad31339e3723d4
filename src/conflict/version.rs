//! The version of a row.

use super::Rank;
use crate::commit_time::CommitTime;
use crate::ids::NodeName;

/// When and where a row was written. Ordered: later time first decides, then the node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Commit time by the clock of the node that wrote it.
    pub time: CommitTime,
    /// The node that wrote it.
    pub node: NodeName,
}

/// What is known of the version of a row or tombstone on the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The version that is kept in the row, under a rule that keeps one there.
    pub rank: Option<Rank>,
    /// When and where it was written, while the server still knows.
    pub version: Option<Version>,
}

/// Which of two writes with equal ranks, or of two without, wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The later one; at the same time the node whose name sorts last.
    Later,
    /// The earlier one; at the same time the node whose name sorts last.
    Earlier,
    /// There is no order: a write replaces what it was made knowing, nothing else.
    Known,
}

impl Held {
    /// A version of which only time and node count.
    pub const fn at(version: Option<Version>) -> Self {
        Self {
            rank: None,
            version,
        }
    }
}

impl Version {
    /// True when a write of this version and `rank` replaces what is `held`.
    ///
    /// The rank decides first. Between equal ranks, writes of the same node come in the order they
    /// were made, so the later arrival wins without a look at the clock. A version of which nothing
    /// is known is older than any.
    pub fn wins_over(&self, rank: Option<&Rank>, held: &Held, tie: Tie) -> bool {
        if tie == Tie::Known {
            return rank.map_or(held.rank.is_none(), |rank| rank.knows(held.rank.as_ref()));
        }
        if rank != held.rank.as_ref() {
            return rank > held.rank.as_ref();
        }
        match (&held.version, tie) {
            (None, Tie::Later | Tie::Known) => true,
            // Old enough to be forgotten: the earlier one.
            (None, Tie::Earlier) => held.rank.is_none(),
            (Some(other), _) if other.node == self.node => true,
            (Some(other), Tie::Later | Tie::Known) => self > other,
            (Some(other), Tie::Earlier) => (other.time, &self.node) > (self.time, &other.node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(micros: i64, node: &str) -> Version {
        Version {
            time: CommitTime::from_postgres_micros(micros),
            node: node.parse().unwrap(),
        }
    }

    fn wins(incoming: (&str, &Version), held: (&str, Option<Version>), tie: Tie) -> bool {
        let held = Held {
            rank: held.0.parse().ok(),
            version: held.1,
        };
        incoming
            .1
            .wins_over(incoming.0.parse().ok().as_ref(), &held, tie)
    }

    fn later(incoming: &Version, held: Option<Version>) -> bool {
        wins(("", incoming), ("", held), Tie::Later)
    }

    #[test]
    fn later_wins_and_ties_go_to_the_name_that_sorts_last() {
        assert!(later(&version(2, "east"), Some(version(1, "west"))));
        assert!(!later(&version(1, "east"), Some(version(2, "west"))));
        assert!(later(&version(1, "west"), Some(version(1, "east"))));
        assert!(!later(&version(1, "east"), Some(version(1, "west"))));
    }

    #[test]
    fn unknown_versions_lose_and_one_node_is_trusted_on_its_own_order() {
        assert!(later(&version(1, "east"), None));
        assert!(later(&version(1, "east"), Some(version(2, "east"))));
    }

    #[test]
    fn the_rank_decides_before_the_time() {
        let (early, late) = (version(1, "east"), version(2, "west"));
        for tie in [Tie::Later, Tie::Earlier] {
            assert!(wins(("6", &early), ("5", Some(late.clone())), tie));
            assert!(!wins(("5", &late), ("6", Some(early.clone())), tie));
            assert!(!wins(("5", &late), ("6", None), tie));
            assert!(!wins(("", &late), ("5", Some(early.clone())), tie));
            assert!(wins(("5", &early), ("", Some(late.clone())), tie));
        }
    }

    #[test]
    fn equal_ranks_are_decided_by_time() {
        let (early, late) = (version(1, "east"), version(2, "west"));
        let equal = |incoming: &Version, held: &Version, tie| {
            wins(("5", incoming), ("5.0", Some(held.clone())), tie)
        };
        assert!(equal(&late, &early, Tie::Later) && !equal(&early, &late, Tie::Later));
        assert!(equal(&early, &late, Tie::Earlier) && !equal(&late, &early, Tie::Earlier));
        let (east, west) = (version(1, "east"), version(1, "west"));
        for tie in [Tie::Later, Tie::Earlier] {
            assert!(equal(&west, &east, tie) && !equal(&east, &west, tie));
        }
    }
}
