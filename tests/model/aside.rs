//! Unique values in the model: what `apply::unique` and `apply::returner` do with SQL.

use mmrepl::apply::pure::{Decision, RowChange, RowOp, decide};
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::unique::{Claim, claim, is_newer, reclaim};
use mmrepl::conflict::{Held, Version};
use mmrepl::ids::NodeName;
use mmrepl::pgoutput::Tuple;

use crate::applying::{Applying, RolledBack, kept, key_of, rank_of};
use crate::history::Strategy;
use crate::node::{Row, Shadow, Stamp, State};
use crate::table::column;
use crate::versions::{self, Kept};

impl Applying<'_> {
    /// Keys whose rows have the unique value of `values`.
    pub(crate) fn rivals(&self, key: usize, values: &Tuple) -> Vec<usize> {
        self.state.rivals(key, column(values, 4).unwrap_or(0))
    }

    /// `Applier::settle_unique`: a shadow counts as the row of its key.
    pub(crate) fn settle_unique(
        &mut self,
        row: &RowChange,
        time: CommitTime,
    ) -> Result<(), RolledBack> {
        let key = key_of(row);
        let mut local = self.local(key);
        let (in_row, of_equals) = (self.strategy.is_in_row(), self.target.versions().tie());
        let kept_aside = self.state.shadows[key].map(|own| self.held(own.version, own.stamp()));
        let counts = kept_aside.filter(|own| match &local.row {
            Some(row) => in_row && is_newer(own, row, of_equals),
            None => !local
                .tombstones
                .iter()
                .any(|delete| is_newer(delete, own, of_equals)),
        });
        local.row = counts.or(local.row);
        let source = &self.names[usize::from(self.source)];
        match (decide(row, &local, source), &row.op) {
            (Decision::Discard, _) => {}
            (Decision::Overtaken, _) => return Err(RolledBack::Overtaken),
            (_, RowOp::Delete(_)) => {
                self.remove(key, row);
                self.state.shadows[key] = None;
            }
            (_, RowOp::Put(put)) => {
                if let Some(values) = self.fetched(key, &put.values) {
                    self.claim((key, row), &values, time)?;
                } else if local.row.is_none() {
                    self.remember(key, row);
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
        let stamp_of = |rival: &usize| own(self.state.rows[*rival].expect("a rival").stamp);
        let stamps: Vec<(i64, u8)> = rivals.iter().map(stamp_of).collect();
        let version = |(micros, node)| self.version(Stamp::At(micros, node));
        let versions: Vec<_> = stamps.iter().map(|stamp| version(*stamp)).collect();
        let incoming = version(write).expect("a known version");
        if let Claim::Blocked(_) = claim(&incoming, &versions) {
            let column = |index| column(values, index).unwrap_or(0);
            let shadow = Shadow {
                values: (column(1), column(2), column(4)),
                version: kept(rank_of(row)),
                at: write,
            };
            self.state.keep_aside(key, shadow);
            return Ok(());
        }
        for (rival, at) in rivals.into_iter().zip(stamps) {
            self.state.push_aside(rival, at);
        }
        self.state.shadows[key] = None;
        if self.state.rows[key].is_none() {
            self.inserted.push((key, row.since, row.rank.clone()));
        }
        self.put(key, values)
    }
}

/// `Returner::pass` on one node, again and again until nothing changes.
pub(crate) fn bring_back(state: &mut State, names: &[NodeName], strategy: Strategy) {
    let held = |version: Kept, stamp| Held {
        rank: versions::rank(strategy, version),
        version: match stamp {
            Stamp::Own => None,
            Stamp::At(micros, node) => Some(Version {
                time: CommitTime::from_postgres_micros(micros),
                node: names[usize::from(node)].clone(),
            }),
        },
    };
    while (0..state.shadows.len()).any(|key| fate(state, key, strategy, held)) {}
}

/// What becomes of one row kept aside; false where it stays, or where there is none.
fn fate(
    state: &mut State,
    key: usize,
    strategy: Strategy,
    held: impl Fn(Kept, Stamp) -> Held,
) -> bool {
    let Some(shadow) = state.shadows[key] else {
        return false;
    };
    let (own, tie) = (
        held(shadow.version, shadow.stamp()),
        versions::rule(strategy).tie(),
    );
    if let Some(row) = state.rows[key] {
        let is_older = strategy.is_in_row() && is_newer(&own, &held(row.version, row.stamp), tie);
        if is_older {
            state.keep_aside(key, shadow);
        } else {
            state.shadows[key] = None;
        }
        return true;
    }
    let tombstone = state.tombstones[key].map(|own| (own.version, own.stamp));
    let deletes = [tombstone, state.emptied.map(|stamp| (None, stamp))];
    let mut deletes = deletes.into_iter().flatten();
    if deletes.any(|(version, stamp)| is_newer(&held(version, stamp), &own, tie)) {
        state.shadows[key] = None;
        return true;
    }
    let (small, large, taken) = shadow.values;
    let rivals = state.rivals(key, taken);
    let stamp_of = |rival: &usize| state.rows[*rival].expect("a rival").stamp;
    let stamps: Vec<Stamp> = rivals.iter().map(stamp_of).collect();
    let named: Vec<_> = stamps
        .iter()
        .map(|stamp| held(None, *stamp).version)
        .collect();
    if reclaim(own.version.as_ref(), &named) != Claim::Admitted {
        return false;
    }
    for (rival, stamp) in rivals.into_iter().zip(stamps) {
        if let Stamp::At(micros, node) = stamp {
            state.push_aside(rival, (micros, node));
        }
    }
    state.shadows[key] = None;
    let (version, stamp) = (shadow.version, shadow.stamp());
    state.rows[key] = Some(Row {
        small,
        large,
        taken,
        version,
        stamp,
    });
    true
}
