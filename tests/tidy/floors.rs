//! The rooms of `src/apply` stand on floors: each names only what is on floors below, or its own
//! room. `src/apply/mod.rs` says what each is for.

use crate::imports::Imports;
use crate::source::{Source, assert_none, beyond};

/// From the bottom; rooms of one floor know nothing of each other.
const FLOORS: [&[&str]; 9] = [
    &["encode"],
    &["shape"],
    &["error.rs", "sql"],
    &["target"],
    &["plan"],
    &["write"],
    &["settle"],
    &["send"],
    &["mod.rs"],
];

/// Imports that lead up, or into another room of one floor. This list only shrinks.
const STILL: &[&str] = &[
    "src/apply/settle/crossing.rs names src/apply/send/transaction.rs",
    "src/apply/settle/custom.rs names src/apply/send/transaction.rs",
    "src/apply/settle/emptied.rs names src/apply/send/transaction.rs",
    "src/apply/settle/merging.rs names src/apply/send/transaction.rs",
    "src/apply/settle/ordered.rs names src/apply/send/transaction.rs",
    "src/apply/settle/overtaken.rs names src/apply/send/transaction.rs",
    "src/apply/settle/record.rs names src/apply/send/transaction.rs",
    "src/apply/settle/rewrites.rs names src/apply/send/transaction.rs",
    "src/apply/settle/truncate.rs names src/apply/send/transaction.rs",
    "src/apply/settle/unique.rs names src/apply/send/transaction.rs",
];

/// Files that have no room yet. This list only shrinks.
const HOMELESS: &[&str] = &[];

/// The room of a file of `src/apply`.
fn room(path: &str) -> Option<&str> {
    path.strip_prefix("src/apply/")?.split('/').next()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Whether something in the room `from` may name something in the room `to`. Who has no room yet
/// may name everything, and only its like may name it.
fn may_name(from: &str, to: &str) -> bool {
    match (floor(from), floor(to)) {
        _ if from == to => true,
        (None, _) => true,
        (Some(from), Some(to)) => from > to,
        (Some(_), None) => false,
    }
}

fn upward(imports: &Imports) -> Vec<String> {
    let mut offences = Vec::new();
    for (from, others) in &imports.of {
        for to in others {
            let rooms = room(from).zip(room(to));
            if rooms.is_some_and(|(from, to)| !may_name(from, to)) {
                offences.push(format!("{from} names {to}"));
            }
        }
    }
    offences
}

/// Files of `src/apply` that stand in no room.
fn homeless(imports: &Imports) -> Vec<String> {
    let is_homeless = |file: &&String| room(file).is_some_and(|room| floor(room).is_none());
    imports.of.keys().filter(is_homeless).cloned().collect()
}

#[test]
fn files_of_apply_stand_in_rooms() {
    assert_none(&beyond(&homeless(&Imports::read()), HOMELESS));
}

#[test]
fn imports_in_apply_lead_down() {
    assert_none(&beyond(&upward(&Imports::read()), STILL));
}

#[test]
fn a_planted_upward_import_is_found() {
    let imports = Imports::of(&[
        Source::planted("src/lib.rs", "mod apply;"),
        Source::planted(
            "src/apply/mod.rs",
            "mod sql;\nmod plan;\nmod shape;\nmod loose;",
        ),
        Source::planted("src/apply/sql/mod.rs", "mod kind;"),
        Source::planted(
            "src/apply/sql/kind.rs",
            "use crate::apply::{loose::L, plan::P};",
        ),
        Source::planted(
            "src/apply/plan/mod.rs",
            "use super::sql::S;\nuse super::shape::T;",
        ),
        Source::planted("src/apply/shape/mod.rs", ""),
        Source::planted("src/apply/loose.rs", "use super::shape::T;"),
    ]);
    let found = [
        "src/apply/sql/kind.rs names src/apply/loose.rs",
        "src/apply/sql/kind.rs names src/apply/plan/mod.rs",
    ];
    assert_eq!(upward(&imports), found);
    assert_eq!(homeless(&imports), ["src/apply/loose.rs"]);
}
