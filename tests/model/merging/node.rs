//! Applications on one node, and what the triggers make of their writes.

use std::sync::Arc;

use mmrepl::assemble::{Change, Piece, SeenRuns, TxEnd, TxHeader};
use mmrepl::commit_time::CommitTime;
use mmrepl::lsn::Lsn;
use mmrepl::pgoutput::{OldImage, Tuple, Value};
use mmrepl::relation::Relation;

use super::Event;
use super::row::{Grave, KEY_COUNT, Row, Stamp, State};
use crate::history::Write;

/// What a write did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// Made it anew.
    Made { small: u16, large: u16, count: i64 },
    /// Changed some of it; the values are those after the write.
    Changed {
        small: u16,
        large: u16,
        set: (bool, bool),
        /// By how much the counter changed, and the node's sum since the row was made.
        delta: i64,
        sum: Option<i64>,
    },
    /// Deleted it.
    Gone,
}

impl Did {
    pub(super) fn values(self) -> Option<(u16, u16)> {
        match self {
            Self::Made { small, large, .. } | Self::Changed { small, large, .. } => {
                Some((small, large))
            }
            Self::Gone => None,
        }
    }

    pub(super) fn set(self) -> (bool, bool) {
        match self {
            Self::Made { .. } => (true, true),
            Self::Changed { set, .. } => set,
            Self::Gone => (false, false),
        }
    }

    pub(super) fn sum(self) -> Option<i64> {
        match self {
            Self::Changed { delta, sum, .. } if delta != 0 => sum,
            _ => None,
        }
    }

    /// What the write added; all of it where it made the row.
    pub(super) fn delta(self) -> i64 {
        match self {
            Self::Made { count, .. } => count,
            Self::Changed { delta, .. } => delta,
            Self::Gone => 0,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) state: State,
    flushed: State,
    pub(super) wal: Vec<Piece>,
}

impl Node {
    pub(super) fn crash(&mut self) {
        self.state = self.flushed;
    }

    pub(super) fn flush(&mut self) {
        self.flushed = self.state;
    }

    /// An application's transaction.
    pub(super) fn commit(
        &mut self,
        act: &Act<'_>,
        writes: &[Write],
        fresh: &mut u16,
    ) -> Vec<Event> {
        let mut played = Played::default();
        for write in writes {
            *fresh += 1;
            act.play(&mut self.state, (*write, *fresh), &mut played);
        }
        self.flush();
        if !played.changes.is_empty() {
            self.log(act.made.0, played.changes);
        }
        played.events
    }

    fn log(&mut self, time: i64, changes: Vec<Change>) {
        let position = u64::try_from(self.wal.len()).expect("a short WAL") * 16 + 16;
        let (commit_lsn, end_lsn) = (Lsn::new(position), Lsn::new(position + 8));
        self.wal.push(Piece {
            header: TxHeader::committed(commit_lsn, CommitTime::from_postgres_micros(time), 1),
            first: true,
            changes,
            bytes: 0,
            memory_bytes: 0,
            seen: SeenRuns::default(),
            end: Some(TxEnd {
                commit_lsn,
                end_lsn,
            }),
        });
    }
}

#[derive(Default)]
struct Played {
    changes: Vec<Change>,
    events: Vec<Event>,
}

impl Played {
    fn event(&mut self, key: usize, stamp: Stamp, did: Did) {
        self.events.push(Event { key, stamp, did });
    }
}

/// Who writes when.
pub(super) struct Act<'a> {
    /// The node's clock, and which node it is.
    made: Stamp,
    relation: &'a Arc<Relation>,
    by_column: bool,
}

impl<'a> Act<'a> {
    pub(super) fn new(made: Stamp, relation: &'a Arc<Relation>, by_column: bool) -> Self {
        Self {
            made,
            relation,
            by_column,
        }
    }

    fn play(&self, state: &mut State, (write, fresh): (Write, u16), played: &mut Played) {
        let by = i64::from(fresh % 5) - 1;
        match write {
            Write::Put(key) if state.rows[usize::from(key)].is_none() => {
                self.insert(state, (usize::from(key), fresh), played);
            }
            Write::Put(key) => self.update(state, key, played, |row| Row {
                small: fresh,
                large: fresh,
                count: i64::from(fresh),
                ..row
            }),
            // No unique value here.
            Write::Small(key) | Write::Take(key, _) => self.update(state, key, played, |row| Row {
                small: fresh,
                count: row.count + by,
                ..row
            }),
            Write::Large(key) => self.update(state, key, played, |row| Row {
                large: if fresh.is_multiple_of(2) {
                    fresh
                } else {
                    row.large
                },
                count: row.count - by,
                ..row
            }),
            Write::Move(from, to) => {
                self.rekey(state, usize::from(from), usize::from(to), played);
            }
            Write::Delete(key) => self.delete(state, usize::from(key), played),
            Write::Truncate => {
                (0..KEY_COUNT).for_each(|key| self.delete(state, key, played));
            }
        }
    }

