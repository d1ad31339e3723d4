//! One node: its rows, its tombstones, its WAL, and what an application does to it.

use std::sync::Arc;

use mmrepl::assemble::{Change, Piece, SeenRuns, TxEnd, TxHeader};
use mmrepl::commit_time::CommitTime;
use mmrepl::lsn::Lsn;
use mmrepl::pgoutput::{OldImage, Tuple, Value};
use mmrepl::relation::{Relation, ReplicaIdentity};

use crate::history::{KEYS, Strategy, Write};
use crate::table::text;
use crate::versions::{self, Kept};

/// How many keys, as a length.
pub(crate) const KEY_COUNT: usize = KEYS as usize;

/// Commit time and origin of a row or tombstone. The transaction that is under way has neither yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Written by the transaction under way.
    Own,
    /// Committed: when, and on which node it was written.
    At(i64, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) small: u16,
    pub(crate) large: u16,
    /// The unique value; 0 for NULL.
    pub(crate) taken: u16,
    pub(crate) version: Kept,
    pub(crate) stamp: Stamp,
}

/// A row that is kept aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub(crate) values: Values,
    pub(crate) version: Kept,
    /// When and on which node it was written.
    pub(crate) at: (i64, u8),
}

impl Shadow {
    pub(crate) fn stamp(self) -> Stamp {
        Stamp::At(self.at.0, self.at.1)
    }
}

/// The columns of a row beside its key and version.
pub(crate) type Values = (u16, u16, u16);

impl Row {
    pub(crate) fn values(self) -> Values {
        (self.small, self.large, self.taken)
    }
}

/// The memory of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) version: Kept,
    pub(crate) stamp: Stamp,
}

/// A write that waits for a person to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Nothing of a delete.
    pub(crate) values: Option<Values>,
    pub(crate) known: Kept,
}

/// A write that is kept beside what a function made of it and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Nothing of a delete.
    pub(crate) values: Option<Values>,
    pub(crate) known: Kept,
}

/// What a server's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rows: [Option<Row>; KEY_COUNT],
    pub(crate) shadows: [Option<Shadow>; KEY_COUNT],
    pub(crate) tombstones: [Option<Tombstone>; KEY_COUNT],
    /// The tombstone of the whole table.
    pub(crate) emptied: Option<Stamp>,
    /// How many transactions of each source are applied: `mmrepl.apply_position`.
    pub(crate) positions: [usize; 3],
    /// What waits for a person, by key and source.
    pub(crate) pending: [[Option<Pending>; 3]; KEY_COUNT],
    /// Writes that did not know of each other, by key: one for each node.
    pub(crate) siblings: [[Option<Beside>; 3]; KEY_COUNT],
}

impl State {
    pub(crate) fn remove(&mut self, key: usize, version: Kept) {
        self.rows[key] = None;
        self.remember(key, version);
    }

    pub(crate) fn remember(&mut self, key: usize, version: Kept) {
        let stamp = Stamp::Own;
        self.tombstones[key] = Some(Tombstone { version, stamp });
    }

    /// Ends what waits for a decision about writes that are known by now.
    pub(crate) fn supersede(&mut self, key: usize, known: Kept) {
        for waiting in &mut self.pending[key] {
            waiting.take_if(|waiting| versions::knows(known, waiting.known));
        }
    }

    /// Moves a row of the table aside.
    pub(crate) fn push_aside(&mut self, key: usize, at: (i64, u8)) {
        let row = self.rows[key].expect("a row");
        let (values, version) = (row.values(), row.version);
        let shadow = Shadow {
            values,
            version,
            at,
        };
        self.keep_aside(key, shadow);
    }

    /// Keeps a row aside; the row of its key goes, and a tombstone that is not later.
    pub(crate) fn keep_aside(&mut self, key: usize, shadow: Shadow) {
        self.rows[key] = None;
        self.shadows[key] = Some(shadow);
        let later = |own: &Tombstone| match own.stamp {
            Stamp::Own => false,
            Stamp::At(micros, _) => micros > shadow.at.0,
        };
        self.tombstones[key] = self.tombstones[key].filter(later);
    }

    /// Other keys whose rows have that unique value.
    pub(crate) fn rivals(&self, key: usize, taken: u16) -> Vec<usize> {
        let has = |other: &usize| {
            let row = self.rows[*other];
            *other != key && taken != 0 && row.is_some_and(|row| row.taken == taken)
        };
        (0..KEY_COUNT).filter(has).collect()
    }

    pub(crate) fn truncate(&mut self) {
        self.rows = [None; KEY_COUNT];
        self.emptied = Some(Stamp::Own);
    }

