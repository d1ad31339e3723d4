//! The shape of the code is a test: what no lint of the compiler or clippy sees.
// A file of ours that cannot be read fails the test.
#![allow(clippy::unwrap_used)]

mod circles;
mod documents;
mod floors;
mod imports;
mod purity;
mod source;
mod types;

use std::fs;

use source::{Source, assert_none, documents, root, rust, sources};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_MEDIAN_BELOW: usize = 10;
const COLUMNS_MAX: usize = 100;
/// A reason why something cannot fail is longer than this.
const REASON_MIN: usize = 10;

/// Put together here, so that this file does not hold them.
const BANNED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
];

/// Every line that `is_bad` finds.
fn bad_lines<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    path: &str,
    is_bad: impl Fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    lines
        .filter_map(|(n, line)| is_bad(line).map(|why| format!("{path}:{n}: {why}")))
        .collect()
}

#[test]
fn files_are_short() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    };
    assert_none(&rust().iter().filter_map(long).collect::<Vec<_>>());
}

/// Length of every function, by the layout that rustfmt gives: it ends at the closing brace that
/// stands as far left as its first line.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let starts = (0..lines.len()).filter(|index| is_function(lines[*index]));
    starts
        .filter_map(|start| Some((start + 1, function_length(&lines[start..])?)))
        .collect()
}

fn is_function(line: &str) -> bool {
    let words = line.split('(').next().unwrap_or("").split_whitespace();
    let mut words = words.skip_while(|word| ["pub", "const", "async"].contains(word));
    let first = words.next();
    first == Some("fn") || (line.trim_start().starts_with("pub(") && line.contains(" fn "))
}

fn function_length(lines: &[&str]) -> Option<usize> {
    let indent: String = lines[0].chars().take_while(|c| *c == ' ').collect();
    let closing = format!("{indent}}}");
    if lines[0].ends_with('}') {
        return Some(1);
    }
    // A method of a trait may have no body.
    let body = lines
        .iter()
        .position(|line| line.ends_with('{') || line.ends_with(';'))?;
    if lines[body].ends_with(';') {
        return None;
    }
    lines
        .iter()
        .position(|line| *line == closing)
        .map(|end| end + 1)
}

#[test]
fn functions_are_short() {
    let mut offences = Vec::new();
    let mut lengths = Vec::new();
    for source in rust() {
        for (line, length) in functions(&source) {
            if length > FUNCTION_LINES_MAX {
                offences.push(format!("{}:{line}: {length} lines", source.path));
            }
            if source.path.starts_with("src/") {
                lengths.push(length);
            }
        }
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    println!("{} functions, median {median} lines", lengths.len());
    assert!(
        median < FUNCTION_LINES_MEDIAN_BELOW,
        "half of the functions have {median} lines"
    );
    assert_none(&offences);
}

/// A sentence for a person is not broken; nor is an attribute, which rustfmt leaves alone.
fn may_be_long(line: &str) -> bool {
    line.trim_start().starts_with(['"', '#']) || line.contains(": &str = \"")
}

#[test]
fn lines_are_short() {
    let long = |line: &str| {
        (line.chars().count() > COLUMNS_MAX && !may_be_long(line)).then_some("the line is too long")
    };
    let check = |source: &Source| bad_lines(source.before_tests(), &source.path, long);
    assert_none(&rust().iter().flat_map(check).collect::<Vec<_>>());
}

/// `expect` is for what cannot fail, and says why.
fn careless(line: &str) -> Option<&'static str> {
    if line.contains(".unwrap()") {
        return Some("unwrap outside tests");
    }
    let reason = line.split(".expect(\"").nth(1)?.split('"').next()?;
    (reason.len() < REASON_MIN || !reason.contains(' ')).then_some("expect without a reason")
}

fn reaching(line: &str) -> Option<&'static str> {
    if line.contains("super::super") {
        return Some("say crate:: instead of super::super");
    }
    let import = line
        .trim_start()
        .trim_start_matches("pub ")
        .starts_with("use ");
    (import && line.contains("::*")).then_some("wildcard import")
}

/// `clippy.toml` forbids what panics on a server's answer (`tokio_postgres::Row::get`) and on other
/// grounds; outside tests nothing is exempt.
fn exempt(line: &str) -> Option<&'static str> {
    let method = concat!("clippy::disallowed", "_methods");
    line.contains(method)
        .then_some("use what clippy.toml names")
}

#[test]
fn code_is_careful() {
    let mut offences = Vec::new();
    for source in rust() {
        offences.extend(bad_lines(source.code(), &source.path, careless));
        offences.extend(bad_lines(source.code(), &source.path, reaching));
        offences.extend(bad_lines(source.code(), &source.path, exempt));
    }
    assert_none(&offences);
}

#[test]
fn what_panics_on_an_answer_is_forbidden() {
    let forbidden = fs::read_to_string(root().join("clippy.toml")).unwrap();
    for method in ["Row::get", "SimpleQueryRow::get"] {
        let path = format!("path = \"tokio_postgres::{method}\"");
        assert!(forbidden.contains(&path), "clippy.toml lacks {path}");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let unfinished = |line: &str| {
        BANNED
            .iter()
            .any(|word| line.contains(word))
            .then_some("finish it or leave it out")
    };
    let mut all = rust();
    all.extend(sources(&["migrations"], ".sql"));
    all.extend(documents());
    all.extend(sources(&["tools"], ".sh"));
    let offences = all
        .iter()
        .flat_map(|s| bad_lines(s.lines(), &s.path, unfinished))
        .collect::<Vec<_>>();
    assert_none(&offences);
}

/// Reported, not enforced: between 12 and 20 % is what good code has.
#[test]
fn share_of_documentation() {
    let (mut documentation, mut all) = (0, 0);
    for source in rust().iter().filter(|source| !source.is_test()) {
        for (_, line) in source
            .before_tests()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let line = line.trim_start();
            documentation += usize::from(line.starts_with("///") || line.starts_with("//!"));
            all += 1;
        }
    }
    println!(
        "{documentation} of {all} lines are documentation: {} %",
        documentation * 100 / all
    );
}

#[test]
fn function_lengths_are_measured() {
    let text = "impl X {
    pub fn one(&self) -> u8 { 1 }
    pub(crate) async fn two(
        a: u8,
    ) {
        a;
    }
}
trait T {
    fn none(&self);
}
";
    let source = Source {
        path: "src/x.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(functions(&source), [(2, 1), (3, 5)]);
}
