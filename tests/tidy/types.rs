//! One type, one place: its methods stand in its file, and its name means one thing in its folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, assert_none, beyond, product};

/// `impl` blocks outside the type's own file. This list only shrinks.
const ELSEWHERE: &[&str] = &[
    "src/apply/send/ahead.rs: impl Applier",
    "src/apply/send/apart.rs: impl Applier",
    "src/apply/send/in_order.rs: impl Applier",
    "src/apply/send/lanes.rs: impl Applier",
    "src/apply/send/position.rs: impl Applier",
    "src/apply/send/respelled.rs: impl Applier",
    "src/apply/send/running.rs: impl Applier",
    "src/apply/send/skip.rs: impl Applier",
    "src/apply/send/steps.rs: impl Applier",
    "src/apply/settle/crossing.rs: impl Applier",
    "src/apply/settle/custom.rs: impl Applier",
    "src/apply/settle/emptied.rs: impl Applier",
    "src/apply/settle/merging.rs: impl Applier",
    "src/apply/settle/ordered.rs: impl Applier",
    "src/apply/settle/overtaken.rs: impl Applier",
    "src/apply/settle/record.rs: impl Applier",
    "src/apply/settle/rewrites.rs: impl Applier",
    "src/apply/settle/truncate.rs: impl Applier",
    "src/apply/settle/unique.rs: impl Applier",
    "src/conflict/kind.rs: impl Verdict",
    "src/demo/acts.rs: impl Stage",
    "src/demo/view.rs: impl Stage",
    "src/link/applying_running.rs: impl Applying",
    "src/link/stepwise.rs: impl Applying",
];

/// Names of two or more types of one folder of `src/`. This list only shrinks.
const TWICE: &[&str] = &["apply: Kept", "init: Counts"];

/// The name that begins at the front of `text`.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Types that a file defines, those within functions left out.
fn defined(source: &Source) -> Vec<String> {
    let product = source.product();
    let top = product.lines().filter(|line| !line.starts_with(' '));
    let words = |line: &str| {
        let line = line.strip_prefix("pub").unwrap_or(line);
        let line = match line.strip_prefix('(') {
            Some(within) => within.split_once(')')?.1,
            None => line,
        };
        let (kind, rest) = line.trim_start().split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "union"].contains(&kind);
        is_type.then(|| name(rest.trim_start()).to_owned())
    };
    top.filter_map(words).collect()
}

/// For an `impl` at the front of a line: the trait, if any, and the type.
fn implemented(line: &str) -> Option<(Option<String>, String)> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    let rest = rest.trim_start();
    let last = |path: &str| {
        let path = path.trim().trim_start_matches(['&', '!']);
        let path = path.split(['<', ' ', '{']).next().unwrap_or("");
        name(path.rsplit("::").next().unwrap_or("")).to_owned()
    };
    match rest.split_once(" for ") {
        Some((of, kind)) => Some((Some(last(of)), last(kind))),
        None => Some((None, last(rest))),
    }
}

fn elsewhere(sources: &[Source]) -> Vec<String> {
    let all: BTreeSet<String> = sources.iter().flat_map(defined).collect();
    let mut offences = BTreeSet::new();
    for source in sources {
        let own = defined(source);
        let is_own = |name: &String| own.contains(name);
        for (of, kind) in source.product().lines().filter_map(implemented) {
            let is_home = is_own(&kind) || of.as_ref().is_some_and(is_own);
            if all.contains(&kind) && !is_home {
                offences.insert(format!("{}: impl {kind}", source.path));
            }
        }
    }
    offences.into_iter().collect()
}

fn twice(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources {
        let folder = source.path.trim_start_matches("src/").split('/').next();
        let folder = folder.unwrap_or("").trim_end_matches(".rs");
        for name in defined(source) {
            *places.entry(format!("{folder}: {name}")).or_default() += 1;
        }
    }
    let twice = places.into_iter().filter(|(_, places)| *places > 1);
    twice.map(|(name, _)| name).collect()
}

#[test]
fn methods_stand_beside_their_type() {
    assert_none(&beyond(&elsewhere(&product()), ELSEWHERE));
}

#[test]
fn one_name_means_one_type() {
    assert_none(&beyond(&twice(&product()), TWICE));
}

#[test]
fn planted_methods_elsewhere_are_found() {
    let sources = [
        Source::planted(
            "src/a/one.rs",
            "pub(super) struct One<T>(T);\nimpl<T> One<T> {\n}",
        ),
        Source::planted(
            "src/a/two.rs",
            "pub trait Two {}\nimpl<T: X<Y>> Two for One<T> {\n}",
        ),
        Source::planted(
            "src/a/three.rs",
            "impl crate::a::One<u8> {\n}\nimpl Two for One<u8> {}",
        ),
        Source::planted("src/a/four.rs", "impl From<One<u8>> for String {\n}"),
    ];
    assert_eq!(elsewhere(&sources), ["src/a/three.rs: impl One"]);
}

#[test]
fn planted_second_meanings_are_found() {
    let sources = [
        Source::planted(
            "src/a/one.rs",
            "struct One;\npub enum Two {}\nfn f() {\n    struct X;\n}",
        ),
        Source::planted("src/a/two.rs", "pub(super) struct One {\n}\nstruct X;"),
        Source::planted("src/b.rs", "struct Two;"),
    ];
    assert_eq!(twice(&sources), ["a: One"]);
}