    /// Commits: what the transaction wrote gets its stamp.
    pub(crate) fn stamp(&mut self, time: i64, node: u8) {
        let rows = self.rows.iter_mut().flatten().map(|row| &mut row.stamp);
        let tombstones = self.tombstones.iter_mut().flatten().map(|t| &mut t.stamp);
        for stamp in rows.chain(tombstones).chain(&mut self.emptied) {
            if *stamp == Stamp::Own {
                *stamp = Stamp::At(time, node);
            }
        }
    }

    /// The version of the key's last write.
    pub(crate) fn version(&self, key: usize) -> Kept {
        match (self.rows[key], self.tombstones[key]) {
            (Some(row), _) => row.version,
            (None, tombstone) => tombstone.and_then(|tombstone| tombstone.version),
        }
    }

    /// The values, which must be equal everywhere.
    pub(crate) fn values(&self) -> [Option<Values>; KEY_COUNT] {
        self.rows.map(|row| row.map(Row::values))
    }
}

/// What an application's transaction did to one key: the values, the version.
pub(crate) type Effect = (usize, Option<Values>, Kept);

/// One write of an application on a node.
pub(crate) struct Act<'a> {
    pub(crate) strategy: Strategy,
    pub(crate) relation: &'a Arc<Relation>,
    /// The node's clock, and which node it is.
    pub(crate) made: (i64, u8),
    /// A value that no other write has.
    pub(crate) fresh: u16,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// What queries see.
    pub(crate) state: State,
    /// What a crash leaves.
    pub(crate) flushed: State,
    /// What was written on this node.
    pub(crate) wal: Vec<Piece>,
}

impl Node {
    /// An application's transaction. `fresh` gives values that no other write has.
    pub(crate) fn commit(
        &mut self,
        (time, me): (i64, u8),
        writes: &[Write],
        (strategy, relation): (Strategy, &Arc<Relation>),
        fresh: &mut u16,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut changes = Vec::new();
        for write in writes {
            *fresh += 1;
            let before = self.state;
            let act = Act {
                strategy,
                relation,
                made: (time, me),
                fresh: *fresh,
            };
            let played = act.play(&mut self.state, *write);
            if !played.is_empty() {
                changes.extend(played);
                let all = matches!(write, Write::Truncate) && !strategy.is_in_row();
                let touched = (0..KEY_COUNT)
                    .filter(|key| all || before.values()[*key] != self.state.values()[*key]);
                let effect = |key| (key, self.state.values()[key], self.state.version(key));
                effects.extend(touched.map(effect));
            }
        }
        self.state.stamp(time, me);
        self.flushed = self.state;
        if !changes.is_empty() {
            self.log(time, changes);
        }
        effects
    }

