//! Which statements rows get that need none of their own.

use std::sync::Arc;

use bytes::Bytes;

use crate::apply::plan::change::{Entry, WholeRowChange};
use crate::apply::plan::choose::{Approach, plan};
use crate::apply::plan::copies::{APPENDED_ROWS_MIN, Copies};
use crate::apply::plan::group_tests::{gone_again, keyless};
use crate::apply::sql::kind::Kind;
use crate::apply::target::statement::Target;
use crate::commit_time::CommitTime;
use crate::pgoutput::{Tuple, Value};

fn tuple(number: u8) -> Tuple {
    vec![Value::Text(Bytes::from(number.to_string())); 3].into()
}

fn change(target: &Arc<Target>, old: Option<u8>, new: Option<u8>) -> Entry {
    Entry::WholeRow(WholeRowChange {
        target: Arc::clone(target),
        old: old.map(tuple),
        new: new.map(tuple),
        time: CommitTime::from_postgres_micros(0),
        seen: Arc::default(),
    })
}

fn inserts(target: &Arc<Target>, count: usize) -> Vec<Entry> {
    (0..count).map(|_| change(target, None, Some(1))).collect()
}

#[test]
fn rows_without_a_key_are_copied_where_there_are_only_more_of_them() {
    let target = keyless();
    let enough = inserts(&target, APPENDED_ROWS_MIN);
    let planned = plan(&enough, &mut Copies::default(), Approach::StepByStep);
    assert_eq!(planned.last.len(), 1);
    assert_eq!(planned.last[0].kind, Kind::Copy);
    assert_eq!(planned.last[0].puts().count(), APPENDED_ROWS_MIN);
    assert!(planned.singles.is_empty() && planned.inserted_into().is_empty());
    let few = inserts(&target, APPENDED_ROWS_MIN - 1);
    let singles = |approach| plan(&few, &mut Copies::default(), approach).singles.len();
    assert_eq!(singles(Approach::StepByStep), few.len());
    assert_eq!(singles(Approach::Ahead), 0);
}

#[test]
fn a_row_alone_is_copied_until_its_table_has_had_some() {
    let (target, mut copies) = (keyless(), Copies::default());
    let one = inserts(&target, 1);
    let singles: Vec<usize> = (0..6)
        .map(|_| plan(&one, &mut copies, Approach::Ahead).singles.len())
        .collect();
    assert_eq!(singles, [0, 0, 0, 0, 1, 1]);
    let two = inserts(&target, 2);
    assert_eq!(plan(&two, &mut copies, Approach::Ahead).last.len(), 1);
    copies.failed(target.map.table.oid);
    assert_eq!(plan(&two, &mut copies, Approach::Ahead).last.len(), 0);
}

#[test]
fn rows_without_a_key_keep_their_order_where_some_go() {
    let target = keyless();
    for edit in [(Some(1), None), (Some(1), Some(2))] {
        let mut entries = inserts(&target, 2 * APPENDED_ROWS_MIN);
        entries.insert(APPENDED_ROWS_MIN, change(&target, edit.0, edit.1));
        let planned = plan(&entries, &mut Copies::default(), Approach::Ahead);
        let order = planned
            .singles
            .iter()
            .map(|(entry, _)| std::ptr::from_ref(*entry));
        assert!(order.eq(entries.iter().map(std::ptr::from_ref)));
        assert!(planned.last.is_empty());
    }
}

#[test]
fn what_came_and_went_is_not_written_where_that_can_be_told_at_once() {
    let kind = |entries: &[Entry], approach| {
        let planned = plan(entries, &mut Copies::default(), approach);
        assert!(planned.singles.is_empty() && planned.last.is_empty());
        assert!(planned.gone.is_empty());
        planned.first[0].kind.clone()
    };
    let entries = gone_again(false);
    let planned = plan(&entries, &mut Copies::default(), Approach::Ahead);
    assert_eq!(planned.gone.len(), 1);
    assert!(planned.first.is_empty() && planned.singles.is_empty() && planned.last.is_empty());
    assert!(matches!(
        kind(&entries, Approach::StepByStep),
        Kind::Delete | Kind::DeleteListed
    ));
    let there_before = gone_again(true);
    assert!(matches!(
        kind(&there_before, Approach::Ahead),
        Kind::Delete | Kind::DeleteListed
    ));
}
