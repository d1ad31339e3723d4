//! The files of the project, and what of each is code.

use std::fs;
use std::path::{Path, PathBuf};

/// A file and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// A small one that a test of a check makes up.
    pub(crate) fn planted(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Lines with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// Lines before the tests at the end of the file.
    pub(crate) fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
    }

    /// Those that are no comments; none of a file of tests.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.is_test();
        self.before_tests()
            .filter(move |(_, line)| !is_test && !is_comment(line))
    }

    /// Whole files of tests, or of helpers for tests, fuzzing and benches.
    pub(crate) fn is_test(&self) -> bool {
        let test_only = ["tests.rs", "/arbitrary.rs", "/fuzzing.rs"];
        !self.path.starts_with("src/")
            || self.path.contains("/tests/")
            || test_only.iter().any(|end| self.path.ends_with(end))
    }

    /// What the product is built from: lines without comments, without `mod tests` and without
    /// modules that only tests have.
    pub(crate) fn product(&self) -> String {
        let mut lines = self.text.lines().peekable();
        let mut product = String::new();
        while let Some(line) = lines.next() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                match lines.peek() {
                    Some(next) if next.contains("mod tests {") => break,
                    Some(next) if next.trim_end().ends_with(';') => drop(lines.next()),
                    _ => {}
                }
            } else if !is_comment(line) {
                product.push_str(line);
                product.push('\n');
            }
        }
        product
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Where the project is.
pub(crate) fn root() -> &'static Path {
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

/// The files of these folders that end so.
pub(crate) fn sources(folders: &[&str], extension: &str) -> Vec<Source> {
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

/// All of the project's Rust.
pub(crate) fn rust() -> Vec<Source> {
    sources(&["src", "tests", "benches", "fuzz/fuzz_targets"], ".rs")
}

/// What the product is built from, without files of tests.
pub(crate) fn product() -> Vec<Source> {
    let mut all = sources(&["src"], ".rs");
    all.retain(|source| !source.is_test());
    all
}

/// Documents, those in the root too.
pub(crate) fn documents() -> Vec<Source> {
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

/// Fails with every offence at once.
pub(crate) fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// What a shrinking list of exceptions leaves: offences that it does not name, and names that are
/// no offences any more.
pub(crate) fn beyond(offences: &[String], allowed: &[&str]) -> Vec<String> {
    let unknown = offences
        .iter()
        .filter(|offence| !allowed.contains(&offence.as_str()));
    let is_gone = |name: &&&str| !offences.iter().any(|offence| offence == **name);
    let gone = allowed.iter().filter(is_gone);
    unknown
        .cloned()
        .chain(gone.map(|name| format!("no longer true, strike it from the list: {name}")))
        .collect()
}

#[test]
fn a_list_of_exceptions_only_shrinks() {
    let offences = ["a".to_owned(), "b".to_owned()];
    assert_eq!(beyond(&offences, &["a", "b"]), Vec::<String>::new());
    assert_eq!(beyond(&offences, &["a"]), ["b"]);
    let gone = "no longer true, strike it from the list: c";
    assert_eq!(beyond(&offences, &["a", "b", "c"]), [gone]);
}
