//! Which rows may be there when several want the same unique value.
//!
//! Two rows with different keys are *rivals* when a unique index or an exclusion constraint does
//! not let both be there. Per key the newest version wins, as everywhere. Among the newest versions
//! of all keys the table shows those that are *admitted*, newest first: a row is admitted when no
//! row admitted before it is its rival. The others are *shadows*: kept aside, with their versions,
//! until they are admitted or a newer version of their key comes.
//!
//! ```text
//! newest version of each key        admitted     why
//!   10:07  ann   mail = a@x         ann          the newest
//!   10:05  bob   mail = a@x                      ann has a@x: a shadow
//!   10:03  cid   mail = b@x         cid          nobody newer has b@x
//! ```
//!
//! That is a function of the newest versions and of nothing else. They are the same on every node
//! once everything has arrived, so the rows are, whatever the order of arrival was.
//!
//! No node computes it from the start. Each change moves it on:
//!
//! 1. *A write claims its values* ([`claim`]). If all its rivals are older they become shadows; if
//!    one is newer, the write itself becomes a shadow, and the old row of its key goes: it is not
//!    the newest version any more.
//! 2. *A shadow returns* ([`reclaim`]) when no row that is there is its rival, or only older ones,
//!    which then become shadows in its stead.
//!
//! Returns end, because each one brings a row back that is newer than all it pushes aside. When
//! none is possible, every shadow has a newer rival in the table and no two rows of the table are
//! rivals. There is only one such table. Take the newest row: as a shadow it would need a newer
//! rival, so it is in the table, and it is admitted. Go on with the next one: if it is in the
//! table, no row admitted so far is its rival, since those are in the table too, and it is
//! admitted. If it is a shadow, it has a newer rival in the table, which was admitted, and it is
//! not. So the table shows exactly the admitted rows.
//!
//! Writes of an application need no claim: its server lets it take only what is free, and they are
//! newer than everything its node has (`conflict`, third fact).
//!
//! Versions of different keys are compared by time and node, under every rule: a version that a row
//! carries says what is newer among writes of that row. And by that order alone: that one node's
//! writes arrive in the order it made them says nothing about two keys. Equal versions of two keys
//! come from one transaction, which holds no duplicate when it ends: the later of its statements is
//! right.

use super::{Held, Rank, Tie, Version};

/// What becomes of a row that wants to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is written; its rivals, if any, become shadows.
    Admitted,
    /// The rival with this index is in its way, the newest of those that are.
    Blocked(usize),
}

/// Decides a write against its rivals in the table. The inner `None` is a version that is no longer
/// known, older than any.
pub fn claim(write: &Version, rivals: &[Option<Version>]) -> Claim {
    decide(rivals, |rival| rival > Some(write))
}

/// Decides whether a shadow returns. Where versions are equal the row that is there came later.
pub fn reclaim(shadow: Option<&Version>, rivals: &[Option<Version>]) -> Claim {
    decide(rivals, |rival| rival >= shadow)
}

fn decide(rivals: &[Option<Version>], blocks: impl Fn(Option<&Version>) -> bool) -> Claim {
    let rivals = rivals.iter().map(Option::as_ref).enumerate();
    let newest = rivals
        .filter(|(_, rival)| blocks(*rival))
        .max_by_key(|(_, rival)| *rival);
    newest.map_or(Claim::Admitted, |(index, _)| Claim::Blocked(index))
}

/// Whether, of two writes of one key that a node holds, the first is the newer.
pub fn is_newer(held: &Held, than: &Held, tie: Tie) -> bool {
    if tie == Tie::Known {
        let knows =
            |rank: &Rank| rank.knows(than.rank.as_ref()) && Some(rank) != than.rank.as_ref();
        return held.rank.as_ref().is_some_and(knows);
    }
    if held.rank != than.rank {
        return held.rank > than.rank;
    }
    match (tie, &held.version, &than.version) {
        (Tie::Later | Tie::Known, version, other) => version > other,
        (Tie::Earlier, Some(version), Some(other)) => {
            (other.time, &version.node) > (version.time, &other.node)
        }
        // Old enough to be forgotten: the earlier one.
        (Tie::Earlier, version, other) => version.is_none() && other.is_some(),
    }
}

