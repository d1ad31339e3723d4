//! One node: its rows, its tombstones, its WAL, and what an application does to it.

use std::sync::Arc;

use mmrepl::assemble::{Change, Piece, SeenRuns, TxEnd, TxHeader};
use mmrepl::commit_time::CommitTime;
use mmrepl::lsn::Lsn;
use mmrepl::pgoutput::{OldImage, Tuple, Value};
use mmrepl::relation::{Relation, ReplicaIdentity};

use crate::history::{KEYS, Write};
use crate::table::text;

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
    pub(crate) stamp: Stamp,
}

/// A row that is kept aside: its values, and when and on which node it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub(crate) values: Values,
    pub(crate) version: (i64, u8),
}

/// The columns of a row beside its key.
pub(crate) type Values = (u16, u16, u16);

impl Row {
    pub(crate) fn values(self) -> Values {
        (self.small, self.large, self.taken)
    }
}

/// What a server's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rows: [Option<Row>; KEY_COUNT],
    pub(crate) shadows: [Option<Shadow>; KEY_COUNT],
    pub(crate) tombstones: [Option<Stamp>; KEY_COUNT],
    /// The tombstone of the whole table.
    pub(crate) emptied: Option<Stamp>,
    /// How many transactions of each source are applied: `mmrepl.apply_position`.
    pub(crate) positions: [usize; 3],
}

impl State {
    pub(crate) fn remove(&mut self, key: usize) {
        self.rows[key] = None;
        self.tombstones[key] = Some(Stamp::Own);
    }

    /// Moves a row of the table aside; a tombstone of its key is not newer and goes.
    pub(crate) fn push_aside(&mut self, key: usize, version: (i64, u8)) {
        let values = self.rows[key].expect("a row").values();
        self.keep_aside(key, Shadow { values, version });
    }

    /// Keeps a row aside; the row of its key goes.
    pub(crate) fn keep_aside(&mut self, key: usize, shadow: Shadow) {
        self.rows[key] = None;
        self.shadows[key] = Some(shadow);
        let older = |stamp: &Stamp| match stamp {
            Stamp::Own => true,
            Stamp::At(micros, _) => *micros <= shadow.version.0,
        };
        self.tombstones[key] = self.tombstones[key].filter(|stamp| !older(stamp));
    }

    pub(crate) fn truncate(&mut self) {
        self.rows = [None; KEY_COUNT];
        self.emptied = Some(Stamp::Own);
    }

    /// Commits: what the transaction wrote gets its stamp.
    pub(crate) fn stamp(&mut self, time: i64, node: u8) {
        let rows = self.rows.iter_mut().flatten().map(|row| &mut row.stamp);
        let tombstones = self.tombstones.iter_mut().flatten();
        for stamp in rows.chain(tombstones).chain(&mut self.emptied) {
            if *stamp == Stamp::Own {
                *stamp = Stamp::At(time, node);
            }
        }
    }

    /// The values, which must be equal everywhere.
    pub(crate) fn values(&self) -> [Option<Values>; KEY_COUNT] {
        self.rows.map(|row| row.map(Row::values))
    }

    /// Other keys whose rows have that unique value.
    pub(crate) fn rivals(&self, key: usize, taken: u16) -> Vec<usize> {
        let has = |other: &usize| {
            let row = self.rows[*other];
            *other != key && taken != 0 && row.is_some_and(|row| row.taken == taken)
        };
        (0..KEY_COUNT).filter(has).collect()
    }
}

