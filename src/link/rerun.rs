//! Which of the changes that are read once more are written. Pure.
//!
//! What came from elsewhere was left out and is written now, but for what an earlier attempt has
//! written. What the source itself wrote is there already; yet where it wrote the very row later,
//! the row is the older one once the write from elsewhere is made up for: among the changes of one
//! source the stream decides, not the time. So from there on it is written again, in order. Where
//! a trigger gives each write of a row a version of its own, those decide; counters must not be
//! written twice. Nor may rows without a key: where the source changed or removed such rows after
//! others wrote there, nobody knows whether it was theirs, and the table is named.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::conflict::{Rule, Rules};
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::pgoutput::{Message, OldImage, Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

/// Most keys that are remembered; with more the whole tables count as written.
const TOUCHED_MAX: usize = 1_000_000;

/// The names of key columns, by schema and name of their table.
pub(super) type Keys = HashMap<(String, String), Vec<String>>;

/// How a table's rows are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// By columns at these places; the later write of one source stays.
    Keyed(Vec<usize>),
    /// By columns, too, but each write has a version of its own.
    Versioned,
    /// Not at all.
    Keyless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Here,
    Elsewhere,
    /// Part of it was left out, and nobody knows which.
    Both,
    Cluster,
}

/// Two hashes of a key. Among a million keys two that differ have both alike with a chance of one
/// in 2^88.
type KeyHash = (u64, u64);

/// Follows one reading of the WAL.
pub(super) struct Rerun {
    /// What the names of the cluster's own origins begin with.
    ours: String,
    rules: Rules,
    all_keys: Keys,
    /// What commits before this was written by an earlier attempt.
    written_up_to: Lsn,
    /// Transactions that say that they were written here, of which a part was left out.
    mixed: HashSet<u32>,
    /// Whose transaction is being read, and where it commits.
    writer: Writer,
    commits_at: Lsn,
    tables: HashMap<RelationId, (Kind, (String, String))>,
    /// Rows that are written from here on, whoever changes them.
    touched: HashSet<(RelationId, KeyHash)>,
    /// Tables in which others have written.
    visited: HashSet<RelationId>,
    /// Tables of which every row is written from here on.
    whole: HashSet<RelationId>,
    /// Tables that may differ now.
    unsure: BTreeSet<(String, String)>,
}

