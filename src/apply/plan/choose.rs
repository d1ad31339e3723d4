//! Which statements write a segment: chosen by counting rows. Pure.
//!
//! Rows of one table that need the same statement are written together when there are enough of
//! them. Deletes go first and inserts last: a unique value that moves is free before it is taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::apply::plan::change::{Entry, RowChange};
use crate::apply::plan::copies::{APPENDED_ROWS_MIN, COPY_ROWS_MIN, Copies, copied_at_once};
use crate::apply::plan::decide::{Attempt, attempt};
use crate::apply::shape::op::{Put, RowOp};
use crate::apply::sql;
use crate::apply::sql::kind::Kind;
use crate::apply::target::statement::Target;
use crate::pgoutput::{Tuple, Value};

/// Fewer rows than this are not worth a statement of their own.
const SET_ROWS_MIN: usize = 5;
/// More rows than this in one statement make the server choose worse plans.
const SET_ROWS_MAX: usize = 500;
/// The plan of a delete by a list of keys does not depend on how many there are.
const LISTED_ROWS_MAX: usize = 2_000;
/// A statement's arrays hold at most about this many bytes of values.
const SET_BYTES_MAX: usize = 1024 * 1024;

/// Rows of one table that one statement writes.
#[derive(Debug)]
pub(in crate::apply) struct RowSet<'a> {
    /// The table.
    pub(in crate::apply) target: &'a Arc<Target>,
    /// The statement.
    pub(in crate::apply) kind: Kind,
    /// The rows.
    pub(in crate::apply) entries: Vec<&'a Entry>,
    /// They are copied though they are few.
    pub(in crate::apply) is_of_few: bool,
}

/// How the entries of a segment are written, in this order.
#[derive(Debug, Default)]
pub(in crate::apply) struct Plan<'a> {
    /// Nothing is written: these came and went at the source, if nothing here says otherwise.
    pub(in crate::apply) gone: Vec<&'a RowChange>,
    /// Deletes and updates of many rows.
    pub(in crate::apply) first: Vec<RowSet<'a>>,
    /// One statement each.
    pub(in crate::apply) singles: Vec<(&'a Entry, Option<Kind>)>,
    /// Inserts of many rows.
    pub(in crate::apply) last: Vec<RowSet<'a>>,
    /// No statement can take them: they are settled.
    pub(in crate::apply) settle: Vec<&'a RowChange>,
}

/// The statement for one row; `None` where it must be settled.
fn kind_of(row: &RowChange) -> Option<Kind> {
    match (attempt(row), &row.op) {
        (Attempt::DeleteOlder, _) => Some(Kind::Delete),
        (Attempt::InsertNew, _) => Some(Kind::Insert),
        (Attempt::Update(how), RowOp::Put(put)) => Some(Kind::Update(columns(row, put), how)),
        (Attempt::Settle | Attempt::Update(_), _) => None,
    }
}

fn columns(row: &RowChange, put: &Put) -> Vec<usize> {
    let sent = |index: usize| put.values.0[index] != Value::Unchanged;
    sql::one_row::updated_columns(&row.target.map, sent)
}

/// What nobody need write, where the target has neither row nor unseen tombstone of the key. A
/// local insert that is under way is not seen; it is the newer one where the target's clock has
/// passed the delete, as with a delete that finds no row (`crossing`).
fn came_and_went(row: &RowChange) -> bool {
    let target = &row.target;
    row.is_gone_again()
        && target.is_by_time_in_a_pair()
        && !target.has_rivals()
        && sql::many_rows::can_batch(&target.map)
}

/// What happens where a statement does not do what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Approach {
    /// The group fails as a whole. What came and went is left out, and few rows are copied.
    Ahead,
    /// The group fails as a whole, and with it a transaction that is still running on the source.
    Running,
    /// Somebody looks at the answers.
    StepByStep,
}

