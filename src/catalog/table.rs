//! What a table looks like on one server: columns, key, replica identity.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::indexed::{IndexedColumn, indexed};
use super::key_text::KeyForm;
use super::mark::{Mark, marks_of_published};
use super::unique::{Uniques, uniques};
use super::{CatalogError, names, table_query};
use crate::config::TableFilter;

/// A table as one server's catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `pg_class.oid` on this server.
    pub oid: u32,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// Whether it is the root (or a branch) of a partition tree.
    pub partitioned: bool,
    /// Whether it is a partition of another table.
    pub is_partition: bool,
    /// `pg_class.relreplident`: `d`efault, `n`othing, `f`ull or `i`ndex.
    pub replica_identity: char,
    /// Whether `on conflict do nothing` works: no constraint is deferrable (manual, INSERT).
    pub can_skip_duplicates: bool,
    /// The live columns in order.
    pub columns: Vec<Column>,
    /// How rows are looked up, where the table has a usable key.
    pub key: Option<Key>,
    /// What must be unique beside the key.
    pub uniques: Uniques,
    /// Columns by which an index finds rows, where the table has no key.
    pub indexed: Vec<IndexedColumn>,
}

/// A column.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of the catalog"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The type as SQL (`format_type` with its modifier; schema-qualified outside `pg_catalog`).
    pub type_name: String,
    /// The type without its modifier, for a cast from text that does what the type's input function
    /// does; nothing where the cast is a function of its own.
    pub cast_type: Option<String>,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Whether an insert may leave it out: a default, an identity or a generation expression.
    pub has_default: bool,
    /// Whether its value is computed (`generated always as`), so that it cannot be written.
    pub generated: bool,
    /// Whether it is `generated always as identity`, so that writes need `overriding system value`.
    pub identity_always: bool,
    /// OID and modifier of the type under a domain, or of the type itself.
    pub base_type: (u32, i32),
    /// Whether it is a `"char"` of a server before 16, which prints and reads a byte above 127 as
    /// it is; newer ones write four characters, such as `\351`.
    pub is_bare_byte: bool,
}

/// The key by which rows are looked up: the primary key, else a unique index on NOT NULL columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The index's name (in the table's schema).
    pub index: String,
    /// Its columns in index order.
    pub columns: Vec<KeyColumn>,
    /// Whether it is the primary key.
    pub primary: bool,
    /// Whether it is deferrable, so that it cannot be a replica identity.
    pub deferrable: bool,
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// The column's name.
    pub name: String,
    /// The type as SQL.
    pub type_name: String,
    /// The index's own equality, ready for SQL: `OPERATOR(pg_catalog.=)`.
    pub equality: String,
    /// How a value is written as text so that equal values give equal texts.
    pub form: KeyForm,
}

impl Table {
    /// `"schema"."table"`, for SQL.
    pub fn qualified(&self) -> String {
        names::qualified(&self.schema, &self.name)
    }

    /// `schema.table`, for people.
    pub fn readable(&self) -> String {
        names::readable(&self.schema, &self.name)
    }

    /// For `from` and `lock table`: without the children of plain inheritance, which are tables of
    /// their own; a partitioned table is always meant whole.
    pub fn only(&self) -> String {
        if self.partitioned {
            self.qualified()
        } else {
            format!("only {}", self.qualified())
        }
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Schema and name, which identify a table across servers.
    pub fn id(&self) -> (&str, &str) {
        (&self.schema, &self.name)
    }
}

/// The columns that all of these versions of one table have and that are written, sorted by name.
pub fn shared_columns(tables: &[&Table]) -> Vec<String> {
    let everywhere = |name: &str| {
        let mut columns = tables.iter().map(|table| table.column(name));
        columns.all(|column| column.is_some_and(|column| !column.generated))
    };
    let first = tables.iter().take(1).flat_map(|table| &table.columns);
    let names = first.map(|column| column.name.clone());
    let mut names: Vec<String> = names.filter(|name| everywhere(name)).collect();
    names.sort();
    names
}

/// One table by name, or nothing when the server has none (views and foreign tables are none).
pub async fn load_table(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Option<Table>, CatalogError> {
    Ok(load_named(client, &[(schema, name)]).await?.pop())
}

/// The tables of these schemas and names that there are, in no order. As many queries for a
/// thousand as for one.
pub async fn load_named(
    client: &Client,
    names: &[(&str, &str)],
) -> Result<Vec<Table>, CatalogError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
    let mut tables = table_query::tables_named(client, (&schemas, &tables)).await?;
    complete(client, &mut tables).await?;
    Ok(tables)
}

/// Every permanent table that `filter` takes in: ordinary tables and partition roots, not
/// partitions.
///
/// Six queries whatever the number of tables.
pub async fn load_tables(
    client: &Client,
    filter: &TableFilter,
) -> Result<Vec<Table>, CatalogError> {
    load_where(client, |table| filter.matches(&table.schema, &table.name)).await
}

/// The tables that the server publishes to the cluster, each with the mark that it had before it
/// was read: what is altered meanwhile has another one by now.
pub async fn load_published(client: &Client) -> Result<Vec<(Table, Mark)>, CatalogError> {
    let mut marks = marks_of_published(client).await?;
    let oids: Vec<u32> = marks.keys().copied().collect();
    let mut tables = table_query::tables_of(client, &oids).await?;
    complete(client, &mut tables).await?;
    let marked = |table: Table| marks.remove(&table.oid).map(|mark| (table, mark));
    Ok(tables.into_iter().filter_map(marked).collect())
}

/// Every permanent table, but for partitions.
pub async fn load_all(client: &Client) -> Result<Vec<Table>, CatalogError> {
    load_where(client, |_| true).await
}

async fn load_where(
    client: &Client,
    is_wanted: impl Fn(&Table) -> bool,
) -> Result<Vec<Table>, CatalogError> {
    let mut tables = table_query::all_tables(client).await?;
    tables.retain(is_wanted);
    complete(client, &mut tables).await?;
    Ok(tables)
}

/// Fills in columns and keys.
async fn complete(client: &Client, tables: &mut [Table]) -> Result<(), CatalogError> {
    if tables.is_empty() {
        return Ok(());
    }
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut columns: HashMap<u32, Vec<Column>> = table_query::columns(client, &oids).await?;
    let mut keys: HashMap<u32, Key> = table_query::keys(client, &oids).await?;
    let indexes = keys.iter().map(|(oid, key)| (*oid, key.index.clone()));
    let mut uniques = uniques(client, &oids, &indexes.collect()).await?;
    let keyless = oids.iter().filter(|oid| !keys.contains_key(oid));
    let mut of_keyless = indexed(client, &keyless.copied().collect::<Vec<_>>()).await?;
    for table in tables {
        table.indexed = of_keyless.remove(&table.oid).unwrap_or_default();
        table.uniques = uniques.remove(&table.oid).unwrap_or_default();
        table.columns = columns.remove(&table.oid).unwrap_or_default();
        table.key = keys.remove(&table.oid);
    }
    Ok(())
}
