//! Writes of one key that did not know of each other, side by side (rule `custom`).
//!
//! A function of the user makes one row of two. It need not be associative, commutative or
//! idempotent, so what it made of some writes can not be taken as one side of the next call: nodes
//! that heard of the writes in different orders would end with different rows. What can be taken
//! is the *set* of writes. So each node keeps, of every key, the writes that no other write of the
//! key knew, the *siblings*, and folds the function over them in an order that depends on nothing
//! else: by the names of the nodes that made them.
//!
//! Why all nodes end with the same set:
//!
//! 1. *Versions are exact.* `Rank::knows` is true exactly where one write was made knowing the
//!    other (see [`Rank::written_by`]; the row lock puts one node's writes in a line). So the
//!    siblings are what no other known write knows, in whatever order the writes arrived.
//! 2. *One for each node.* The later of two writes of one node knows the earlier. So there are at
//!    most as many siblings as nodes, and the names of their nodes order them. (An insert learns of
//!    the delete of its key a moment after it was made, by the update that lifts it. That update
//!    follows in the same transaction; until then the insert is taken to know what its node's
//!    delete knew.)
//! 3. *What is visible knows all of them.* The row (or tombstone) that the fold left has the join
//!    of their versions. A local write on top of it takes that and its own place, so it is later
//!    than each of them: the siblings are spent, although nobody has touched them. They are good
//!    only as long as the row's version *is* their join. No single write has such a version: a
//!    write knows itself, and if it knew all others there would be nothing to join.
//! 4. *A fold is no write.* It has no place of its own and is not sent on: every node that has the
//!    same writes makes the same row of them.
//!
//! What a node has seen of a key is therefore one set of writes, and the visible row is a function
//! of it. Nodes that have seen the same writes show the same row.

use super::Rank;
use crate::ids::NodeName;

/// A write of a key: its version, and the row or nothing where it deleted the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling<T> {
    /// What the write knew, and itself.
    pub version: Rank,
    /// The row; nothing of a delete.
    pub row: Option<T>,
}

/// The writes of a key that no other write of it knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Siblings<T>(Vec<Sibling<T>>);

impl<T> Siblings<T> {
    /// What a key `holds` (its row, else its tombstone), `kept` being the siblings that were kept
    /// when it last had more than one.
    pub fn of(holds: Option<Sibling<T>>, kept: Vec<Sibling<T>>) -> Self {
        let Some(holds) = holds else {
            return Self(Vec::new());
        };
        let kept = Self(kept);
        let joined = kept.known();
        let is_theirs = joined.is_some_and(|joined| {
            joined.knows(Some(&holds.version)) && holds.version.knows(Some(&joined))
        });
        if is_theirs { kept } else { Self(vec![holds]) }
    }

    /// What all of them know; nothing where there are none.
    pub fn known(&self) -> Option<Rank> {
        let versions = self.0.iter().map(|sibling| sibling.version.clone());
        versions.reduce(|one, other| one.joined(&other))
    }

    /// Whether they say something that `version` was written without.
    pub fn are_news_to(&self, version: &Rank) -> bool {
        !version.knows(self.known().as_ref())
    }

    /// What there is after `write` arrived; nothing where it was known.
    #[must_use]
    pub fn with(self, mut write: Sibling<T>) -> Option<Self> {
        let known = self.known();
        if known.is_some_and(|known| known.knows(Some(&write.version))) {
            return None;
        }
        let mut all = self.0;
        for sibling in &all {
            if write.version.follows(&sibling.version) {
                write.version = write.version.joined(&sibling.version);
            }
        }
        all.retain(|sibling| !write.version.knows(Some(&sibling.version)));
        all.push(write);
        Some(Self(all))
    }

