//! The functions that decide under rule `custom`: there, callable, and the same on every node.

use tokio_postgres::{Client, Row};

use super::Problem;
use super::facts::{FoundFunction, Function, NodeFacts};
use crate::catalog::CatalogError;
use crate::catalog::names::{ident, readable};
use crate::config::Config;
use crate::wire::{RowExt, Unread};

/// What a function takes, as SQL names it.
const ARGUMENTS: &str = "(jsonb, jsonb, jsonb)";

const FIND: &str = "
select case when p.prokind <> 'f' then 'no function but '
            when p.proretset then 'a set of ' else '' end
       || pg_catalog.format_type(p.prorettype, null),
       p.provolatile = 'v',
       pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
       and pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.md5(coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)),
       case when p.prokind = 'f' then pg_catalog.pg_get_functiondef(p.oid) else '' end
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = $1 and p.proname = $2
  and p.proargtypes = pg_catalog.format('%1$s %1$s %1$s',
          'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid)::pg_catalog.oidvector";

/// Asks a server for the functions of the file.
pub(super) async fn gather(
    config: &Config,
    client: &Client,
) -> Result<Vec<Function>, CatalogError> {
    let rules = config.rules();
    let customs = rules.tables.iter();
    let customs = customs.filter_map(|(table, rule)| Some((table, rule.custom()?)));
    let mut functions = Vec::new();
    for (table, custom) in customs {
        let row = client
            .query_opt(FIND, &[&custom.schema, &custom.function])
            .await
            .map_err(CatalogError::query("read the functions that decide"))?;
        functions.push(Function {
            table: table.clone(),
            name: readable(&custom.schema, &custom.function),
            schema: ident(&custom.schema),
            found: row.as_ref().map(found).transpose()?,
        });
    }
    Ok(functions)
}

fn found(row: &Row) -> Result<FoundFunction, Unread> {
    Ok(FoundFunction {
        returns: row.read(0)?,
        is_volatile: row.read(1)?,
        may_call: row.read(2)?,
        body: row.read(3)?,
        definition: row.read(4)?,
    })
}

/// Judges each node by itself, then compares it with the first that has the function.
pub(super) fn check(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for facts in nodes {
        for function in &facts.functions {
            let first = nodes.iter().find_map(|other| {
                let there = other.functions.iter();
                let mut there = there.filter(|own| own.name == function.name);
                Some((other, there.find_map(|own| own.found.as_ref())?))
            });
            match &function.found {
                None => problems.push(missing(facts, function, first)),
                Some(found) => {
                    problems.extend(unfit(facts, function, found));
                    problems.extend(differs(facts, function, found, first));
                }
            }
        }
    }
    problems
}

fn missing(
    facts: &NodeFacts,
    function: &Function,
    there: Option<(&NodeFacts, &FoundFunction)>,
) -> Problem {
    let (name, table) = (&function.name, &function.table);
    let what =
        format!("function {name}{ARGUMENTS}, which decides about {table}, does not exist here");
    let problem = Problem::error(&facts.name, what);
    match there {
        Some((other, found)) => problem
            .note(format!(
                "create it as it is on {}: select pg_get_functiondef('{}{ARGUMENTS}'::regprocedure)",
                other.name,
                name.replace('\'', "''")
            ))
            .sql(format!("create schema if not exists {}", function.schema))
            .sql(found.definition.trim_end()),
        None => problem.note(format!(
            "on every node: create function {name}(a jsonb, b jsonb, meta jsonb) returns jsonb …"
        )),
    }
}

fn unfit(facts: &NodeFacts, function: &Function, found: &FoundFunction) -> Vec<Problem> {
    let (name, table) = (&function.name, &function.table);
    let mut problems = Vec::new();
    if found.returns != "jsonb" {
        let what = format!(
            "{name}{ARGUMENTS}, which decides about {table}, is {}: it must return jsonb",
            match found.returns.strip_prefix("no function but ") {
                Some(_) => "no plain function".to_owned(),
                None => format!("a function that returns {}", found.returns),
            }
        );
        let note = format!(
            "drop function {name}{ARGUMENTS}; then create it as a function that returns jsonb"
        );
        problems.push(Problem::error(&facts.name, what).note(note));
    }
    if !found.may_call {
        let what = format!("the role may not call {name}{ARGUMENTS}, which decides about {table}");
        let (schema, user) = (&function.schema, ident(&facts.server.user));
        let usage = format!("grant usage on schema {schema} to {user}");
        let execute = format!("grant execute on function {name}{ARGUMENTS} to {user}");
        problems.push(Problem::error(&facts.name, what).sql(usage).sql(execute));
    }
    if found.is_volatile {
        let what = format!(
            "{name}{ARGUMENTS}, which decides about {table}, is declared VOLATILE: it must make the same of the same arguments on every node, whenever it is called"
        );
        let alter = format!("alter function {name}{ARGUMENTS} immutable");
        problems.push(Problem::warning(&facts.name, what).sql(alter));
    }
    problems
}

fn differs(
    facts: &NodeFacts,
    function: &Function,
    found: &FoundFunction,
    first: Option<(&NodeFacts, &FoundFunction)>,
) -> Option<Problem> {
    let (other, _) = first.filter(|(_, there)| there.body != found.body)?;
    let (name, table) = (&function.name, &function.table);
    let what = format!(
        "{name}{ARGUMENTS}, which decides about {table}, has another body here than on {}: nodes that decide differently do not end equal",
        other.name
    );
    let note = format!(
        "where the one on {} is right, make it the same here: select pg_get_functiondef('{}{ARGUMENTS}'::regprocedure);",
        other.name,
        name.replace('\'', "''")
    );
    Some(Problem::warning(&facts.name, what).note(note))
}