    fn after(&self, row: &Row) -> Stamp {
        (self.made.0.max(row.version.0 + 1), self.made.1)
    }

    /// What a row holds that begins anew.
    fn anew(&self, row: Row, version: Stamp) -> Row {
        Row {
            version,
            set: self.by_column.then_some([version; 2]),
            base: (version, row.count),
            sums: [None; 3],
            ..row
        }
    }

    /// The row `row` is new at `key`: it begins anew, then above the tombstone.
    fn begin(&self, state: &mut State, (key, row): (usize, Row), played: &mut Played) {
        let (small, large, count) = (row.small, row.large, row.count);
        let did = Did::Made {
            small,
            large,
            count,
        };
        state.rows[key] = Some(row);
        played.event(key, row.version, did);
        let grave = state.graves[key].filter(|grave| grave.rank.0 >= row.version.0);
        if let Some(grave) = grave {
            let lifted = self.anew(row, (grave.rank.0 + 1, self.made.1));
            state.rows[key] = Some(lifted);
            played.event(key, lifted.version, did);
            played.changes.push(self.change(key, &row, key, &lifted));
        }
    }

    fn change(&self, from: usize, before: &Row, to: usize, after: &Row) -> Change {
        let mut new = after.print(to);
        if before.large == after.large {
            new.values_mut()[2] = Value::Unchanged;
        }
        Change::Update {
            relation: Arc::clone(self.relation),
            old: Some(OldImage::Full(before.print(from))),
            new,
        }
    }

    fn insert(&self, state: &mut State, (key, fresh): (usize, u16), played: &mut Played) {
        let empty = Row {
            small: fresh,
            large: fresh,
            count: i64::from(fresh),
            version: self.made,
            set: None,
            base: (self.made, 0),
            sums: [None; 3],
        };
        let row = self.anew(empty, self.made);
        let new: Tuple = row.print(key);
        let relation = Arc::clone(self.relation);
        played.changes.push(Change::Insert { relation, new });
        self.begin(state, (key, row), played);
    }

    fn update(&self, state: &mut State, key: u8, played: &mut Played, set: impl Fn(Row) -> Row) {
        let key = usize::from(key);
        let Some(before) = state.rows[key] else {
            return;
        };
        let mut row = set(before);
        row.version = self.after(&before);
        let differs = (row.small != before.small, row.large != before.large);
        for (set, differs) in row.set.iter_mut().flatten().zip([differs.0, differs.1]) {
            if differs {
                *set = row.version;
            }
        }
        let delta = row.count - before.count;
        let own = &mut row.sums[usize::from(self.made.1)];
        if delta != 0 {
            *own = Some((row.version.0, own.map_or(0, |(_, sum)| sum) + delta));
        }
        let sum = own.map(|(_, sum)| sum);
        state.rows[key] = Some(row);
        let did = Did::Changed {
            small: row.small,
            large: row.large,
            set: differs,
            delta,
            sum,
        };
        played.event(key, row.version, did);
        played.changes.push(self.change(key, &before, key, &row));
    }

    fn delete(&self, state: &mut State, key: usize, played: &mut Played) {
        let Some(row) = state.rows[key].take() else {
            return;
        };
        let rank = self.after(&row);
        state.graves[key] = Some(Grave { rank, row });
        played.event(key, rank, Did::Gone);
        played.changes.push(Change::Delete {
            relation: Arc::clone(self.relation),
            old: OldImage::Full(row.print(key)),
        });
    }

    fn rekey(&self, state: &mut State, from: usize, to: usize, played: &mut Played) {
        let Some(before) = state.rows[from].filter(|_| state.rows[to].is_none()) else {
            return;
        };
        let moved = self.anew(before, self.after(&before));
        state.rows[from] = None;
        let (rank, row) = (moved.version, before);
        state.graves[from] = Some(Grave { rank, row });
        played.event(from, rank, Did::Gone);
        played.changes.push(self.change(from, &before, to, &moved));
        self.begin(state, (to, moved), played);
    }
}
