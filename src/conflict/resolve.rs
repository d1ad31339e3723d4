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
    /// Something of both stays; only where rows merge.
    Merge,
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

/// How two writes stand to each other where only knowledge counts (`Tie::Known`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The incoming write was made knowing what the target holds.
    Later,
    /// What the target holds was made knowing the incoming write, or is that very write.
    Earlier,
    /// Neither knew of the other, and the row is there on one side at least.
    Concurrent,
    /// Neither knew of the other, and both deleted the row: this is what both know.
    BothDeleted(Rank),
}

impl Local {
    /// What is known of the key here: by its row, else by its tombstones.
    pub fn known(&self) -> Option<Rank> {
        let deletes = self.tombstones.iter();
        match &self.row {
            Some(row) => row.rank.clone(),
            None => deletes
                .filter_map(|held| held.rank.clone())
                .reduce(|one, other| one.joined(&other)),
        }
    }
}

/// Compares an incoming change with what the target holds by what each knew.
pub fn standing(incoming: &Incoming, local: &Local) -> Standing {
    let held = local.known();
    let Some(rank) = &incoming.rank else {
        return held.map_or(Standing::Later, |_| Standing::Earlier);
    };
    match held {
        Some(held) if !rank.knows(Some(&held)) => {
            if held.knows(Some(rank)) {
                Standing::Earlier
            } else if incoming.write == Write::Delete && local.row.is_none() {
                Standing::BothDeleted(held.joined(rank))
            } else {
                Standing::Concurrent
            }
        }
        _ => Standing::Later,
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
    fn knowledge_has_no_order_between_strangers() {
        let stands = |write, rank: &str, held: &str, row: bool| {
            let incoming = Incoming {
                rank: rank.parse().ok(),
                ..incoming(write, 1)
            };
            let held = Held {
                rank: held.parse().ok(),
                version: None,
            };
            let local = if row {
                Local {
                    row: Some(held),
                    tombstones: vec![],
                }
            } else {
                Local {
                    row: None,
                    tombstones: vec![held],
                }
            };
            let applies = super::resolve(&incoming, &local, Tie::Known) == Verdict::Apply;
            let standing = standing(&incoming, &local);
            assert_eq!(applies, standing == Standing::Later);
            standing
        };
        for row in [true, false] {
            assert_eq!(stands(Write::Put, "{2,1}", "{1,1}", row), Standing::Later);
            assert_eq!(stands(Write::Put, "{1,1}", "{1,1}", row), Standing::Later);
            assert_eq!(stands(Write::Put, "{1}", "", row), Standing::Later);
            assert_eq!(stands(Write::Put, "{1,1}", "{2,1}", row), Standing::Earlier);
            assert_eq!(stands(Write::Put, "", "{2,1}", row), Standing::Earlier);
            let strangers = stands(Write::Put, "{2,0}", "{1,1}", row);
            assert_eq!(strangers, Standing::Concurrent);
        }
        let deleted = stands(Write::Delete, "{2,0}", "{1,1}", true);
        assert_eq!(deleted, Standing::Concurrent);
        let both = stands(Write::Delete, "{2,0}", "{1,1}", false);
        assert_eq!(both, Standing::BothDeleted("{2,1}".parse().unwrap()));
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
