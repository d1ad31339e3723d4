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
    problems.extend(blocking_unique(facts));
    problems.extend(kept_aside(facts));
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
            "unique beside the key: {}; where nodes give one value to several rows the newest has it, and the others are kept aside in mmrepl.shadow until it comes free",
            short_list(&names)
        );
        Problem::info(&facts.name, what)
    })
}

/// Where rows cannot be kept aside, a duplicate can only wait for a person.
fn blocking_unique(facts: &NodeFacts) -> Option<Problem> {
    let names: Vec<String> = facts
        .oddities
        .blocking_unique
        .iter()
        .map(|(table, index)| format!("{index} on {table}"))
        .collect();
    (!names.is_empty()).then(|| {
        let what = format!(
            "unique in a table without a key, or in one partition only: {}; a link is blocked while a row arrives whose value another row holds, until one of them is changed",
            short_list(&names)
        );
        Problem::warning(&facts.name, what)
            .fix("give the table a primary key, and make the index one of the whole table")
    })
}

fn kept_aside(facts: &NodeFacts) -> Option<Problem> {
    let count = facts.oddities.shadows;
    (count > 0).then(|| {
        let what = format!(
            "{count} row(s) are kept aside in mmrepl.shadow, because newer rows hold their unique values"
        );
        Problem::info(&facts.name, what)
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
