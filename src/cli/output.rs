//! What commands print: results to standard output, errors in one sentence to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::check::{Problem, Severity};

/// Prints a line. Whoever closed the pipe does not want to read more; that is no error.
pub(super) fn line(text: &dyn Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints the sentence that says what to do.
pub(super) fn error(sentence: &dyn Display) {
    let _ = writeln!(io::stderr(), "mmrepl: {sentence}");
}

/// Prints a JSON value on one line.
pub(super) fn json(value: &serde_json::Value) {
    line(value);
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
    let fix = problem
        .fix
        .as_ref()
        .map_or_else(String::new, |fix| format!("\n         fix: {fix}"));
    format!("{word} {}: {}{fix}", problem.node, problem.what)
}

/// Whether standard output is a terminal that wants colour (`NO_COLOR` is respected).
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_fix_below() {
        let found = Problem {
            node: "west".parse().unwrap(),
            severity: Severity::Error,
            what: "wal_level is replica".to_owned(),
            fix: Some("alter system …".to_owned()),
        };
        assert_eq!(
            problem(&found, false),
            "error    west: wal_level is replica\n         fix: alter system …"
        );
        assert!(problem(&found, true).starts_with("\x1b[31;1merror"));
    }
}
