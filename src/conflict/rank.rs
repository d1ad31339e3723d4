//! The version that a row carries in one of its columns, and the order of such versions.
//!
//! Read from the text that PostgreSQL's output functions print under the pinned settings (ISO
//! dates, UTC). The order is the server's own, so that a guard in SQL and a decision here agree.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::Stamp;
use crate::commit_time::CommitTime;
use crate::ids::NodeName;

/// A version kept in the row. Ordered as the server orders values of the column's type.
#[derive(Clone, Debug)]
pub struct Rank {
    value: Value,
    text: String,
}

/// The text is not one that a version column prints.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a number, a point in time or a list of numbers")]
pub struct BadRank;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(Number),
    Time(Moment),
    /// Element by element, then by length: `bigint[]`.
    Vector(Vec<i64>),
    /// A clock and the node that gave it.
    Stamp(Stamp),
}

/// `smallint` to `numeric`. For the server NaN is the greatest number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Number {
    MinusInfinity,
    Negative(std::cmp::Reverse<Digits>),
    Positive(Digits),
    Infinity,
    NaN,
}

/// A magnitude: more digits before the point are more, then digit by digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Digits {
    whole_length: usize,
    whole: String,
    /// Without trailing zeros.
    fraction: String,
}

/// `timestamptz`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    MinusInfinity,
    /// Year (1 BC is 0), month, day, hour, minute, second, microsecond.
    At(i64, [u32; 6]),
    Infinity,
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl fmt::Display for Rank {
    /// As the server prints it and reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rank {
    type Err = BadRank;

    fn from_str(text: &str) -> Result<Self, BadRank> {
        let value = if text.starts_with('{') {
            vector(text).map(Value::Vector)
        } else {
            let number = || number(text).map(Value::Number);
            let other = || text.parse().ok().map(Value::Stamp);
            number()
                .or_else(|| moment(text).map(Value::Time))
                .or_else(other)
        };
        Ok(Self {
            value: value.ok_or(BadRank)?,
            text: text.to_owned(),
        })
    }
}

impl Rank {
    /// Reads what the server sent; nothing of NULL.
    pub fn read(text: Option<&[u8]>) -> Option<Self> {
        std::str::from_utf8(text?).ok()?.parse().ok()
    }

    /// Of a column that mmrepl counts in.
    pub fn of_count(count: i64) -> Self {
        let text = count.to_string();
        let digits = text.trim_start_matches('-');
        Self {
            value: Value::Number(signed(count < 0, digits, "")),
            text,
        }
    }

    /// What a row without a version counts from.
    pub fn count(rank: Option<&Self>) -> i64 {
        match rank.map(|rank| &rank.value) {
            Some(Value::Stamp(stamp)) => stamp.clock,
            _ => rank.and_then(|rank| rank.text.parse().ok()).unwrap_or(0),
        }
    }

    /// Of a row that merges.
    pub fn of_stamp(stamp: Stamp) -> Self {
        Self {
            text: stamp.to_string(),
            value: Value::Stamp(stamp),
        }
    }

    /// When and where a row that merges was last written.
    pub fn stamp(&self) -> Option<&Stamp> {
        match &self.value {
            Value::Stamp(stamp) => Some(stamp),
            _ => None,
        }
    }

    /// The edits of each node with one more by `node`; `nodes` have the places.
    #[must_use]
    pub fn edited_by(rank: Option<&Self>, node: &NodeName, nodes: &[NodeName]) -> Self {
        let mut edits = match rank.map(|rank| &rank.value) {
            Some(Value::Vector(edits)) => edits.clone(),
            _ => Vec::new(),
        };
        edits.resize(edits.len().max(nodes.len()), 0);
        if let Some(place) = nodes.iter().position(|name| name == node) {
            edits[place] = edits[place].saturating_add(1);
        }
        Self::of_places(edits)
    }
}

/// Versions that say of each node what they know of it.
impl Rank {
    fn places(&self) -> &[i64] {
        match &self.value {
            Value::Vector(places) => places,
            _ => &[],
        }
    }

    /// Whether a write of this version was made knowing the `other`. A row without a version was
    /// there before anything was known.
    pub fn knows(&self, other: Option<&Self>) -> bool {
        let other = other.map_or(&[][..], Self::places);
        let place = |index| self.places().get(index).copied().unwrap_or(0);
        other
            .iter()
            .enumerate()
            .all(|(index, time)| place(index) >= *time)
    }

