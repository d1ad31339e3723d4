//! The net change of a group equals its changes one after the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::{Strategy, prop, prop_assert_eq, prop_oneof, proptest};

use crate::apply::plan::change::{Entry, RowChange, Stamp};
use crate::apply::plan::group::{GroupBuilder, Segment, entries_of};
use crate::apply::plan::touched::Touched;
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::shape::versions::Versions;
use crate::apply::target::statement::Target;
use crate::assemble::Change;
use crate::catalog::key_form::KeyForm;
use crate::catalog::table::{Column, Key, KeyColumn, Table};
use crate::catalog::unique::{Unique, UniquePart, Uniques};
use crate::commit_time::CommitTime;
use crate::conflict::Rule;
use crate::ids::RelationId;
use crate::pgoutput::{OldImage, Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

/// Key → (small value, large value) on the target.
type Rows = BTreeMap<u8, (u8, u8)>;

/// A table `t (id, small, large)`.
fn target() -> Arc<Target> {
    target_with(Rule::default(), |_| {})
}

/// The same under a rule, and changed.
fn target_with(rule: Rule, change: impl FnOnce(&mut Table)) -> Arc<Target> {
    let column = |name: &str| Column {
        name: name.to_owned(),
        type_name: "integer".to_owned(),
        cast_type: Some("integer".to_owned()),
        type_oid: 23,
        not_null: false,
        has_default: false,
        generated: false,
        identity_always: false,
        base_type: (0, -1),
        is_bare_byte: false,
    };
    let sent = |name: &str| RelationColumn {
        name: name.to_owned(),
        type_oid: 23,
        type_modifier: -1,
        is_key: name == "id",
    };
    let names = ["id", "small", "large"];
    let key = KeyColumn {
        name: "id".to_owned(),
        type_name: "integer".to_owned(),
        equality: "OPERATOR(pg_catalog.=)".to_owned(),
        form: KeyForm::Cast,
    };
    let mut table = Table {
        oid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        partitioned: false,
        is_partition: false,
        replica_identity: 'd',
        columns: names.map(column).to_vec(),
        can_skip_duplicates: true,
        uniques: Uniques::default(),
        indexed: Vec::new(),
        key: Some(Key {
            index: "t_pkey".to_owned(),
            columns: vec![key],
            primary: true,
            deferrable: false,
        }),
    };
    change(&mut table);
    let relation = Arc::new(Relation {
        id: RelationId(7),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: match table.key {
            Some(_) => ReplicaIdentity::Default,
            None => ReplicaIdentity::Full,
        },
        columns: names.map(sent).to_vec(),
    });
    let map = TableMap::new(relation, Some(table), "west").unwrap();
    let versions = Versions::new(rule, "east".parse().unwrap(), &map).unwrap();
    Arc::new(Target::new(
        map,
        Guard {
            origin: 1,
            stronger: vec![],
            others: vec![],
            again: vec![],
            pair: true,
        },
        vec![],
        versions,
    ))
}

/// The same without a key.
pub(in crate::apply) fn keyless() -> Arc<Target> {
    target_with(Rule::default(), |table| table.key = None)
}

fn at(micros: i64) -> Stamp {
    Stamp {
        time: CommitTime::from_postgres_micros(micros),
        seen: Arc::default(),
        delete_clock: None,
    }
}

fn text(number: u8) -> Value {
    Value::Text(Bytes::from(number.to_string()))
}

fn number(value: &Value) -> u8 {
    let bytes = value.as_bytes().expect("test values are text");
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// What an application did to one row.
#[derive(Debug, Clone)]
enum Act {
    Insert(u8, u8, u8),
    Update(u8, u8, Option<u8>),
    Move(u8, u8),
    Delete(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0..4u8;
    prop_oneof![
        (key.clone(), 0..9u8, 0..9u8).prop_map(|(k, s, l)| Act::Insert(k, s, l)),
        (key.clone(), 0..9u8, prop::option::of(0..9u8)).prop_map(|(k, s, l)| Act::Update(k, s, l)),
        (key.clone(), key.clone()).prop_map(|(from, to)| Act::Move(from, to)),
        key.prop_map(Act::Delete),
    ]
}

/// Plays an act on the source; what is not possible there does not happen.
fn play(rows: &mut Rows, act: &Act, relation: &Arc<Relation>) -> Option<Change> {
    let relation = Arc::clone(relation);
    let key_image = |key: u8| OldImage::Key(Tuple::from(vec![text(key), Value::Null, Value::Null]));
    match *act {
        Act::Insert(key, small, large) if !rows.contains_key(&key) => {
            rows.insert(key, (small, large));
            Some(Change::Insert {
                relation,
                new: Tuple::from(vec![text(key), text(small), text(large)]),
            })
        }
        Act::Update(key, small, large) => {
            let row = rows.get_mut(&key)?;
            *row = (small, large.unwrap_or(row.1));
            let large = large.map_or(Value::Unchanged, text);
            let new = Tuple::from(vec![text(key), text(small), large]);
            Some(Change::Update {
                relation,
                old: None,
                new,
            })
        }
        Act::Move(from, to) if from != to && !rows.contains_key(&to) => {
            let row = rows.remove(&from)?;
            rows.insert(to, row);
            let new = Tuple::from(vec![text(to), text(row.0), Value::Unchanged]);
            Some(Change::Update {
                relation,
                old: Some(key_image(from)),
                new,
            })
        }
        Act::Delete(key) => {
            rows.remove(&key)?;
            Some(Change::Delete {
                relation,
                old: key_image(key),
            })
        }
        Act::Insert(..) | Act::Move(..) => None,
    }
}

/// Applies an entry as the executor does; a missing large value comes from the row it belongs to,
/// else from the source as it is in the end.
fn write(rows: &mut Rows, entry: &Entry, source: &Rows) {
    let Entry::Row(row) = entry else {
        panic!("the table has a key")
    };
    let key = std::str::from_utf8(&row.key[0]).unwrap().parse().unwrap();
    match &row.op {
        RowOp::Delete(_) => {
            rows.remove(&key);
        }
        RowOp::Put(Put { values, moved, .. }) => {
            let kept = rows.get(&key).filter(|_| !moved).map(|row| row.1);
            let large = match &values.0[2] {
                Value::Unchanged => kept.or_else(|| source.get(&key).map(|row| row.1)),
                value => Some(number(value)),
            };
            // A row that the source no longer has is left to the delete that follows.
            if let Some(large) = large {
                rows.insert(key, (number(&values.0[1]), large));
            }
        }
    }
}

proptest! {
    #[test]
    fn net_changes_end_where_single_changes_end(
        before in prop::collection::vec(act(), 0..8),
        acts in prop::collection::vec(act(), 0..24),
    ) {
        let target = target();
        let relation = &target.map.relation;
        let mut source = Rows::new();
        for act in &before {
            play(&mut source, act, relation);
        }
        let start = source.clone();
        let changes: Vec<Change> =
            acts.iter().filter_map(|act| play(&mut source, act, relation)).collect();

        let mut builder = GroupBuilder::default();
        let mut single = start.clone();
        for change in &changes {
            builder.row(change, &target, &at(0)).unwrap();
            for entry in entries_of(change, &target, &at(0)).unwrap() {
                write(&mut single, &entry, &source);
            }
        }
        let mut grouped = start;
        for segment in builder.finish() {
            let Segment::Rows(entries) = segment else { panic!("no truncate was made") };
            for entry in &entries {
                write(&mut grouped, entry, &source);
                let row = entry.row().expect("the table has a key");
                let apart = row.one_by_one().into_iter().map(Cow::into_owned);
                let again = RowChange::together(apart).expect("at least one");
                prop_assert_eq!(&again.op, &row.op);
            }
        }
        prop_assert_eq!(&grouped, &source);
        prop_assert_eq!(&single, &source);
    }
}

#[test]
fn a_row_written_five_times_is_written_once() {
    let target = target();
    let mut builder = GroupBuilder::default();
    let mut rows = Rows::from([(1, (0, 0))]);
    for small in 1..=5 {
        let change = play(
            &mut rows,
            &Act::Update(1, small, None),
            &target.map.relation,
        )
        .unwrap();
        builder.row(&change, &target, &at(small.into())).unwrap();
    }
    let segments = builder.finish();
    let [Segment::Rows(entries)] = segments.as_slice() else {
        panic!("one segment")
    };
    let [Entry::Row(row)] = entries.as_slice() else {
        panic!("one entry")
    };
    assert_eq!(row.time, CommitTime::from_postgres_micros(5));
}

/// What comes of a row that was updated and deleted, inserted before unless it was `there`.
pub(in crate::apply) fn gone_again(there: bool) -> Vec<Entry> {
    let target = target();
    let mut builder = GroupBuilder::default();
    let mut rows = Rows::new();
    if there {
        rows.insert(1, (0, 0));
    }
    let acts = [
        Act::Insert(1, 1, 1),
        Act::Update(1, 2, None),
        Act::Delete(1),
    ];
    for act in &acts {
        if let Some(change) = play(&mut rows, act, &target.map.relation) {
            builder.row(&change, &target, &at(0)).unwrap();
        }
    }
    match builder.finish().pop() {
        Some(Segment::Rows(entries)) => entries,
        other => panic!("rows: {other:?}"),
    }
}

#[test]
fn a_truncate_separates_what_came_before_from_what_follows() {
    let target = target();
    let mut builder = GroupBuilder::default();
    let relation = &target.map.relation;
    let insert = |rows: &mut Rows| play(rows, &Act::Insert(1, 1, 1), relation).unwrap();
    builder
        .row(&insert(&mut Rows::new()), &target, &at(0))
        .unwrap();
    builder.truncate(vec![Arc::clone(&target)], at(0));
    builder
        .row(&insert(&mut Rows::new()), &target, &at(0))
        .unwrap();
    let kinds: Vec<bool> = builder
        .finish()
        .iter()
        .map(|segment| matches!(segment, Segment::Rows(_)))
        .collect();
    assert_eq!(kinds, [true, false, true]);
}

/// What a group of these acts touches, on the rows that `before` has made.
fn touched(target: &Arc<Target>, acts: &[Act]) -> Touched {
    let mut rows = Rows::from([(1, (0, 0)), (2, (0, 0))]);
    let mut builder = GroupBuilder::default();
    for act in acts {
        let change = play(&mut rows, act, &target.map.relation).unwrap();
        builder.row(&change, target, &at(0)).unwrap();
    }
    Touched::of(&builder.finish())
}

#[test]
fn groups_meet_in_the_keys_they_write() {
    let (t, other) = (
        target(),
        target_with(Rule::default(), |table| table.oid = 2),
    );
    let update = touched(&t, &[Act::Update(1, 5, None), Act::Update(2, 5, None)]);
    assert!(update.meets(&touched(&t, &[Act::Insert(3, 0, 0), Act::Delete(2)])));
    assert!(!update.meets(&touched(&t, &[Act::Insert(3, 0, 0)])));
    assert!(!update.meets(&touched(&other, &[Act::Delete(2)])));
    assert!(!update.meets(&touched(&t, &[])));
    // A row that moves leaves one key and takes another.
    let moves = touched(&t, &[Act::Move(1, 3)]);
    assert!(moves.meets(&touched(&t, &[Act::Delete(1)])));
    assert!(moves.meets(&touched(&t, &[Act::Insert(3, 0, 0)])));
}

#[test]
fn where_more_than_the_key_ties_rows_a_group_meets_all() {
    let act = [Act::Update(1, 5, None)];
    let unique = |table: &mut Table| {
        table.uniques.indexes.push(Unique {
            index: "t_small".to_owned(),
            parts: vec![],
            predicate: None,
            nulls_equal: false,
        });
    };
    let deferrable = |table: &mut Table| table.key.as_mut().unwrap().deferrable = true;
    let without_key = |table: &mut Table| table.key = None;
    for change in [unique, deferrable, without_key] {
        let target = target_with(Rule::default(), change);
        assert_eq!(touched(&target, &act), Touched::Everything);
    }
    let other_rule = Rule::VersionColumn("small".to_owned());
    let target = target_with(other_rule, |_| {});
    assert_eq!(touched(&target, &act), Touched::Everything);
    let mut builder = GroupBuilder::default();
    builder.truncate(vec![target], at(0));
    assert_eq!(Touched::of(&builder.finish()), Touched::Everything);
}

/// A value that was taken and given back was in somebody's way meanwhile, perhaps.
#[test]
fn a_unique_value_is_never_only_passed_through() {
    let part = UniquePart {
        expression: "small".to_owned(),
        operator: "OPERATOR(pg_catalog.=)".to_owned(),
        collation: None,
    };
    let unique = Unique {
        index: "t_small".to_owned(),
        parts: vec![part],
        predicate: None,
        nulls_equal: false,
    };
    let uniques = Uniques {
        indexes: vec![unique],
        columns: vec![],
    };
    let target = target_with(Rule::default(), |table| table.uniques = uniques);
    let segments = |acts: &[Act]| {
        let (mut rows, mut builder) = (Rows::from([(2, (0, 0))]), GroupBuilder::default());
        for act in acts {
            let change = play(&mut rows, act, &target.map.relation).unwrap();
            builder.row(&change, &target, &at(0)).unwrap();
        }
        builder.finish().len()
    };
    let (taken, given_back) = (Act::Update(2, 1, None), Act::Update(2, 3, None));
    assert_eq!(segments(&[taken.clone(), given_back]), 2);
    assert_eq!(segments(&[taken, Act::Update(2, 1, Some(7))]), 1);
    assert_eq!(segments(&[Act::Insert(1, 1, 1), Act::Delete(1)]), 2);
    assert_eq!(segments(&[Act::Delete(2), Act::Insert(2, 1, 1)]), 1);
}
