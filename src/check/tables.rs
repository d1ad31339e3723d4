//! What a node's own tables are like: keys, indexes, triggers, unlogged ones.

use super::Problem;
use super::facts::NodeFacts;

/// How many names a sentence lists before it only counts the rest.
const NAMES_MAX: usize = 5;

/// `a, b, c and 17 more`.
pub(super) fn short_list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMES_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(super) fn check(facts: &NodeFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(without_key(facts));
    problems.extend(extra_unique(facts));
    problems.extend(always_triggers(facts));
    problems.extend(unlogged(facts));
    problems.extend(partitions_unkeyed(facts));
    problems
}

fn without_key(facts: &NodeFacts) -> Option<Problem> {
    let names: Vec<String> = facts
        .tables
        .iter()
        .filter(|t| t.key.is_none())
        .map(crate::catalog::table::Table::readable)
        .collect();
    (!names.is_empty()).then(|| {
        let what = format!(
            "{} have neither a primary key nor a unique index on NOT NULL columns: rows are matched whole, slowly, and conflicts cannot be settled",
            short_list(&names)
        );
        let first = names.first().map_or("", String::as_str);
        let fix = format!("alter table {first} add primary key (…), on every node");
        Problem::warning(&facts.name, what).fix(fix)
    })
}

fn extra_unique(facts: &NodeFacts) -> Option<Problem> {
    let names: Vec<String> = facts
        .oddities
        .extra_unique
        .iter()
        .map(|(table, index)| format!("{index} on {table}"))
        .collect();
    (!names.is_empty()).then(|| {
        let what = format!(
            "unique beside the key: {}; a link is blocked while a row arrives whose value another row holds, until one of them is changed",
            short_list(&names)
        );
        Problem::warning(&facts.name, what)
    })
}

fn always_triggers(facts: &NodeFacts) -> Option<Problem> {
    let triggers = &facts.oddities.always_triggers;
    let names: Vec<String> = triggers
        .iter()
        .map(|(table, trigger)| format!("{trigger} on {table}"))
        .collect();
    let (table, trigger) = triggers.first()?;
    let what = format!(
        "triggers that fire for applied rows too (enable always or replica): {}; what they write is replicated a second time",
        short_list(&names)
    );
    let fix = format!("alter table {table} enable trigger {trigger}; the others alike");
    Some(Problem::warning(&facts.name, what).fix(fix))
}

fn unlogged(facts: &NodeFacts) -> Option<Problem> {
    let names = &facts.oddities.unlogged;
    (!names.is_empty()).then(|| {
        let what = format!("unlogged tables are not replicated: {}", short_list(names));
        let first = names.first().map_or("", String::as_str);
        Problem::info(&facts.name, what)
            .fix(format!("alter table {first} set logged, or exclude it"))
    })
}

fn partitions_unkeyed(facts: &NodeFacts) -> Option<Problem> {
    let names = &facts.oddities.partitions_unkeyed;
    (!names.is_empty()).then(|| {
        let what = format!(
            "partitioned tables without an immediate primary key: {}; on a partition made later, UPDATE and DELETE fail until `mmrepl init` is run again",
            short_list(names)
        );
        let first = names.first().map_or("", String::as_str);
        let fix = format!("alter table {first} add primary key (…), on every node");
        Problem::warning(&facts.name, what).fix(fix)
    })
}