/// What an application's transaction did to one key.
pub(crate) type Effect = (usize, Option<Values>);

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
        relation: &Arc<Relation>,
        fresh: &mut u16,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut changes = Vec::new();
        for write in writes {
            *fresh += 1;
            let before = self.state;
            if let Some(change) = play(&mut self.state, *write, relation, *fresh) {
                changes.push(change);
                let all = matches!(write, Write::Truncate);
                let touched = (0..KEY_COUNT)
                    .filter(|key| all || before.values()[*key] != self.state.values()[*key]);
                effects.extend(touched.map(|key| (key, self.state.values()[key])));
            }
        }
        self.state.stamp(time, me);
        self.flushed = self.state;
        if !changes.is_empty() {
            self.log(time, changes);
        }
        effects
    }

    fn log(&mut self, time: i64, changes: Vec<Change>) {
        let position = u64::try_from(self.wal.len()).expect("a short WAL") * 16 + 16;
        let (commit_lsn, end_lsn) = (Lsn::new(position), Lsn::new(position + 8));
        self.wal.push(Piece {
            header: TxHeader {
                final_lsn: commit_lsn,
                commit_time: CommitTime::from_postgres_micros(time),
                xid: 1,
            },
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

fn tuple(key: usize, small: Value, large: Value, taken: u16) -> Tuple {
    let key = u16::try_from(key).expect("a few keys");
    let taken = if taken == 0 { Value::Null } else { text(taken) };
    Tuple(vec![text(key), small, large, taken])
}

fn image(key: usize, row: Row, relation: &Relation) -> OldImage {
    if relation.replica_identity == ReplicaIdentity::Full {
        OldImage::Full(tuple(key, text(row.small), text(row.large), row.taken))
    } else {
        OldImage::Key(tuple(key, Value::Null, Value::Null, 0))
    }
}

/// The old image of an update that leaves the key alone.
fn same_key(key: usize, row: Row, relation: &Relation) -> Option<OldImage> {
    let full = relation.replica_identity == ReplicaIdentity::Full;
    full.then(|| image(key, row, relation))
}

/// Plays one statement and tells what the stream says of it; nothing where it found no row.
fn play(state: &mut State, write: Write, relation: &Arc<Relation>, fresh: u16) -> Option<Change> {
    let relation = Arc::clone(relation);
    let stamp = Stamp::Own;
    match write {
        Write::Put(key) => Some(put(state, usize::from(key), relation, fresh)),
        Write::Small(key) => {
            let key = usize::from(key);
            let row = state.rows[key]?;
            state.rows[key] = Some(Row {
                small: fresh,
                stamp,
                ..row
            });
            let new = tuple(key, text(fresh), Value::Unchanged, row.taken);
            let old = same_key(key, row, &relation);
            Some(Change::Update { relation, old, new })
        }
        Write::Large(key) => {
            let key = usize::from(key);
            let row = state.rows[key]?;
            state.rows[key] = Some(Row {
                large: fresh,
                stamp,
                ..row
            });
            let new = tuple(key, text(row.small), text(fresh), row.taken);
            let old = same_key(key, row, &relation);
            Some(Change::Update { relation, old, new })
        }
        Write::Move(from, to) => {
            let (from, to) = (usize::from(from), usize::from(to));
            let row = state.rows[from].filter(|_| state.rows[to].is_none())?;
            state.remove(from);
            state.rows[to] = Some(Row { stamp, ..row });
            let new = tuple(to, text(row.small), Value::Unchanged, row.taken);
            let old = Some(image(from, row, &relation));
            Some(Change::Update { relation, old, new })
        }
        Write::Take(key, value) => take(state, (key, value), relation, fresh),
        Write::Delete(key) => {
            let key = usize::from(key);
            let old = image(key, state.rows[key]?, &relation);
            state.remove(key);
            Some(Change::Delete { relation, old })
        }
        Write::Truncate => {
            state.truncate();
            Some(Change::Truncate {
                relations: vec![relation],
                cascade: false,
                restart_identity: false,
            })
        }
    }
}

/// Takes a unique value, unless another row has it.
fn take(
    state: &mut State,
    (key, value): (u8, u8),
    relation: Arc<Relation>,
    fresh: u16,
) -> Option<Change> {
    let (key, taken) = (usize::from(key), u16::from(value));
    if !state.rivals(key, taken).is_empty() {
        return None;
    }
    let before = state.rows[key];
    let row = Row {
        small: fresh,
        large: before.map_or(fresh, |row| row.large),
        taken,
        stamp: Stamp::Own,
    };
    state.rows[key] = Some(row);
    Some(match before {
        None => {
            let new = tuple(key, text(row.small), text(row.large), taken);
            Change::Insert { relation, new }
        }
        Some(before) => {
            let new = tuple(key, text(row.small), Value::Unchanged, taken);
            let old = same_key(key, before, &relation);
            Change::Update { relation, old, new }
        }
    })
}

fn put(state: &mut State, key: usize, relation: Arc<Relation>, fresh: u16) -> Change {
    let taken = state.rows[key].map_or(0, |row| row.taken);
    let new = tuple(key, text(fresh), text(fresh), taken);
    let row = Row {
        small: fresh,
        large: fresh,
        taken,
        stamp: Stamp::Own,
    };
    match state.rows[key].replace(row) {
        None => Change::Insert { relation, new },
        Some(before) => {
            let old = same_key(key, before, &relation);
            Change::Update { relation, old, new }
        }
    }
}
