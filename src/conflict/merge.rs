//! Rows of which more than one write survives: counters that add up, and columns that are decided
//! each by itself.
//!
//! What a node holds of a key is an *image*: the values with the clocks of the writes they come
//! from, and the newest delete. Nodes send images, not differences; a node that receives one
//! *joins* it with its own. The join is a least upper bound, so it does not matter in which order
//! images arrive, how they were grouped, or how often:
//!
//! ```text
//! a ⊔ b = b ⊔ a        (a ⊔ b) ⊔ c = a ⊔ (b ⊔ c)        a ⊔ a = a
//! ```
//!
//! What a node ends with is the join of all images ever sent, the same everywhere. Part by part:
//!
//! 1. *The row's version* is the greatest: a clock, then the node's name. One node never gives one
//!    key the same clock twice (each write is above what it saw), so equal stamps are one write.
//! 2. *A register* is the value with the greatest stamp. A column without a stamp of its own, in a
//!    table without `column_merge` or newer than the trigger, goes with the row's version. A column
//!    without a stamp is below every one with a stamp; so where the greatest has none, no image has
//!    one, and the greatest version is that of an image whose value counted.
//! 3. *A counter* is a register (the value of the newest insert, its base) and for each node the
//!    sum of that node's changes so far, with the clock of the last. Of two sums of one node the
//!    newer contains the older. Sums older than the base belong to a row that was deleted and made
//!    anew, or that lost against another insert; they are dropped. Dropping early or late is the
//!    same: the base only grows, and a sum that is below it can only be followed by newer ones.
//! 4. *Deletes* are a register of their own. The row is there while its version is above the newest
//!    delete; where it is not, the tombstone keeps the image, because an older image may still
//!    arrive and a newer one bring the row back.
//!
//! An application writes without joining, so its write must lie above what the node held. An update
//! takes a clock above the row's, which is above every clock in it. An insert, and a key that a row
//! moves to, starts anew with a clock above the tombstone of the key: above all that it covers.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Decimal;

/// When and where something was written: a clock that only grows for one row, and the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Microseconds since 1970, or more where the row was ahead.
    pub clock: i64,
    /// The node's name; empty for what was there before clocks were kept.
    pub node: String,
}

/// The text is not a clock and a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a clock and the name of a node")]
pub struct BadStamp;

impl fmt::Display for Stamp {
    /// `1767225600000000 east`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.clock, self.node)
    }
}

impl FromStr for Stamp {
    type Err = BadStamp;

    fn from_str(text: &str) -> Result<Self, BadStamp> {
        let (clock, node) = text.split_once(' ').ok_or(BadStamp)?;
        let clock = clock.parse().map_err(|_| BadStamp)?;
        let node = node.to_owned();
        Ok(Self { clock, node })
    }
}

/// A number whose changes on all nodes add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    base: Stamp,
    from: Decimal,
    /// For each node, the clock of its last change and the sum of its changes.
    sums: BTreeMap<String, (i64, Decimal)>,
}

impl Counter {
    /// Written as `from` by one insert.
    pub fn new(base: Stamp, from: Decimal) -> Self {
        let sums = BTreeMap::new();
        Self { base, from, sums }
    }

    /// With the sum of one more node.
    #[must_use]
    pub fn with(mut self, node: String, clock: i64, sum: Decimal) -> Self {
        self.sums.insert(node, (clock, sum));
        self
    }

    /// The value that was inserted, and when.
    pub fn base(&self) -> (&Stamp, &Decimal) {
        (&self.base, &self.from)
    }

    /// Each node's clock and sum.
    pub fn sums(&self) -> impl Iterator<Item = (&str, i64, &Decimal)> {
        let sums = self.sums.iter();
        sums.map(|(node, (clock, sum))| (node.as_str(), *clock, sum))
    }

    /// What the row holds.
    pub fn value(&self) -> Decimal {
        let sums = self.sums.values();
        sums.fold(self.from.clone(), |value, (_, sum)| &value + sum)
    }

