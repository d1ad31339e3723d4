//! How a source relation's columns land in the target's table. Pure.

use std::sync::Arc;

use crate::apply::shape::narrower::{Loss, loss, name_of};
use crate::catalog::key_form::Spelling;
use crate::catalog::table::{Key, Table};
use crate::pgoutput::{OldImage, Tuple, Value};
use crate::relation::{Relation, ReplicaIdentity};

/// The text of one key: its columns' values in key order, as pgoutput sent them.
pub type KeyValues = Vec<bytes::Bytes>;

/// Why a relation's changes cannot be written to the target; each sentence says what mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The target has no such table.
    #[error(
        "table {table} does not exist on {node}: create it there as it is on the source, the link goes on by itself"
    )]
    NoTable {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
    },
    /// The target's table lacks a column.
    #[error(
        "table {table} on {node} has no column \"{column}\": add it there with ALTER TABLE, the link goes on by itself"
    )]
    NoColumn {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
        /// The column the source sends.
        column: String,
    },
    /// The source does not send a column of the target's key.
    #[error(
        "the key of {table} on {node} has the column \"{column}\", which the source did not send of an old row: where the keys differ, give the table the same key on both nodes and run `mmrepl init`; where the key was changed on both while rows were under way, give the table on {node} its old key back until the link has drained"
    )]
    KeyNotSent {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
        /// The key column.
        column: String,
    },
    /// The column with the row's version is missing.
    #[error(
        "table {table} on {node} or on the source has no column \"{column}\", where {rule} keeps the version: run `mmrepl init`, the link goes on by itself"
    )]
    NoVersion {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
        /// The column.
        column: String,
        /// The rule.
        rule: &'static str,
    },
    /// The target's type would change values and not say so.
    #[error(
        "column \"{column}\" of {table} is {there} on {node} and {here} on the source: values would be changed without a word; `alter table {table} alter column \"{column}\" type {here}` on {node}, the link goes on by itself"
    )]
    Narrower {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
        /// The column.
        column: String,
        /// Its type on the source.
        here: String,
        /// Its type on the target.
        there: String,
    },
    /// A byte that the target's version would read as another one.
    #[error(
        "a value of column \"{column}\" of {table} is a byte above 127, which the source prints in a form that {node} does not read: PostgreSQL before 16 takes its first character for the value; upgrade {node} to 16 or newer, the link goes on by itself"
    )]
    BareByte {
        /// `schema.table`.
        table: String,
        /// The target.
        node: String,
        /// The column.
        column: String,
    },
    /// A table without a key does not send whole old rows.
    #[error(
        "table {table} has no key and its source did not send old rows: `mmrepl init` sets REPLICA IDENTITY FULL for what is written from then on; what was written before can only be left out"
    )]
    NoOldRows {
        /// `schema.table`.
        table: String,
    },
}

/// One source column on the target.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of the catalog"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetColumn {
    /// Name, the same on both sides.
    pub name: String,
    /// The target's type without length, as a cast may name it.
    pub type_name: String,
    /// `pg_attribute.atttypid`; 0 where the target lacks the column.
    pub type_oid: u32,
    /// Part of the key: identifies the row.
    pub in_key: bool,
    /// Of the key, and equal values may be spelled differently: the newest write's spelling stays.
    pub respelled: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: may be inserted (overriding) but not updated, so that a row
    /// with another value is replaced.
    pub identity_always: bool,
    /// Whether it is written: not where the target computes it, or does not have it.
    pub written: bool,
}

/// The way from a source relation to the target's table.
#[derive(Debug, Clone)]
pub struct TableMap {
    /// What the source sends.
    pub relation: Arc<Relation>,
    /// What the target has.
    pub table: Table,
    /// One entry for each source column, in the source's order.
    pub columns: Vec<TargetColumn>,
    /// Source columns that the target lacks. As long as they are NULL, nothing is lost.
    pub missing: Vec<usize>,
    node: String,
    /// Which source columns form the target's key, in key order; `None` for a table without one.
    pub key: Option<Vec<usize>>,
    /// What the texts of the key's columns tell, where not all are exact.
    spellings: Option<Vec<Spelling>>,
    /// Columns that take no more characters than this, where the source's may have more.
    cut: Vec<(usize, usize)>,
    /// Columns that cannot read a byte in its escaped form.
    bare: Vec<usize>,
}

