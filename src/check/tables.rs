//! What a node's own tables are like: keys, indexes, triggers, unlogged ones.

use super::facts::NodeFacts;
use super::{Problem, Severity};
use crate::catalog::names::ident;
use crate::catalog::table::Table;

/// What a person must do: nobody else knows the columns.
pub(super) fn add_key(table: &str) -> String {
    format!(
        "on every node, with the columns that tell rows apart: alter table {table} add primary key (…);"
    )
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
    problems.extend(foreign_partitions(facts));
    problems.extend(bare_bytes(facts));
    problems
}

fn without_key(facts: &NodeFacts) -> Option<Problem> {
    let tables = facts.tables.iter().filter(|table| table.key.is_none());
    let names: Vec<String> = tables.map(Table::readable).collect();
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "{list} have neither a primary key nor a unique index on NOT NULL columns: rows are matched whole, slowly, and conflicts cannot be settled"
        )
    });
    some_of(&names, noted(problem, &names, add_key))
}

/// Each name with its own sentence for a person.
fn noted(problem: Problem, names: &[String], say: impl Fn(&str) -> String) -> Problem {
    let note = |problem: Problem, name: &String| problem.note(say(name));
    names.iter().fold(problem, note)
}

/// The problem, where anything has it.
fn some_of(names: &[String], problem: Problem) -> Option<Problem> {
    (!names.is_empty()).then_some(problem)
}

/// `index on table`.
fn on_tables(pairs: &[(String, String)]) -> Vec<String> {
    let text = |(table, thing): &(String, String)| format!("{thing} on {table}");
    pairs.iter().map(text).collect()
}

fn extra_unique(facts: &NodeFacts) -> Option<Problem> {
    let names = on_tables(&facts.oddities.extra_unique);
    let problem = Problem::of_many(&facts.name, Severity::Info, &names, |list| {
        format!(
            "unique beside the key: {list}; where nodes give one value to several rows the newest has it, and the others are kept aside in mmrepl.shadow until it comes free"
        )
    });
    some_of(&names, problem)
}

/// Where rows cannot be kept aside, a duplicate can only wait for a person.
fn blocking_unique(facts: &NodeFacts) -> Option<Problem> {
    let names = on_tables(&facts.oddities.blocking_unique);
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "unique in a table without a key, or in one partition only: {list}; where two nodes give one value to different rows both links are blocked, until a row with it has been changed on each node"
        )
    });
    let advice = "give the table a primary key, and make the index one of the whole table";
    some_of(&names, problem.note(advice))
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
    let names = on_tables(triggers);
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "triggers that fire for applied rows too (enable always or replica): {list}; what they write is replicated a second time"
        )
    });
    let enable = |problem: Problem, (table, trigger): &(String, String)| {
        problem.sql(format!(
            "alter table {table} enable trigger {}",
            ident(trigger)
        ))
    };
    some_of(&names, triggers.iter().fold(problem, enable))
}

fn unlogged(facts: &NodeFacts) -> Option<Problem> {
    let names = &facts.oddities.unlogged;
    let problem = Problem::of_many(&facts.name, Severity::Info, names, |list| {
        format!("unlogged tables are not replicated: {list}")
    });
    let log = |name: &str| format!("unless it is excluded: alter table {name} set logged;");
    some_of(names, noted(problem, names, log))
}

fn foreign_partitions(facts: &NodeFacts) -> Option<Problem> {
    let pairs = facts.oddities.foreign_partitions.iter();
    let names: Vec<String> = pairs
        .map(|(table, partition)| format!("{partition} of {table}"))
        .collect();
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "partitions that are foreign tables: {list}; their rows are not replicated, though `mmrepl init` compares them; where they cannot be written to, an update or delete of the table on another node blocks its link"
        )
    });
    let note = "keep the same rows behind them on every node, or put the table into exclude";
    some_of(&names, problem.note(note))
}

/// What 16 and newer write for a byte above 127, older servers read as a backslash.
fn bare_bytes(facts: &NodeFacts) -> Option<Problem> {
    let mut names = Vec::new();
    for table in &facts.tables {
        let bare = table.columns.iter().filter(|column| column.is_bare_byte);
        names.extend(bare.map(|column| format!("{} of {}", column.name, table.readable())));
    }
    let problem = Problem::of_many(&facts.name, Severity::Info, &names, |list| {
        format!(
            "columns of type \"char\" on a server before 16: {list}; a byte above 127 does not travel between it and newer servers, and blocks the link"
        )
    });
    some_of(&names, problem)
}

fn partitions_unkeyed(facts: &NodeFacts) -> Option<Problem> {
    let names = &facts.oddities.partitions_unkeyed;
    let problem = Problem::of_many(&facts.name, Severity::Warning, names, |list| {
        format!(
            "partitioned tables without an immediate primary key: {list}; on a partition made later, UPDATE and DELETE fail until `mmrepl init` is run again"
        )
    });
    some_of(names, noted(problem, names, add_key))
}
