//! One target transaction on rows that merge: `apply::rows`, `apply::settle_merging` and
//! `apply::overtaken` without the SQL.

use std::sync::Arc;

use mmrepl::apply::pure::{
    Attempt, Decision, Grave as Told, GroupBuilder, Kept, Merged, RowChange, RowOp, Segment,
    Stamp as Made, Target, attempt, decide, entries_of,
};
use mmrepl::assemble::{Change, Piece};
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::{Held, Local, Rank, Stamp};
use mmrepl::ids::NodeName;
use mmrepl::pgoutput::{Tuple, Value};

use super::row::{Grave, Row, State};
use crate::history::NAMES;

pub(super) struct Applying<'a> {
    state: State,
    target: &'a Arc<Target>,
    source: NodeName,
    by_column: bool,
}

/// What the source had seen decides what is recorded, not what is left.
fn made(time: CommitTime) -> Made {
    Made {
        time,
        seen: Arc::default(),
        delete_clock: Some(time.as_postgres_micros()),
    }
}

fn key_of(row: &RowChange) -> usize {
    std::str::from_utf8(&row.key[0]).unwrap().parse().unwrap()
}

fn rank((clock, node): (i64, u8)) -> Rank {
    let node = NAMES[usize::from(node)].to_owned();
    Rank::of_stamp(Stamp { clock, node })
}

impl<'a> Applying<'a> {
    pub(super) fn new(
        state: &State,
        target: &'a Arc<Target>,
        source: NodeName,
        by_column: bool,
    ) -> Self {
        Self {
            state: *state,
            target,
            source,
            by_column,
        }
    }

    pub(super) fn group(mut self, pieces: &[Piece]) -> State {
        let changes = pieces.iter().flat_map(|piece| {
            let time = piece.header.commit_time;
            piece.changes.iter().map(move |change| (change, time))
        });
        self.write_grouped(changes);
        self.state
    }

    pub(super) fn in_parts(mut self, piece: &Piece) -> State {
        for change in &piece.changes {
            self.write_grouped(std::iter::once((change, piece.header.commit_time)));
        }
        self.state
    }

    pub(super) fn in_order(mut self, piece: &Piece) -> State {
        for change in &piece.changes {
            let made = made(piece.header.commit_time);
            for entry in entries_of(change, self.target, &made).unwrap() {
                self.settle(entry.row().unwrap());
            }
        }
        self.state
    }

    fn write_grouped<'c>(&mut self, changes: impl Iterator<Item = (&'c Change, CommitTime)>) {
        let mut group = GroupBuilder::default();
        for (change, time) in changes {
            group.row(change, self.target, &made(time)).unwrap();
        }
        for segment in group.finish() {
            let Segment::Rows(entries) = segment else {
                panic!("a trigger deletes the rows");
            };
            let rows: Vec<&RowChange> = entries.iter().map(|entry| entry.row().unwrap()).collect();
            let (taken, refused): (Vec<&RowChange>, Vec<&RowChange>) =
                rows.into_iter().partition(|row| self.takes(row));
            for row in refused {
                self.settle(row);
            }
            let buried = |row: &&RowChange| self.state.graves[key_of(row)].is_some();
            let again: Vec<&RowChange> = taken.into_iter().filter(buried).collect();
            for row in again {
                self.settle(row);
            }
        }
    }

    /// Tries the statement that needs no look.
    fn takes(&mut self, row: &RowChange) -> bool {
        let key = key_of(row);
        match (attempt(row), &row.op) {
            (Attempt::InsertNew, RowOp::Put(put)) if self.state.rows[key].is_none() => {
                self.state.rows[key] = Some(self.read(&put.values));
                true
            }
            (Attempt::InsertNew | Attempt::Settle, _) => false,
            (other, _) => panic!("{other:?} of a row that merges"),
        }
    }

    fn read(&self, values: &Tuple) -> Row {
        Row::read(values, self.by_column)
    }

    fn settle(&mut self, change: &RowChange) {
        let key = key_of(change);
        let (row, grave) = (self.state.rows[key], self.state.graves[key]);
        let held = |stamp| Held {
            rank: Some(rank(stamp)),
            version: None,
        };
        let local = Local {
            row: row.map(|row| held(row.version)),
            tombstones: grave.iter().map(|grave| held(grave.rank)).collect(),
        };
        let kept = Kept {
            row: row.map(|row| row.print(key)),
            grave: grave.map(|grave| Told {
                rank: Some(rank(grave.rank)),
                image: Some(grave.row.print(key)),
            }),
        };
        let wins = decide(change, &local, &self.source) != Decision::Discard;
        let merging = self.target.versions().merging().unwrap();
        match merging
            .merge(&change.op, change.rank.as_ref(), &kept, wins)
            .0
        {
            Merged::Nothing => {}
            Merged::Insert(row) => {
                assert!(self.state.rows[key].is_none(), "a duplicate");
                self.state.rows[key] = Some(self.read(&row));
            }
            Merged::Update {
                changed,
                row: whole,
            } => {
                let there = kept.row.expect("an update needs a row");
                let pairs = changed.0.iter().zip(there.0.iter());
                let written = pairs.map(|(new, old)| match new {
                    Value::Unchanged => old.clone(),
                    _ => new.clone(),
                });
                let written = Tuple(written.collect());
                assert_eq!(self.read(&written), self.read(&whole));
                self.state.rows[key] = Some(self.read(&written));
            }
            Merged::Delete(grave) | Merged::Remember(grave) => {
                self.state.rows[key] = None;
                self.state.graves[key] = Some(self.buried(&grave));
            }
        }
    }

    fn buried(&self, grave: &Told) -> Grave {
        let stamp = grave.rank.as_ref().unwrap().stamp().unwrap();
        let node = NAMES.iter().position(|name| *name == stamp.node).unwrap();
        Grave {
            rank: (stamp.clock, u8::try_from(node).unwrap()),
            row: self.read(grave.image.as_ref().unwrap()),
        }
    }
}
