//! What mends a problem, as text that psql runs as it stands. Pure.
//!
//! A statement is what can be run without thinking; what a person must decide, or do outside of
//! the database, is a comment. [`script`] makes one file of all that mends one node.

use std::collections::BTreeSet;
use std::fmt;

use super::{Problem, Severity};
use crate::ids::NodeName;

/// How many lines a terminal shows before it is told where the rest is.
const LINES_MAX: usize = 5;

/// Statements and comments, in the order in which psql is to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mend(Vec<String>);

impl Mend {
    /// Adds a statement, given without its semicolon.
    pub(super) fn sql(&mut self, statement: &str) {
        self.0.push(format!("{statement};"));
    }

    /// Adds a sentence for a person.
    pub(super) fn note(&mut self, sentence: &str) {
        self.0.push(format!("-- {}", on_one_line(sentence)));
    }

    /// These statements, for tests of what shows them.
    #[cfg(test)]
    pub(crate) fn of(statements: &[&str]) -> Self {
        let mut mend = Self::default();
        for statement in statements {
            mend.sql(statement);
        }
        mend
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a terminal shows: all of it, or its beginning and the command that gives the rest.
    pub fn shortened(&self, node: &NodeName) -> Vec<String> {
        if self.0.len() <= LINES_MAX + 1 {
            return self.0.clone();
        }
        let mut shown = self.0[..LINES_MAX].to_vec();
        let more = self.0.len() - LINES_MAX;
        shown.push(format!(
            "-- and {more} more lines; all of them: mmrepl check --script {node}"
        ));
        shown
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A comment ends where its line does, whatever a name in it contains.
fn on_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// A column that is missing may be wanted for several reasons; it can be added once.
pub(super) fn say_once(problems: &mut [Problem]) {
    let mut added = BTreeSet::new();
    for problem in problems {
        for line in &mut problem.mend.0 {
            let Some(column) = added_column(line) else {
                continue;
            };
            if !added.insert((problem.node.clone(), column.to_owned())) {
                "-- what mends another problem adds the column".clone_into(line);
            }
        }
    }
}

/// `alter table t add column "c"` at the beginning of a statement.
fn added_column(line: &str) -> Option<&str> {
    const ADD: &str = " add column \"";
    if !line.starts_with("alter table ") {
        return None;
    }
    let name = line.find(ADD)? + ADD.len();
    let end = line[name..].find("\" ")?;
    line.get(..=name + end)
}

/// All that mends the problems of one node, as a file for psql.
pub fn script(node: &NodeName, problems: &[Problem]) -> String {
    let mut lines = vec![
        format!("-- What mends node {node}, for psql, run as a superuser in its database."),
        "-- Comments below a problem are for a person to decide.".to_owned(),
    ];
    let mine = problems.iter().filter(|problem| problem.node == *node);
    let before = lines.len();
    for problem in mine.filter(|problem| !problem.mend.is_empty()) {
        let word = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        lines.push(String::new());
        lines.push(format!("-- {word}: {}", on_one_line(&problem.what)));
        lines.extend(problem.mend.0.iter().cloned());
    }
    if lines.len() == before {
        lines.push("-- There is nothing to mend.".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(node: &str, what: &str) -> Problem {
        Problem::error(&node.parse().unwrap(), what)
    }

    #[test]
    fn a_script_has_what_mends_one_node_and_nothing_that_leaves_its_comment() {
        let problems = [
            problem("west", "a\nname").sql("alter a").note("then\rwait"),
            problem("west", "nothing to be done"),
            problem("east", "of another").sql("alter b"),
        ];
        let text = script(&"west".parse().unwrap(), &problems);
        assert!(
            text.ends_with("\n\n-- error: a name\nalter a;\n-- then wait"),
            "{text}"
        );
        let text = script(&"north".parse().unwrap(), &problems);
        assert!(text.ends_with("\n-- There is nothing to mend."), "{text}");
    }

    #[test]
    fn a_column_is_added_once() {
        let mut problems = [
            problem("west", "one").sql("alter table t add column \"a b\" bigint not null"),
            problem("west", "two").sql("alter table t add column \"a b\" bigint"),
            problem("east", "three").sql("alter table t add column \"a b\" bigint"),
            problem("west", "four").sql("alter table t add column \"a\" bigint"),
        ];
        say_once(&mut problems);
        let comments = problems.map(|p| p.mend.to_string().starts_with("--"));
        assert_eq!(comments, [false, true, false, false]);
    }

    #[test]
    fn a_terminal_is_told_where_the_rest_is() {
        let west = "west".parse().unwrap();
        let mut mend = Mend::default();
        for number in 0..6 {
            mend.sql(&format!("s{number}"));
        }
        assert_eq!(mend.shortened(&west).len(), 6);
        mend.sql("s6");
        let shown = mend.shortened(&west);
        assert_eq!(shown.len(), 6);
        assert_eq!(
            shown[5],
            "-- and 2 more lines; all of them: mmrepl check --script west"
        );
        assert_eq!(mend.to_string().lines().count(), 7);
    }
}
