//! The case table: an incoming write against what the target holds for the same key.

use super::{Held, Rank, Tie, Version};

/// What the incoming change does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Insert or update: afterwards the row exists.
    Put,
    /// Delete: afterwards it does not.
    Delete,
}

/// An incoming change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// What it does.
    pub write: Write,
    /// When and where it was made.
    pub version: Version,
    /// The version that the row carries, under a rule that keeps one there.
    pub rank: Option<Rank>,
}

/// What the target holds for the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The version of the row, where there is one.
    pub row: Option<Held>,
    /// The versions of the tombstones that cover the key: its own, and the table's after a
    /// truncate.
    pub tombstones: Vec<Held>,
}

impl Local {
    /// The version in the row, or in the tombstone, that was written with this `version`.
    pub fn rank_of(&self, version: &Version) -> Option<&Rank> {
        let mut held = self.row.iter().chain(&self.tombstones);
        let found = held.find(|held| held.version.as_ref() == Some(version));
        found.and_then(|held| held.rank.as_ref())
    }
}

/// What becomes of the incoming change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It takes effect: the row is written or deleted, or a tombstone left where no row is.
    Apply,
    /// What the target holds is newer and stays.
    Discard,
}

/// Decides one change. Where a row exists it is the newest write of the key, so only it counts;
/// where none exists the tombstones do.
pub fn resolve(incoming: &Incoming, local: &Local, tie: Tie) -> Verdict {
    let rank = incoming.rank.as_ref();
    let wins = |held: &Held| incoming.version.wins_over(rank, held, tie);
    let applies = match &local.row {
        Some(row) => wins(row),
        None => local.tombstones.iter().all(wins),
    };
    if applies {
        Verdict::Apply
    } else {
        Verdict::Discard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;

    fn version(micros: i64, node: &str) -> Version {
        Version {
            time: CommitTime::from_postgres_micros(micros),
            node: node.parse().unwrap(),
        }
    }

    fn held(micros: i64, node: &str) -> Held {
        Held::at(Some(version(micros, node)))
    }

    fn resolve(incoming: &Incoming, local: &Local) -> Verdict {
        super::resolve(incoming, local, Tie::Later)
    }

    fn incoming(write: Write, micros: i64) -> Incoming {
        Incoming {
            write,
            version: version(micros, "east"),
            rank: None,
        }
    }

    fn row(micros: i64) -> Local {
        Local {
            row: Some(held(micros, "west")),
            tombstones: vec![],
        }
    }

    fn tombstone(micros: i64) -> Local {
        Local {
            row: None,
            tombstones: vec![held(micros, "west")],
        }
    }

    #[test]
    fn nothing_there_takes_any_change() {
        for write in [Write::Put, Write::Delete] {
            assert_eq!(
                resolve(&incoming(write, 1), &Local::default()),
                Verdict::Apply
            );
        }
    }

    #[test]
    fn the_newer_of_row_and_change_wins() {
        for write in [Write::Put, Write::Delete] {
            assert_eq!(resolve(&incoming(write, 2), &row(1)), Verdict::Apply);
            assert_eq!(resolve(&incoming(write, 1), &row(2)), Verdict::Discard);
        }
    }

    #[test]
    fn a_newer_tombstone_keeps_the_row_away() {
        for write in [Write::Put, Write::Delete] {
            assert_eq!(resolve(&incoming(write, 2), &tombstone(1)), Verdict::Apply);
            assert_eq!(
                resolve(&incoming(write, 1), &tombstone(2)),
                Verdict::Discard
            );
        }
    }

    #[test]
    fn a_truncate_counts_like_a_delete_of_the_key() {
        let local = Local {
            row: None,
            tombstones: vec![held(1, "west"), held(5, "west")],
        };
        assert_eq!(resolve(&incoming(Write::Put, 3), &local), Verdict::Discard);
        assert_eq!(resolve(&incoming(Write::Put, 6), &local), Verdict::Apply);
    }

    #[test]
    fn a_row_written_after_a_truncate_is_not_held_against_it() {
        let local = Local {
            tombstones: vec![held(5, "west")],
            ..row(6)
        };
        assert_eq!(resolve(&incoming(Write::Put, 7), &local), Verdict::Apply);
    }
}
