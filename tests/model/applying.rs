//! One target transaction of a link, decided by the product's own code.
//!
//! What `apply::rows`, `apply::settle`, `apply::truncate` and `apply::in_order` do with SQL is done
//! here to a [`State`]; which statement is tried, what the group's net changes are and what is
//! decided about a row comes from `mmrepl::apply::pure` and `mmrepl::conflict`.

use std::sync::Arc;

use mmrepl::apply::pure::{
    Attempt, Decision, Entry, GroupBuilder, RowChange, RowOp, Segment, Stamp as Made, Target,
    UpdateGuard, attempt, decide, entries_of,
};
use mmrepl::assemble::{Change, Piece};
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::{Held, Local, Rank, Version};
use mmrepl::ids::NodeName;
use mmrepl::pgoutput::{Tuple, Value};

use crate::history::Strategy;
use crate::node::{Pending, Row, Stamp, State};
use crate::table::{column, number, text};
use crate::versions::{self, Kept};

/// Why a transaction was rolled back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RolledBack {
    /// A newer delete covers a key just inserted, or rows are kept aside; in order that is seen.
    Overtaken,
    /// The server refused a duplicate.
    Duplicate,
}

/// A target transaction under way. Its `state` is thrown away when it fails.
pub(crate) struct Applying<'a> {
    pub(crate) state: State,
    pub(crate) names: &'a [NodeName],
    pub(crate) source: u8,
    /// The source's rows at this moment.
    source_state: &'a State,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) strategy: Strategy,
    pub(crate) inserted: Vec<(usize, CommitTime, Option<Rank>)>,
}

/// What the source had seen decides what is recorded, not what wins: the model leaves it out.
fn made(time: CommitTime) -> Made {
    let seen = Arc::default();
    // The clock of deletes is that of the commit, since no time passes within a transaction.
    let delete_clock = Some(time.as_postgres_micros());
    Made {
        time,
        seen,
        delete_clock,
    }
}

pub(crate) fn rank_of(row: &RowChange) -> Option<&Rank> {
    row.rank.as_ref()
}

pub(crate) fn kept(rank: Option<&Rank>) -> Kept {
    rank.map(|rank| versions::read(&rank.to_string()))
}

/// What waits for a person to decide.
fn pending(op: &RowOp, row: &RowChange) -> Pending {
    let values = match op {
        RowOp::Put(put) => {
            let columns = column(&put.values, 1).zip(column(&put.values, 2));
            columns.map(|(small, large)| (small, large, column(&put.values, 4).unwrap_or(0)))
        }
        RowOp::Delete(_) => None,
    };
    let known = kept(rank_of(row));
    Pending { values, known }
}

pub(crate) fn key_of(row: &RowChange) -> usize {
    usize::from(number(&row.key[0]))
}