    pub(crate) fn log(&mut self, time: i64, changes: Vec<Change>) {
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

pub(crate) fn whole(strategy: Strategy, key: usize, row: Row) -> Tuple {
    let number = u16::try_from(key).expect("a few keys");
    let version = versions::print(strategy, row.version);
    let taken = match row.taken {
        0 => Value::Null,
        taken => text(taken),
    };
    Tuple::from(vec![
        text(number),
        text(row.small),
        text(row.large),
        version,
        taken,
    ])
}

impl Act<'_> {
    pub(crate) fn image(&self, key: usize, row: Row) -> OldImage {
        let mut tuple = whole(self.strategy, key, row);
        if self.relation.replica_identity == ReplicaIdentity::Full {
            return OldImage::Full(tuple);
        }
        tuple.values_mut()[1..].fill(Value::Null);
        OldImage::Key(tuple)
    }

    /// The old image of an update that leaves the key alone.
    fn same_key(&self, key: usize, row: Row) -> Option<OldImage> {
        let full = self.relation.replica_identity == ReplicaIdentity::Full;
        full.then(|| self.image(key, row))
    }

    /// The new image; a large value that stays is left out.
    fn new_image(&self, key: usize, row: Row, before: Row) -> Tuple {
        let mut new = whole(self.strategy, key, row);
        if row.large == before.large {
            new.values_mut()[2] = Value::Unchanged;
        }
        new
    }

    /// The version that an update leaves; half of them name none.
    fn updated(&self, row: Row) -> Kept {
        let asked = if self.fresh.is_multiple_of(2) {
            versions::asked(self.fresh)
        } else {
            row.version
        };
        versions::written(self.strategy, self.made, Some(row.version), asked)
    }

    /// Plays one statement and tells what the stream says of it; nothing where it found no row.
    fn play(&self, state: &mut State, write: Write) -> Vec<Change> {
        let change = match write {
            Write::Put(key) => {
                let is_new = state.rows[usize::from(key)].is_none();
                let taken = state.rows[usize::from(key)].map_or(0, |row| row.taken);
                let put = self.put(state, (usize::from(key), taken));
                let lift = is_new.then(|| self.lift(state, usize::from(key))).flatten();
                return [put].into_iter().chain(lift).collect();
            }
            Write::Small(key) => self.update(state, key, |row| Row {
                small: self.fresh,
                ..row
            }),
            Write::Large(key) => self.update(state, key, |row| Row {
                large: self.fresh,
                ..row
            }),
            Write::Move(from, to) => {
                let moved = self.rekey(state, usize::from(from), usize::from(to));
                let lift = moved
                    .as_ref()
                    .and_then(|_| self.lift(state, usize::from(to)));
                return moved.into_iter().chain(lift).collect();
            }
            Write::Take(key, value) => {
                // Where no row is kept aside, a duplicate would stop the link.
                let taken = if self.strategy.is_by_knowledge() {
                    0
                } else {
                    u16::from(value)
                };
                let key = usize::from(key);
                if !state.rivals(key, taken).is_empty() {
                    return Vec::new();
                }
                let Some(before) = state.rows[key] else {
                    let put = self.put(state, (key, taken));
                    let lift = self.lift(state, key);
                    return [put].into_iter().chain(lift).collect();
                };
                let small = self.fresh;
                let key = u8::try_from(key).expect("a few keys");
                self.update(state, key, |_| Row {
                    small,
                    taken,
                    ..before
                })
            }
            Write::Delete(key) => self.delete(state, usize::from(key)),
            // A trigger deletes the rows first.
            Write::Truncate if self.strategy.is_in_row() => {
                return (0..KEY_COUNT)
                    .filter_map(|key| self.delete(state, key))
                    .collect();
            }
            Write::Truncate => {
                state.truncate();
                Some(Change::Truncate {
                    relations: vec![Arc::clone(self.relation)],
                    cascade: false,
                    restart_identity: false,
                })
            }
        };
        change.into_iter().collect()
    }

    fn update(&self, state: &mut State, key: u8, set: impl Fn(Row) -> Row) -> Option<Change> {
        let key = usize::from(key);
        let before = state.rows[key]?;
        let row = Row {
            version: self.updated(before),
            stamp: Stamp::Own,
            ..set(before)
        };
        state.rows[key] = Some(row);
        Some(Change::Update {
            relation: Arc::clone(self.relation),
            old: self.same_key(key, before),
            new: self.new_image(key, row, before),
        })
    }

    pub(crate) fn delete(&self, state: &mut State, key: usize) -> Option<Change> {
        let row = state.rows[key]?;
        let version = versions::deleted(self.strategy, self.made, row.version);
        state.remove(key, version);
        Some(Change::Delete {
            relation: Arc::clone(self.relation),
            old: self.image(key, row),
        })
    }

    /// What the trigger after an insert does: above the delete of the key, and above a row that is
    /// kept aside.
    pub(crate) fn lift(&self, state: &mut State, key: usize) -> Option<Change> {
        let tombstone = state.tombstones[key].map(|own| own.version);
        let shadow = state.shadows[key].map(|own| own.version);
        let (before, deleted) = (state.rows[key]?, tombstone.max(shadow)?);
        let version = versions::lifted(self.strategy, self.made.1, before.version, deleted);
        if version == before.version {
            return None;
        }
        let row = Row { version, ..before };
        state.rows[key] = Some(row);
        Some(Change::Update {
            relation: Arc::clone(self.relation),
            old: self.same_key(key, before),
            new: self.new_image(key, row, before),
        })
    }

    fn rekey(&self, state: &mut State, from: usize, to: usize) -> Option<Change> {
        let before = state.rows[from].filter(|_| state.rows[to].is_none())?;
        let by_knowledge = self.strategy.is_by_knowledge();
        let moved = Row {
            version: if by_knowledge {
                Some(versions::knowing(None, self.made))
            } else {
                self.updated(before)
            },
            stamp: Stamp::Own,
            ..before
        };
        let left = if by_knowledge {
            Some(versions::knowing(before.version, (0, self.made.1)))
        } else {
            moved.version
        };
        state.remove(from, left);
        state.rows[to] = Some(moved);
        Some(Change::Update {
            relation: Arc::clone(self.relation),
            old: Some(self.image(from, before)),
            new: self.new_image(to, moved, before),
        })
    }

    fn put(&self, state: &mut State, (key, taken): (usize, u16)) -> Change {
        let before = state.rows[key];
        let asked = versions::asked(self.fresh);
        let old = before.map(|row| row.version);
        let version = versions::written(self.strategy, self.made, old, asked);
        let row = Row {
            small: self.fresh,
            large: self.fresh,
            taken,
            version,
            stamp: Stamp::Own,
        };
        state.rows[key] = Some(row);
        let (relation, new) = (Arc::clone(self.relation), whole(self.strategy, key, row));
        match before {
            None => Change::Insert { relation, new },
            Some(before) => {
                let old = self.same_key(key, before);
                Change::Update { relation, old, new }
            }
        }
    }
}
