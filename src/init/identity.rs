//! Which replica identity a table must have, so that old keys are in the stream. Pure.
//!
//! Manual 29.1 and ALTER TABLE, REPLICA IDENTITY: without one, publishing a table makes its UPDATE
//! and DELETE fail. Full costs WAL and is taken only where nothing smaller carries the key; a
//! user's own full identity is kept, and so is an index that is the key.

use crate::catalog::names::ident;
use crate::catalog::table::Table;

/// A relation whose identity counts: a table, or a partition, whose leaves do the writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    /// `pg_class.relreplident`.
    pub(super) now: char,
    /// The index named by `replica identity using index`.
    pub(super) index: Option<&'a str>,
    /// The relation's own index that serves the key.
    pub(super) key_index: Option<&'a str>,
}

/// The clause to set, or nothing when the identity will do. `whole`: deletes must carry the row,
/// because it holds its version.
pub(super) fn wanted(table: &Table, identity: Identity<'_>, whole: bool) -> Option<String> {
    if identity.now == 'f' {
        return None;
    }
    let key = table.key.as_ref().filter(|key| !key.deferrable && !whole);
    let Some((key, key_index)) = key.zip(identity.key_index) else {
        return Some("full".to_owned());
    };
    match (identity.now, identity.index) {
        ('i', Some(index)) if index == key_index => None,
        // Somebody else relies on another index: only full serves both.
        ('i', Some(_)) => Some("full".to_owned()),
        ('d', _) if key.primary => None,
        _ if key.primary => Some("default".to_owned()),
        _ => Some(format!("using index {}", ident(key_index))),
    }
}

/// The clause that sets back what is there now.
pub(super) fn clause(identity: Identity<'_>) -> String {
    match (identity.now, identity.index) {
        ('f', _) => "full".to_owned(),
        ('n', _) => "nothing".to_owned(),
        ('i', Some(index)) => format!("using index {}", ident(index)),
        _ => "default".to_owned(),
    }
}

/// The statements that set `clause` and remember `before` for `mmrepl drop`.
pub(super) fn statements(oid: u32, qualified: &str, clause: &str, before: &str) -> Vec<String> {
    let before = crate::catalog::names::literal(before);
    vec![
        format!(
            "insert into mmrepl.replica_identity (relation, before) values ({oid}, {before}) on conflict (relation) do nothing"
        ),
        format!("alter table only {qualified} replica identity {clause}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::table::Key;

    fn table(primary: bool, deferrable: bool) -> Table {
        let key = Key {
            index: "k".to_owned(),
            columns: Vec::new(),
            primary,
            deferrable,
        };
        Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            partitioned: false,
            is_partition: false,
            replica_identity: 'd',
            can_skip_duplicates: true,
            uniques: crate::catalog::unique::Uniques::default(),
            indexed: Vec::new(),
            columns: Vec::new(),
            key: Some(key),
        }
    }

    fn identity(now: char, index: Option<&'static str>) -> Identity<'static> {
        Identity {
            now,
            index,
            key_index: Some("k"),
        }
    }

    #[test]
    fn primary_keys_need_the_default_and_unique_indexes_are_named() {
        assert_eq!(
            wanted(&table(true, false), identity('d', None), false),
            None
        );
        assert_eq!(
            wanted(&table(true, false), identity('n', None), false),
            Some("default".to_owned())
        );
        assert_eq!(
            wanted(&table(false, false), identity('d', None), false),
            Some("using index \"k\"".to_owned())
        );
        assert_eq!(
            wanted(&table(false, false), identity('i', Some("k")), false),
            None
        );
    }

    #[test]
    fn deletes_carry_the_row_where_it_holds_its_version() {
        let full = Some("full".to_owned());
        assert_eq!(wanted(&table(true, false), identity('d', None), true), full);
        assert_eq!(wanted(&table(true, false), identity('f', None), true), None);
    }

    #[test]
    fn what_cannot_carry_the_key_is_full() {
        assert_eq!(
            wanted(&table(true, true), identity('d', None), false),
            Some("full".to_owned())
        );
        assert_eq!(
            wanted(&table(true, false), identity('i', Some("x")), false),
            Some("full".to_owned())
        );
        let keyless = Table {
            key: None,
            ..table(true, false)
        };
        assert_eq!(
            wanted(&keyless, identity('d', None), false),
            Some("full".to_owned())
        );
        assert_eq!(wanted(&keyless, identity('f', None), false), None);
    }
}
