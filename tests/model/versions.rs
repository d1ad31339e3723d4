//! What the triggers of each rule do, stated once more, without the product's code.

use mmrepl::conflict::{COUNT_COLUMN, Rule, VECTOR_COLUMN};
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
    }
}

pub(crate) fn column(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::LastWriteWins | Strategy::VersionColumn => "version",
        Strategy::HybridClock | Strategy::FirstWriteWins => COUNT_COLUMN,
        Strategy::NodePriority => VECTOR_COLUMN,
    }
}

/// As the server prints it.
pub(crate) fn print(strategy: Strategy, kept: Kept) -> Value {
    let Some([first, second, third]) = kept else {
        return Value::Null;
    };
    let text = match strategy {
        Strategy::NodePriority => format!("{{{first},{second},{third}}}"),
        _ => first.to_string(),
    };
    Value::Text(text.into())
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
    }
}

/// After an insert: above the tombstone of the key.
pub(crate) fn lifted(strategy: Strategy, node: u8, row: Kept, tombstone: Kept) -> Kept {
    match strategy {
        Strategy::LastWriteWins => None,
        Strategy::VersionColumn => row.max(tombstone),
        _ if row > tombstone => row,
        Strategy::HybridClock | Strategy::FirstWriteWins => Some(one(first(tombstone) + 1)),
        Strategy::NodePriority => Some(counted(tombstone, node)),
    }
}