    /// What both know.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let (one, two) = (self.places(), other.places());
        let place = |list: &[i64], index| list.get(index).copied().unwrap_or(0);
        let joined = (0..one.len().max(two.len())).map(|i| place(one, i).max(place(two, i)));
        Self::of_places(joined.collect())
    }

    /// A write by `node` at `clock` on top of `known`: in the place of the node stands a time that
    /// is above all others, so the greatest place tells when and where the write was made.
    #[must_use]
    pub fn written_by(
        known: Option<&Self>,
        node: &NodeName,
        nodes: &[NodeName],
        clock: Option<i64>,
    ) -> Self {
        let mut places = known.map_or(&[][..], Self::places).to_vec();
        places.resize(places.len().max(nodes.len()), 0);
        let above = places.iter().max().map_or(0, |most| most.saturating_add(1));
        if let Some(place) = nodes.iter().position(|name| name == node) {
            places[place] = clock.map_or(above, |clock| clock.max(above));
        }
        Self::of_places(places)
    }

    /// When and by which of `nodes` the write was made, of which this is the version.
    pub fn writer<'a>(&self, nodes: &'a [NodeName]) -> Option<(CommitTime, &'a NodeName)> {
        let (place, micros) = self.greatest()?;
        Some((CommitTime::from_unix_micros(micros), nodes.get(place)?))
    }

    /// Of a row that was there before anything was known.
    pub fn knowing_nothing() -> Self {
        Self::of_places(Vec::new())
    }

    /// The greatest place and what stands there.
    fn greatest(&self) -> Option<(usize, i64)> {
        let places = self.places().iter().copied().enumerate();
        places.max_by_key(|(_, at)| *at)
    }

    /// Whether both were written by one node, this one later.
    pub(super) fn follows(&self, other: &Self) -> bool {
        let (own, others) = (self.greatest(), other.greatest());
        own.zip(others)
            .is_some_and(|(own, other)| own.0 == other.0 && own.1 > other.1)
    }

    fn of_places(places: Vec<i64>) -> Self {
        let list: Vec<String> = places.iter().map(i64::to_string).collect();
        Self {
            text: format!("{{{}}}", list.join(",")),
            value: Value::Vector(places),
        }
    }
}

fn vector(text: &str) -> Option<Vec<i64>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner.split(',').map(|part| part.parse().ok()).collect()
}

fn number(text: &str) -> Option<Number> {
    match text {
        "NaN" => return Some(Number::NaN),
        "Infinity" => return Some(Number::Infinity),
        "-Infinity" => return Some(Number::MinusInfinity),
        _ => {}
    }
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    Some(signed(negative, whole, fraction))
}

fn signed(negative: bool, whole: &str, fraction: &str) -> Number {
    let whole = whole.trim_start_matches('0').to_owned();
    let digits = Digits {
        whole_length: whole.len(),
        whole,
        fraction: fraction.trim_end_matches('0').to_owned(),
    };
    let is_zero = digits.whole.is_empty() && digits.fraction.is_empty();
    if negative && !is_zero {
        Number::Negative(std::cmp::Reverse(digits))
    } else {
        Number::Positive(digits)
    }
}

