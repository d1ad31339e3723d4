//! Whether columns whose changes add up can do so.

use super::Problem;
use super::facts::NodeFacts;
use super::mend::Mend;
use crate::catalog::names::ident;
use crate::catalog::table::{Column, Table};
use crate::config::Config;
use crate::conflict::STATE_COLUMN;

/// `pg_type.oid` of bigint, smallint, integer and numeric.
const COUNTER_TYPES: [u32; 4] = [20, 21, 23, 1700];
/// `pg_type.oid` of `jsonb`.
const JSONB: u32 = 3802;

pub(super) fn check(config: &Config, facts: &NodeFacts) -> Vec<Problem> {
    let rules = config.rules();
    let mut problems = Vec::new();
    for table in &facts.tables {
        let rule = rules.of(&table.schema, &table.name, table.key.is_some());
        let Some(merge) = rule.merge() else { continue };
        problems.extend(state(facts, table));
        problems.extend(unique(facts, table));
        for name in &merge.counters {
            let error = unfit(table, name).map(|(why, mend)| {
                let what = format!(
                    "column {name} of {} {why}, so its changes cannot add up",
                    table.readable()
                );
                Problem {
                    mend,
                    ..Problem::error(&facts.name, what)
                }
            });
            problems.extend(error.or_else(|| checked(facts, table, name)));
        }
    }
    problems
}

fn state(facts: &NodeFacts, table: &Table) -> Option<Problem> {
    let column = table.column(STATE_COLUMN)?;
    (column.type_oid != JSONB).then(|| {
        let label = table.readable();
        let there = &column.type_name;
        let what = format!("column {STATE_COLUMN} of {label} is {there}; merging needs jsonb");
        let drop = format!("alter table {label} drop column {STATE_COLUMN}");
        Problem::error(&facts.name, what).sql(drop)
    })
}

/// A merged row is the sum of two: there is no older one to keep aside in favour of another key's.
fn unique(facts: &NodeFacts, table: &Table) -> Option<Problem> {
    let index = &table.uniques.indexes.first()?.index;
    let label = table.readable();
    let what = format!(
        "the rows of {label} merge, and {index} makes values unique beside the key: a value taken on two nodes at once stops the link there until one of the rows is changed"
    );
    let note = format!("let {index} not be unique, or give {label} another strategy");
    Some(Problem::warning(&facts.name, what).note(note))
}

/// Why a column cannot be a counter, and what to do.
fn unfit(table: &Table, name: &str) -> Option<(String, Mend)> {
    let (label, quoted) = (table.readable(), ident(name));
    let mut mend = Mend::default();
    let Some(column) = table.column(name) else {
        mend.sql(&format!(
            "alter table {label} add column {quoted} bigint not null default 0"
        ));
        return Some(("does not exist".to_owned(), mend));
    };
    if !COUNTER_TYPES.contains(&column.type_oid) {
        let why = format!(
            "is {} and not smallint, integer, bigint or numeric",
            column.type_name
        );
        mend.note(&format!(
            "on every node, or name another column: alter table {label} alter column {quoted} type bigint using {quoted}::bigint;"
        ));
        return Some((why, mend));
    }
    if !column.not_null {
        mend.note("on every node");
        mend.sql(&format!(
            "update {label} set {quoted} = 0 where {quoted} is null"
        ));
        mend.sql(&format!(
            "alter table {label} alter column {quoted} set not null"
        ));
        return Some(("may be NULL".to_owned(), mend));
    }
    mend.note("name another column in delta_columns");
    if is_fixed(column) {
        return Some(("is generated".to_owned(), mend));
    }
    let mut key = table.key.iter().flat_map(|key| &key.columns);
    key.any(|column| column.name == name)
        .then(|| ("is part of the key".to_owned(), mend))
}

fn is_fixed(column: &Column) -> bool {
    column.generated || column.identity_always
}

/// A sum may break a constraint that both of its parts keep.
fn checked(facts: &NodeFacts, table: &Table, name: &str) -> Option<Problem> {
    let mut checks = facts.oddities.checked_columns.iter();
    let label = table.readable();
    let (_, _, constraint) = checks.find(|(of, column, _)| *of == label && column == name)?;
    let what = format!(
        "changes of {name} of {label} add up, and {constraint} checks it: a sum of changes on several nodes may break the constraint where no single change does; the link then stops there until the row is corrected"
    );
    let note = format!(
        "where the constraint can be done without: alter table {label} drop constraint {};",
        ident(constraint)
    );
    Some(Problem::warning(&facts.name, what).note(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(type_oid: u32, not_null: bool) -> Table {
        let column = Column {
            name: "n".to_owned(),
            type_name: "some".to_owned(),
            cast_type: None,
            type_oid,
            not_null,
            has_default: false,
            generated: false,
            identity_always: false,
            base_type: (0, -1),
            is_bare_byte: false,
        };
        Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            partitioned: false,
            is_partition: false,
            replica_identity: 'd',
            can_skip_duplicates: true,
            columns: vec![column],
            uniques: crate::catalog::unique::Uniques::default(),
            indexed: Vec::new(),
            key: None,
        }
    }

    #[test]
    fn a_counter_is_a_number_that_is_never_null() {
        let why = |table: &Table, name| unfit(table, name).map(|(why, _)| why);
        for number in COUNTER_TYPES {
            assert_eq!(why(&table(number, true), "n"), None);
        }
        assert_eq!(why(&table(23, false), "n").unwrap(), "may be NULL");
        assert!(why(&table(25, true), "n").unwrap().starts_with("is some"));
        assert_eq!(why(&table(23, true), "m").unwrap(), "does not exist");
        let mut generated = table(23, true);
        generated.columns[0].generated = true;
        assert_eq!(why(&generated, "n").unwrap(), "is generated");
    }
}
