//! Tables compared between nodes: missing tables, columns, types, keys.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use super::facts::NodeFacts;
use crate::catalog::table::{Column, Table};
use crate::conflict::{COUNT_COLUMN, KNOWN_COLUMN, STATE_COLUMN, VECTOR_COLUMN};

/// Compares every pair of nodes in both directions.
pub(super) fn check(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = nothing_to_do(nodes);
    problems.extend(missing_tables(nodes));
    let by_name: Vec<BTreeMap<(&str, &str), &Table>> = nodes
        .iter()
        .map(|facts| facts.tables.iter().map(|t| (t.id(), t)).collect())
        .collect();
    for (at, source) in nodes.iter().enumerate() {
        for (other, target) in nodes.iter().enumerate().filter(|(other, _)| *other != at) {
            for table in &source.tables {
                if let Some(there) = by_name[other].get(&table.id()) {
                    problems.extend(columns(source, table, target, there));
                    // The rest is symmetric: look at each pair once.
                    problems.extend(
                        (at < other)
                            .then(|| key(source, table, target, there))
                            .flatten(),
                    );
                }
            }
        }
    }
    problems
}

fn nothing_to_do(nodes: &[NodeFacts]) -> Vec<Problem> {
    let empty = nodes.iter().filter(|facts| facts.tables.is_empty());
    empty
        .map(|facts| {
            Problem::warning(
                &facts.name,
                "no table matches [tables] in the configuration",
            )
        })
        .collect()
}

fn missing_tables(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut owners: BTreeMap<(&str, &str), &NodeFacts> = BTreeMap::new();
    for facts in nodes {
        for table in &facts.tables {
            owners.entry(table.id()).or_insert(facts);
        }
    }
    let mut problems = Vec::new();
    for facts in nodes {
        let here: BTreeSet<_> = facts.tables.iter().map(Table::id).collect();
        for (id, owner) in owners.iter().filter(|(id, _)| !here.contains(*id)) {
            let name = crate::catalog::names::readable(id.0, id.1);
            let what = format!("table {name} is on {} but not here", owner.name);
            let fix = format!(
                "pg_dump --schema-only --no-publications --table='{name}' --dbname='{}' and run the output on {}; or exclude the table",
                owner.server.database, facts.name
            );
            problems.push(Problem::error(&facts.name, what).fix(fix));
        }
    }
    problems
}

/// What rows of `table` on `source` would meet on `target`.
fn columns(source: &NodeFacts, table: &Table, target: &NodeFacts, there: &Table) -> Vec<Problem> {
    let name = table.readable();
    let mut problems = Vec::new();
    // From 18 on, generated columns are sent as well.
    let sent = |column: &&Column| !column.generated || is_published(source, &name, column);
    for column in table.columns.iter().filter(sent) {
        // mmrepl adds its own where they are missing.
        let ours = [COUNT_COLUMN, VECTOR_COLUMN, STATE_COLUMN, KNOWN_COLUMN]
            .contains(&column.name.as_str());
        problems.extend(match there.column(&column.name) {
            None if ours => None,
            None => Some(missing(source, &name, column, target)),
            Some(other) => differs(source, &name, column, target, other),
        });
    }
    for column in &there.columns {
        let needed = column.not_null && !column.has_default && !column.generated;
        if needed && table.column(&column.name).is_none() {
            let column = &column.name;
            let what = format!(
                "column {column} of {name} is NOT NULL without a default and does not exist on {}, so rows from there cannot be inserted",
                source.name
            );
            let fix = format!("alter table {name} alter column {column} drop not null");
            problems.push(Problem::error(&target.name, what).fix(fix));
        }
    }
    problems
}

/// Whether the values of a generated column are sent: from 18 on, where they are stored.
fn is_published(source: &NodeFacts, table: &str, column: &Column) -> bool {
    let mut unstored = source.oddities.virtual_columns.iter();
    let stored = !unstored.any(|(of, name)| of == table && *name == column.name);
    stored && source.server.major() >= 18
}

/// Only a warning: rows from the other side fit, and the link that carries the column waits for it.
fn missing(source: &NodeFacts, table: &str, column: &Column, target: &NodeFacts) -> Problem {
    let what = format!(
        "column {} of {table} is on {} but not here: rows written there block {}->{} until it exists",
        column.name, source.name, source.name, target.name
    );
    let quoted = crate::catalog::names::ident(&column.name);
    let fix = format!(
        "alter table {table} add column {quoted} {}",
        column.type_name
    );
    Problem::warning(&target.name, what).fix(fix)
}

fn differs(
    source: &NodeFacts,
    table: &str,
    column: &Column,
    target: &NodeFacts,
    other: &Column,
) -> Option<Problem> {
    let quoted = crate::catalog::names::ident(&column.name);
    if column.generated && other.generated {
        return None;
    }
    if other.generated {
        let what = format!(
            "column {} of {table} is generated here but written on {}",
            column.name, source.name
        );
        let fix = format!("alter table {table} alter column {quoted} drop expression");
        return Some(Problem::error(&target.name, what).fix(fix));
    }
    (column.type_name != other.type_name && source.name < target.name).then(|| {
        let what = format!(
            "column {} of {table} is {} here and {} on {}",
            column.name, other.type_name, column.type_name, source.name
        );
        let fix = format!(
            "alter table {table} alter column {quoted} type {}",
            column.type_name
        );
        Problem::error(&target.name, what).fix(fix)
    })
}

fn key(source: &NodeFacts, table: &Table, target: &NodeFacts, there: &Table) -> Option<Problem> {
    let columns = |table: &Table| -> BTreeSet<String> {
        table
            .key
            .iter()
            .flat_map(|key| &key.columns)
            .map(|column| column.name.clone())
            .collect()
    };
    let (ours, theirs) = (columns(table), columns(there));
    let show = |set: &BTreeSet<String>| match set.len() {
        0 => "no key".to_owned(),
        _ => format!("({})", set.iter().cloned().collect::<Vec<_>>().join(", ")),
    };
    (ours != theirs).then(|| {
        let what = format!(
            "{} is looked up by {} here and by {} on {}",
            table.readable(),
            show(&theirs),
            show(&ours),
            source.name
        );
        let fix = format!(
            "give {} the same primary key on every node",
            table.readable()
        );
        Problem::error(&target.name, what).fix(fix)
    })
}
