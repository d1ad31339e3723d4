//! The shape of the code is a test: what no lint of the compiler or clippy sees.
// A file of ours that cannot be read fails the test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_MEDIAN_BELOW: usize = 10;
const COLUMNS_MAX: usize = 100;
/// A reason why something cannot fail is longer than this.
const REASON_MIN: usize = 10;

/// No sockets, no runtime, no clock: bytes or values in, values out.
const PURE: [&str; 9] = [
    "src/pgoutput",
    "src/assemble",
    "src/relation.rs",
    "src/conflict",
    "src/apply/decide.rs",
    "src/apply/group",
    "src/apply/sql",
    "src/lsn.rs",
    "src/ids.rs",
];

/// Put together here, so that this file does not hold them.
const BANNED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// Lines before the tests at the end of the file.
    fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
    }

    /// Those that are no comments; none of a file of tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.is_test();
        self.before_tests()
            .filter(move |(_, line)| !is_test && !line.trim_start().starts_with("//"))
    }

    /// Whole files of tests, or of helpers for tests, fuzzing and benches.
    fn is_test(&self) -> bool {
        let test_only = ["tests.rs", "/arbitrary.rs", "/fuzzing.rs"];
        !self.path.starts_with("src/")
            || self.path.contains("/tests/")
            || test_only.iter().any(|end| self.path.ends_with(end))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.is_dir() {
            found.extend(files(&name, extension));
        } else if name.ends_with(extension) {
            found.push(PathBuf::from(name));
        }
    }
    found.sort();
    found
}

fn sources(folders: &[&str], extension: &str) -> Vec<Source> {
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(root().join(&path)).unwrap(),
        path: path.display().to_string(),
    };
    folders
        .iter()
        .flat_map(|folder| files(folder, extension))
        .map(read)
        .collect()
}

fn rust() -> Vec<Source> {
    sources(&["src", "tests", "benches", "fuzz/fuzz_targets"], ".rs")
}

/// Fails with every offence at once.
fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

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
fn pure_modules_stay_pure() {
    let pure = |source: &&Source| PURE.iter().any(|prefix| source.path.starts_with(prefix));
    let impure = |line: &str| line.contains("tokio").then_some("tokio in a pure module");
    let offences = rust()
        .iter()
        .filter(pure)
        .flat_map(|s| bad_lines(s.code(), &s.path, impure))
        .collect::<Vec<_>>();
    assert_none(&offences);
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

/// Those in the root, too.
fn documents() -> Vec<Source> {
    let in_root = fs::read_dir(root()).unwrap();
    let in_root = in_root.map(|entry| entry.unwrap().path());
    let is_document = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().display().to_string(),
    };
    let mut all = sources(&["docs"], ".md");
    all.extend(in_root.filter(is_document).map(read));
    all
}

/// The anchor that a forge gives a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Where links of a document lead: what stands between `](` and `)`.
fn links(source: &Source) -> impl Iterator<Item = &str> {
    let after = source.text.split("](").skip(1);
    let targets = after.filter_map(|text| text.split(')').next());
    targets.filter(|target| !target.starts_with("http"))
}

fn leads_nowhere(from: &Source, target: &str) -> bool {
    let (file, place) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(&from.path);
    let path = match file {
        "" => folder,
        _ => folder.parent().unwrap().join(file),
    };
    let headings = |text: String| text.lines().any(|line| is_heading(line, place));
    let found =
        path.exists() && (place.is_empty() || fs::read_to_string(&path).is_ok_and(headings));
    !found
}

fn is_heading(line: &str, place: &str) -> bool {
    line.starts_with('#') && anchor(line) == place
}

/// Files and folders of ours that a text names in backquotes; patterns are left out.
fn named_files(source: &Source) -> impl Iterator<Item = &str> {
    let ours = [
        "src/",
        "tests/",
        "benches/",
        "migrations/",
        "docs/",
        "tools/",
    ];
    let is_name = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let quoted = source.text.split('`').skip(1).step_by(2);
    quoted.filter(move |text| {
        ours.iter().any(|folder| text.starts_with(folder)) && text.chars().all(is_name)
    })
}

#[test]
fn documents_lead_somewhere() {
    let mut offences = Vec::new();
    for source in documents() {
        for target in links(&source).filter(|target| leads_nowhere(&source, target)) {
            offences.push(format!("{}: {target} leads nowhere", source.path));
        }
        for name in named_files(&source).filter(|name| !root().join(name).exists()) {
            offences.push(format!("{}: there is no {name}", source.path));
        }
    }
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