impl Rerun {
    /// Begins to read. `keys`: of the target's tables.
    pub(super) fn new(ours: String, (rules, all_keys): (Rules, Keys), written_up_to: Lsn) -> Self {
        Self {
            ours,
            rules,
            all_keys,
            written_up_to,
            mixed: HashSet::new(),
            writer: Writer::Here,
            commits_at: Lsn::ZERO,
            tables: HashMap::new(),
            touched: HashSet::new(),
            visited: HashSet::new(),
            whole: HashSet::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// Transactions of these numbers are written, as far as it is no harm to write twice.
    pub(super) fn with_mixed(mut self, mixed: HashSet<u32>) -> Self {
        self.mixed = mixed;
        self
    }

    /// Tables without a key in which the source may have changed what others wrote.
    pub(super) fn unsure(&self) -> &BTreeSet<(String, String)> {
        &self.unsure
    }

    /// The message, if it is one of those that are written, or tells how to read them.
    pub(super) fn take(&mut self, message: Message) -> Option<Message> {
        match &message {
            Message::Begin { final_lsn, xid, .. } => {
                let is_mixed = self.mixed.contains(xid);
                self.writer = if is_mixed { Writer::Both } else { Writer::Here };
                self.commits_at = *final_lsn;
            }
            Message::Origin { name, .. } if name.starts_with(&self.ours) => {
                self.writer = Writer::Cluster;
            }
            Message::Origin { .. } => self.writer = Writer::Elsewhere,
            Message::Relation(described) => self.describe(&described.relation),
            _ => return self.change(message),
        }
        Some(message)
    }

    fn change(&mut self, message: Message) -> Option<Message> {
        let is_missing = match &message {
            Message::Insert { relation, new, .. } => self.row(*relation, &[new], true),
            Message::Update {
                relation, old, new, ..
            } => {
                let old = old.as_ref().map(OldImage::tuple);
                let both: Vec<&Tuple> = old.into_iter().chain([new]).collect();
                self.row(*relation, &both, false)
            }
            Message::Delete { relation, old, .. } => self.row(*relation, &[old.tuple()], false),
            Message::Logical(logical) if logical.transactional => self.writer == Writer::Elsewhere,
            Message::Truncate { .. } => return self.truncate(message),
            _ => return Some(message),
        };
        (is_missing && !self.is_written()).then_some(message)
    }

    fn is_written(&self) -> bool {
        self.commits_at < self.written_up_to
    }

    fn describe(&mut self, relation: &Relation) {
        let name = (relation.schema.clone(), relation.name.clone());
        let kind = self.kind_of(relation, self.all_keys.get(&name));
        self.tables.insert(relation.id, (kind, name));
    }

    /// Under REPLICA IDENTITY FULL the stream does not say which columns are the key.
    fn kind_of(&self, relation: &Relation, key: Option<&Vec<String>>) -> Kind {
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return Kind::Keyless;
        };
        let is_full = relation.replica_identity == ReplicaIdentity::Full;
        let is_key = |column: &RelationColumn| {
            if is_full {
                key.contains(&column.name)
            } else {
                column.is_key
            }
        };
        let columns = relation.columns.iter().enumerate();
        let places = columns.filter_map(|(place, column)| is_key(column).then_some(place));
        match self.rules.of(&relation.schema, &relation.name, true) {
            Rule::LastWriteWins | Rule::VersionColumn(_) => Kind::Keyed(places.collect()),
            _ => Kind::Versioned,
        }
    }

    /// Whether a change of rows with these images is to be written.
    fn row(&mut self, relation: RelationId, images: &[&Tuple], is_insert: bool) -> bool {
        let Some((kind, name)) = self.tables.get(&relation) else {
            return matches!(self.writer, Writer::Elsewhere | Writer::Both);
        };
        let keys: Vec<(RelationId, KeyHash)> = match kind {
            Kind::Keyed(places) => {
                let key = |image: &&Tuple| (relation, hash_of(image, places));
                images.iter().map(key).collect()
            }
            Kind::Versioned | Kind::Keyless => Vec::new(),
        };
        match self.writer {
            Writer::Cluster => false,
            Writer::Both if !matches!(kind, Kind::Keyed(_)) => {
                self.unsure.insert(name.clone());
                false
            }
            Writer::Elsewhere | Writer::Both => {
                self.visited.insert(relation);
                self.touch(relation, keys);
                true
            }
            Writer::Here => {
                if *kind == Kind::Keyless && !is_insert && self.visited.contains(&relation) {
                    self.unsure.insert(name.clone());
                }
                let again = self.whole.contains(&relation) && !keys.is_empty()
                    || keys.iter().any(|key| self.touched.contains(key));
                if again {
                    self.touch(relation, keys);
                }
                again
            }
        }
    }

    fn touch(&mut self, relation: RelationId, keys: Vec<(RelationId, KeyHash)>) {
        if self.touched.len() >= TOUCHED_MAX {
            self.whole.insert(relation);
        } else {
            self.touched.extend(keys);
        }
    }

    /// Of a TRUNCATE of several tables those are emptied again that others have written to. What
    /// follows there is written again.
    fn truncate(&mut self, mut message: Message) -> Option<Message> {
        let Message::Truncate { relations, .. } = &mut message else {
            return None;
        };
        match self.writer {
            Writer::Cluster => return None,
            Writer::Elsewhere | Writer::Both => {}
            Writer::Here => relations.retain(|table| self.visited.contains(table)),
        }
        let is_keyed = |table: &RelationId| {
            let kind = self.tables.get(table).map(|(kind, _)| kind);
            matches!(kind, Some(Kind::Keyed(_)))
        };
        // Rows that are inserted afterwards, without a key or with versions, are not written again.
        let others = relations.iter().filter(|table| !is_keyed(table));
        let others = others.filter_map(|table| self.tables.get(table));
        self.unsure.extend(others.map(|(_, name)| name.clone()));
        relations.retain(is_keyed);
        self.visited.extend(&*relations);
        self.whole.extend(&*relations);
        (!relations.is_empty() && !self.is_written()).then_some(message)
    }
}

fn hash_of(image: &Tuple, places: &[usize]) -> KeyHash {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        for place in places {
            image
                .0
                .get(*place)
                .unwrap_or(&Value::Null)
                .hash(&mut hasher);
        }
        hasher.finish()
    };
    (half(0), half(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;
    use crate::pgoutput::{LogicalMessage, RelationMessage};

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
        rerun.take(Message::Begin {
            final_lsn: commits_at,
            commit_time: CommitTime::default(),
            xid: 1,
        });
        if !by.is_empty() {
            rerun.take(Message::Origin {
                lsn: Lsn::ZERO,
                name: by.to_owned(),
            });
        }
        let takes = |change: &Message| rerun.take(change.clone()).is_some();
        changes.iter().map(takes).collect()
    }

    fn rerun(rules: Rules, identity: ReplicaIdentity, key: &[&str]) -> Rerun {
        let key = key.iter().map(|name| (*name).to_owned()).collect();
        let keys = Keys::from([(("public".to_owned(), "t".to_owned()), key)]);
        let mut rerun = Rerun::new("mmrepl_shop_".to_owned(), (rules, keys), Lsn::new(15));
        rerun.take(table(identity));
        rerun
    }

    fn names(rerun: &Rerun) -> Vec<&str> {
        rerun.unsure().iter().map(|(_, name)| &**name).collect()
    }

    #[test]
    fn rows_that_came_from_elsewhere_are_written_with_what_follows_on_them() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default, &["id"]);
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
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default, &["id"]);
        assert_eq!(
            read(&mut rerun, (2, ""), &[truncate(), insert("1")]),
            [false, false]
        );
        assert_eq!(read(&mut rerun, (3, "legacy"), &[truncate()]), [true]);
        assert_eq!(read(&mut rerun, (4, ""), &[insert("9")]), [true]);
    }

    #[test]
    fn a_truncate_that_goes_again_is_followed_by_what_was_inserted() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default, &["id"]);
        read(&mut rerun, (2, "legacy"), &[insert("1")]);
        let own = [truncate(), insert("5")];
        assert_eq!(read(&mut rerun, (3, ""), &own), [true, true]);
    }

    #[test]
    fn messages_of_the_application_go_with_what_came_from_elsewhere_only() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Default, &["id"]);
        let message = Message::Logical(LogicalMessage {
            xid: None,
            transactional: true,
            lsn: Lsn::ZERO,
            prefix: "app".to_owned(),
            content: "x".into(),
        });
        let message = [message];
        assert_eq!(read(&mut rerun, (1, "legacy"), &message), [false]);
        assert_eq!(read(&mut rerun, (2, ""), &message), [false]);
        assert_eq!(read(&mut rerun, (3, "legacy"), &message), [true]);
    }

    #[test]
    fn a_key_under_replica_identity_full_is_a_key() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Full, &["id"]);
        assert_eq!(read(&mut rerun, (2, "legacy"), &[insert("1")]), [true]);
        assert_eq!(
            read(&mut rerun, (3, ""), &[insert("1"), insert("2")]),
            [true, false]
        );
        assert!(rerun.unsure().is_empty());
    }

    #[test]
    fn rows_with_versions_are_not_written_twice() {
        let clocked = Rules {
            default: Rule::HybridClock,
            ..Rules::default()
        };
        let mut rerun = rerun(clocked, ReplicaIdentity::Default, &["id"]);
        assert_eq!(read(&mut rerun, (2, "legacy"), &[insert("1")]), [true]);
        assert_eq!(read(&mut rerun, (3, ""), &[insert("1")]), [false]);
    }

    #[test]
    fn a_table_without_a_key_is_named_where_it_may_differ() {
        let mut rerun = rerun(Rules::default(), ReplicaIdentity::Full, &[]);
        assert_eq!(read(&mut rerun, (2, ""), &[renumber("7", "8")]), [false]);
        assert_eq!(read(&mut rerun, (3, "legacy"), &[insert("1")]), [true]);
        assert_eq!(read(&mut rerun, (4, ""), &[insert("1")]), [false]);
        assert!(rerun.unsure().is_empty());
        assert_eq!(read(&mut rerun, (5, ""), &[renumber("1", "2")]), [false]);
        assert_eq!(names(&rerun), ["t"]);
    }
}
