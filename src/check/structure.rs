//! Tables compared between nodes: missing tables, columns, types, keys.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use super::facts::NodeFacts;
use crate::catalog::names::ident;
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
            let quoted = |text: &str| text.replace('\'', r"'\''");
            let note = format!(
                "unless it is excluded, run here what this prints on {}: pg_dump --schema-only --no-publications --table='{}' --dbname='{}'",
                owner.name,
                quoted(&name),
                quoted(&owner.server.database)
            );
            problems.push(Problem::error(&facts.name, what).note(note));
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
    problems.extend(unfilled(source, table, target, there));
    problems
}

/// Columns of the target that rows of the source leave without a value.
fn unfilled(source: &NodeFacts, table: &Table, target: &NodeFacts, there: &Table) -> Vec<Problem> {
    let name = table.readable();
    let mut problems = Vec::new();
    let keyed = |column: &Column| {
        let mut columns = there.key.iter().flat_map(|key| &key.columns);
        columns.any(|key| key.name == column.name)
    };
    for column in &there.columns {
        let needed = column.not_null && !column.has_default && !column.generated;
        if needed && table.column(&column.name).is_none() {
            let what = format!(
                "column {} of {name} is NOT NULL without a default and does not exist on {}, so rows from there cannot be inserted",
                column.name, source.name
            );
            let problem = Problem::error(&target.name, what);
            let alter = format!("alter table {name} alter column {}", ident(&column.name));
            problems.push(if keyed(column) {
                problem.note("the key needs it: add it to the table on every node")
            } else {
                problem.sql(format!("{alter} drop not null"))
            });
        }
    }
    problems
}

/// Whether the values of a generated column are sent: from 18 on, where they are stored.
fn is_published(source: &NodeFacts, table: &str, column: &Column) -> bool {
    !is_virtual(source, table, column) && source.server.major() >= 18
}

/// Whether a generated column is not stored.
fn is_virtual(facts: &NodeFacts, table: &str, column: &Column) -> bool {
    let mut unstored = facts.oddities.virtual_columns.iter();
    unstored.any(|(of, name)| of == table && *name == column.name)
}

/// Only a warning: rows from the other side fit, and the link that carries the column waits for it.
fn missing(source: &NodeFacts, table: &str, column: &Column, target: &NodeFacts) -> Problem {
    let what = format!(
        "column {} of {table} is on {} but not here: rows written there block {}->{} until it exists",
        column.name, source.name, source.name, target.name
    );
    let quoted = ident(&column.name);
    let add = format!(
        "alter table {table} add column {quoted} {}",
        column.type_name
    );
    Problem::warning(&target.name, what).sql(add)
}

fn differs(
    source: &NodeFacts,
    table: &str,
    column: &Column,
    target: &NodeFacts,
    other: &Column,
) -> Option<Problem> {
    if column.generated && other.generated {
        return None;
    }
    let quoted = ident(&column.name);
    if other.generated {
        let what = format!(
            "column {} of {table} is generated here but written on {}",
            column.name, source.name
        );
        let problem = Problem::error(&target.name, what);
        return Some(if is_virtual(target, table, other) {
            problem.note(format!(
                "its values are computed when they are read, and are lost: alter table {table} drop column {quoted}, add column {quoted} {};",
                column.type_name
            ))
        } else {
            problem.sql(format!(
                "alter table {table} alter column {quoted} drop expression"
            ))
        });
    }
    let first = source.name < target.name;
    let widens = is_wider(&column.type_name, &other.type_name);
    // Said once, and where it can be mended.
    (column.type_name != other.type_name && (first || widens)).then(|| {
        let what = format!(
            "column {} of {table} is {} here and {} on {}",
            column.name, other.type_name, column.type_name, source.name
        );
        let problem = Problem::error(&target.name, what);
        let wanted = &column.type_name;
        let alter = format!("alter table {table} alter column {quoted} type {wanted}");
        if widens {
            problem.sql(alter)
        } else if is_wider(&other.type_name, wanted) {
            problem.note(format!(
                "mend it on {}, where the type is narrower",
                source.name
            ))
        } else {
            problem.note(format!(
                "here or there, where the values fit: {alter} using {quoted}::{wanted};"
            ))
        }
    })
}

/// Whether every value of the type `narrow` is one of the type `wide`, so that a column can be
/// changed without looking at its values.
fn is_wider(wide: &str, narrow: &str) -> bool {
    const NUMBERS: [&str; 4] = ["smallint", "integer", "bigint", "numeric"];
    let place = |name: &str| NUMBERS.iter().position(|number| *number == name);
    if let (Some(wide), Some(narrow)) = (place(wide), place(narrow)) {
        return wide > narrow;
    }
    let length = |name: &str| -> Option<u32> {
        if ["text", "character varying"].contains(&name) {
            return Some(u32::MAX);
        }
        let inner = name.strip_prefix("character varying(")?;
        inner.strip_suffix(')')?.parse().ok()
    };
    matches!((length(wide), length(narrow)), (Some(wide), Some(narrow)) if wide > narrow)
        || wide == "text" && narrow == "character varying"
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
        let note = format!(
            "give {} the same primary key on every node",
            table.readable()
        );
        Problem::error(&target.name, what).note(note)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_wider_where_every_value_fits() {
        for (wide, narrow) in [
            ("bigint", "integer"),
            ("numeric", "bigint"),
            ("text", "character varying(5)"),
            ("text", "character varying"),
            ("character varying(10)", "character varying(9)"),
        ] {
            assert!(is_wider(wide, narrow), "{wide} {narrow}");
            assert!(!is_wider(narrow, wide), "{narrow} {wide}");
        }
        for (one, other) in [
            ("numeric(10,1)", "numeric"),
            ("date", "text"),
            ("uuid", "uuid"),
        ] {
            assert!(
                !is_wider(one, other) && !is_wider(other, one),
                "{one} {other}"
            );
        }
    }
}