impl TableMap {
    /// Fits `relation` to `table` of node `node`.
    pub fn new(
        relation: Arc<Relation>,
        table: Option<Table>,
        node: &str,
    ) -> Result<Self, MapError> {
        let label = format!("{}.{}", relation.schema, relation.name);
        let Some(table) = table else {
            return Err(MapError::NoTable {
                table: label,
                node: node.to_owned(),
            });
        };
        let key = key_columns(&relation, &table, &label, node)?;
        let indexes = 0..relation.columns.len();
        let columns: Vec<TargetColumn> = indexes
            .clone()
            .map(|index| target_column(&relation, &table, key.as_deref(), index))
            .collect();
        let spellings = table.key.as_ref().and_then(spellings);
        let lacks = |index: &usize| table.column(&relation.columns[*index].name).is_none();
        let mut map = Self {
            missing: indexes.filter(lacks).collect(),
            spellings,
            cut: Vec::new(),
            bare: Vec::new(),
            node: node.to_owned(),
            columns,
            relation,
            table,
            key,
        };
        map.compare_types()?;
        Ok(map)
    }

    /// Makes sure that no type of the target changes values without a word.
    fn compare_types(&mut self) -> Result<(), MapError> {
        for index in 0..self.columns.len() {
            let column = &self.relation.columns[index];
            let from = (column.type_oid, column.type_modifier);
            let there = self.table.column(&column.name);
            match there.and_then(|there| loss(from, there.base_type)) {
                Some(Loss::Silent) if self.columns[index].written => {
                    return Err(self.narrower(index));
                }
                Some(Loss::LongerThan(most)) => self.cut.push((index, most)),
                _ => {}
            }
            if there.is_some_and(|there| there.is_bare_byte) {
                self.bare.push(index);
            }
        }
        Ok(())
    }

    fn narrower(&self, index: usize) -> MapError {
        let column = &self.relation.columns[index];
        MapError::Narrower {
            table: self.label(),
            node: self.node.clone(),
            column: column.name.clone(),
            here: name_of((column.type_oid, column.type_modifier)),
            there: self.columns[index].type_name.clone(),
        }
    }

    /// The source columns that the target's unique indexes may look at, the key's aside.
    pub fn unique_columns(&self) -> Vec<usize> {
        let read = |(_, column): &(usize, &TargetColumn)| self.table.uniques.may_read(&column.name);
        let columns = self.columns.iter().enumerate().filter(read);
        columns.map(|(index, _)| index).collect()
    }

    /// Makes sure that no value of `row` would be lost because the target lacks its column, or
    /// would lose blanks or digits there.
    pub fn check_missing(&self, row: &Tuple) -> Result<(), MapError> {
        let is_long = |(index, most): &&(usize, usize)| match row.0.get(*index) {
            Some(Value::Text(text)) if text.len() > *most => {
                std::str::from_utf8(text).map_or(true, |text| text.chars().count() > *most)
            }
            _ => false,
        };
        if let Some((index, _)) = self.cut.iter().find(is_long) {
            return Err(self.narrower(*index));
        }
        let is_escaped = |index: &&usize| {
            let value = row.0.get(**index);
            matches!(value, Some(Value::Text(text)) if text.len() > 1 && text.starts_with(b"\\"))
        };
        if let Some(index) = self.bare.iter().find(is_escaped) {
            return Err(MapError::BareByte {
                table: self.label(),
                node: self.node.clone(),
                column: self.relation.columns[*index].name.clone(),
            });
        }
        let lost = self
            .missing
            .iter()
            .find(|index| row.0.get(**index) != Some(&Value::Null));
        lost.map_or(Ok(()), |index| {
            Err(MapError::NoColumn {
                table: self.label(),
                node: self.node.clone(),
                column: self.relation.columns[*index].name.clone(),
            })
        })
    }

