//! Bringing the losing write of a conflict back, as a new write like any other.

use postgres_protocol::escape::{escape_identifier as quote, escape_literal as literal};
use tokio_postgres::Client;

use super::lost::lost_values;
use super::model::{Column, Conflict, ConflictId};
use super::{HistoryError, one};
use crate::catalog::key_form::Spelling;
use crate::catalog::load_tables::load_table;
use crate::catalog::table::Table;
use crate::wire::from_tokio_postgres;

/// A row that lost a unique value is not lost itself.
const KEPT_ASIDE: &str = "its row is kept aside in mmrepl.shadow and returns by itself when the unique value comes free; give the row that has it another value, or delete it";

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The record.
    pub conflict: Conflict,
    /// `updated`, `inserted`, `deleted`, or `unchanged` where the row was gone already.
    pub did: &'static str,
}

/// Writes the losing row, or deletes the row where the losing write was a delete. `client` is an
/// ordinary session on the node that decided: what it writes is replicated.
pub async fn restore(client: &mut Client, id: &ConflictId) -> Result<Restored, HistoryError> {
    let failed = |what| {
        move |error| HistoryError::Node {
            node: id.node.to_string(),
            what,
            source: from_tokio_postgres(error),
        }
    };
    let began = client
        .batch_execute("begin isolation level read committed read write")
        .await;
    began.map_err(failed("begin"))?;
    let conflict = one(client, id, true).await?;
    if conflict.is_pending() {
        let how = format!("nothing has lost yet; use `mmrepl conflicts resolve {id}`");
        return Err(unfit(id, how));
    }
    if conflict.kind == "unique" {
        return Err(unfit(id, KEPT_ASIDE.to_owned()));
    }
    let table = table_of(client, &conflict).await?;
    let mut did = "unchanged";
    for (statement, word) in statements(&conflict, &table)? {
        let count = client.execute(&statement, &[]).await;
        if count.map_err(failed("write the row"))? > 0 {
            did = word;
            break;
        }
    }
    let mark =
        "update mmrepl.conflict set restored_at = pg_catalog.clock_timestamp() where id = $1";
    let marked = client.execute(mark, &[&id.number]).await;
    marked.map_err(failed("mark the record"))?;
    let committed = client.batch_execute("commit").await;
    committed.map_err(failed("commit"))?;
    Ok(Restored { conflict, did })
}

/// The table of a conflict as it is now.
pub(super) async fn table_of(client: &Client, conflict: &Conflict) -> Result<Table, HistoryError> {
    let id = &conflict.id;
    let table = load_table(client, &conflict.schema, &conflict.table).await;
    table
        .map_err(|error| unfit(id, error.to_string()))?
        .ok_or_else(|| unfit(id, format!("{} is gone", conflict.table_name())))
}

pub(super) fn unfit(id: &ConflictId, why: String) -> HistoryError {
    HistoryError::Unfit {
        id: id.clone(),
        why,
    }
}

/// The statements, each to be tried when the one before it found no row.
fn statements(
    conflict: &Conflict,
    table: &Table,
) -> Result<Vec<(String, &'static str)>, HistoryError> {
    let id = &conflict.id;
    let Some(row) = &conflict.loser().row else {
        if conflict.key.is_empty() {
            return Err(unfit(id, "the table has no key to delete by".to_owned()));
        }
        return Ok(vec![(delete(conflict, table)?, "deleted")]);
    };
    if conflict.key.is_empty() {
        return Ok(vec![(insert(id, table, row)?, "inserted")]);
    }
    let mut statements = Vec::new();
    if let Some(update) = update(conflict, table, &lost_values(conflict))? {
        statements.push((update, "updated"));
    }
    // Where a row is there already and no column can be set, there is nothing to insert either.
    if missing(table, row).is_none() {
        let insert = insert(id, table, row)?;
        statements.push((format!("{insert} on conflict do nothing"), "inserted"));
    } else if statements.is_empty() {
        insert(id, table, row)?;
    }
    Ok(statements)
}

