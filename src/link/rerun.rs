//! Which of the changes that are read once more are written. Pure.
//!
//! What came from elsewhere was left out and is written now, but for what an earlier attempt has
//! written. What the source itself wrote is there already; yet where it wrote the very row later,
//! the row is the older one once the write from elsewhere is made up for: among the changes of one
//! source the stream decides, not the time. So from there on it is written again, in order. Where
//! rows carry versions, those decide; rows without a key and counters must not be written twice.

use std::collections::{HashMap, HashSet};

use crate::conflict::{Rule, Rules};
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::pgoutput::{Message, OldImage, Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

/// Follows one reading of the WAL.
pub(super) struct Rerun {
    /// What the names of the cluster's own origins begin with.
    ours: String,
    rules: Rules,
    /// What commits before this was written by an earlier attempt.
    written_up_to: Lsn,
    /// Whose transaction is being read.
    writer: Writer,
    /// Where the keys of tables are whose rows may be written again.
    keys: HashMap<RelationId, Vec<usize>>,
    touched: HashSet<(RelationId, Vec<Value>)>,
    emptied: HashSet<RelationId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Here,
    Elsewhere,
    Cluster,
}

impl Rerun {
    /// Begins to read.
    pub(super) fn new(ours: String, rules: Rules, written_up_to: Lsn) -> Self {
        Self {
            ours,
            rules,
            written_up_to,
            writer: Writer::Here,
            keys: HashMap::new(),
            touched: HashSet::new(),
            emptied: HashSet::new(),
        }
    }

    /// Whether the message is one of those that are written, or tells how to read them.
    /// `commits_at`: where the transaction in hand commits.
    pub(super) fn takes(&mut self, message: &Message, commits_at: Lsn) -> bool {
        match message {
            Message::Begin { .. } => self.writer = Writer::Here,
            Message::Origin { name, .. } if name.starts_with(&self.ours) => {
                self.writer = Writer::Cluster;
            }
            Message::Origin { .. } => self.writer = Writer::Elsewhere,
            Message::Relation(described) => self.describe(&described.relation),
            _ => {
                return !is_change(message) || self.change(message) && !self.is_written(commits_at);
            }
        }
        true
    }

    fn is_written(&self, commits_at: Lsn) -> bool {
        commits_at < self.written_up_to
    }

    /// Whether a change is missing, or older than one that is missing was.
    fn change(&mut self, message: &Message) -> bool {
        match message {
            Message::Insert { relation, new, .. } => self.row(*relation, &[new]),
            Message::Update {
                relation, old, new, ..
            } => {
                let old = old.as_ref().map(OldImage::tuple);
                let both: Vec<&Tuple> = old.into_iter().chain([new]).collect();
                self.row(*relation, &both)
            }
            Message::Delete { relation, old, .. } => self.row(*relation, &[old.tuple()]),
            Message::Truncate { relations, .. } => self.truncate(relations),
            _ => false,
        }
    }

    fn describe(&mut self, relation: &Relation) {
        let rule = self.rules.of(&relation.schema, &relation.name, true);
        let has_key = relation.replica_identity != ReplicaIdentity::Full;
        let is_key = |(index, column): (usize, &RelationColumn)| column.is_key.then_some(index);
        let key: Vec<usize> = relation
            .columns
            .iter()
            .enumerate()
            .filter_map(is_key)
            .collect();
        if *rule == Rule::LastWriteWins && has_key && !key.is_empty() {
            self.keys.insert(relation.id, key);
        } else {
            self.keys.remove(&relation.id);
        }
    }

    /// A change that left the table with rows of these keys, or without.
    fn row(&mut self, relation: RelationId, images: &[&Tuple]) -> bool {
        let keys: Vec<_> = match self.keys.get(&relation) {
            Some(places) => {
                let key = |image: &&Tuple| (relation, key_of(image, places));
                images.iter().map(key).collect()
            }
            None => Vec::new(),
        };
        match self.writer {
            Writer::Cluster => false,
            Writer::Elsewhere => {
                self.touched.extend(keys);
                true
            }
            Writer::Here => {
                let again = self.keys.contains_key(&relation) && self.emptied.contains(&relation)
                    || keys.iter().any(|key| self.touched.contains(key));
                if again {
                    self.touched.extend(keys);
                }
                again
            }
        }
    }

    fn truncate(&mut self, relations: &[RelationId]) -> bool {
        match self.writer {
            Writer::Cluster => false,
            Writer::Elsewhere => {
                self.emptied.extend(relations);
                true
            }
            Writer::Here => {
                let touched = |id: &RelationId| {
                    self.emptied.contains(id) || self.touched.iter().any(|(table, _)| table == id)
                };
                relations.iter().any(touched)
            }
        }
    }
}

fn is_change(message: &Message) -> bool {
    matches!(
        message,
        Message::Insert { .. }
            | Message::Update { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. }
    )
}

fn key_of(image: &Tuple, places: &[usize]) -> Vec<Value> {
    let value = |place: &usize| image.0.get(*place).cloned().unwrap_or(Value::Null);
    places.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;
    use crate::pgoutput::RelationMessage;

    const TABLE: RelationId = RelationId(1);

    fn table(replica_identity: ReplicaIdentity) -> Message {
        let column = |name: &str, is_key| RelationColumn {
            name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
            is_key,
        };
        Message::Relation(RelationMessage {
            xid: None,
            relation: Relation {
                id: TABLE,
                schema: "public".to_owned(),
                name: "t".to_owned(),
                replica_identity,
                columns: vec![column("id", true), column("v", false)],
            },
        })
    }

    fn row(id: &str) -> Tuple {
        vec![Value::Text(id.to_owned().into()), Value::Null].into()
    }

    fn insert(id: &str) -> Message {
        Message::Insert {
            xid: None,
            relation: TABLE,
            new: row(id),
        }
    }

    fn renumber(from: &str, to: &str) -> Message {
        Message::Update {
            xid: None,
            relation: TABLE,
            old: Some(OldImage::Key(row(from))),
            new: row(to),
        }
    }

    fn truncate() -> Message {
        Message::Truncate {
            xid: None,
            relations: vec![TABLE],
            cascade: false,
            restart_identity: false,
        }
    }

    /// Reads a transaction that commits at 10 · `number`; gives whether its changes are written.
    fn read(rerun: &mut Rerun, (number, by): (u64, &str), changes: &[Message]) -> Vec<bool> {
        let commits_at = Lsn::new(number * 10);
        let begin = Message::Begin {
            final_lsn: commits_at,
            commit_time: CommitTime::default(),
            xid: 1,
        };
        rerun.takes(&begin, commits_at);
        if !by.is_empty() {
            let origin = Message::Origin {
                lsn: Lsn::ZERO,
                name: by.to_owned(),
            };
            rerun.takes(&origin, commits_at);
        }
        let takes = |change| rerun.takes(change, commits_at);
        changes.iter().map(takes).collect()
    }

    fn rerun(rules: Rules, identity: ReplicaIdentity) -> Rerun {
        let mut rerun = Rerun::new("mmrepl_shop_".to_owned(), rules, Lsn::new(15));
        rerun.takes(&table(identity), Lsn::ZERO);
        rerun
    }

    #[test]
    fn rows_that_came_from_elsewhere_are_written_with_what_follows_on_them() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default);
        assert_eq!(read(&mut rerun, (1, "legacy"), &[insert("1")]), [false]);
        assert_eq!(
            read(&mut rerun, (2, ""), &[insert("1"), insert("2")]),
            [true, false]
        );
        assert_eq!(read(&mut rerun, (3, "legacy"), &[insert("2")]), [true]);
        assert_eq!(
            read(&mut rerun, (4, "mmrepl_shop_west"), &[insert("2")]),
            [false]
        );
        let moved = [renumber("2", "3"), insert("3"), insert("4")];
        assert_eq!(read(&mut rerun, (5, ""), &moved), [true, true, false]);
        assert_eq!(read(&mut rerun, (6, ""), &[truncate()]), [true]);
    }

    #[test]
    fn what_follows_a_truncate_from_elsewhere_is_written() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default);
        assert_eq!(
            read(&mut rerun, (2, ""), &[truncate(), insert("1")]),
            [false, false]
        );
        assert_eq!(read(&mut rerun, (3, "legacy"), &[truncate()]), [true]);
        assert_eq!(read(&mut rerun, (4, ""), &[insert("9")]), [true]);
    }

    #[test]
    fn rows_without_a_key_and_rows_with_versions_are_not_written_twice() {
        let clocked = Rules {
            default: Rule::HybridClock,
            ..Rules::default()
        };
        let both = [
            (Rules::default(), ReplicaIdentity::Full),
            (clocked, ReplicaIdentity::Default),
        ];
        for (rules, identity) in both {
            let mut rerun = rerun(rules, identity);
            assert_eq!(read(&mut rerun, (2, "legacy"), &[insert("1")]), [true]);
            assert_eq!(read(&mut rerun, (3, ""), &[insert("1")]), [false]);
        }
    }
}
