//! Whether nodes hold the same rows, computed on the servers.
//!
//! A table's digest is its row count and the sum of two 64-bit halves of each row's md5: it does
//! not depend on the order of rows, and needs no key. A row is hashed as text under pinned
//! settings, its columns sorted by name, in UTF-8 whatever the database's encoding.

use std::collections::{HashMap, HashSet};

use super::InitError;
use super::session::Session;
use crate::catalog::position_columns::with_positions;
use crate::catalog::row_text::{hash_of, text_of};
use crate::catalog::table::{Table, shared_columns};
use crate::ids::NodeName;
use crate::wire::{RowExt, Unread};

/// How many tables one query looks into for rows.
const TABLES_PER_QUERY: usize = 100;

/// What a node holds in one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) rows: i64,
    /// Sums as text: they are numeric on the server.
    sums: (String, String),
}

/// A table on all nodes: the columns that every node has and that are written, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

impl Shared {
    /// `schema.table`, for people.
    pub(super) fn readable(&self) -> String {
        crate::catalog::names::readable(&self.schema, &self.name)
    }
}

/// One node's version of every table in a list.
pub(super) type Tables<'a> = HashMap<(&'a str, &'a str), &'a Table>;

/// The columns that all nodes' versions of a table have in common.
pub(super) fn shared(id: (&str, &str), nodes: &[Tables<'_>]) -> Shared {
    let versions: Vec<&Table> = nodes
        .iter()
        .filter_map(|tables| tables.get(&id).copied())
        .collect();
    Shared {
        schema: id.0.to_owned(),
        name: id.1.to_owned(),
        columns: shared_columns(&versions),
    }
}

/// Which of the tables hold rows on this node.
pub(super) async fn with_rows(
    session: &Session,
    tables: &[&Table],
) -> Result<Vec<bool>, InitError> {
    let mut found = vec![false; tables.len()];
    for (chunk, answers) in tables
        .chunks(TABLES_PER_QUERY)
        .zip(found.chunks_mut(TABLES_PER_QUERY))
    {
        let exists = |table: &&Table| format!("exists (select from {})", table.only());
        let sql = format!(
            "select array[{}]",
            chunk.iter().map(exists).collect::<Vec<_>>().join(", ")
        );
        let row = session.client.query_one(&sql, &[]).await;
        let row = row.map_err(InitError::server(session.name(), "look for rows"))?;
        let has: Vec<bool> = row.read(0).map_err(InitError::unread(session.name()))?;
        answers.copy_from_slice(&has);
    }
    Ok(found)
}

/// The digest of one table on one node, in the session's current transaction.
pub(super) async fn digest(
    session: &Session,
    table: &Table,
    shared: &Shared,
) -> Result<Digest, InitError> {
    let positions = positions(session, table).await?;
    let row = session
        .client
        .query_one(&digest_sql(table, shared, &positions), &[])
        .await;
    let what = format!("compare the rows of {}", shared.readable());
    let row = row.map_err(InitError::server(session.name(), what))?;
    read_digest(&row).map_err(InitError::unread(session.name()))
}

fn read_digest(row: &tokio_postgres::Row) -> Result<Digest, Unread> {
    Ok(Digest {
        rows: row.read(0)?,
        sums: (row.read(1)?, row.read(2)?),
    })
}

/// The columns of the table with WAL positions.
pub(super) async fn positions(
    session: &Session,
    table: &Table,
) -> Result<HashSet<String>, InitError> {
    let positions = with_positions(&session.client, table).await;
    positions.map_err(InitError::catalog(session.name()))
}

/// A row as one text, the same on every node.
pub(super) fn row_text(table: &Table, shared: &Shared, positions: &HashSet<String>) -> String {
    let text = |name: &String| text_of(table, name, positions.contains(name));
    let columns: Vec<String> = shared.columns.iter().map(text).collect();
    let columns = columns.join(", ");
    format!("array[{columns}]::pg_catalog.text[]::pg_catalog.text")
}

fn digest_sql(table: &Table, shared: &Shared, positions: &HashSet<String>) -> String {
    let half = |from: usize| {
        format!("coalesce(sum(('x' || substr(h, {from}, 16))::bit(64)::int8), 0)::pg_catalog.text")
    };
    format!(
        "select count(*), {}, {} from (select {} from {}) r(h)",
        half(1),
        half(17),
        hash_of(&row_text(table, shared, positions)),
        table.only()
    )
}

/// One table in which two nodes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) table: String,
    pub(super) nodes: (NodeName, NodeName),
    pub(super) rows: (i64, i64),
}

/// The sentence that refuses. `found` is not empty.
pub(super) fn refuse(found: &[Difference]) -> InitError {
    let Some(first) = found.first() else {
        return InitError::Different(String::new());
    };
    let ((a, b), (rows_a, rows_b)) = (&first.nodes, first.rows);
    let (more, less, most, least) = if rows_a >= rows_b {
        (a, b, rows_a, rows_b)
    } else {
        (b, a, rows_b, rows_a)
    };
    let table = &first.table;
    let what = if most == least {
        format!("nodes {a} and {b} hold different rows in {table} ({most} each)")
    } else {
        format!("node {less} lacks rows that {more} has in {table} ({least} against {most})")
    };
    let others = match found.len() {
        1 => String::new(),
        many => format!(", and {} more table(s) differ", many - 1),
    };
    InitError::Different(format!(
        "{what}{others}: say whose rows count with --copy-from {more}, or --assume-identical"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_who_lacks_what() {
        let difference = |rows| Difference {
            table: "public.t".to_owned(),
            nodes: ("east".parse().unwrap(), "west".parse().unwrap()),
            rows,
        };
        assert_eq!(
            refuse(&[difference((3, 0))]).to_string(),
            "node west lacks rows that east has in public.t (0 against 3): say whose rows count with --copy-from east, or --assume-identical"
        );
        assert!(
            refuse(&[difference((0, 3))])
                .to_string()
                .starts_with("node east lacks")
        );
        let two = refuse(&[difference((2, 2)), difference((1, 1))]).to_string();
        assert!(
            two.contains("(2 each), and 1 more table(s) differ"),
            "{two}"
        );
    }
}