/// The rows that are there, by the rule itself: `rows` are the newest versions of all keys. What
/// nodes do step by step must come to this; it is here for the tests that say so.
pub fn admitted<R>(
    mut rows: Vec<(Version, R)>,
    are_rivals: impl Fn(&R, &R) -> bool,
) -> Vec<(Version, R)> {
    rows.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut admitted: Vec<(Version, R)> = Vec::new();
    for (version, row) in rows {
        if !admitted.iter().any(|(_, there)| are_rivals(there, &row)) {
            admitted.push((version, row));
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::sample::Index;

    use super::*;
    use crate::commit_time::CommitTime;

    /// Two unique values, each of which may be NULL, and the key.
    type Row = (u8, [Option<u8>; 2]);
    /// A write of a key: its values, or nothing for a delete.
    type Write = (Version, u8, Option<[Option<u8>; 2]>);

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as `admitted` asks")]
    fn are_rivals(a: &Row, b: &Row) -> bool {
        a.0 != b.0 && (0..2).any(|column| a.1[column].is_some() && a.1[column] == b.1[column])
    }

    fn version(micros: i64) -> Version {
        Version {
            time: CommitTime::from_postgres_micros(micros),
            node: "east".parse().unwrap(),
        }
    }

    /// A node that receives versions one by one.
    #[derive(Default)]
    struct Node {
        rows: BTreeMap<u8, (Version, Row)>,
        shadows: BTreeMap<u8, (Version, Row)>,
        deleted: BTreeMap<u8, Version>,
    }

    impl Node {
        fn rivals(&self, row: Row) -> Vec<u8> {
            let rows = self.rows.values().filter(|(_, r)| are_rivals(r, &row));
            rows.map(|(_, row)| row.0).collect()
        }

        fn versions(&self, keys: &[u8]) -> Vec<Option<Version>> {
            keys.iter()
                .map(|key| Some(self.rows[key].0.clone()))
                .collect()
        }

        fn push_aside(&mut self, keys: &[u8]) {
            for key in keys {
                let row = self.rows.remove(key).unwrap();
                self.shadows.insert(*key, row);
            }
        }

        fn receive(&mut self, (version, key, values): &Write) {
            let held = [self.rows.get(key), self.shadows.get(key)];
            let held = held.into_iter().flatten().map(|(held, _)| held);
            if held.chain(self.deleted.get(key)).any(|held| held > version) {
                return;
            }
            self.rows.remove(key);
            self.shadows.remove(key);
            let Some(values) = values else {
                self.deleted.insert(*key, version.clone());
                return;
            };
            let row = (*key, *values);
            let rivals = self.rivals(row);
            match claim(version, &self.versions(&rivals)) {
                Claim::Admitted => {
                    self.push_aside(&rivals);
                    self.rows.insert(*key, (version.clone(), row));
                }
                Claim::Blocked(_) => {
                    self.shadows.insert(*key, (version.clone(), row));
                }
            }
        }

        /// Lets one shadow return, if one can.
        fn step(&mut self, pick: Index) -> bool {
            let can_return = |(version, row): &&(Version, Row)| {
                let rivals = self.versions(&self.rivals(*row));
                reclaim(Some(version), &rivals) == Claim::Admitted
            };
            let able: Vec<_> = self.shadows.values().filter(can_return).cloned().collect();
            if able.is_empty() {
                return false;
            }
            let (version, row) = pick.get(&able).clone();
            self.push_aside(&self.rivals(row));
            self.shadows.remove(&row.0);
            self.rows.insert(row.0, (version, row));
            true
        }
    }

    proptest! {
        /// Any order of arrival, returns at any time and in any order: the rows are the admitted.
        #[test]
        fn every_order_of_arrival_ends_with_the_admitted_rows(
            writes in vec((0_u8..5, any::<bool>(), [0_u8..4, 0_u8..4]), 1..14),
            arrival in vec(any::<Index>(), 14),
            picks in vec(any::<Index>(), 200),
        ) {
            let writes: Vec<_> = (1..).zip(writes).map(|(micros, (key, deletes, values))| {
                let values = values.map(|value| (value > 0).then_some(value));
                (version(micros), key, (!deletes || micros % 3 > 0).then_some(values))
            }).collect();
            let mut newest: BTreeMap<u8, &Write> = BTreeMap::new();
            for write in &writes {
                newest.insert(write.1, write);
            }
            let rows = newest.values().filter_map(|(version, key, values)| {
                Some((version.clone(), (*key, (*values)?)))
            });
            let wanted: BTreeMap<u8, (Version, Row)> = admitted(rows.collect(), are_rivals)
                .into_iter().map(|(version, row)| (row.0, (version, row))).collect();
            let (mut node, mut waiting) = (Node::default(), writes.clone());
            let mut picks = picks.into_iter();
            for index in arrival.iter().take(writes.len()) {
                let place = index.index(waiting.len());
                node.receive(&waiting.remove(place));
                if let Some(pick) = picks.next() {
                    node.step(pick);
                }
            }
            for pick in picks {
                node.step(pick);
            }
            prop_assert_eq!(node.rows, wanted);
        }
    }

    #[test]
    fn a_newer_rival_blocks_and_the_newest_is_named() {
        let rivals = [Some(version(3)), Some(version(9)), None, Some(version(7))];
        assert_eq!(claim(&version(5), &rivals), Claim::Blocked(1));
        assert_eq!(claim(&version(9), &rivals), Claim::Admitted);
        assert_eq!(reclaim(Some(&version(9)), &rivals), Claim::Blocked(1));
        assert_eq!(reclaim(Some(&version(10)), &rivals), Claim::Admitted);
        assert_eq!(reclaim(None, &[None]), Claim::Blocked(0));
        assert_eq!(reclaim(None, &[]), Claim::Admitted);
    }
}