pub(super) fn delete(conflict: &Conflict, table: &Table) -> Result<String, HistoryError> {
    let (rows, key) = (table.only(), key(conflict, table)?);
    Ok(format!("delete from {rows} t where {key}"))
}

/// `'text'::type`, read by the type's own input function.
fn value(id: &ConflictId, table: &Table, column: &Column) -> Result<String, HistoryError> {
    let known = table.column(&column.name).ok_or_else(|| {
        let (column, table) = (&column.name, table.readable());
        unfit(id, format!("{table} has no column \"{column}\" any more"))
    })?;
    let text = column
        .value
        .as_deref()
        .map_or_else(|| "null".to_owned(), literal);
    let text = if column.escaped {
        format!("pg_catalog.convert_from(pg_catalog.decode({text}, 'escape'), 'SQL_ASCII')")
    } else {
        text
    };
    Ok(format!("{text}::{}", known.type_name))
}

/// "Row `t` has the key of the conflict".
pub(super) fn key(conflict: &Conflict, table: &Table) -> Result<String, HistoryError> {
    let columns = table.key.iter().flat_map(|key| &key.columns);
    let equality = |name: &str| {
        let found = columns.clone().find(|column| column.name == name);
        found.map_or("=", |column| column.equality.as_str())
    };
    let term = |column: &Column| {
        let value = value(&conflict.id, table, column)?;
        let operator = equality(&column.name);
        Ok(format!("t.{} {operator} {value}", quote(&column.name)))
    };
    let terms: Result<Vec<String>, HistoryError> = conflict.key.iter().map(term).collect();
    Ok(terms?.join(" and "))
}

/// Sets what can be set of `row`; nothing where that is no column.
pub(super) fn update(
    conflict: &Conflict,
    table: &Table,
    row: &[Column],
) -> Result<Option<String>, HistoryError> {
    // An equal key may be spelled differently.
    let in_key = |name: &str| {
        let mut columns = table.key.iter().flat_map(|key| &key.columns);
        let of_name = columns.find(|column| column.name == name);
        let respelled = of_name.is_some_and(|column| column.form.spelling() != Spelling::Exact);
        !respelled && conflict.key.iter().any(|column| column.name == name)
    };
    let settable = |name: &str| {
        let column = table.column(name);
        !column.is_some_and(|column| column.identity_always || column.generated)
    };
    let mut set = Vec::new();
    for column in row.iter().filter(|c| !in_key(&c.name) && settable(&c.name)) {
        let value = value(&conflict.id, table, column)?;
        set.push(format!("{} = {value}", quote(&column.name)));
    }
    if set.is_empty() {
        return Ok(None);
    }
    let (table_name, key) = (table.only(), key(conflict, table)?);
    Ok(Some(format!(
        "update {table_name} t set {} where {key}",
        set.join(", ")
    )))
}

/// A column whose value the record does not know and the table cannot make up.
fn missing<'a>(table: &'a Table, row: &[Column]) -> Option<&'a str> {
    let known = |name: &str| row.iter().any(|column| column.name == name);
    let mut columns = table.columns.iter();
    let column = columns.find(|c| !c.generated && !c.has_default && !known(&c.name));
    column.map(|column| column.name.as_str())
}

/// Inserts `row`.
pub(super) fn insert(
    id: &ConflictId,
    table: &Table,
    row: &[Column],
) -> Result<String, HistoryError> {
    if let Some(column) = missing(table, row) {
        let why = format!("the row is gone and the record does not hold its column \"{column}\"");
        return Err(unfit(id, why));
    }
    let generated = |name: &str| table.column(name).is_some_and(|column| column.generated);
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for column in row.iter().filter(|column| !generated(&column.name)) {
        names.push(quote(&column.name));
        values.push(value(id, table, column)?);
    }
    if names.is_empty() {
        return Ok(format!("insert into {} default values", table.qualified()));
    }
    Ok(format!(
        "insert into {} ({}) overriding system value values ({})",
        table.qualified(),
        names.join(", "),
        values.join(", ")
    ))
}
