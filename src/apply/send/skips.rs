//! What a person lets go by on one link.

use crate::assemble::{Change, Piece};
use crate::lsn::Lsn;
use crate::relation::Relation;

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Where the transaction commits, in the source's WAL.
    pub commit: Lsn,
    /// `schema.table`; the whole transaction where there is none.
    pub table: Option<String>,
}

/// What is let go by on one link.
#[derive(Debug, Clone, Default)]
pub struct Skips {
    wishes: Vec<Skip>,
    /// How many changes of the open transaction were let go by.
    pub(in crate::apply) done: u64,
}

impl Skips {
    /// From what was asked for.
    pub fn new(wishes: Vec<Skip>) -> Self {
        Self { wishes, done: 0 }
    }

    /// Where the last of these transactions commits.
    pub fn until(&self) -> Option<Lsn> {
        self.wishes.iter().map(|skip| skip.commit).max()
    }

    /// Whether something of the transaction is let go by.
    pub(in crate::apply) fn concerns(&self, commit: Lsn) -> bool {
        self.wishes.iter().any(|skip| skip.commit == commit)
    }

    /// Whether nothing of the transaction is left to apply.
    pub(in crate::apply) fn covers_all(&self, piece: &Piece) -> bool {
        let commit = piece.header.final_lsn;
        let is_whole = piece.first && piece.end.is_some();
        let gone = |change: &Change| match change {
            Change::Truncate { relations, .. } => {
                relations.iter().all(|table| self.covers(commit, table))
            }
            _ => change
                .relation()
                .is_none_or(|table| self.covers(commit, table)),
        };
        is_whole && self.concerns(commit) && piece.changes.iter().all(gone)
    }

    /// Whether changes of the table are.
    pub(in crate::apply) fn covers(&self, commit: Lsn, relation: &Relation) -> bool {
        let is_it = |table: &String| *table == format!("{}.{}", relation.schema, relation.name);
        let mut wishes = self.wishes.iter().filter(|skip| skip.commit == commit);
        wishes.any(|skip| skip.table.as_ref().is_none_or(is_it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RelationId;
    use crate::relation::ReplicaIdentity;

    fn relation(name: &str) -> Relation {
        Relation {
            id: RelationId(1),
            schema: "public".to_owned(),
            name: name.to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: Vec::new(),
        }
    }

    #[test]
    fn a_table_of_one_transaction_is_let_by() {
        let skips = Skips::new(vec![Skip {
            commit: Lsn::new(7),
            table: Some("public.t".to_owned()),
        }]);
        assert!(skips.covers(Lsn::new(7), &relation("t")));
        assert!(!skips.covers(Lsn::new(7), &relation("u")));
        assert!(!skips.covers(Lsn::new(8), &relation("t")));
        assert_eq!(skips.until(), Some(Lsn::new(7)));
    }

    #[test]
    fn without_a_table_all_of_it_is() {
        let skips = Skips::new(vec![Skip {
            commit: Lsn::new(7),
            table: None,
        }]);
        assert!(skips.covers(Lsn::new(7), &relation("t")));
        assert!(!skips.concerns(Lsn::new(8)));
    }
}
