//! What the triggers of each rule do, stated once more, without the product's code.

use mmrepl::conflict::{COUNT_COLUMN, Custom, KNOWN_COLUMN, Rank, Rule, VECTOR_COLUMN};
use mmrepl::pgoutput::Value;

use crate::history::{NAMES, Strategy};

/// The version in a row: one number, or one for each node in order of priority.
pub(crate) type Kept = Option<[i64; 3]>;

/// North before west before east: not the order in which ties are broken.
fn place(node: u8) -> usize {
    NAMES.len() - 1 - usize::from(node)
}

pub(crate) fn rule(strategy: Strategy) -> Rule {
    match strategy {
        Strategy::LastWriteWins => Rule::LastWriteWins,
        Strategy::VersionColumn => Rule::VersionColumn("version".to_owned()),
        Strategy::HybridClock => Rule::HybridClock,
        Strategy::FirstWriteWins => Rule::FirstWriteWins,
        Strategy::NodePriority => Rule::NodePriority(
            NAMES
                .iter()
                .rev()
                .map(|name| name.parse().unwrap())
                .collect(),
        ),
        Strategy::Manual => Rule::Manual(NAMES.iter().map(|name| name.parse().unwrap()).collect()),
        Strategy::Custom => Rule::Custom(Custom {
            nodes: NAMES.iter().map(|name| name.parse().unwrap()).collect(),
            schema: "public".to_owned(),
            function: "f".to_owned(),
        }),
    }
}

pub(crate) fn column(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::LastWriteWins | Strategy::VersionColumn => "version",
        Strategy::HybridClock | Strategy::FirstWriteWins => COUNT_COLUMN,
        Strategy::NodePriority => VECTOR_COLUMN,
        Strategy::Manual | Strategy::Custom => KNOWN_COLUMN,
    }
}

/// As the server prints it.
pub(crate) fn print(strategy: Strategy, kept: Kept) -> Value {
    let Some([first, second, third]) = kept else {
        return Value::Null;
    };
    let text = match strategy {
        Strategy::NodePriority | Strategy::Manual | Strategy::Custom => {
            format!("{{{first},{second},{third}}}")
        }
        _ => first.to_string(),
    };
    Value::Text(text.into())
}

/// As the product reads it.
pub(crate) fn rank(strategy: Strategy, kept: Kept) -> Option<Rank> {
    let printed = print(strategy, kept);
    Rank::read(printed.as_bytes().map(|bytes| &bytes[..]))
}

/// What [`print`] wrote.
pub(crate) fn read(text: &str) -> [i64; 3] {
    let mut kept = [0; 3];
    let numbers = text.trim_matches(['{', '}']).split(',');
    for (place, number) in kept.iter_mut().zip(numbers) {
        *place = number.parse().unwrap();
    }
    kept
}

fn one(number: i64) -> [i64; 3] {
    [number, 0, 0]
}

fn first(kept: Kept) -> i64 {
    kept.map_or(0, |kept| kept[0])
}

fn counted(kept: Kept, node: u8) -> [i64; 3] {
    let mut kept = kept.unwrap_or_default();
    kept[place(node)] += 1;
    kept
}

/// Whether `one` knows the `other`.
pub(crate) fn knows(one: Kept, other: Kept) -> bool {
    let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
    (0..3).all(|place| one[place] >= other[place])
}

/// Whether `one` has a later write of the node than the `other`.
fn is_later(one: Kept, other: Kept, node: u8) -> bool {
    let at = |kept: Kept| kept.unwrap_or_default()[usize::from(node)];
    at(one) > at(other)
}

/// What both know.
pub(crate) fn joined(one: Kept, other: Kept) -> [i64; 3] {
    let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
    std::array::from_fn(|place| one[place].max(other[place]))
}

/// A write on top of what is known: its time is above all others.
pub(crate) fn knowing(known: Kept, (time, node): (i64, u8)) -> [i64; 3] {
    let mut known = known.unwrap_or_default();
    let above = known.into_iter().max().unwrap_or(0) + 1;
    known[usize::from(node)] = time.max(above);
    known
}

/// What an application writes into its own column: nothing, something old, something new.
pub(crate) fn asked(fresh: u16) -> Kept {
    match (fresh * 7 + 3) % 5 {
        0 => None,
        number => Some(one(i64::from(number))),
    }
}

/// Before an insert (`old` is nothing) or update that wants the version `asked`.
pub(crate) fn written(
    strategy: Strategy,
    (time, node): (i64, u8),
    old: Option<Kept>,
    asked: Kept,
) -> Kept {
    let before = old.flatten();
    match strategy {
        Strategy::LastWriteWins => None,
        Strategy::VersionColumn => before.max(asked),
        Strategy::HybridClock => match old {
            Some(_) => Some(one(time.max(first(before) + 1))),
            None => Some(one(time)),
        },
        Strategy::FirstWriteWins => Some(one(first(before) + 1)),
        Strategy::NodePriority => Some(counted(before, node)),
        Strategy::Manual | Strategy::Custom => Some(knowing(before, (time, node))),
    }
}

/// The version of the delete of a row.
pub(crate) fn deleted(strategy: Strategy, (time, node): (i64, u8), row: Kept) -> Kept {
    match strategy {
        Strategy::LastWriteWins => None,
        Strategy::VersionColumn => row,
        Strategy::HybridClock => Some(one(time.max(first(row) + 1))),
        Strategy::FirstWriteWins => Some(one(first(row) + 1)),
        Strategy::NodePriority => Some(counted(row, node)),
        Strategy::Manual | Strategy::Custom => Some(knowing(row, (time, node))),
    }
}

/// After an insert: above the tombstone of the key.
pub(crate) fn lifted(strategy: Strategy, node: u8, row: Kept, tombstone: Kept) -> Kept {
    match strategy {
        Strategy::LastWriteWins => None,
        Strategy::VersionColumn => row.max(tombstone),
        Strategy::Manual | Strategy::Custom
            if knows(row, tombstone) && is_later(row, tombstone, node) =>
        {
            row
        }
        Strategy::Manual | Strategy::Custom => {
            Some(knowing(Some(joined(row, tombstone)), (0, node)))
        }
        _ if row > tombstone => row,
        Strategy::HybridClock | Strategy::FirstWriteWins => Some(one(first(tombstone) + 1)),
        Strategy::NodePriority => Some(counted(tombstone, node)),
    }
}