/// Sorts the entries of a segment.
pub(in crate::apply) fn plan<'a>(
    entries: &'a [Entry],
    copies: &mut Copies,
    way: Approach,
) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut places: HashMap<(*const Target, Kind), usize> = HashMap::new();
    let mut sets: Vec<RowSet<'_>> = Vec::new();
    let edited = edited(entries);
    for entry in entries {
        let (target, kind) = match entry {
            Entry::WholeRow(row) if edited.contains(&row.target.map.table.oid) => {
                plan.singles.push((entry, None));
                continue;
            }
            Entry::WholeRow(row) => (&row.target, Kind::Insert),
            Entry::Row(row) if way == Approach::Ahead && came_and_went(row) => {
                plan.gone.push(row);
                continue;
            }
            Entry::Row(row) => match kind_of(row) {
                None => {
                    plan.settle.push(row);
                    continue;
                }
                Some(kind) if !can_batch(row, &kind) => {
                    plan.singles.push((entry, Some(kind)));
                    continue;
                }
                Some(kind) => (&row.target, kind),
            },
        };
        let place = (Arc::as_ptr(target), kind.clone());
        let index = *places.entry(place).or_insert_with(|| {
            sets.push(RowSet::new(target, kind));
            sets.len() - 1
        });
        sets[index].entries.push(entry);
    }
    sets.sort_by(|a, b| a.kind.cmp(&b.kind));
    for set in sets {
        plan.add(set, copies, way);
    }
    plan
}

/// The tables without a key that not only get further rows: there the order matters.
fn edited(entries: &[Entry]) -> HashSet<u32> {
    let edit = |entry: &Entry| match entry {
        Entry::WholeRow(row) if row.old.is_some() => Some(row.target.map.table.oid),
        _ => None,
    };
    entries.iter().filter_map(edit).collect()
}

/// Inserts are copied where a statement for many rows cannot take them.
fn can_batch(row: &RowChange, kind: &Kind) -> bool {
    match kind {
        Kind::Insert | Kind::Copy => true,
        Kind::Update(columns, _) if !row.target.map.sets_any(columns) => false,
        Kind::Update(..) | Kind::Delete | Kind::DeleteListed => {
            sql::many_rows::can_batch(&row.target.map)
        }
    }
}

impl<'a> Plan<'a> {
    /// How many rows have a statement of their own that takes them by key.
    pub(in crate::apply) fn single_rows(&self) -> u64 {
        let of_sets = self.first.iter().chain(&self.last).flat_map(|set| {
            let alone = set.kind != Kind::Copy && !set.pays();
            alone.then(|| set.rows()).into_iter().flatten()
        });
        let singles = self.singles.iter();
        let singles = singles.filter(|(entry, kind)| kind.is_some() && entry.row().is_some());
        (of_sets.count() + singles.count()) as u64
    }

    /// The tables with a key that its statements insert into, each once.
    pub(in crate::apply) fn inserted_into(&self) -> Vec<&'a Arc<Target>> {
        let singles = self.singles.iter().filter_map(|(entry, kind)| {
            let row = entry.row()?;
            (*kind == Some(Kind::Insert)).then_some(&row.target)
        });
        let sets = self.last.iter().map(|set| set.target);
        let keyed = sets.filter(|target| target.map.key.is_some());
        each_once(singles.chain(keyed))
    }

    /// The tables that it may copy rows into in binary form, each once.
    pub(in crate::apply) fn copied_into_as_binary(&self) -> Vec<&'a Arc<Target>> {
        let copies = self.last.iter();
        let copies = copies.filter(|set| set.kind == Kind::Copy && set.is_long());
        let mut targets = each_once(copies.map(|set| set.target));
        targets.retain(|target| target.copies_binary());
        targets
    }

    fn add(&mut self, mut set: RowSet<'a>, copies: &mut Copies, way: Approach) {
        let list = if set.kind == Kind::Insert {
            set.is_of_few = set.entries.len() < set.copied_from();
            if set.can_be_copied(copies, way) {
                let rows_max = copied_at_once(set.entries.len());
                set.split(&Kind::Copy, (rows_max, usize::MAX), &mut self.last);
                return;
            }
            if !sql::many_rows::can_batch(&set.target.map) {
                let kind = set.is_keyed().then_some(Kind::Insert);
                let singles = set.entries.into_iter();
                self.singles
                    .extend(singles.map(|entry| (entry, kind.clone())));
                return;
            }
            &mut self.last
        } else {
            set.sort();
            &mut self.first
        };
        let (kind, rows_max) = if set.can_be_listed() {
            (Kind::DeleteListed, LISTED_ROWS_MAX)
        } else {
            (set.kind.clone(), SET_ROWS_MAX)
        };
        set.split(&kind, (rows_max, SET_BYTES_MAX), list);
    }
}

