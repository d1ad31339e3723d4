//! Rows that a copy replaces or removes, kept in the target's history of conflicts.
//!
//! The tables are set aside in temporary ones before they are emptied. Once the copy is there, what
//! differs is recorded as a conflict of kind `overwritten` that the copied node has won, so that
//! `mmrepl conflicts show` and `restore` know it. All of it in the copy's own transaction.

use super::InitError;
use super::compare::{Shared, digest};
use super::session::Session;
use crate::catalog::names::{ident, literal};
use crate::catalog::table::{KeyColumn, Table};
use crate::ids::LinkName;

/// A table whose rows were set aside.
pub(super) struct SetAside<'a> {
    table: &'a Table,
    shared: Shared,
    name: String,
}

/// Sets the rows of the target's table aside, where they are not all the same as the source's.
pub(super) async fn set_aside<'a>(
    (source, target): (&Session, &Session),
    (there, here): (&Table, &'a Table),
    shared: Shared,
) -> Result<Option<SetAside<'a>>, InitError> {
    let theirs = digest(source, there, &shared).await?;
    if digest(target, here, &shared).await? == theirs {
        return Ok(None);
    }
    let name = format!("mmrepl_overwritten_{}", here.oid);
    let sql = format!(
        "create temporary table {name} on commit drop as
         select t.*, pg_catalog.pg_xact_commit_timestamp(t.xmin) as mmrepl_time,
                (pg_catalog.pg_xact_commit_timestamp_origin(t.xmin)).roident as mmrepl_origin
         from {} t",
        here.only()
    );
    let what = format!("set the rows of {} aside", here.readable());
    target.batch(&what, &sql).await?;
    Ok(Some(SetAside {
        table: here,
        shared,
        name,
    }))
}

/// Records what the copy has replaced or removed. Returns how many rows.
pub(super) async fn record(
    target: &Session,
    link: &LinkName,
    time: &str,
    aside: &SetAside<'_>,
) -> Result<u64, InitError> {
    let sql = record_sql(link, time, aside);
    let recorded = target.client.execute(&sql, &[]).await;
    recorded.map_err(InitError::server(
        target.name(),
        format!("keep the overwritten rows of {}", aside.table.readable()),
    ))
}

/// Values as the types' output functions print them.
fn printed(row: &str, columns: &[&str]) -> String {
    let text = |column: &&str| {
        let value = format!("{row}.{}", ident(column));
        format!("case when {value} is not null then pg_catalog.format('%s', {value}) end")
    };
    let values: Vec<String> = columns.iter().map(text).collect();
    format!("array[{}]::pg_catalog.text[]", values.join(", "))
}

fn names(columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|name| literal(name)).collect();
    format!("array[{}]::pg_catalog.text[]", names.join(", "))
}

fn record_sql(link: &LinkName, time: &str, aside: &SetAside<'_>) -> String {
    let SetAside {
        table,
        shared,
        name,
    } = aside;
    let written = table.columns.iter().filter(|column| !column.generated);
    let columns: Vec<&str> = written.map(|column| column.name.as_str()).collect();
    let compared: Vec<&str> = shared.columns.iter().map(String::as_str).collect();
    let key: Vec<&str> = table
        .key
        .iter()
        .flat_map(|key| &key.columns)
        .map(|column| column.name.as_str())
        .collect();
    let same = format!("{} = {}", printed("n", &compared), printed("o", &compared));
    let rows = table.only();
    let (found, met) = if key.is_empty() {
        let found = format!("exists (select from {rows} n where {same})");
        (found, "left join (select 1) n on false".to_owned())
    } else {
        let columns = table.key.iter().flat_map(|key| &key.columns);
        let equal = |c: &KeyColumn| format!("n.{0} {1} o.{0}", ident(&c.name), c.equality);
        let on = columns.map(equal).collect::<Vec<_>>().join(" and ");
        let found = format!("exists (select from {rows} n where {on} and {same})");
        (found, format!("left join {rows} n on {on}"))
    };
    let (key_names, key_values) = if key.is_empty() {
        ("null".to_owned(), "null".to_owned())
    } else {
        (names(&key), printed("o", &key))
    };
    let (won_names, won_values) = match key.first() {
        None => ("null".to_owned(), "null".to_owned()),
        Some(first) => {
            let there = format!("n.{} is not null", ident(first));
            (
                format!("case when {there} then {} end", names(&columns)),
                format!("case when {there} then {} end", printed("n", &columns)),
            )
        }
    };
    format!(
        "insert into mmrepl.conflict
             (source, target, schema_name, table_name, key_columns, key_values, kind, rule, outcome,
              incoming_columns, incoming_values, incoming_time, incoming_origin,
              local_columns, local_values, local_time, local_node, local_origin)
         select {}, {}, {}, {}, {key_names}, {key_values}, 'overwritten', 'copy', 'applied',
                {won_names}, {won_values}, {}::timestamptz, 0::pg_catalog.oid,
                {}, {}, o.mmrepl_time,
                coalesce((select k.name from mmrepl.node k
                          where k.origin_id = o.mmrepl_origin and o.mmrepl_origin <> 0), {}),
                o.mmrepl_origin
         from pg_temp.{name} o {met}
         where not {found}",
        literal(link.from.as_str()),
        literal(link.to.as_str()),
        literal(&table.schema),
        literal(&table.name),
        literal(time),
        names(&columns),
        printed("o", &columns),
        literal(link.to.as_str()),
    )
}
