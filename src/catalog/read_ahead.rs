//! All published tables of a server, read at once while a link gets ready: its first changes touch
//! one table after the other, and to ask about each costs more than to write its rows.
//!
//! A description that was read before it is needed may be out of date. So it counts only where its
//! table was not altered since, where it says of the table what the stream says, and for a short
//! while; whoever finds none reads the table itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::mark::{Mark, marks};
use super::table::Table;
use crate::relation::{Relation, ReplicaIdentity};

/// For so long descriptions are kept.
const KEPT: Duration = Duration::from_secs(60);
/// Who holds a lock on one table keeps nobody from the others for longer.
const WAITED_FOR: Duration = Duration::from_secs(2);
/// Built-in types have OIDs below this on every server (`FirstNormalObjectId`).
const BUILT_IN_BELOW: u32 = 16_384;

/// Tables by schema and name, each with the mark that it had before it was read.
type Described = HashMap<(String, String), (Table, Mark)>;

/// What is being read, or was.
#[derive(Debug, Default)]
pub struct ReadAhead {
    /// Locked while it is read.
    tables: Arc<Mutex<Described>>,
    reading: Option<AbortOnDropHandle<()>>,
}

impl ReadAhead {
    /// Begins to read, on a connection that nobody else waits for.
    pub fn start(read: impl Future<Output = Option<Vec<(Table, Mark)>>> + Send + 'static) -> Self {
        Self::keeping(KEPT, read)
    }

    fn keeping(
        time: Duration,
        read: impl Future<Output = Option<Vec<(Table, Mark)>>> + Send + 'static,
    ) -> Self {
        let tables = Arc::new(Mutex::new(Described::new()));
        let begun = Arc::clone(&tables).try_lock_owned();
        let mut begun = begun.expect("nobody else has it yet");
        let kept = Arc::clone(&tables);
        let reading = tokio::spawn(async move {
            for (table, mark) in read.await.into_iter().flatten() {
                begun.insert((table.schema.clone(), table.name.clone()), (table, mark));
            }
            drop(begun);
            sleep(time).await;
            *kept.lock().await = Described::new();
        });
        let reading = Some(AbortOnDropHandle::new(reading));
        Self { tables, reading }
    }

    /// What is known counts no longer.
    pub fn forget(&mut self) {
        drop(self.reading.take());
        self.tables = Arc::default();
    }

    /// The target's tables of `relations` that are what was read, each once; the others have to be
    /// read anew. Waits until all is read. An error shows again when the table itself is read.
    pub async fn take(&mut self, client: &Client, relations: &[&Relation]) -> Vec<Table> {
        let mut found = self.agreeing(relations).await;
        if found.is_empty() {
            return Vec::new();
        }
        let oids: Vec<u32> = found.iter().map(|(table, _)| table.oid).collect();
        let Ok(now) = marks(client, &oids).await else {
            return Vec::new();
        };
        found.retain(|(table, mark)| now.get(&table.oid) == Some(mark));
        found.into_iter().map(|(table, _)| table).collect()
    }

    /// What was read of these tables, where the stream says nothing else.
    async fn agreeing(&mut self, relations: &[&Relation]) -> Vec<(Table, Mark)> {
        let Ok(mut tables) = timeout(WAITED_FOR, self.tables.lock()).await else {
            self.forget();
            return Vec::new();
        };
        let taken = relations.iter().filter_map(|relation| {
            let name = (relation.schema.clone(), relation.name.clone());
            let known = tables.remove(&name)?;
            agrees(&known.0, relation).then_some(known)
        });
        taken.collect()
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
        let read = || std::future::ready(Some(vec![(table(&[("a", 25)]), Mark::none())]));
        let mut ahead = ReadAhead::start(read());
        assert_eq!(ahead.agreeing(&[&sent]).await.len(), 1);
        assert!(ahead.agreeing(&[&sent]).await.is_empty());
        let mut forgotten = ReadAhead::start(read());
        forgotten.forget();
        assert!(forgotten.agreeing(&[&sent]).await.is_empty());
        let mut old = ReadAhead::keeping(Duration::ZERO, read());
        while Arc::strong_count(&old.tables) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(old.agreeing(&[&sent]).await.is_empty());
        let mut slow = ReadAhead::start(std::future::pending());
        assert!(slow.agreeing(&[&sent]).await.is_empty());
    }
}