    /// The least counter above both.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let order = |counter: &Self| (counter.base.clone(), counter.from.clone());
        let mut joined = if order(self) >= order(other) {
            Self::new(self.base.clone(), self.from.clone())
        } else {
            Self::new(other.base.clone(), other.from.clone())
        };
        for (node, sum) in self.sums.iter().chain(&other.sums) {
            let known = joined
                .sums
                .entry(node.clone())
                .or_insert_with(|| sum.clone());
            if *sum > *known {
                *known = sum.clone();
            }
        }
        let base = joined.base.clock;
        joined.sums.retain(|_, (clock, _)| *clock > base);
        joined
    }
}

/// One column of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<V> {
    /// The newest value counts.
    Register {
        /// When and where it was set; nothing where it goes with the row's version.
        set: Option<Stamp>,
        /// The value.
        value: V,
    },
    /// All changes count.
    Counter(Counter),
}

/// A row with the clocks of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<V> {
    /// The newest write; nothing before the first that was given a clock.
    pub version: Option<Stamp>,
    /// The columns, the same in every image of a table.
    pub cells: Vec<Cell<V>>,
}

impl<V: Clone> Image<V> {
    /// The least image above both. Where neither tells which value is newer, `self` has it.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let versions = (&self.version, &other.version);
        let cells = self.cells.iter().zip(&other.cells);
        Self {
            version: self.version.clone().max(other.version.clone()),
            cells: cells
                .map(|(own, other)| own.join(other, versions))
                .collect(),
        }
    }
}

