//! The publication's SQL. Pure.

use super::PUBLICATION;
use super::state::{NodeState, TableState};
use crate::catalog::names::{ident, literal};
use crate::catalog::table::Table;
use crate::ids::LinkName;

/// What every publication says: changes of partitions come under their root's name, so that nodes
/// may be partitioned differently.
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";
/// From 18 on an UPDATE of a table with a full replica identity and a stored generated column is
/// refused where that column is not published (manual 29.6, 18).
const WITH_GENERATED: &str = ", publish_generated_columns = stored";

/// How many tables one transaction adds: each keeps a lock until its end, and a server has room for
/// 64 locks per connection by default (`max_locks_per_transaction`).
pub(super) const TABLES_PER_TRANSACTION: usize = 100;

/// The statements that make the publication or mend its options.
pub(super) fn make(state: &NodeState) -> Vec<String> {
    let name = ident(PUBLICATION);
    let more = if state.server.major() >= 18 {
        WITH_GENERATED
    } else {
        ""
    };
    let create = format!("create publication {name} with ({OPTIONS}{more})");
    let Some(publication) = &state.publication else {
        return vec![create];
    };
    let mut sql = Vec::new();
    if publication.all_tables {
        // It cannot be altered into one of listed tables. No table leaves the stream meanwhile.
        let drop = format!("drop publication {name}");
        let add = (!state.tables.is_empty()).then(|| add(state.tables.iter().map(|t| &t.table)));
        return [drop, create].into_iter().chain(add).collect();
    }
    if !publication.faults.is_empty() {
        sql.push(format!("alter publication {name} set ({OPTIONS}{more})"));
    }
    sql.extend(publication.schemas.iter().map(|schema| {
        let schema = ident(schema);
        format!("alter publication {name} drop tables in schema {schema}")
    }));
    let restricted = state.tables.iter().filter(|table| table.is_restricted());
    for table in restricted.map(|state| &state.table) {
        sql.push(format!(
            "alter publication {name} drop table {}",
            table.only()
        ));
        sql.push(add(std::iter::once(table)));
    }
    sql
}

/// The tables that take part and are not published.
pub(super) fn missing(state: &NodeState) -> Vec<&TableState> {
    let listed = state.publication.as_ref().is_none_or(|all| !all.all_tables);
    let tables = state.tables.iter().filter(|_| listed);
    tables.filter(|table| table.published.is_none()).collect()
}

/// The statement that publishes `tables`.
pub(super) fn add<'a>(tables: impl Iterator<Item = &'a Table>) -> String {
    let names: Vec<String> = tables.map(Table::only).collect();
    format!(
        "alter publication {} add table {}",
        ident(PUBLICATION),
        names.join(", ")
    )
}

/// Remembers for all links, or for one, that slot and publication belong together.
pub(super) fn remember_publication(link: Option<&LinkName>) -> String {
    let publication = literal(PUBLICATION);
    let publication =
        format!("(select oid from pg_catalog.pg_publication where pubname = {publication})");
    match link {
        None => format!("update mmrepl.link_memory set publication = {publication}"),
        Some(link) => format!(
            "insert into mmrepl.link_memory (link, publication) values ({}, {publication})
             on conflict (link) do update set publication = excluded.publication",
            literal(&link.to_string())
        ),
    }
}
