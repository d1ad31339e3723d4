//! Privileges: each missing one with its GRANT.

use std::collections::BTreeMap;

use super::facts::{NodeFacts, TableRights};
use super::{Problem, Severity};
use crate::catalog::names::{ident, qualified, readable};
use crate::catalog::parameter::{DEADLOCK_TIMEOUT, REPLICATION_ROLE};

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
        problems.push(Problem::error(&facts.name, what).sql(fix));
    }
    if !rights.create_on_database {
        let database = ident(&facts.server.database);
        let what = format!(
            "role {user} may not create schema mmrepl and publications in database {database}"
        );
        let fix = format!("grant create on database {database} to {user}");
        problems.push(Problem::error(&facts.name, what).sql(fix));
    }
    if rights.parameters_refused.contains(&REPLICATION_ROLE) {
        let what = format!(
            "role {user} may not set session_replication_role, so triggers and foreign keys would fire for applied rows"
        );
        let problem = Problem::error(&facts.name, what);
        problems.push(if facts.server.major() >= 15 {
            problem.sql(format!(
                "grant set on parameter session_replication_role to {user}"
            ))
        } else {
            problem
                .note("on PostgreSQL 14 there is no finer grant")
                .sql(format!("alter role {user} superuser"))
        });
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
            .sql(format!("grant set on parameter deadlock_timeout to {user}"))
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
        .sql(format!(
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
        .sql(format!("grant usage on schema {list} to {user}"))
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
    let problem = |tables: Vec<&TableRights>| {
        let mut missing: Vec<&str> = tables
            .iter()
            .flat_map(|table| &table.missing)
            .map(String::as_str)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let missing = missing.join(", ");
        let problem = Problem::of_many(&facts.name, Severity::Error, &names(&tables), |list| {
            format!("role {user} may not {missing} on {list}")
        });
        tables.iter().fold(problem, |problem, table| {
            let (missing, table) = (&table.missing, qualified(&table.schema, &table.name));
            problem.sql(format!("grant {} on {table} to {user}", missing.join(", ")))
        })
    };
    schemas.into_values().map(problem).collect()
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
        let owner = ident(owner);
        Problem::of_many(&facts.name, Severity::Error, &names(&tables), |list| {
            format!(
                "role {user} does not have the rights of {owner}, the owner of {list}; publishing a table needs them"
            )
        })
        .sql(format!("grant {owner} to {user}"))
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
        Problem::of_many(&facts.name, Severity::Error, &names(&hidden), |list| {
            format!("row level security hides rows of {list} from role {user}")
        })
        .sql(format!("alter role {user} bypassrls"))
    })
}

fn names(tables: &[&TableRights]) -> Vec<String> {
    let name = |table: &&TableRights| readable(&table.schema, &table.name);
    tables.iter().map(name).collect()
}