    /// The source columns that are written, in order.
    pub fn written(&self) -> impl Iterator<Item = usize> + '_ {
        let indexes = 0..self.columns.len();
        indexes.filter(|index| self.columns[*index].written)
    }

    /// Whether an update of these columns sets any of them.
    pub(in crate::apply) fn sets_any(&self, columns: &[usize]) -> bool {
        let mut columns = columns.iter();
        columns.any(|index| !self.columns[*index].identity_always)
    }

    /// The error that a column which the table's rule needs is not there.
    pub fn no_version(&self, column: &str, rule: &'static str) -> MapError {
        MapError::NoVersion {
            table: self.label(),
            node: self.node.clone(),
            column: column.to_owned(),
            rule,
        }
    }

    /// `schema.table`, for messages.
    pub fn label(&self) -> String {
        format!("{}.{}", self.relation.schema, self.relation.name)
    }

    /// The key values of a tuple; `None` where one is missing, which a valid stream never sends.
    pub fn key_of(&self, tuple: &Tuple) -> Option<KeyValues> {
        let text = |index: &usize| match tuple.0.get(*index) {
            Some(Value::Text(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        self.key.as_ref()?.iter().map(text).collect()
    }

    /// The key as all its spellings have it, as far as their texts tell.
    pub fn one_form(&self, key: &KeyValues) -> KeyValues {
        let Some(spellings) = &self.spellings else {
            return key.clone();
        };
        let one_form = |(text, spelling): (&bytes::Bytes, &Spelling)| {
            let form = spelling.one_form(text);
            if form.len() == text.len() {
                text.clone()
            } else {
                bytes::Bytes::copy_from_slice(form)
            }
        };
        key.iter().zip(spellings).map(one_form).collect()
    }

    /// Whether different texts may be one key without anything here telling so.
    pub fn has_open_key(&self) -> bool {
        let spellings = self.spellings.as_deref().unwrap_or_default();
        spellings.contains(&Spelling::Open)
    }

    /// Whether only the server can tell if two keys of different texts are one.
    pub(in crate::apply) fn is_open_between(&self, one: &KeyValues, other: &KeyValues) -> bool {
        let (one, other) = (self.one_form(one), self.one_form(other));
        let spellings = self.spellings.as_deref().unwrap_or_default();
        let open = |(place, (a, b))| a == b || spellings.get(place) == Some(&Spelling::Open);
        one != other && one.iter().zip(&other).enumerate().all(open)
    }

    /// `old` with the key that `new` has.
    pub(in crate::apply) fn spelled_as(&self, old: &Tuple, new: &Tuple) -> Tuple {
        let is_key = |index: &usize| self.key.iter().flatten().any(|key| key == index);
        let indexes = 0..old.0.len();
        let values = indexes.map(|index| if is_key(&index) { new } else { old }.0[index].clone());
        Tuple(values.collect())
    }

    /// The key of a row before an update: from its old image, else (key not changed) the new row.
    pub fn old_key(&self, old: Option<&OldImage>, new: &Tuple) -> Option<KeyValues> {
        match old {
            Some(OldImage::Key(tuple) | OldImage::Full(tuple)) => {
                // An old key column stands as "unchanged" only where the new row holds the same.
                self.key_of(tuple).or_else(|| self.key_of(new))
            }
            None => self.key_of(new),
        }
    }
}

/// What the texts of a key tell; nothing where equal keys have equal texts.
fn spellings(key: &Key) -> Option<Vec<Spelling>> {
    let columns = key.columns.iter();
    let spellings: Vec<Spelling> = columns.map(|column| column.form.spelling()).collect();
    let is_exact = |spelling: &Spelling| *spelling == Spelling::Exact;
    (!spellings.iter().all(is_exact)).then_some(spellings)
}

fn key_columns(
    relation: &Relation,
    table: &Table,
    label: &str,
    node: &str,
) -> Result<Option<Vec<usize>>, MapError> {
    let Some(key) = &table.key else {
        return match relation.replica_identity {
            ReplicaIdentity::Full => Ok(None),
            _ => Err(MapError::NoOldRows {
                table: label.to_owned(),
            }),
        };
    };
    let whole_rows = relation.replica_identity == ReplicaIdentity::Full;
    let find = |name: &String| {
        let sent = |c: &&crate::relation::RelationColumn| c.name == *name;
        let index = relation.columns.iter().position(|c| sent(&c))?;
        (whole_rows || relation.columns[index].is_key).then_some(index)
    };
    let indexes = key.columns.iter().map(|column| {
        find(&column.name).ok_or_else(|| MapError::KeyNotSent {
            table: label.to_owned(),
            node: node.to_owned(),
            column: column.name.clone(),
        })
    });
    indexes.collect::<Result<_, _>>().map(Some)
}

fn target_column(
    relation: &Relation,
    table: &Table,
    key: Option<&[usize]>,
    index: usize,
) -> TargetColumn {
    let name = &relation.columns[index].name;
    let column = table.column(name);
    let of_key = |key: &Key| {
        let mut columns = key.columns.iter();
        let of_name = columns.find(|column| column.name == *name);
        of_name.is_some_and(|column| column.form.spelling() != Spelling::Exact)
    };
    TargetColumn {
        name: name.clone(),
        type_name: column
            .map(|column| column.type_name.clone())
            .unwrap_or_default(),
        type_oid: column.map_or(0, |column| column.type_oid),
        in_key: key.is_some_and(|key| key.contains(&index)),
        respelled: table.key.as_ref().is_some_and(of_key),
        identity_always: column.is_some_and(|column| column.identity_always),
        written: column.is_some_and(|column| !column.generated),
    }
}