impl<V: Clone> Cell<V> {
    fn join(&self, other: &Self, versions: (&Option<Stamp>, &Option<Stamp>)) -> Self {
        match (self, other) {
            (Self::Counter(own), Self::Counter(other)) => Self::Counter(own.join(other)),
            (Self::Counter(_), Self::Register { .. }) => self.clone(),
            (Self::Register { .. }, Self::Counter(_)) => other.clone(),
            (Self::Register { set: own, .. }, Self::Register { set, .. }) => {
                let unset = own.is_none() && set.is_none();
                let order = if unset {
                    versions.0.cmp(versions.1)
                } else {
                    own.cmp(set)
                };
                if order == Ordering::Less { other } else { self }.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    fn stamp(clock: i64, node: &str) -> Stamp {
        let node = node.to_owned();
        Stamp { clock, node }
    }

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn counter(base: Stamp, from: &str, sums: &[(&str, i64, &str)]) -> Counter {
        let new = Counter::new(base, decimal(from));
        sums.iter().fold(new, |counter, (node, clock, sum)| {
            counter.with((*node).to_owned(), *clock, decimal(sum))
        })
    }

    #[test]
    fn stamps_are_read_as_written() {
        for text in ["17 east", "-1 ", "9223372036854775807 a_1"] {
            assert_eq!(text.parse::<Stamp>().unwrap().to_string(), text);
        }
        assert_eq!("17".parse::<Stamp>(), Err(BadStamp));
        assert_eq!("x east".parse::<Stamp>(), Err(BadStamp));
    }

    #[test]
    fn changes_on_both_sides_add_up_once() {
        let made = stamp(1, "east");
        let east = counter(made.clone(), "10.00", &[("east", 4, "-3")]);
        let west = counter(made, "10.00", &[("west", 5, "-2.5"), ("east", 3, "-1")]);
        let joined = east.join(&west);
        assert_eq!(joined.value().to_string(), "4.50");
        assert_eq!(joined.join(&east).join(&west), joined);
    }

    #[test]
    fn a_row_that_is_made_anew_begins_anew() {
        let old = counter(
            stamp(1, "east"),
            "10",
            &[("east", 4, "-3"), ("west", 8, "1")],
        );
        let new = counter(stamp(6, "west"), "50", &[]);
        // What was changed after the newer insert, without knowing it, still counts.
        assert_eq!(old.join(&new).value().to_string(), "51");
        assert_eq!(new.join(&old), old.join(&new));
    }

    #[test]
    fn each_column_goes_by_its_own_clock() {
        let image = |version: Stamp, cells: [(i64, &'static str); 2]| Image {
            version: Some(version),
            cells: cells
                .map(|(clock, value)| Cell::Register {
                    set: (clock > 0).then(|| stamp(clock, "east")),
                    value,
                })
                .to_vec(),
        };
        let one = image(stamp(5, "east"), [(5, "a5"), (1, "b1")]);
        let other = image(stamp(7, "west"), [(2, "a2"), (7, "b7")]);
        let both = image(stamp(7, "west"), [(5, "a5"), (7, "b7")]);
        assert_eq!(one.join(&other), both);
        let unset = image(stamp(5, "east"), [(0, "a5"), (1, "b1")]);
        let newer = image(stamp(7, "west"), [(0, "a7"), (1, "b1")]);
        let joined = image(stamp(7, "west"), [(0, "a7"), (1, "b1")]);
        assert_eq!(unset.join(&newer), joined);
        assert_eq!(newer.join(&unset), joined);
    }

    /// Stamps are shared between images on purpose: equal ones are the same write.
    fn stamps() -> impl Strategy<Value = Stamp> {
        (0..6i64, 0..3usize).prop_map(|(clock, node)| stamp(clock, ["east", "north", "west"][node]))
    }

    fn number(of: i64) -> Decimal {
        decimal(&format!(
            "{}.{}",
            of * 7 % 13 - 5,
            "0".repeat(1 + usize::try_from(of % 3).unwrap())
        ))
    }

    /// What a write left follows from its stamp.
    fn counters() -> impl Strategy<Value = Counter> {
        let sums = proptest::collection::btree_map(0..3usize, 1..8i64, 0..3);
        (stamps(), sums).prop_map(|(base, sums)| {
            let from = number(base.clock);
            let made = base.clock;
            let counter = Counter::new(base, from);
            sums.into_iter().fold(counter, |counter, (node, clock)| {
                // A node's sum is above the base it was made on.
                let (name, clock) = (["east", "north", "west"][node], made + clock);
                counter.with(name.to_owned(), clock, number(clock * 3))
            })
        })
    }

    fn registers() -> impl Strategy<Value = Option<Stamp>> {
        proptest::option::of(stamps())
    }

    fn images() -> impl Strategy<Value = Image<String>> {
        let cells = (registers(), registers(), counters(), any::<bool>());
        (stamps(), cells).prop_map(|(version, (one, other, counter, has_version))| {
            let version = has_version.then_some(version);
            let register = |set: Option<Stamp>| {
                let by = set.as_ref().or(version.as_ref());
                let value = by.map_or_else(String::new, Stamp::to_string);
                Cell::Register { set, value }
            };
            Image {
                cells: vec![register(one), register(other), Cell::Counter(counter)],
                version,
            }
        })
    }

    proptest! {
        #[test]
        fn joining_is_commutative_associative_and_idempotent(
            a in images(), b in images(), c in images()
        ) {
            prop_assert_eq!(a.join(&a), a.clone());
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&b).join(&b), a.join(&b));
        }

        #[test]
        fn a_counter_is_its_base_and_its_sums(a in counters(), b in counters()) {
            let joined = a.join(&b);
            let sums = joined.sums().map(|(_, _, sum)| sum.clone());
            let sum = sums.fold(Decimal::zero(), |all, sum| &all + &sum);
            prop_assert_eq!(joined.value(), joined.base().1 + &sum);
        }

        #[test]
        fn no_stamp_is_older_than_any(set in stamps(), version in stamps()) {
            let image = |set: Option<Stamp>, value: i64| Image {
                version: Some(version.clone()),
                cells: vec![Cell::Register { set, value }],
            };
            let (old, new) = (image(None, 1), image(Some(set), 2));
            prop_assert_eq!(old.join(&new).cells, new.cells.clone());
            prop_assert_eq!(new.join(&old), new);
        }
    }
}
