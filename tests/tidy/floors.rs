//! The rooms of `src/apply` stand on floors: each names only what is on floors below, or its own
//! room. `src/apply/mod.rs` says what each is for.

use crate::imports::Imports;
use crate::source::{Source, assert_none, beyond};

/// From the bottom; rooms of one floor know nothing of each other.
const FLOORS: [&[&str]; 8] = [
    &["shape", "encode", "error.rs"],
    &["sql"],
    &["target"],
    &["plan"],
    &["write"],
    &["settle"],
    &["send"],
    &["mod.rs"],
];

/// Imports that lead up, or into another room of one floor. This list only shrinks.
const STILL: &[&str] = &[
    "src/apply/error.rs names src/apply/mapping.rs",
    "src/apply/mod.rs names src/apply/give_way.rs",
];

/// Files that have no room yet. This list only shrinks.
const HOMELESS: &[&str] = &[
    "src/apply/ahead.rs",
    "src/apply/binary.rs",
    "src/apply/copy.rs",
    "src/apply/crossing.rs",
    "src/apply/custom.rs",
    "src/apply/decide.rs",
    "src/apply/emptied.rs",
    "src/apply/fetch.rs",
    "src/apply/floors.rs",
    "src/apply/give_way.rs",
    "src/apply/group.rs",
    "src/apply/guard.rs",
    "src/apply/in_order.rs",
    "src/apply/mapping.rs",
    "src/apply/merging.rs",
    "src/apply/narrower.rs",
    "src/apply/origins.rs",
    "src/apply/overtaken.rs",
    "src/apply/params.rs",
    "src/apply/pending.rs",
    "src/apply/plan.rs",
    "src/apply/position.rs",
    "src/apply/push.rs",
    "src/apply/record.rs",
    "src/apply/respelled.rs",
    "src/apply/returner.rs",
    "src/apply/rewrites.rs",
    "src/apply/rows.rs",
    "src/apply/running.rs",
    "src/apply/session.rs",
    "src/apply/set_sql.rs",
    "src/apply/settle.rs",
    "src/apply/settle_custom.rs",
    "src/apply/settle_merging.rs",
    "src/apply/skip.rs",
    "src/apply/source_times.rs",
    "src/apply/sql.rs",
    "src/apply/sql_ahead.rs",
    "src/apply/sql_custom.rs",
    "src/apply/sql_merge.rs",
    "src/apply/sql_record.rs",
    "src/apply/sql_unique.rs",
    "src/apply/tables.rs",
    "src/apply/target.rs",
    "src/apply/touched.rs",
    "src/apply/transaction.rs",
    "src/apply/truncate.rs",
    "src/apply/unique.rs",
    "src/apply/versions.rs",
    "src/apply/visible.rs",
    "src/apply/workers.rs",
];

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
