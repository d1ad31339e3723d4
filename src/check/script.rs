//! One file of all that mends one node. Pure.

use std::collections::BTreeSet;

use super::mend::on_one_line;
use super::{Problem, Severity};
use crate::ids::NodeName;

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
}
