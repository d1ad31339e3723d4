//! What the source says its tables look like, as the stream itself tells it.
//!
//! pgoutput names a table once, in a Relation message before its first change, and again after
//! every change of its definition. Changes then carry only the table's number. An entry is
//! therefore replaced, never edited: changes already on their way keep the definition under which
//! they were written (`Arc`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::RelationId;

/// Which old values the source writes for an update or delete (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: nothing.
    Nothing,
    /// `f`: all columns.
    Full,
    /// `i`: the columns of a chosen unique index.
    Index,
}

/// A published table at one moment of its history (Relation message, manual 55.9).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// The number by which changes refer to the table: its OID on the source.
    pub id: RelationId,
    /// The schema's name, unquoted.
    pub schema: String,
    /// The table's name, unquoted.
    pub name: String,
    /// Which old values updates and deletes carry.
    pub replica_identity: ReplicaIdentity,
    /// The published columns in the order of every tuple. Generated columns are not among them.
    pub columns: Vec<RelationColumn>,
}

/// One column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelationColumn {
    /// The column's name, unquoted.
    pub name: String,
    /// The OID of its type on the source; only built-in types have the same OID elsewhere.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, -1 for none.
    pub type_modifier: i32,
    /// Whether it is part of the replica identity. Under `Full` every column is.
    pub is_key: bool,
}

impl Relation {
    /// Rough memory of this entry, for byte budgets.
    pub(crate) fn memory_bytes(&self) -> usize {
        let column = |c: &RelationColumn| size_of::<RelationColumn>() + c.name.len();
        let columns: usize = self.columns.iter().map(column).sum();
        size_of::<Self>() + self.schema.len() + self.name.len() + columns
    }
}

/// The tables known on one stream, newest definition each.
///
/// Its size is bounded by the number of published tables; it lives as long as the connection,
/// because the server forgets what it has told when the connection ends.
#[derive(Debug, Default)]
pub struct RelationCache {
    by_id: HashMap<RelationId, Arc<Relation>>,
}

impl RelationCache {
    /// Takes a Relation message: from now on, changes of this table have this definition.
    pub fn insert(&mut self, relation: Relation) {
        self.share(Arc::new(relation));
    }

    /// Like [`insert`](Self::insert). An equal entry stays as it is: the server repeats itself
    /// after every invalidation, and users that keep plans per `Arc` then need no new plan.
    pub(crate) fn share(&mut self, relation: Arc<Relation>) {
        let same = self
            .by_id
            .get(&relation.id)
            .is_some_and(|known| *known == relation);
        if !same {
            self.by_id.insert(relation.id, relation);
        }
    }

    /// The newest definition of a table, if the stream has told it.
    pub fn get(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.by_id.get(&id)
    }

    /// The entry equal to `relation` if there is one, else a new `Arc` of it (not inserted).
    pub(crate) fn shared(&self, relation: Relation) -> Arc<Relation> {
        match self.by_id.get(&relation.id) {
            Some(known) if **known == relation => Arc::clone(known),
            _ => Arc::new(relation),
        }
    }

    /// Takes every entry of `other`, which are newer.
    pub(crate) fn merge(&mut self, other: Self) {
        other
            .by_id
            .into_values()
            .for_each(|relation| self.share(relation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Relation {
        Relation {
            id: RelationId(7),
            schema: "public".into(),
            name: name.into(),
            replica_identity: ReplicaIdentity::Default,
            columns: Vec::new(),
        }
    }

    #[test]
    fn a_new_definition_replaces_the_entry_and_leaves_changes_in_flight_alone() {
        let mut cache = RelationCache::default();
        cache.insert(table("before"));
        let in_flight = Arc::clone(cache.get(RelationId(7)).unwrap());
        cache.insert(table("after"));
        assert_eq!(in_flight.name, "before");
        assert_eq!(cache.get(RelationId(7)).unwrap().name, "after");
        assert!(cache.get(RelationId(8)).is_none());
    }

    #[test]
    fn a_repeated_definition_keeps_its_arc() {
        let mut cache = RelationCache::default();
        cache.insert(table("same"));
        let first = Arc::clone(cache.get(RelationId(7)).unwrap());
        cache.insert(table("same"));
        assert!(Arc::ptr_eq(&first, cache.get(RelationId(7)).unwrap()));
        assert!(Arc::ptr_eq(&first, &cache.shared(table("same"))));
    }
}
