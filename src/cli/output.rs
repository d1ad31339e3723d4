//! What commands print: results to standard output, errors in one sentence to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check::{Problem, Severity};
use crate::text;

/// The command was called with `--json`.
static ERRORS_ARE_JSON: AtomicBool = AtomicBool::new(false);
/// Something is on standard output already.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// From now on errors are JSON objects.
pub(super) fn errors_are_json() {
    ERRORS_ARE_JSON.store(true, Ordering::Relaxed);
}

/// Whether they are.
pub(super) fn are_errors_json() -> bool {
    ERRORS_ARE_JSON.load(Ordering::Relaxed)
}

/// Prints a line, or several that were laid out here. Whatever names and values are in it, they do
/// nothing to a terminal.
pub(super) fn line(text: &dyn Display) {
    let is_unsafe = |sign| !matches!(sign, '\n' | '\t') && text::is_unsafe(sign);
    print(&text::visible_coloured(&text.to_string(), is_unsafe));
}

/// Whoever closed the pipe does not want to read more; that is no error.
fn print(text: &str) {
    HAS_PRINTED.store(true, Ordering::Relaxed);
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints the sentence that says what to do. With `--json` it is an object, and where nothing was
/// printed yet it is on standard output too: a program that reads one object there finds one.
pub(super) fn error(sentence: &dyn Display) {
    let sentence = sentence.to_string();
    if !are_errors_json() {
        let _ = writeln!(io::stderr(), "mmrepl: {}", text::visible_lines(&sentence));
        return;
    }
    let object = serde_json::json!({ "error": sentence });
    let _ = writeln!(io::stderr(), "{object}");
    if !HAS_PRINTED.load(Ordering::Relaxed) {
        json(&object);
    }
}

/// Says on standard error what a command waits for. With `--json` it is an object on a line of its
/// own, and standard output keeps its one object.
pub(super) fn waiting(sentence: &str) {
    let line = if are_errors_json() {
        serde_json::json!({ "waiting": sentence }).to_string()
    } else {
        format!("mmrepl: {}", text::visible_lines(sentence))
    };
    // Nobody reads it; the command goes on all the same.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a JSON value on one line.
pub(super) fn json(value: &serde_json::Value) {
    print(&value.to_string());
}

/// Prints a file that psql runs: as it is, except on a terminal.
pub(super) fn script(text: &str) {
    if io::stdout().is_terminal() {
        line(&text);
    } else {
        print(text);
    }
}

/// Prints JSON that is text already.
pub(super) fn json_text(value: &str) {
    print(value);
}

/// A finding as text: `error    west: wal_level is …` and, below it, the mending command.
pub(super) fn problem(problem: &Problem, colour: bool) -> String {
    let (word, code) = match problem.severity {
        Severity::Error => ("error", "31;1"),
        Severity::Warning => ("warning", "33"),
        Severity::Info => ("info", "2"),
    };
    let padded = format!("{word:<8}");
    let word = if colour {
        format!("\x1b[{code}m{padded}\x1b[0m")
    } else {
        padded
    };
    let lines = problem.mend.shortened(&problem.node);
    let fix = match lines.join("\n              ") {
        fix if fix.is_empty() => fix,
        fix => format!("\n         fix: {fix}"),
    };
    format!("{word} {}: {}{fix}", problem.node, problem.brief)
}

/// Whether standard output is a terminal that wants colour (`NO_COLOR` is respected).
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::mend::Mend;

    #[test]
    fn a_problem_shows_what_mends_it_below() {
        let found = Problem {
            node: "west".parse().unwrap(),
            severity: Severity::Error,
            what: "wal_level is replica".to_owned(),
            brief: "wal_level is replica".to_owned(),
            mend: Mend::of(&["alter system …", "select 1"]),
        };
        assert_eq!(
            problem(&found, false),
            "error    west: wal_level is replica\n         fix: alter system …;\n              select 1;"
        );
        assert!(problem(&found, true).starts_with("\x1b[31;1merror"));
    }
}
