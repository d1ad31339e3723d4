//! Which tables the configuration means: patterns that match nothing, schemas that nobody named,
//! and tables that should stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::facts::NodeFacts;
use super::{Problem, Severity};
use crate::catalog::CatalogError;
use crate::config::Config;
use crate::wire::{RowExt, each};

/// Where tools that change schemas note what they have done, in lower case.
const BOOKKEEPING: [&str; 30] = [
    "__diesel_schema_migrations",
    "__drizzle_migrations",
    "__efmigrationshistory",
    "_prisma_migrations",
    "_sqlx_migrations",
    "_yoyo_migration",
    "alembic_version",
    "ar_internal_metadata",
    "atlas_schema_revisions",
    "databasechangelog",
    "databasechangeloglock",
    "django_migrations",
    "doctrine_migration_versions",
    "flyway_schema_history",
    "goose_db_version",
    "knex_migrations",
    "knex_migrations_lock",
    "kysely_migration",
    "kysely_migration_lock",
    "migration_versions",
    "migrations",
    "mikro_orm_migrations",
    "pgmigrations",
    "phinxlog",
    "play_evolutions",
    "refinery_schema_history",
    "schema_migrations",
    "schema_version",
    "seaql_migrations",
    "sequelizemeta",
];

/// Every table of the database that could take part: schema and name.
const TABLES: &str = "
select n.nspname::text, c.relname::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
  and not pg_catalog.starts_with(n.nspname::text, 'pg_')
  and n.nspname not in ('information_schema', 'mmrepl')
  and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
        and d.deptype = 'e')
order by 1, 2";

/// What a server has beside the tables that take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Patterns that match no table here.
    pub unused: BTreeSet<String>,
    /// Schemas with tables that no pattern matches, neither to include nor to exclude; and how
    /// many.
    pub unnamed: BTreeMap<String, usize>,
}

/// Compares the patterns with what the server has.
pub(super) async fn gather(config: &Config, client: &Client) -> Result<Scope, CatalogError> {
    let rows = client.query(TABLES, &[]).await;
    let rows = rows.map_err(CatalogError::query("list all tables"))?;
    let tables: Vec<(String, String)> = each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?;
    let filter = &config.tables;
    let mut scope = Scope::default();
    for pattern in filter.patterns() {
        let mut tables = tables.iter();
        if !tables.any(|(schema, table)| pattern.matches(schema, table)) {
            scope.unused.insert(pattern.to_string());
        }
    }
    let is_named = |schema: &str, table: &str| {
        let mut patterns = filter.patterns();
        patterns.any(|pattern| pattern.matches(schema, table))
    };
    for (schema, table) in &tables {
        if !is_named(schema, table) {
            *scope.unnamed.entry(schema.clone()).or_default() += 1;
        }
    }
    Ok(scope)
}

/// The problems of all nodes.
pub(super) fn check(config: &Config, nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = nodes.iter().filter_map(bookkeeping).collect();
    problems.extend(unused(nodes));
    let unnamed = |facts| unnamed(config, facts);
    problems.extend(nodes.iter().filter_map(unnamed));
    problems
}

/// A replicated note that a migration ran makes its tool skip it on the other node.
fn bookkeeping(facts: &NodeFacts) -> Option<Problem> {
    let is_one = |name: &str| BOOKKEEPING.contains(&name.to_lowercase().as_str());
    let tables = facts.tables.iter().filter(|table| is_one(&table.name));
    let names: Vec<String> = tables.map(crate::catalog::table::Table::readable).collect();
    let list = names.iter().map(|name| format!("\"{name}\""));
    let list = list.collect::<Vec<_>>().join(", ");
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "{list} look like the notes of a migration tool and are replicated: the other node believes that it was migrated, and its schema is not changed"
        )
    });
    let note = format!("in [tables] of the configuration: exclude = [{list}]");
    (!names.is_empty()).then(|| problem.note(note))
}

/// Patterns that match on no node, said once.
fn unused(nodes: &[NodeFacts]) -> Option<Problem> {
    let first = nodes.first()?;
    let everywhere = |pattern: &&String| nodes.iter().all(|n| n.scope.unused.contains(*pattern));
    let names: Vec<String> = first
        .scope
        .unused
        .iter()
        .filter(everywhere)
        .cloned()
        .collect();
    let problem = Problem::of_many(&first.name, Severity::Warning, &names, |list| {
        format!("patterns of [tables] that match no table on any node: {list}")
    });
    let note = "mend the pattern in the configuration, or create the tables on every node";
    (!names.is_empty()).then(|| problem.note(note))
}

fn unnamed(config: &Config, facts: &NodeFacts) -> Option<Problem> {
    let severity = if config.tables.is_default() {
        Severity::Warning
    } else {
        Severity::Info
    };
    let schemas = facts.scope.unnamed.iter();
    let names: Vec<String> = schemas
        .map(|(schema, count)| format!("{schema} ({count})"))
        .collect();
    let problem = Problem::of_many(&facts.name, severity, &names, |list| {
        format!(
            "schemas with tables that are not replicated, as no pattern of [tables] names them: {list}"
        )
    });
    let example = facts.scope.unnamed.keys().next()?;
    let note = format!(
        "in [tables] of the configuration name them in include, or in exclude where they are to stay as they are, for example \"{example}.*\""
    );
    Some(problem.note(note))
}