/// `2026-01-02 03:04:05.000006+00`, `0044-03-15 12:00:00+00 BC`, `infinity`.
fn moment(text: &str) -> Option<Moment> {
    match text {
        "infinity" => return Some(Moment::Infinity),
        "-infinity" => return Some(Moment::MinusInfinity),
        _ => {}
    }
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (date, time) = text.strip_suffix("+00")?.split_once(' ')?;
    let mut date = date.split('-');
    let year: i64 = date.next()?.parse().ok()?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = [0; 6];
    for (part, text) in parts.iter_mut().zip(date.chain(clock.split(':'))) {
        *part = text.parse().ok()?;
    }
    parts[5] = format!("{fraction:0<6}").parse().ok()?;
    let year = if before_christ { 1 - year } else { year };
    Some(Moment::At(year, parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy as _, any, prop_assert, prop_assert_eq, proptest};

    fn rank(text: &str) -> Rank {
        text.parse().unwrap()
    }

    /// Each is less than the next.
    fn assert_ascending(texts: &[&str]) {
        for (index, lower) in texts.iter().enumerate() {
            assert_eq!(rank(lower), rank(lower));
            for higher in &texts[index + 1..] {
                assert!(rank(lower) < rank(higher), "{lower} < {higher}");
            }
        }
    }

    #[test]
    fn numbers_are_ordered_as_the_server_orders_them() {
        assert_ascending(&[
            "-Infinity",
            "-1000000000000000000000.5",
            "-10",
            "-9.50001",
            "-9.5",
            "-0.001",
            "0",
            "0.0001",
            "0.1",
            "0.12",
            "0.2",
            "9",
            "10",
            "99999999999999999999999999",
            "Infinity",
            "NaN",
        ]);
        for (one, other) in [("1.0", "1.000"), ("-0.0", "0"), ("7", "7.00")] {
            assert_eq!(rank(one), rank(other));
        }
    }

    #[test]
    fn times_are_ordered_as_the_server_orders_them() {
        assert_ascending(&[
            "-infinity",
            "4713-01-01 00:00:00+00 BC",
            "0002-06-01 00:00:00+00 BC",
            "0001-06-01 00:00:00+00 BC",
            "0001-01-01 00:00:00+00",
            "1999-12-31 23:59:59.999999+00",
            "2000-01-01 00:00:00+00",
            "2000-01-01 00:00:00.00001+00",
            "2000-01-01 00:00:00.1+00",
            "2000-01-01 00:00:01+00",
            "12000-01-01 00:00:00+00",
            "infinity",
        ]);
        assert_eq!(
            rank("2000-01-01 00:00:00.5+00"),
            rank("2000-01-01 00:00:00.500000+00")
        );
    }

    #[test]
    fn vectors_are_ordered_as_the_server_orders_them() {
        assert_ascending(&["{}", "{0,9}", "{1}", "{1,0}", "{1,2}", "{1,2,0}", "{10,0}"]);
    }

    #[test]
    fn stamps_are_ordered_by_clock_and_name() {
        assert_ascending(&["-1 west", "2 ", "2 east", "2 west", "10 east"]);
        assert_eq!(Rank::count(Some(&rank("17 east"))), 17);
        assert_eq!(
            Rank::of_stamp(rank("17 east").stamp().unwrap().clone()),
            rank("17 east")
        );
    }

    #[test]
    fn other_texts_are_no_ranks() {
        for text in ["", "-", "abc", "1e5", "{a}", "{1", "2000-01-01", "1.2.3"] {
            assert_eq!(text.parse::<Rank>().map(drop), Err(BadRank), "{text}");
        }
        assert_eq!(Rank::read(None), None);
        assert_eq!(Rank::count(None), 0);
    }

    #[test]
    fn an_edit_counts_for_its_node() {
        let nodes: Vec<NodeName> = ["east", "west"].map(|name| name.parse().unwrap()).into();
        let first = Rank::edited_by(None, &nodes[1], &nodes);
        assert_eq!(first.to_string(), "{0,1}");
        let second = Rank::edited_by(Some(&first), &nodes[0], &nodes);
        assert_eq!(second.to_string(), "{1,1}");
        let longer = Rank::edited_by(Some(&rank("{1,1,4}")), &nodes[0], &nodes);
        assert_eq!(longer.to_string(), "{2,1,4}");
    }

    #[test]
    fn a_write_knows_what_it_was_made_on() {
        let nodes: Vec<NodeName> = ["east", "west"].map(|name| name.parse().unwrap()).into();
        let first = Rank::written_by(None, &nodes[0], &nodes, Some(7));
        assert_eq!(first.to_string(), "{7,0}");
        let other = Rank::written_by(None, &nodes[1], &nodes, Some(9));
        assert!(!first.knows(Some(&other)) && !other.knows(Some(&first)));
        let both = Rank::written_by(Some(&first.joined(&other)), &nodes[0], &nodes, Some(8));
        assert_eq!(both.to_string(), "{10,9}");
        assert!(both.knows(Some(&first)) && both.knows(Some(&other)) && first.knows(None));
        assert!(!first.knows(Some(&both)));
        let (time, node) = both.writer(&nodes).unwrap();
        assert_eq!((time.as_unix_micros(), node), (10, &nodes[0]));
        assert!(rank("{3,1}").knows(Some(&rank("{3}"))) && rank("{3}").knows(Some(&rank("{3,0}"))));
    }

    fn places() -> impl proptest::strategy::Strategy<Value = Rank> {
        proptest::collection::vec(0..4i64, 0..4).prop_map(Rank::of_places)
    }

    proptest! {
        #[test]
        fn what_is_known_is_a_lattice(a in places(), b in places(), c in places()) {
            let joined = a.joined(&b);
            prop_assert!(joined.knows(Some(&a)) && joined.knows(Some(&b)));
            prop_assert!(joined.knows(Some(&b.joined(&a))) && b.joined(&a).knows(Some(&joined)));
            if c.knows(Some(&a)) && c.knows(Some(&b)) {
                prop_assert!(c.knows(Some(&joined)));
            }
            if a.knows(Some(&b)) && b.knows(Some(&c)) {
                prop_assert!(a.knows(Some(&c)));
            }
        }

        #[test]
        fn whole_numbers_keep_their_order(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(Rank::of_count(a).cmp(&Rank::of_count(b)), a.cmp(&b));
        }

        #[test]
        fn lists_keep_their_order(
            a in proptest::collection::vec(-3..3i64, 0..4),
            b in proptest::collection::vec(-3..3i64, 0..4),
        ) {
            let text = |list: &[i64]| {
                let list: Vec<String> = list.iter().map(i64::to_string).collect();
                format!("{{{}}}", list.join(","))
            };
            prop_assert_eq!(rank(&text(&a)).cmp(&rank(&text(&b))), a.cmp(&b));
        }

        #[test]
        fn decimals_keep_their_order(a in -99_999..99_999i64, b in -99_999..99_999i64) {
            let text = |n: i64| {
                let sign = if n < 0 { "-" } else { "" };
                format!("{sign}{}.{:03}", n.abs() / 1000, n.abs() % 1000)
            };
            prop_assert_eq!(rank(&text(a)).cmp(&rank(&text(b))), a.cmp(&b));
        }
    }
}
