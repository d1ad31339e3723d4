//! The columns that rules need and mmrepl adds, before anything else is looked at.
//!
//! Rows that are compared or copied afterwards include them, so that a new node takes over the
//! versions as well. The comment tells `mmrepl drop` which columns are ours.

use super::step::Step;
use crate::catalog::names::{ident, literal};
use crate::catalog::table::Table;
use crate::check::facts::NodeFacts;
use crate::config::Config;

/// The comment on a column that was added.
pub(super) const COMMENT: &str = "added by mmrepl: the version of the row";

/// What adds the columns that are missing on a node.
pub(super) fn step(config: &Config, facts: &NodeFacts) -> Option<Step> {
    let rules = config.rules();
    let missing = |table: &Table| {
        let rule = rules.of(&table.schema, &table.name, table.key.is_some());
        let missing = rule
            .added()
            .filter(|(name, _)| table.column(name).is_none());
        let add = missing.flat_map(|(name, type_name)| add(table, name, type_name));
        add.collect::<Vec<String>>()
    };
    let sql: Vec<String> = facts.tables.iter().flat_map(missing).collect();
    (!sql.is_empty()).then(|| Step::new(&facts.name, "add columns for row versions", sql))
}

fn add(table: &Table, name: &str, type_name: &str) -> [String; 2] {
    let (qualified, name) = (table.qualified(), ident(name));
    [
        format!("alter table {qualified} add column {name} {type_name}"),
        format!(
            "comment on column {qualified}.{name} is {}",
            literal(COMMENT)
        ),
    ]
}