/// The tables in the order of their OIDs.
fn each_once<'a>(targets: impl Iterator<Item = &'a Arc<Target>>) -> Vec<&'a Arc<Target>> {
    let tables: BTreeMap<u32, &'a Arc<Target>> = targets
        .map(|target| (target.map.table.oid, target))
        .collect();
    tables.into_values().collect()
}

/// How many of the entries fit one statement; at least one.
fn take(entries: &[&Entry], (rows_max, bytes_max): (usize, usize)) -> usize {
    let mut bytes = 0_usize;
    let fitting = entries.iter().take(rows_max).take_while(|entry| {
        bytes += bytes_of(entry);
        bytes <= bytes_max
    });
    fitting.count().max(1)
}

fn bytes_of(entry: &Entry) -> usize {
    match (entry.put(), entry) {
        (Some(values), _) => values.wire_bytes(),
        (None, Entry::Row(row)) => row.key.iter().map(bytes::Bytes::len).sum(),
        (None, Entry::WholeRow(_)) => 0,
    }
}

impl<'a> RowSet<'a> {
    fn new(target: &'a Arc<Target>, kind: Kind) -> Self {
        Self {
            target,
            kind,
            entries: Vec::new(),
            is_of_few: false,
        }
    }

    /// The rows by key.
    pub(in crate::apply) fn rows(&self) -> impl Iterator<Item = &'a RowChange> + Clone {
        self.entries.iter().filter_map(|entry| entry.row())
    }

    /// The values of the rows that are put.
    pub(in crate::apply) fn puts(&self) -> impl Iterator<Item = &'a Tuple> + Clone {
        self.entries.iter().filter_map(|entry| entry.put())
    }

    fn is_keyed(&self) -> bool {
        self.target.map.key.is_some()
    }

    /// Brings rows that may lie on one page together. Where values are unique beside the key, one
    /// must be given up before another row takes it: these stay as they came.
    fn sort(&mut self) {
        let key = |entry: &&'a Entry| {
            let values = entry.row().map(|row| row.key.iter());
            values
                .into_iter()
                .flatten()
                .map(|value| (value.len(), value))
        };
        if !self.target.has_rivals() {
            self.entries.sort_by(|a, b| key(a).cmp(key(b)));
        }
    }

    /// The rows as statements of this `kind`, each within both limits: of rows, and of bytes.
    fn split(self, kind: &Kind, limits: (usize, usize), list: &mut Vec<Self>) {
        let mut entries = self.entries;
        while !entries.is_empty() {
            let rest = entries.split_off(take(&entries, limits));
            list.push(Self {
                target: self.target,
                kind: kind.clone(),
                entries,
                is_of_few: self.is_of_few,
            });
            entries = rest;
        }
    }

    /// Whether its rows are deletes that one list of keys can tell, with floors for all of them.
    fn can_be_listed(&self) -> bool {
        let Some(first) = self.rows().next() else {
            return false;
        };
        let alike = |row: &RowChange| row.time == first.time && Arc::ptr_eq(&row.seen, &first.seen);
        self.kind == Kind::Delete
            && !self.target.versions().is_in_row()
            && sql::many_rows::listed_type(&self.target.map).is_some()
            && self.rows().all(alike)
    }

    /// How many bytes its rows came in.
    pub(in crate::apply) fn wire_bytes(&self) -> usize {
        self.entries.iter().map(|entry| bytes_of(entry)).sum()
    }

    /// Whether its rows are so many that reading them in binary form saves more than it costs to
    /// make sure of the columns' types.
    pub(in crate::apply) fn is_long(&self) -> bool {
        self.entries.len() >= COPY_ROWS_MIN
    }

    /// From so many rows on a copy pays whatever the approach.
    fn copied_from(&self) -> usize {
        if self.is_keyed() {
            COPY_ROWS_MIN
        } else {
            APPENDED_ROWS_MIN
        }
    }

    fn can_be_copied(&self, copies: &mut Copies, way: Approach) -> bool {
        let (rows, table) = (self.entries.len(), self.target.map.table.oid);
        if self.is_of_few {
            return way == Approach::Ahead && copies.may_few(table, rows);
        }
        copies.may(table, rows)
    }

    /// Whether there are enough rows for one statement to pay.
    pub(in crate::apply) fn pays(&self) -> bool {
        self.entries.len() >= SET_ROWS_MIN
    }
}
