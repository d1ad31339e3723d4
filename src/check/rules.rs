//! Whether every table has what its rule decides by.

use super::Problem;
use super::facts::NodeFacts;
use super::tables::add_key;
use crate::catalog::table::{Column, Table};
use crate::config::Config;
use crate::conflict::Rule;

/// `pg_type.oid` of the types that a version column may have.
const VERSION_TYPES: [u32; 5] = [20, 21, 23, 1700, 1184];
/// `bigint` and `bigint[]`, which mmrepl's own columns have.
const ADDED_TYPES: [(&str, u32); 2] = [("bigint", 20), ("bigint[]", 1016)];

pub(super) fn check(config: &Config, facts: &NodeFacts) -> Vec<Problem> {
    let rules = config.rules();
    let mut problems = Vec::new();
    for table in &facts.tables {
        let named = rules
            .tables
            .get(&format!("{}.{}", table.schema, table.name));
        if let Some(rule) = named.filter(|rule| rule.is_in_row() && table.key.is_none()) {
            problems.push(without_key(facts, table, rule));
        }
        let rule = rules.of(&table.schema, &table.name, table.key.is_some());
        problems.extend(column(facts, table, rule));
        problems.extend(unique(facts, table, rule));
        problems.extend(unsent(facts, table, rule));
    }
    problems
}

/// From PostgreSQL 18 on, a column that is generated and not stored makes every UPDATE and DELETE
/// of a published table with a full replica identity fail.
fn unsent(facts: &NodeFacts, table: &Table, rule: &Rule) -> Option<Problem> {
    let label = table.readable();
    let mut columns = facts.oddities.virtual_columns.iter();
    let (_, column) = columns.find(|(of, _)| *of == label)?;
    let by_key = table.key.as_ref().is_some_and(|key| !key.deferrable);
    let full = table.replica_identity == 'f' || rule.is_in_row() || !by_key;
    full.then(|| {
        let what = format!(
            "{label} must send whole old rows, and PostgreSQL 18 refuses every update and delete then, because column {column} is generated and not stored"
        );
        let note = format!("make {column} stored, drop it, or exclude {label}");
        Problem::error(&facts.name, what).note(note)
    })
}

fn without_key(facts: &NodeFacts, table: &Table, rule: &Rule) -> Problem {
    let (name, rule) = (table.readable(), rule.name());
    let what = format!("{name} has no key, so {rule} cannot tell which rows compete");
    Problem::error(&facts.name, what).note(add_key(&name))
}

/// A row without an order of versions is newer or older than none: it cannot be kept aside.
fn unique(facts: &NodeFacts, table: &Table, rule: &Rule) -> Option<Problem> {
    let index = &table.uniques.indexes.first()?.index;
    rule.places().map(|_| {
        let label = table.readable();
        let who = match rule {
            Rule::Custom(custom) => format!("the function {custom}"),
            _ => "a person".to_owned(),
        };
        let what = format!(
            "{who} decides about the rows of {label}, and {index} makes values unique beside the key: a value taken on two nodes at once stops the link there until one of the rows is changed"
        );
        let note = format!("let {index} not be unique, or give {label} another strategy");
        Problem::warning(&facts.name, what).note(note)
    })
}

fn column(facts: &NodeFacts, table: &Table, rule: &Rule) -> Option<Problem> {
    let name = rule.column()?;
    let (label, quoted) = (table.readable(), crate::catalog::names::ident(name));
    match (table.column(name), rule.added_type()) {
        (None, Some(_)) => None,
        (None, None) => {
            let what = format!("{label} has no column {name}, which version_column decides by");
            let add = format!("alter table {label} add column {quoted} bigint");
            Some(Problem::error(&facts.name, what).sql(add))
        }
        (Some(column), Some(added)) => {
            let right = ADDED_TYPES.contains(&(added, column.type_oid));
            (!right).then(|| {
                let there = &column.type_name;
                let what = format!(
                    "column {name} of {label} is {there}; {} needs {added}",
                    rule.name()
                );
                let drop = format!("alter table {label} drop column {quoted}");
                Problem::error(&facts.name, what).sql(drop)
            })
        }
        (Some(column), None) => unfit(table, column).map(|(why, mend)| {
            let what =
                format!("column {name} of {label} {why}, so version_column cannot decide by it");
            Problem::error(&facts.name, what).note(mend)
        }),
    }
}

/// Why a column of the application cannot be the version, and what to do.
fn unfit(table: &Table, column: &Column) -> Option<(String, String)> {
    let label = table.readable();
    let quoted = crate::catalog::names::ident(&column.name);
    let in_key = || {
        let mut columns = table.key.iter().flat_map(|key| &key.columns);
        columns.any(|key| key.name == column.name)
    };
    let other = "name another column as version_column".to_owned();
    if !VERSION_TYPES.contains(&column.type_oid) {
        let why = format!(
            "is {} and not smallint, integer, bigint, numeric or timestamptz",
            column.type_name
        );
        return Some((
            why,
            format!(
                "on every node, or name another column: alter table {label} alter column {quoted} type bigint using {quoted}::bigint;"
            ),
        ));
    }
    if column.generated || column.identity_always {
        return Some(("is generated".to_owned(), other));
    }
    in_key().then(|| ("is part of the key".to_owned(), other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::key_form::KeyForm;
    use crate::catalog::table::{Key, KeyColumn};

    fn table(column_type: (&str, u32)) -> Table {
        let column = |name: &str, (type_name, type_oid): (&str, u32)| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            cast_type: None,
            type_oid,
            not_null: false,
            has_default: false,
            generated: false,
            identity_always: false,
            base_type: (0, -1),
            is_bare_byte: false,
        };
        let key = KeyColumn {
            name: "id".to_owned(),
            type_name: "integer".to_owned(),
            equality: "OPERATOR(pg_catalog.=)".to_owned(),
            form: KeyForm::Cast,
        };
        Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            partitioned: false,
            is_partition: false,
            replica_identity: 'd',
            can_skip_duplicates: true,
            columns: vec![column("id", ("integer", 23)), column("v", column_type)],
            uniques: crate::catalog::unique::Uniques::default(),
            indexed: Vec::new(),
            key: Some(Key {
                index: "t_pkey".to_owned(),
                columns: vec![key],
                primary: true,
                deferrable: false,
            }),
        }
    }

    #[test]
    fn a_version_column_has_a_type_with_an_order_and_is_not_the_key() {
        let reason = |table: &Table, name| {
            let column = table.column(name).unwrap();
            unfit(table, column).map(|(why, _)| why)
        };
        for fits in [
            ("smallint", 21),
            ("numeric(9,2)", 1700),
            ("timestamp with time zone", 1184),
        ] {
            assert_eq!(reason(&table(fits), "v"), None);
        }
        assert!(
            reason(&table(("text", 25)), "v")
                .unwrap()
                .starts_with("is text")
        );
        assert_eq!(
            reason(&table(("text", 25)), "id").unwrap(),
            "is part of the key"
        );
        let mut generated = table(("bigint", 20));
        generated.columns[1].generated = true;
        assert_eq!(reason(&generated, "v").unwrap(), "is generated");
    }
}
