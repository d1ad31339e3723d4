//! Which columns are compared, and how their values become something that is equal on every node.
//! Pure.
//!
//! By default a value is compared by the type's own equality where the type has the same hash on
//! every server: 1.0 and 1.00 are one number. Everything else is compared as text, `--exact`
//! compares all as text. Text is compared byte by byte, whatever its collation.

use std::collections::HashSet;

use crate::catalog::key_form::KeyForm;
use crate::catalog::names::ident;
use crate::catalog::row_text::text_of;
use crate::catalog::table::{Column, KeyColumn, Table};

/// Types whose hash (`hash_record_extended`, PostgreSQL 14) is the same on servers of all versions,
/// by their numbers in `pg_type.dat`. Enums are none: theirs is the number of a catalog row.
const HASHED_ALIKE: [u32; 20] = [
    16,    // bool
    17,    // bytea
    18,    // "char"
    20,    // int8
    21,    // int2
    23,    // int4
    700,   // float4
    701,   // float8
    829,   // macaddr
    869,   // inet
    1_082, // date
    1_083, // time
    1_114, // timestamp
    1_184, // timestamptz
    1_186, // interval
    1_266, // timetz
    1_700, // numeric
    2_950, // uuid
    3_220, // pg_lsn
    3_802, // jsonb
];

/// How values are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// As text, to the last digit.
    pub(super) exact: bool,
    /// The databases have different encodings.
    pub(super) recode: bool,
}

/// A table on one node, and what of it is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared<'a> {
    pub(super) table: &'a Table,
    /// The columns that all nodes have, by name, in one order.
    pub(super) columns: &'a [String],
    /// Columns with WAL positions, which print differently from 19 on.
    pub(super) positions: &'a HashSet<String>,
    pub(super) manner: Manner,
}

impl Compared<'_> {
    /// The hash of a row's compared columns, as SQL.
    pub(super) fn row_hash(&self) -> String {
        let values = self.columns.iter().map(|name| self.value(name));
        hash(values, 0)
    }

    /// The hash of a row's key, which equal keys share; without a key the row's.
    pub(super) fn key_hash(&self) -> String {
        match &self.table.key {
            None => self.row_hash(),
            Some(key) => hash(key.columns.iter().map(|column| self.key_value(column)), 1),
        }
    }

    /// The compared columns as an array of texts, for people.
    pub(super) fn texts(&self) -> String {
        array(self.columns.iter().map(|name| self.text(name)))
    }

    /// The key's columns as an array of texts, from which they can be read again; without a key
    /// none.
    pub(super) fn key_texts(&self) -> String {
        let key = self.table.key.iter().flat_map(|key| &key.columns);
        array(key.map(|column| format!("{}::pg_catalog.text", ident(&column.name))))
    }

    fn text(&self, name: &str) -> String {
        text_of(self.table, name, self.positions.contains(name))
    }

    fn value(&self, name: &str) -> String {
        let alike = |column: &Column| HASHED_ALIKE.contains(&column.type_oid);
        if !self.manner.exact && self.table.column(name).is_some_and(alike) {
            return ident(name);
        }
        self.bytes(&self.text(name))
    }

    fn key_value(&self, column: &KeyColumn) -> String {
        let oid = self
            .table
            .column(&column.name)
            .map(|column| column.type_oid);
        let own = column.form == KeyForm::Cast || column.form == KeyForm::Float;
        if own && oid.is_some_and(|oid| HASHED_ALIKE.contains(&oid)) {
            return ident(&column.name);
        }
        self.bytes(&column.form.text_of(&ident(&column.name)))
    }

    /// A text as bytes that are the same in every encoding.
    fn bytes(&self, text: &str) -> String {
        if self.manner.recode {
            format!("pg_catalog.convert_to({text}, 'UTF8')")
        } else {
            format!("({text}) collate pg_catalog.\"C\"")
        }
    }
}

fn hash(values: impl Iterator<Item = String>, seed: u8) -> String {
    let values: Vec<String> = values.collect();
    if values.is_empty() {
        return "0::pg_catalog.int8".to_owned();
    }
    let values = values.join(", ");
    format!("pg_catalog.hash_record_extended(row({values}), {seed})")
}

fn array(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    format!("array[{}]::pg_catalog.text[]", texts.join(", "))
}