impl<'a> Applying<'a> {
    pub(crate) fn begin(
        state: &State,
        names: &'a [NodeName],
        (source, source_state): (u8, &'a State),
        (strategy, target): (Strategy, &'a Arc<Target>),
    ) -> Self {
        Self {
            state: *state,
            names,
            source,
            source_state,
            target,
            strategy,
            inserted: Vec::new(),
        }
    }

    /// `Applier::apply_group`.
    pub(crate) fn group(mut self, pieces: &[Piece]) -> Result<State, RolledBack> {
        let changes = pieces.iter().flat_map(|piece| {
            let time = piece.header.commit_time;
            piece.changes.iter().map(move |change| (change, time))
        });
        self.write_grouped(changes)?;
        Ok(self.state)
    }

    /// `Applier::apply_part` for every change.
    pub(crate) fn in_parts(mut self, piece: &Piece) -> Result<State, RolledBack> {
        for change in &piece.changes {
            self.write_grouped(std::iter::once((change, piece.header.commit_time)))?;
        }
        Ok(self.state)
    }

    fn write_grouped<'c>(
        &mut self,
        changes: impl Iterator<Item = (&'c Change, CommitTime)>,
    ) -> Result<(), RolledBack> {
        let mut group = GroupBuilder::default();
        for (change, time) in changes {
            match change {
                Change::Truncate { .. } => {
                    assert!(!self.strategy.is_in_row(), "a trigger deletes the rows");
                    group.truncate(vec![Arc::clone(self.target)], made(time));
                }
                _ => group.row(change, self.target, &made(time)).unwrap(),
            }
        }
        for segment in group.finish() {
            match segment {
                Segment::Rows(entries) => self.write_rows(&entries)?,
                Segment::Truncate(_, made) => self.truncate(made.time),
            }
        }
        Ok(())
    }

    /// `Applier::apply_in_order`.
    pub(crate) fn in_order(mut self, piece: &Piece) -> Result<State, RolledBack> {
        let time = piece.header.commit_time;
        for change in &piece.changes {
            if let Change::Truncate { .. } = change {
                self.truncate(time);
                continue;
            }
            for entry in entries_of(change, self.target, &made(time)).unwrap() {
                let row = entry.row().unwrap();
                if self.strategy.is_by_knowledge() {
                    self.settle(row)?;
                } else {
                    self.settle_unique(row, time)?;
                }
            }
        }
        self.refuse_deleted()?;
        Ok(self.state)
    }

    fn write_rows(&mut self, entries: &[Entry]) -> Result<(), RolledBack> {
        // `mmrepl.refuse_shadows`.
        if self.state.shadows.iter().any(Option::is_some) {
            return Err(RolledBack::Overtaken);
        }
        let mut refused = Vec::new();
        for row in entries.iter().map(|entry| entry.row().unwrap()) {
            if !self.takes(row)? {
                refused.push(row);
            }
        }
        for row in refused {
            self.settle(row)?;
        }
        self.refuse_deleted()
    }

    /// Tries the guarded statement; true when it took the row.
    fn takes(&mut self, row: &RowChange) -> Result<bool, RolledBack> {
        let key = key_of(row);
        let there = self.state.rows[key];
        match (attempt(row), &row.op, there) {
            (Attempt::DeleteOlder, _, Some(local))
                if self.is_older((local.version, local.stamp), (row.time, rank_of(row))) =>
            {
                self.remove(key, row);
            }
            // On a duplicate it does nothing.
            (Attempt::InsertNew, RowOp::Put(put), None)
                if self.rivals(key, &put.values).is_empty() =>
            {
                self.put(key, &put.values)?;
                self.inserted.push((key, row.since, row.rank.clone()));
            }
            (Attempt::Update(how), RowOp::Put(put), Some(local)) => {
                let taken = match how {
                    UpdateGuard::Older => {
                        self.is_older((local.version, local.stamp), (row.since, rank_of(row)))
                    }
                    UpdateGuard::SameWriter => self.is_same_writer(local.stamp),
                    UpdateGuard::Decided => true,
                };
                if taken {
                    self.put(key, &put.values)?;
                }
                return Ok(taken);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `Guard::takes` leaves more to be settled, with the same end.
    fn is_older(
        &self,
        (version, stamp): (Kept, Stamp),
        (time, rank): (CommitTime, Option<&Rank>),
    ) -> bool {
        let incoming = Version {
            time,
            node: self.names[usize::from(self.source)].clone(),
        };
        let between_equals = self.target.versions().tie();
        incoming.wins_over(rank, &self.held(version, stamp), between_equals)
    }

    pub(crate) fn held(&self, version: Kept, stamp: Stamp) -> Held {
        let printed = versions::print(self.strategy, version);
        Held {
            rank: Rank::read(printed.as_bytes().map(|bytes| &bytes[..])),
            version: self.version(stamp),
        }
    }

    /// `Guard::same_writer`.
    fn is_same_writer(&self, stamp: Stamp) -> bool {
        match stamp {
            Stamp::Own => true,
            Stamp::At(_, node) => self.target.guard().pair && node == self.source,
        }
    }

    pub(crate) fn version(&self, stamp: Stamp) -> Option<Version> {
        match stamp {
            Stamp::Own => None,
            Stamp::At(micros, node) => Some(Version {
                time: CommitTime::from_postgres_micros(micros),
                node: self.names[usize::from(node)].clone(),
            }),
        }
    }

    /// Deletes the row that is there.
    pub(crate) fn remove(&mut self, key: usize, row: &RowChange) {
        self.state.rows[key] = None;
        self.remember(key, row);
    }

    /// Leaves the tombstone of a delete, where one is needed: `mmrepl.applies_from_only_peer`. One
    /// that is there is replaced.
    pub(crate) fn remember(&mut self, key: usize, row: &RowChange) {
        let needed = !self.target.guard().pair || self.strategy != Strategy::LastWriteWins;
        if needed || self.state.tombstones[key].is_some() {
            self.state.remember(key, kept(rank_of(row)));
        }
    }

    /// Writes what was sent over what is there.
    pub(crate) fn put(&mut self, key: usize, values: &Tuple) -> Result<(), RolledBack> {
        if !self.rivals(key, values).is_empty() {
            return Err(RolledBack::Duplicate);
        }
        let before = self.state.rows[key];
        let kept = |value: Option<u16>, old: Option<u16>| value.or(old).expect("a whole row");
        self.state.rows[key] = Some(Row {
            small: kept(column(values, 1), before.map(|row| row.small)),
            large: kept(column(values, 2), before.map(|row| row.large)),
            taken: column(values, 4).unwrap_or(0),
            version: match &values.0[3] {
                Value::Text(text) => Some(versions::read(std::str::from_utf8(text).unwrap())),
                _ => None,
            },
            stamp: Stamp::Own,
        });
        Ok(())
    }

    pub(crate) fn local(&self, key: usize) -> Local {
        let deletes = self.deletes(key).into_iter().flatten();
        Local {
            row: self.state.rows[key].map(|row| self.held(row.version, row.stamp)),
            tombstones: deletes
                .map(|(version, stamp)| self.held(version, stamp))
                .collect(),
        }
    }

    /// The tombstones that cover a key.
    fn deletes(&self, key: usize) -> [Option<(Kept, Stamp)>; 2] {
        let own = self.state.tombstones[key].map(|own| (own.version, own.stamp));
        [own, self.state.emptied.map(|stamp| (None, stamp))]
    }

    /// `Applier::settle`.
    fn settle(&mut self, row: &RowChange) -> Result<(), RolledBack> {
        let key = key_of(row);
        if self.strategy == Strategy::Custom {
            return self.settle_custom(row);
        }
        let local = self.local(key);
        let source = &self.names[usize::from(self.source)];
        match (decide(row, &local, source), &row.op) {
            (Decision::Delete, _) => self.remove(key, row),
            (Decision::LeaveTombstone, _) => self.remember(key, row),
            (Decision::Overwrite, RowOp::Put(put)) => self.put(key, &put.values)?,
            (Decision::Complete, RowOp::Put(put)) => {
                if let Some(values) = self.fetched(key, &put.values) {
                    self.put(key, &values)?;
                    if local.row.is_none() {
                        self.inserted.push((key, row.since, row.rank.clone()));
                    }
                } else if local.row.is_none() && !self.strategy.is_by_knowledge() {
                    self.remember(key, row);
                }
            }
            (Decision::Overtaken, _) => return Err(RolledBack::Overtaken),
            (Decision::JoinDeletes(known), _) => {
                let known = kept(Some(&known));
                self.state.remember(key, known);
                self.state.supersede(key, known);
                return Ok(());
            }
            (Decision::Pending, op) => {
                self.state.pending[key][usize::from(self.source)] = Some(pending(op, row));
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.state.supersede(key, kept(rank_of(row)));
        Ok(())
    }

    /// `Fetcher::complete`: from the source's row as it is now.
    pub(crate) fn fetched(&self, key: usize, values: &Tuple) -> Option<Tuple> {
        let mut values = values.clone();
        if values.0[2] == Value::Unchanged {
            let row = self.source_state.rows[key].map(Row::values);
            let shadow = self.source_state.shadows[key].map(|shadow| shadow.values);
            values.values_mut()[2] = text(row.or(shadow)?.1);
        }
        Some(values)
    }

    /// `Applier::refuse_deleted`.
    fn refuse_deleted(&mut self) -> Result<(), RolledBack> {
        let inserted = std::mem::take(&mut self.inserted);
        let deleted_later = |(key, time, rank): &(usize, CommitTime, Option<Rank>)| {
            let deletes = self.deletes(*key).into_iter().flatten();
            let mut by_others = deletes.filter(|(_, stamp)| *stamp != Stamp::Own);
            by_others.any(|delete| !self.is_older(delete, (*time, rank.as_ref())))
        };
        if inserted.iter().any(deleted_later) {
            return Err(RolledBack::Overtaken);
        }
        Ok(())
    }

    /// `Applier::truncate`.
    fn truncate(&mut self, time: CommitTime) {
        let older = |state: &State, key: usize, me: &Self| {
            state.rows[key].is_none_or(|row| me.is_older((None, row.stamp), (time, None)))
        };
        for key in 0..self.state.shadows.len() {
            let shadow = self.state.shadows[key];
            if shadow.is_some_and(|own| self.is_older((None, own.stamp()), (time, None))) {
                self.state.shadows[key] = None;
            }
        }
        let kept = self.state.shadows.iter().any(Option::is_some);
        let newer_left =
            kept || (0..self.state.rows.len()).any(|key| !older(&self.state, key, self));
        let is_older = |stamp| self.is_older((None, stamp), (time, None));
        if !newer_left && self.state.emptied.is_none_or(is_older) {
            self.state.truncate();
            return;
        }
        for key in 0..self.state.rows.len() {
            if self.state.rows[key].is_some() && older(&self.state, key, self) {
                self.state.remove(key, None);
            }
        }
        if self
            .state
            .emptied
            .is_none_or(|stamp| self.is_older((None, stamp), (time, None)))
        {
            self.state.emptied = Some(Stamp::Own);
        }
    }
}
