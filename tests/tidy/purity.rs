//! A module whose header says that it is pure has no sockets, no runtime, no clock and no files:
//! bytes or values in, values out.

use crate::imports::Imports;
use crate::source::{Source, assert_none, beyond, product};

/// Whole folders whose `mod.rs` speaks for every file.
const FOLDERS: [&str; 3] = ["src/pgoutput/", "src/assemble", "src/conflict/"];

/// What reads a clock, a file, a socket or chance, or waits.
const IMPURE: [&str; 16] = [
    "tokio",
    "tokio_postgres",
    "tokio_util",
    "tokio_rustls",
    "hyper",
    "hyper_util",
    "socket2",
    "sled",
    "tracing",
    "futures_util",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
];

/// Pure modules that do something impure. This list only shrinks.
const STILL: &[&str] = &[
    "src/admin/caller.rs names hyper",
    "src/admin/caller.rs names std::net",
    "src/init/damage.rs calls open of src/init/gaps.rs",
    "src/init/plan.rs calls note of src/init/gaps.rs",
    "src/init/plan.rs calls tables of src/init/gaps.rs",
    "src/link/caution.rs calls forced_way of src/failpoint.rs",
    "src/link/dispatch.rs calls forced_way of src/failpoint.rs",
    "src/link/repeats.rs names tokio",
    "src/link/window.rs names tokio",
    "src/link/window.rs calls group_rows of src/failpoint.rs",
];

/// Whether the header of a file says that the file is pure.
fn says_pure(source: &Source) -> bool {
    let header: Vec<&str> = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    let header = header.join(" ");
    let says = ["Pure.", "Pure;", "Pure:", ": pure,", "This module is pure"];
    let in_folder = |folder: &&str| source.path.starts_with(*folder);
    says.iter().any(|word| header.contains(word)) || FOLDERS.iter().any(in_folder)
}

fn waits(source: &Source) -> bool {
    let text = source.product();
    [".await", "async "].iter().any(|word| text.contains(word))
}

fn reads_clock(source: &Source) -> bool {
    let text = source.product();
    ["::now()", "SystemTime"]
        .iter()
        .any(|clock| text.contains(clock))
}

/// Types and constants of a module that is not pure are no harm: what is done with them would be
/// seen.
fn is_function(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase())
}

/// Pure files that wait, read a clock, name something impure outside the crate, or call a function
/// of a module that is not pure.
fn impure(sources: &[Source]) -> Vec<String> {
    let imports = Imports::of(sources);
    let outside = |file: &str| {
        let names = imports.outside.get(file).into_iter().flatten();
        names.filter(|name| IMPURE.contains(&name.as_str()))
    };
    let is_impure = |source: &&Source| {
        outside(&source.path).next().is_some() || reads_clock(source) || waits(source)
    };
    let impure: Vec<&str> = sources.iter().filter(is_impure).map(|s| &*s.path).collect();
    let mut offences = Vec::new();
    for source in sources.iter().filter(|source| says_pure(source)) {
        let file = &source.path;
        offences.extend(outside(file).map(|name| format!("{file} names {name}")));
        if reads_clock(source) {
            offences.push(format!("{file} reads a clock"));
        }
        if waits(source) {
            offences.push(format!("{file} waits"));
        }
        let others = imports.items.get(file).into_iter().flatten();
        let called = others.filter(|(other, name)| impure.contains(&&**other) && is_function(name));
        offences.extend(called.map(|(other, name)| format!("{file} calls {name} of {other}")));
    }
    offences
}

#[test]
fn what_says_that_it_is_pure_is_pure() {
    assert_none(&beyond(&impure(&product()), STILL));
}

#[test]
fn planted_impurity_is_found() {
    let sources = [
        Source::planted("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\nmod e;"),
        Source::planted("src/a.rs", "//! Numbers. Pure.\nuse std::fs;"),
        Source::planted(
            "src/b.rs",
            "//! Numbers\n//! too. Pure; see there.\nuse super::c::{C, f};",
        ),
        Source::planted("src/c.rs", "//! Asks.\nfn f() { tokio::spawn(g()) }"),
        Source::planted(
            "src/d.rs",
            "//! Pure.\nfn f() { std::time::Instant::now() }",
        ),
        Source::planted("src/e.rs", "//! Pure.\nasync fn f() {}"),
    ];
    let found = [
        "src/a.rs names std::fs",
        "src/b.rs calls f of src/c.rs",
        "src/d.rs reads a clock",
        "src/e.rs waits",
    ];
    assert_eq!(impure(&sources), found);
}
