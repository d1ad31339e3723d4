//! Whether two nodes have the same rules. Each daemon leaves its own on its server; who writes
//! there compares. Nodes that decide by different rules would not end equal.

use std::collections::BTreeSet;

use crate::conflict::Rules;
use crate::ids::NodeName;

/// Stands for every table that is not named.
const OTHERS: &str = "*";

/// The rules as one text: a line for each table, its name and its rule.
pub fn rules_text(rules: &Rules) -> String {
    let named = rules.tables.iter();
    let named = named.filter(|(_, rule)| **rule != rules.default);
    let named = named.map(|(table, rule)| format!("{table}\t{rule}"));
    let all = std::iter::once(format!("{OTHERS}\t{}", rules.default)).chain(named);
    all.collect::<Vec<_>>().join("\n")
}

/// The first table that `node` rules otherwise, as a sentence; `there` is what it has left.
pub fn difference(here: &str, there: &str, node: &NodeName) -> Option<String> {
    let lines = here.lines().chain(there.lines());
    let tables: BTreeSet<&str> = lines.filter_map(table_of).collect();
    let differs = |table: &&str| rule_in(here, table) != rule_in(there, table);
    let table = tables.into_iter().find(differs)?;
    let name = match table {
        OTHERS => "every other table",
        named => named,
    };
    Some(format!(
        "{name} is {} on {node} and {} here: give both the same file, run `mmrepl init` and restart both",
        rule_in(there, table),
        rule_in(here, table)
    ))
}

/// Whether the nodes stand in another order than when rows got their versions under `manual` or
/// `custom`, as a sentence: the places in those versions would be taken for other nodes'.
pub fn moved_places(before: &str, now: &str) -> Option<String> {
    let (before, now) = (places(before)?, places(now)?);
    let same = before.iter().zip(&now).filter(|(a, b)| a == b).count() == before.len();
    (!same).then(|| {
        format!(
            "the nodes stand in the file as {}, and the rows of tables under manual or custom have places for {}: keep that order and add new nodes at the end, or run `mmrepl drop` and `mmrepl init` anew",
            now.join(", "),
            before.join(", ")
        )
    })
}

/// The nodes in the order of their places.
fn places<'a>(text: &'a str) -> Option<Vec<&'a str>> {
    let rules = text.lines().filter_map(|line| line.split_once('\t'));
    let of_rule = |rule: &'static str| {
        move |(_, text): (_, &'a str)| Some(text.strip_prefix(rule)?.split_once(')')?.0)
    };
    let mut nodes = rules.clone().filter_map(of_rule("manual("));
    let mut others = rules.filter_map(of_rule("custom("));
    Some(
        nodes
            .next()
            .or_else(|| others.next())?
            .split(", ")
            .collect(),
    )
}

fn table_of(line: &str) -> Option<&str> {
    line.split_once('\t').map(|(table, _)| table)
}

fn rule_in<'a>(text: &'a str, table: &str) -> &'a str {
    let of = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines
            .find(|(table, _)| *table == name)
            .map(|(_, rule)| rule)
    };
    of(table).or_else(|| of(OTHERS)).unwrap_or("not ruled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflict::{Custom, Rule};

    fn rules(default: Rule, tables: &[(&str, Rule)]) -> String {
        let tables = tables
            .iter()
            .map(|(name, rule)| ((*name).to_owned(), rule.clone()));
        rules_text(&Rules {
            default,
            tables: tables.collect(),
        })
    }

    fn column(name: &str) -> Rule {
        Rule::VersionColumn(name.to_owned())
    }

    #[test]
    fn what_differs_first_is_named() {
        let west = "west".parse().unwrap();
        let here = rules(Rule::LastWriteWins, &[]);
        let there = rules(Rule::LastWriteWins, &[("public.t", column("version"))]);
        let said = difference(&here, &there, &west).unwrap();
        let start = "public.t is version_column(version) on west and last_write_wins here: ";
        assert!(said.starts_with(start), "{said}");
        let other = rules(Rule::HybridClock, &[]);
        let said = difference(&here, &other, &west).unwrap();
        assert!(
            said.starts_with("every other table is hybrid_clock on west"),
            "{said}"
        );
    }

    #[test]
    fn new_nodes_stand_at_the_end() {
        let manual = |names: &[&str]| {
            let nodes = names.iter().map(|name| name.parse().unwrap()).collect();
            rules(Rule::LastWriteWins, &[("public.t", Rule::Manual(nodes))])
        };
        let custom = Rule::Custom(Custom {
            nodes: ["west", "east"].map(|name| name.parse().unwrap()).into(),
            schema: "app".to_owned(),
            function: "f".to_owned(),
        });
        let before = rules(Rule::LastWriteWins, &[("public.t", custom)]);
        assert_eq!(moved_places(&before, &manual(&["west", "east"])), None);
        assert!(moved_places(&before, &manual(&["east", "west"])).is_some());
        let before = manual(&["west", "east"]);
        assert_eq!(moved_places(&before, &before), None);
        assert_eq!(moved_places(&before, &manual(&["west", "east", "a"])), None);
        assert_eq!(moved_places(&before, &rules(Rule::HybridClock, &[])), None);
        for other in [&["east", "west"][..], &["west"], &["a", "west", "east"]] {
            let said = moved_places(&before, &manual(other)).unwrap();
            assert!(said.contains("have places for west, east: keep"), "{said}");
        }
    }

    #[test]
    fn the_same_rules_said_otherwise_agree() {
        let west = "west".parse().unwrap();
        let plain = rules(Rule::HybridClock, &[]);
        let named = rules(Rule::HybridClock, &[("public.t", Rule::HybridClock)]);
        assert_eq!(difference(&plain, &named, &west), None);
        assert_eq!(difference(&named, &named, &west), None);
        let (a, b) = (column("a"), column("b"));
        let [a, b] = [a, b].map(|rule| rules(Rule::LastWriteWins, &[("public.t", rule)]));
        assert!(difference(&a, &b, &west).is_some());
    }
}
