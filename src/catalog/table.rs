//! What a table looks like on one server: columns, key, replica identity.

use super::indexed::IndexedColumn;
use super::key_form::KeyForm;
use super::names;
use super::unique::Uniques;

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