    /// The only one, where there is no other: the row is what it wrote.
    pub fn only(&self) -> Option<&Sibling<T>> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Them in the order of the fold, by the names of their nodes; `nodes` have the places. The
    /// name is empty where the file does not name the node.
    pub fn in_order<'a>(&'a self, nodes: &'a [NodeName]) -> Vec<(&'a str, &'a Sibling<T>)> {
        let named = self.0.iter().map(|sibling| {
            let writer = sibling.version.writer(nodes);
            (writer.map_or("", |(_, node)| node.as_str()), sibling)
        });
        let mut all: Vec<_> = named.collect();
        all.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.version.cmp(&b.version)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy as _, prop_assert, prop_assert_eq, proptest};

    fn sibling(version: &str) -> Sibling<String> {
        Sibling {
            version: version.parse().unwrap(),
            row: Some(version.to_owned()),
        }
    }

    fn nodes() -> Vec<NodeName> {
        let names = ["west", "north", "east"].iter();
        names.map(|name| name.parse().unwrap()).collect()
    }

    fn shown(siblings: &Siblings<String>) -> String {
        let nodes = nodes();
        let all = siblings.in_order(&nodes);
        let all: Vec<String> = all
            .iter()
            .map(|(node, own)| format!("{node}{}", own.version))
            .collect();
        all.join(" ")
    }

    fn after(versions: &[&str]) -> Siblings<String> {
        let mut all = Siblings::of(None, vec![]);
        for version in versions {
            all = all.clone().with(sibling(version)).unwrap_or(all);
        }
        all
    }

    #[test]
    fn what_is_known_goes_and_strangers_stay() {
        assert_eq!(shown(&after(&["{1,0,0}", "{2,0,0}"])), "west{2,0,0}");
        assert_eq!(shown(&after(&["{2,0,0}", "{1,0,0}"])), "west{2,0,0}");
        let three = after(&["{1,0,0}", "{0,2,0}", "{0,0,3}"]);
        assert_eq!(shown(&three), "east{0,0,3} north{0,2,0} west{1,0,0}");
        assert_eq!(three.known().unwrap().to_string(), "{1,2,3}");
        assert_eq!(
            shown(&after(&["{1,0,0}", "{0,2,0}", "{1,2,4}"])),
            "east{1,2,4}"
        );
        let one_known = after(&["{1,0,0}", "{0,2,0}", "{1,0,4}"]);
        assert_eq!(shown(&one_known), "east{1,0,4} north{0,2,0}");
        assert!(three.with(sibling("{0,2,3}")).is_none());
        // Inserted over a delete that it does not know yet.
        assert_eq!(shown(&after(&["{5,4,0}", "{6,0,0}"])), "west{6,4,0}");
    }

    #[test]
    fn a_write_on_top_of_what_was_folded_spends_the_siblings() {
        let kept = || vec![sibling("{1,0,0}"), sibling("{0,2,0}")];
        let held = |version| Siblings::of(Some(sibling(version)), kept());
        assert_eq!(shown(&held("{1,2}")), "north{0,2,0} west{1,0,0}");
        assert_eq!(shown(&held("{3,2,0}")), "west{3,2,0}");
        assert!(held("{3,2,0}").only().is_some() && held("{1,2,0}").only().is_none());
        assert_eq!(shown(&Siblings::of(None, kept())), "");
        assert!(held("{1,2,0}").are_news_to(&"{0,0,4}".parse().unwrap()));
        assert!(!held("{1,2,0}").are_news_to(&"{1,2,4}".parse().unwrap()));
    }

    #[test]
    fn a_row_without_a_version_gives_way_to_any_write() {
        let old = Siblings::of(Some(sibling("{}")), vec![]);
        assert_eq!(
            shown(&old.clone().with(sibling("{1,0,0}")).unwrap()),
            "west{1,0,0}"
        );
        assert!(old.with(sibling("{}")).is_none());
        assert_eq!(shown(&after(&["{}"])), "{}");
    }

    /// Writes of three nodes, each on top of some of the writes before it; every node's writes know
    /// each other. The clocks are anything.
    fn history() -> impl proptest::strategy::Strategy<Value = Vec<Sibling<String>>> {
        let write = (0..3_usize, 0..40_i64, 0..64_u8);
        proptest::collection::vec(write, 1..6).prop_map(|writes| {
            let nodes = nodes();
            let mut all: Vec<(usize, Rank)> = Vec::new();
            for (node, clock, seen) in writes {
                let own = |(index, (by, _)): &(usize, &(usize, Rank))| {
                    *by == node || seen & (1 << index) != 0
                };
                let known = all
                    .iter()
                    .enumerate()
                    .filter(own)
                    .map(|(_, made)| made.1.clone());
                let known = known.reduce(|one, other| one.joined(&other));
                let rank = Rank::written_by(known.as_ref(), &nodes[node], &nodes, Some(clock));
                all.push((node, rank));
            }
            let text = |rank: Rank| sibling(&rank.to_string());
            all.into_iter().map(|(_, rank)| text(rank)).collect()
        })
    }

    proptest! {
        #[test]
        fn the_set_does_not_depend_on_the_order_of_arrival(
            (made, arrived) in history().prop_flat_map(|made| {
                (Just(made.clone()), Just(made).prop_shuffle())
            })
        ) {
            let play = |writes: &[Sibling<String>]| {
                let mut held: Option<Sibling<String>> = None;
                let mut kept = Vec::new();
                for write in writes {
                    let all = Siblings::of(held.clone(), kept.clone());
                    let Some(all) = all.with(write.clone()) else { continue };
                    let version = all.known().unwrap();
                    held = Some(all.only().cloned().unwrap_or(Sibling { version, row: None }));
                    // Spent ones stay until they are in the way.
                    if all.only().is_none() {
                        kept = all.0;
                    }
                }
                Siblings::of(held, kept)
            };
            let (one, other) = (play(&made), play(&arrived));
            prop_assert_eq!(shown(&one), shown(&other));
            let maximal = made.iter().filter(|write| {
                let others = made.iter().filter(|other| other != write);
                !others.clone().any(|other| other.version.knows(Some(&write.version)))
            });
            let mut wanted: Vec<String> = maximal.map(|own| own.version.to_string()).collect();
            let mut got: Vec<String> = one.0.iter().map(|own| own.version.to_string()).collect();
            wanted.sort();
            got.sort();
            prop_assert_eq!(got, wanted);
            let nodes = nodes();
            let order = one.in_order(&nodes).into_iter().map(|(node, _)| node.to_owned());
            let order: Vec<String> = order.collect();
            prop_assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
