//! The version of a row.

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

impl Version {
    /// True when a write of this version replaces one whose version is `other`.
    ///
    /// Writes of the same node come in the order they were made, so the later arrival wins
    /// without a look at the clock; an unknown version (`None`) is older than any.
    pub fn wins_over(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| other.node == self.node || *self > *other)
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

    #[test]
    fn later_wins_and_ties_go_to_the_name_that_sorts_last() {
        assert!(version(2, "east").wins_over(Some(&version(1, "west"))));
        assert!(!version(1, "east").wins_over(Some(&version(2, "west"))));
        assert!(version(1, "west").wins_over(Some(&version(1, "east"))));
        assert!(!version(1, "east").wins_over(Some(&version(1, "west"))));
    }

    #[test]
    fn unknown_versions_lose_and_one_node_is_trusted_on_its_own_order() {
        assert!(version(1, "east").wins_over(None));
        assert!(version(1, "east").wins_over(Some(&version(2, "east"))));
    }
}
