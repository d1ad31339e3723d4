//! Privileges: each missing one with its GRANT.

use std::collections::BTreeMap;

use super::Problem;
use super::facts::{NodeFacts, TableRights};
use crate::catalog::names::{ident, qualified, readable};
use crate::catalog::parameter::{DEADLOCK_TIMEOUT, REPLICATION_ROLE};

/// How many table names a sentence lists before it only counts.
const NAMES_MAX: usize = 5;

pub(super) fn check(facts: &NodeFacts) -> Vec<Problem> {
    let mut problems = role(facts);
    problems.extend(functions(facts));
    problems.extend(schemas(facts));
    problems.extend(grants(facts));
    problems.extend(ownership(facts));
    problems.extend(row_security(facts));
    problems
}

fn role(facts: &NodeFacts) -> Vec<Problem> {
    let (rights, user) = (&facts.rights, ident(&facts.server.user));
    let mut problems = Vec::new();
    if !rights.replication {
        let what = format!("role {user} may not replicate");
        let fix = format!("alter role {user} replication");
        problems.push(Problem::error(&facts.name, what).fix(fix));
    }
    if !rights.create_on_database {
        let database = ident(&facts.server.database);
        let what = format!(
            "role {user} may not create schema mmrepl and publications in database {database}"
        );
        let fix = format!("grant create on database {database} to {user}");
        problems.push(Problem::error(&facts.name, what).fix(fix));
    }
    if rights.parameters_refused.contains(&REPLICATION_ROLE) {
        let what = format!(
            "role {user} may not set session_replication_role, so triggers and foreign keys would fire for applied rows"
        );
        let fix = if facts.server.major() >= 15 {
            format!("grant set on parameter session_replication_role to {user}")
        } else {
            format!("alter role {user} superuser (on PostgreSQL 14 there is no finer grant)")
        };
        problems.push(Problem::error(&facts.name, what).fix(fix));
    }
    problems.extend(giving_way(facts));
    problems
}

/// On 14 there is nothing to grant.
fn giving_way(facts: &NodeFacts) -> Option<Problem> {
    let user = ident(&facts.server.user);
    let refused = facts.rights.parameters_refused.contains(&DEADLOCK_TIMEOUT);
    let open = facts.server.major() >= 15 && refused;
    open.then(|| {
        let what = format!(
            "role {user} may not set deadlock_timeout, so where local writers and replication wait for each other's rows in a circle the server may end either"
        );
        Problem::warning(&facts.name, what)
            .fix(format!("grant set on parameter deadlock_timeout to {user}"))
    })
}

fn functions(facts: &NodeFacts) -> Option<Problem> {
    let missing = &facts.rights.functions_missing;
    let user = ident(&facts.server.user);
    (!missing.is_empty()).then(|| {
        let list = missing
            .iter()
            .map(|name| format!("pg_catalog.{name}"))
            .collect::<Vec<_>>();
        Problem::error(
            &facts.name,
            format!("role {user} may not use replication origins"),
        )
        .fix(format!(
            "grant execute on function {} to {user}",
            list.join(", ")
        ))
    })
}

fn schemas(facts: &NodeFacts) -> Option<Problem> {
    let closed = &facts.rights.schemas_closed;
    let user = ident(&facts.server.user);
    (!closed.is_empty()).then(|| {
        let list = closed
            .iter()
            .map(|schema| ident(schema))
            .collect::<Vec<_>>()
            .join(", ");
        Problem::error(
            &facts.name,
            format!("role {user} may not use schema {list}"),
        )
        .fix(format!("grant usage on schema {list} to {user}"))
    })
}

/// One problem per schema, so that thousands of tables give a readable list.
fn grants(facts: &NodeFacts) -> Vec<Problem> {
    let user = ident(&facts.server.user);
    let mut schemas: BTreeMap<&str, Vec<&TableRights>> = BTreeMap::new();
    for table in facts
        .rights
        .tables
        .iter()
        .filter(|table| !table.missing.is_empty())
    {
        schemas.entry(&table.schema).or_default().push(table);
    }
    let problem = |(schema, tables): (&str, Vec<&TableRights>)| {
        let mut missing: Vec<&str> = tables
            .iter()
            .flat_map(|table| &table.missing)
            .map(String::as_str)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let missing = missing.join(", ");
        let on = if tables.len() > NAMES_MAX {
            format!("all tables in schema {}", ident(schema))
        } else {
            let names: Vec<String> = tables
                .iter()
                .map(|table| qualified(&table.schema, &table.name))
                .collect();
            names.join(", ")
        };
        Problem::error(
            &facts.name,
            format!("role {user} may not {missing} on {}", name_list(&tables)),
        )
        .fix(format!("grant {missing} on {on} to {user}"))
    };
    schemas.into_iter().map(problem).collect()
}

/// Publications, replica identities and `enable always trigger` need the owner's rights.
fn ownership(facts: &NodeFacts) -> Vec<Problem> {
    let user = ident(&facts.server.user);
    let mut owners: BTreeMap<&str, Vec<&TableRights>> = BTreeMap::new();
    for table in &facts.rights.tables {
        if let Some(owner) = &table.foreign_owner {
            owners.entry(owner).or_default().push(table);
        }
    }
    let problem = |(owner, tables): (&str, Vec<&TableRights>)| {
        let what = format!(
            "role {user} does not have the rights of {}, the owner of {}; publishing a table needs them",
            ident(owner),
            name_list(&tables)
        );
        Problem::error(&facts.name, what).fix(format!("grant {} to {user}", ident(owner)))
    };
    owners.into_iter().map(problem).collect()
}

fn row_security(facts: &NodeFacts) -> Option<Problem> {
    let hidden: Vec<&TableRights> = facts
        .rights
        .tables
        .iter()
        .filter(|table| table.row_security)
        .collect();
    let user = ident(&facts.server.user);
    (!hidden.is_empty()).then(|| {
        let what = format!(
            "row level security hides rows of {} from role {user}",
            name_list(&hidden)
        );
        Problem::error(&facts.name, what).fix(format!("alter role {user} bypassrls"))
    })
}

fn name_list(tables: &[&TableRights]) -> String {
    let names = tables
        .iter()
        .map(|table| readable(&table.schema, &table.name));
    super::tables::short_list(&names.collect::<Vec<_>>())
}
