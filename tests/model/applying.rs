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
use mmrepl::conflict::unique::{Claim, claim, reclaim};
use mmrepl::conflict::{Local, Version};
use mmrepl::ids::NodeName;
use mmrepl::pgoutput::{Tuple, Value};

use crate::node::{Row, Shadow, Stamp, State, Values};
use crate::table::{column, number, text};

/// Why a transaction was rolled back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RolledBack {
    /// A newer delete covers a key just inserted, or rows are kept aside; in order it will be seen.
    Overtaken,
    /// The server refused a duplicate.
    Duplicate,
}

/// A target transaction under way. Its `state` is thrown away when it fails.
pub(crate) struct Applying<'a> {
    pub(crate) state: State,
    names: &'a [NodeName],
    source: u8,
    /// The source's rows at this moment.
    source_state: &'a State,
    target: &'a Arc<Target>,
    inserted: Vec<(usize, CommitTime)>,
}

/// What the source had seen decides what is recorded, not what wins: the model leaves it out.
fn made(time: CommitTime) -> Made {
    let seen = Arc::default();
    Made { time, seen }
}

fn key_of(row: &RowChange) -> usize {
    usize::from(number(&row.key[0]))
}

impl<'a> Applying<'a> {
    pub(crate) fn begin(
        state: State,
        names: &'a [NodeName],
        (source, source_state): (u8, &'a State),
        target: &'a Arc<Target>,
    ) -> Self {
        Self {
            state,
            names,
            source,
            source_state,
            target,
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
                self.settle_unique(entry.row().unwrap(), time)?;
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
        let rows: Vec<&RowChange> = entries.iter().map(|entry| entry.row().unwrap()).collect();
        let mut refused = Vec::new();
        for row in rows {
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
            (Attempt::DeleteOlder, _, Some(local)) if self.is_older(local.stamp, row.time) => {
                self.state.remove(key);
            }
            // On a duplicate it does nothing.
            (Attempt::InsertNew, RowOp::Put(put), None)
                if self.rivals(key, &put.values).is_empty() =>
            {
                self.put(key, &put.values)?;
                self.inserted.push((key, row.since));
            }
            (Attempt::Update(how), RowOp::Put(put), Some(local)) => {
                let taken = match how {
                    UpdateGuard::Older => self.is_older(local.stamp, row.since),
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

    /// Keys whose rows have the unique value of `values`.
    fn rivals(&self, key: usize, values: &Tuple) -> Vec<usize> {
        self.state.rivals(key, column(values, 3).unwrap_or(0))
    }

    /// `Guard::takes` leaves more to be settled, with the same end.
    fn is_older(&self, stamp: Stamp, time: CommitTime) -> bool {
        let incoming = Version {
            time,
            node: self.names[usize::from(self.source)].clone(),
        };
        incoming.wins_over(self.version(stamp).as_ref())
    }

    /// `Guard::same_writer`.
    fn is_same_writer(&self, stamp: Stamp) -> bool {
        match stamp {
            Stamp::Own => true,
            Stamp::At(_, node) => self.target.guard().pair && node == self.source,
        }
    }

    fn version(&self, stamp: Stamp) -> Option<Version> {
        match stamp {
            Stamp::Own => None,
            Stamp::At(micros, node) => Some(Version {
                time: CommitTime::from_postgres_micros(micros),
                node: self.names[usize::from(node)].clone(),
            }),
        }
    }

    /// Writes what was sent over what is there.
    fn put(&mut self, key: usize, values: &Tuple) -> Result<(), RolledBack> {
        if !self.rivals(key, values).is_empty() {
            return Err(RolledBack::Duplicate);
        }
        let before = self.state.rows[key];
        let kept = |value: Option<u16>, old: Option<u16>| value.or(old).expect("a whole row");
        self.state.rows[key] = Some(Row {
            small: kept(column(values, 1), before.map(|row| row.small)),
            large: kept(column(values, 2), before.map(|row| row.large)),
            taken: column(values, 3).unwrap_or(0),
            stamp: Stamp::Own,
        });
        Ok(())
    }

    fn local(&self, key: usize) -> Local {
        let tombstones = [self.state.tombstones[key], self.state.emptied];
        Local {
            row: self.state.rows[key].map(|row| self.version(row.stamp)),
            tombstones: tombstones
                .into_iter()
                .flatten()
                .map(|s| self.version(s))
                .collect(),
        }
    }

    /// `Applier::settle`.
    fn settle(&mut self, row: &RowChange) -> Result<(), RolledBack> {
        let key = key_of(row);
        let local = self.local(key);
        let source = &self.names[usize::from(self.source)];
        match (decide(row, &local, source), &row.op) {
            (Decision::Delete, _) => self.state.remove(key),
            (Decision::LeaveTombstone, _) => self.state.tombstones[key] = Some(Stamp::Own),
            (Decision::Overwrite, RowOp::Put(put)) => self.put(key, &put.values)?,
            (Decision::Complete, RowOp::Put(put)) => {
                if let Some(values) = self.fetched(key, &put.values) {
                    self.put(key, &values)?;
                    if local.row.is_none() {
                        self.inserted.push((key, row.since));
                    }
                }
            }
            (Decision::Overtaken, _) => return Err(RolledBack::Overtaken),
            _ => {}
        }
        Ok(())
    }

    /// `Applier::settle_unique`: a shadow counts as the row of its key.
    fn settle_unique(&mut self, row: &RowChange, time: CommitTime) -> Result<(), RolledBack> {
        let key = key_of(row);
        let mut local = self.local(key);
        let kept = self.state.shadows[key].map(|shadow| self.version(at(shadow.version)));
        let fresh = kept.filter(|kept| local.tombstones.iter().all(|delete| delete <= kept));
        local.row = local.row.or(fresh);
        let source = &self.names[usize::from(self.source)];
        match (decide(row, &local, source), &row.op) {
            (Decision::Discard, _) => return Ok(()),
            (Decision::Overtaken, _) => return Err(RolledBack::Overtaken),
            (_, RowOp::Delete(_)) => {
                self.state.remove(key);
                self.state.shadows[key] = None;
            }
            (_, RowOp::Put(put)) => {
                if let Some(values) = self.fetched(key, &put.values) {
                    self.claim((key, row), &values, time)?;
                }
            }
        }
        Ok(())
    }

    fn claim(
        &mut self,
        (key, row): (usize, &RowChange),
        values: &Tuple,
        time: CommitTime,
    ) -> Result<(), RolledBack> {
        let write = (time.as_postgres_micros(), self.source);
        let rivals = self.rivals(key, values);
        let own = |stamp| match stamp {
            Stamp::Own => write,
            Stamp::At(micros, node) => (micros, node),
        };
        let versions: Vec<(i64, u8)> = rivals
            .iter()
            .map(|rival| own(self.state.rows[*rival].expect("a rival").stamp))
            .collect();
        let named: Vec<_> = versions.iter().map(|v| self.version(at(*v))).collect();
        let incoming = self.version(at(write)).expect("a known version");
        if let Claim::Blocked(_) = claim(&incoming, &named) {
            let column = |index| column(values, index).unwrap_or(0);
            let values = (column(1), column(2), column(3));
            self.state.keep_aside(
                key,
                Shadow {
                    values,
                    version: write,
                },
            );
            return Ok(());
        }
        for (rival, version) in rivals.into_iter().zip(versions) {
            self.state.push_aside(rival, version);
        }
        self.state.shadows[key] = None;
        if self.state.rows[key].is_none() {
            self.inserted.push((key, row.since));
        }
        self.put(key, values)
    }

    /// `Fetcher::complete`: from the source's row as it is now.
    fn fetched(&self, key: usize, values: &Tuple) -> Option<Tuple> {
        let mut values = values.clone();
        if values.0[2] == Value::Unchanged {
            let row = self.source_state.rows[key].map(Row::values);
            let shadow = self.source_state.shadows[key].map(|shadow| shadow.values);
            values.0[2] = text(row.or(shadow)?.1);
        }
        Some(values)
    }

    /// `Applier::refuse_deleted`.
    fn refuse_deleted(&mut self) -> Result<(), RolledBack> {
        let inserted = std::mem::take(&mut self.inserted);
        let deleted_later = |(key, time): &(usize, CommitTime)| {
            let tombstones = [self.state.tombstones[*key], self.state.emptied];
            tombstones
                .into_iter()
                .flatten()
                .any(|stamp| !self.is_older(stamp, *time))
        };
        if inserted.iter().any(deleted_later) {
            return Err(RolledBack::Overtaken);
        }
        Ok(())
    }

    /// `Applier::truncate`.
    fn truncate(&mut self, time: CommitTime) {
        let older = |state: &State, key: usize, me: &Self| {
            state.rows[key].is_none_or(|row| me.is_older(row.stamp, time))
        };
        for key in 0..self.state.shadows.len() {
            let shadow = self.state.shadows[key];
            if shadow.is_some_and(|shadow| self.is_older(at(shadow.version), time)) {
                self.state.shadows[key] = None;
            }
        }
        let kept = self.state.shadows.iter().any(Option::is_some);
        let newer_left =
            kept || (0..self.state.rows.len()).any(|key| !older(&self.state, key, self));
        let is_older = |stamp| self.is_older(stamp, time);
        if !newer_left && self.state.emptied.is_none_or(is_older) {
            self.state.truncate();
            return;
        }
        for key in 0..self.state.rows.len() {
            if self.state.rows[key].is_some() && older(&self.state, key, self) {
                self.state.remove(key);
            }
        }
        if self
            .state
            .emptied
            .is_none_or(|stamp| self.is_older(stamp, time))
        {
            self.state.emptied = Some(Stamp::Own);
        }
    }
}

fn at((micros, node): (i64, u8)) -> Stamp {
    Stamp::At(micros, node)
}

/// `Returner::pass` on one node, again and again until nothing changes.
pub(crate) fn bring_back(state: &mut State, names: &[NodeName]) {
    while (0..state.shadows.len()).any(|key| fate(state, key, names)) {}
}

/// Brings one row back or forgets it; false where it stays, or where there is none.
fn fate(state: &mut State, key: usize, names: &[NodeName]) -> bool {
    let version = |stamp| match stamp {
        Stamp::Own => unreachable!("no transaction is under way"),
        Stamp::At(micros, node) => Version {
            time: CommitTime::from_postgres_micros(micros),
            node: names[usize::from(node)].clone(),
        },
    };
    let Some(shadow) = state.shadows[key] else {
        return false;
    };
    let kept = version(at(shadow.version));
    let mut deletes = [state.tombstones[key], state.emptied].into_iter().flatten();
    if state.rows[key].is_some() || deletes.any(|delete| version(delete) > kept) {
        state.shadows[key] = None;
        return true;
    }
    let (small, large, taken): Values = shadow.values;
    let rivals = state.rivals(key, taken);
    let stamps = rivals
        .iter()
        .map(|rival| state.rows[*rival].expect("a rival").stamp);
    let stamps: Vec<Stamp> = stamps.collect();
    let versions: Vec<_> = stamps.iter().map(|stamp| Some(version(*stamp))).collect();
    if reclaim(Some(&kept), &versions) != Claim::Admitted {
        return false;
    }
    for (rival, stamp) in rivals.into_iter().zip(stamps) {
        if let Stamp::At(micros, node) = stamp {
            state.push_aside(rival, (micros, node));
        }
    }
    state.shadows[key] = None;
    let stamp = at(shadow.version);
    state.rows[key] = Some(Row {
        small,
        large,
        taken,
        stamp,
    });
    true
}
