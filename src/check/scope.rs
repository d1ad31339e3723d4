//! Which tables the configuration means: patterns that match nothing, schemas that nobody named,
//! and tables that should stay where they are.

use std::collections::BTreeSet;

use tokio_postgres::{Client, Row};

use super::facts::{NodeFacts, Root, Scope};
use super::{Problem, Severity};
use crate::catalog::CatalogError;
use crate::config::Config;
use crate::wire::{RowExt, Unread, each};

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

/// Every table of the database that could take part: schema and name; and partitions, with their
/// root.
const TABLES: &str = "
select n.nspname::text, c.relname::text, rn.nspname::text, root.relname::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class root
     on c.relispartition and root.oid = pg_catalog.pg_partition_root(c.oid)
left join pg_catalog.pg_namespace rn on rn.oid = root.relnamespace
where (c.relkind in ('r', 'p') or c.relkind = 'f' and c.relispartition)
  and c.relpersistence <> 't'
  and not pg_catalog.starts_with(n.nspname::text, 'pg_')
  and n.nspname not in ('information_schema', 'mmrepl')
  and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
        and d.deptype = 'e')
order by 1, 2";

/// Compares the patterns with what the server has.
pub(super) async fn gather(config: &Config, client: &Client) -> Result<Scope, CatalogError> {
    let rows = client.query(TABLES, &[]).await;
    let rows = rows.map_err(CatalogError::query("list all tables"))?;
    let found: Vec<Found> = each(&rows, read)?;
    let (partitions, tables): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|found| found.root.is_some());
    let filter = &config.tables;
    let mut scope = Scope::default();
    for pattern in filter.patterns() {
        let mut tables = tables.iter();
        if tables.any(|found| pattern.matches(&found.schema, &found.table)) {
            continue;
        }
        let matching = partitions
            .iter()
            .filter(|found| pattern.matches(&found.schema, &found.table));
        let roots = matching.filter_map(|found| found.root.as_ref());
        let roots: BTreeSet<Root> = roots.map(|root| Root::of(filter, root)).collect();
        if roots.is_empty() {
            scope.unused.insert(pattern.to_string());
        } else {
            scope.of_partitions.insert(pattern.to_string(), roots);
        }
    }
    let is_named = |schema: &str, table: &str| {
        let mut patterns = filter.patterns();
        patterns.any(|pattern| pattern.matches(schema, table))
    };
    for found in &tables {
        if !is_named(&found.schema, &found.table) {
            *scope.unnamed.entry(found.schema.clone()).or_default() += 1;
        }
    }
    Ok(scope)
}

/// A table, or a partition with schema and name of the table that it is part of.
struct Found {
    schema: String,
    table: String,
    root: Option<(String, String)>,
}

fn read(row: &Row) -> Result<Found, Unread> {
    let root: (Option<String>, Option<String>) = (row.read(2)?, row.read(3)?);
    Ok(Found {
        schema: row.read(0)?,
        table: row.read(1)?,
        root: root.0.zip(root.1),
    })
}

/// The problems of all nodes.
pub(super) fn check(config: &Config, nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = nodes.iter().filter_map(bookkeeping).collect();
    problems.extend(nothing(config, nodes));
    problems.extend(unused(nodes));
    problems.extend(nodes.iter().flat_map(of_partitions));
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

/// Patterns that somebody wrote, and not one table: nothing would be replicated.
fn nothing(config: &Config, nodes: &[NodeFacts]) -> Option<Problem> {
    let first = nodes.first()?;
    let is_any = nodes.iter().any(|facts| !facts.tables.is_empty());
    if is_any || config.tables.is_default() {
        return None;
    }
    let what = "no table takes part, on no node: nothing is replicated";
    let note = "name tables in [tables] of the configuration, or create them on every node";
    Some(Problem::error(&first.name, what).note(note))
}

/// Partitions take part with their whole table, or not at all.
fn of_partitions(facts: &NodeFacts) -> Vec<Problem> {
    let patterns = facts.scope.of_partitions.iter();
    let problem = |(pattern, roots): (&String, &BTreeSet<Root>)| {
        let names: Vec<&str> = roots.iter().map(|root| root.name.as_str()).collect();
        let what = format!(
            "pattern {pattern} of [tables] matches only partitions, of {}: they take part with the whole table or not at all",
            names.join(", ")
        );
        let note = format!(
            "in [tables] of the configuration name the whole table instead: \"{}\"",
            names.join("\", \"")
        );
        let problem = if roots.iter().any(|root| root.included) {
            Problem::warning(&facts.name, what)
        } else {
            Problem::error(&facts.name, what)
        };
        problem.note(note)
    };
    patterns.map(problem).collect()
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
