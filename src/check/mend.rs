//! What mends a problem, as text that psql runs as it stands. Pure.
//!
//! A statement is what can be run without thinking; what a person must decide, or do outside of
//! the database, is a comment.

use std::fmt;

use crate::ids::NodeName;

/// How many lines a terminal shows before it is told where the rest is.
const LINES_MAX: usize = 5;

/// Statements and comments, in the order in which psql is to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mend(pub(super) Vec<String>);

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
pub(super) fn on_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
