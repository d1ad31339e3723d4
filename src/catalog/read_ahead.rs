//! All published tables of a server, read at once while a link gets ready: its first changes touch
//! one table after the other, and to ask about each costs more than to write its rows.
//!
//! A description that was read before it is needed may be out of date. So it counts for a short
//! while only, and only where it says of the table what the stream says; whoever finds it wrong
//! reads the table itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::table::Table;
use crate::relation::{Relation, ReplicaIdentity};

/// For so long a description may be used.
const FRESH: Duration = Duration::from_secs(60);
/// Who holds a lock on one table keeps nobody from the others for longer.
const WAITED_FOR: Duration = Duration::from_secs(2);
/// Built-in types have OIDs below this on every server (`FirstNormalObjectId`).
const BUILT_IN_BELOW: u32 = 16_384;

/// What is being read, or was.
#[derive(Debug)]
pub struct ReadAhead {
    reading: Option<AbortOnDropHandle<Option<Vec<Table>>>>,
    tables: HashMap<(String, String), Table>,
    since: Instant,
}

impl ReadAhead {
    /// Begins to read, on a connection that nobody else waits for.
    pub fn start(read: impl Future<Output = Option<Vec<Table>>> + Send + 'static) -> Self {
        Self {
            reading: Some(AbortOnDropHandle::new(tokio::spawn(read))),
            ..Self::nothing()
        }
    }

    /// Nothing was read.
    pub fn nothing() -> Self {
        Self {
            reading: None,
            tables: HashMap::new(),
            since: Instant::now(),
        }
    }

    /// What is known counts no longer.
    pub fn forget(&mut self) {
        *self = Self::nothing();
    }

    /// The target's table of `relation`, once; nothing where it has to be read anew. Waits until
    /// all is read. An error shows again when the table itself is read.
    pub async fn take(&mut self, relation: &Relation) -> Option<Table> {
        if let Some(reading) = self.reading.take()
            && let Ok(Ok(Some(tables))) = timeout(WAITED_FOR, reading).await
        {
            let by_name = |table: Table| ((table.schema.clone(), table.name.clone()), table);
            self.tables = tables.into_iter().map(by_name).collect();
        }
        if self.tables.is_empty() {
            return None;
        }
        if self.since.elapsed() > FRESH {
            self.forget();
            return None;
        }
        let name = (relation.schema.clone(), relation.name.clone());
        let table = self.tables.remove(&name)?;
        agrees(&table, relation).then_some(table)
    }
}

/// Whether columns, types and key are those that the stream tells.
fn agrees(table: &Table, relation: &Relation) -> bool {
    let sent = &relation.columns;
    let there = table.columns.iter().filter(|column| !column.generated);
    there.count() == sent.len()
        && sent.iter().all(|sent| {
            table.column(&sent.name).is_some_and(|column| {
                let (type_oid, modifier) = (sent.type_oid, sent.type_modifier);
                let built_in = type_oid < BUILT_IN_BELOW && column.type_oid < BUILT_IN_BELOW;
                !built_in || column.base_type == (type_oid, modifier)
            })
        })
        && has_key_of(table, relation)
}

fn has_key_of(table: &Table, relation: &Relation) -> bool {
    let Some(key) = &table.key else {
        return relation.replica_identity == ReplicaIdentity::Full;
    };
    let is_key = |name: &str| key.columns.iter().any(|column| column.name == name);
    relation.replica_identity == ReplicaIdentity::Full
        || relation
            .columns
            .iter()
            .all(|column| column.is_key == is_key(&column.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::table::Column;
    use crate::catalog::unique::Uniques;
    use crate::ids::RelationId;
    use crate::relation::RelationColumn;

    fn table(columns: &[(&str, u32)]) -> Table {
        let column = |(name, type_oid): &(&str, u32)| Column {
            name: (*name).to_owned(),
            type_name: "text".to_owned(),
            cast_type: None,
            type_oid: *type_oid,
            not_null: false,
            has_default: false,
            generated: *name == "made",
            identity_always: false,
            base_type: (*type_oid, -1),
            is_bare_byte: false,
        };
        Table {
            oid: 1,
            schema: "s".to_owned(),
            name: "t".to_owned(),
            partitioned: false,
            is_partition: false,
            replica_identity: 'f',
            can_skip_duplicates: true,
            columns: columns.iter().map(column).collect(),
            key: None,
            uniques: Uniques::default(),
            indexed: Vec::new(),
        }
    }

    fn relation(columns: &[(&str, u32)]) -> Relation {
        let column = |(name, type_oid): &(&str, u32)| RelationColumn {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            type_modifier: -1,
            is_key: true,
        };
        Relation {
            id: RelationId(1),
            schema: "s".to_owned(),
            name: "t".to_owned(),
            replica_identity: ReplicaIdentity::Full,
            columns: columns.iter().map(column).collect(),
        }
    }

    #[test]
    fn only_a_table_that_is_as_the_stream_says_counts() {
        let there = table(&[("a", 25), ("b", 23), ("made", 23)]);
        assert!(agrees(&there, &relation(&[("b", 23), ("a", 25)])));
        assert!(!agrees(&there, &relation(&[("b", 20), ("a", 25)])), "wider");
        assert!(!agrees(&there, &relation(&[("a", 25)])), "dropped");
        let added = relation(&[("a", 25), ("b", 23), ("c", 25)]);
        assert!(!agrees(&there, &added), "added");
        assert!(agrees(
            &table(&[("a", 20_000)]),
            &relation(&[("a", 30_000)])
        ));
        let mut keyed = relation(&[("b", 23), ("a", 25)]);
        keyed.replica_identity = ReplicaIdentity::Default;
        assert!(!agrees(&there, &keyed), "it has got a key");
    }

    #[tokio::test]
    async fn a_description_is_used_once_and_for_a_while() {
        let sent = relation(&[("a", 25)]);
        let read = || {
            let name = ("s".to_owned(), "t".to_owned());
            ReadAhead {
                tables: HashMap::from([(name, table(&[("a", 25)]))]),
                ..ReadAhead::nothing()
            }
        };
        let mut ahead = read();
        assert!(ahead.take(&sent).await.is_some());
        assert!(ahead.take(&sent).await.is_none());
        let mut old = read();
        old.since -= FRESH * 2;
        assert!(old.take(&sent).await.is_none());
        let mut forgotten = read();
        forgotten.forget();
        assert!(forgotten.take(&sent).await.is_none());
    }
}
