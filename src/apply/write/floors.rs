//! The times that guarded statements compare a row with, as parameters. Pure.

use std::sync::Arc;

use crate::apply::encode::params::{time_array, time_binary};
use crate::apply::shape::origins::Origins;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::ids::NodeName;

/// No row is old enough: `-infinity` as the server keeps it.
const NEVER: CommitTime = CommitTime::from_postgres_micros(i64::MIN);
/// The same as text.
const NEVER_TEXT: &str = "-infinity";

/// Makes floors (`conflict::Seen::floor`), remembering the last: rows of one transaction share
/// theirs.
pub(in crate::apply) struct Floors {
    /// In the order of the parameters: the target, then third nodes by origin.
    nodes: Vec<NodeName>,
    last: Option<(CommitTime, Arc<Seen>)>,
    times: Vec<CommitTime>,
    /// Those as text; empty when not asked for yet.
    texts: Vec<String>,
}

impl Floors {
    /// For guarded statements on the target of `origins`.
    pub(in crate::apply) fn new(origins: &Origins) -> Self {
        let (target, third) = origins.others();
        let third = third.into_iter().map(|(_, node)| node.clone());
        Self {
            nodes: std::iter::once(target.clone()).chain(third).collect(),
            last: None,
            times: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// The floors of a change made at `time` by a node that had `seen` so much.
    fn times(&mut self, time: CommitTime, seen: &Arc<Seen>) -> &[CommitTime] {
        let same = |(last, had): &(CommitTime, Arc<Seen>)| *last == time && Arc::ptr_eq(had, seen);
        if !self.last.as_ref().is_some_and(same) {
            let floor = |node| seen.floor(node, time).unwrap_or(NEVER);
            self.times.clear();
            self.times.extend(self.nodes.iter().map(floor));
            self.texts.clear();
            self.last = Some((time, Arc::clone(seen)));
        }
        &self.times
    }

    /// The same as text.
    pub(in crate::apply) fn texts(&mut self, time: CommitTime, seen: &Arc<Seen>) -> &[String] {
        self.times(time, seen);
        if self.texts.is_empty() {
            self.texts.extend(self.times.iter().copied().map(text));
        }
        &self.texts
    }

    /// The same in binary form.
    pub(in crate::apply) fn binary(&mut self, time: CommitTime, seen: &Arc<Seen>) -> Vec<Vec<u8>> {
        let times = self.times(time, seen).iter();
        times.map(|time| time_binary(*time).to_vec()).collect()
    }

    /// The floors of many changes: for each parameter an array in binary form.
    pub(in crate::apply) fn arrays<'a>(
        &mut self,
        changes: impl Iterator<Item = (CommitTime, &'a Arc<Seen>)>,
    ) -> Vec<Vec<u8>> {
        let mut columns = vec![Vec::new(); self.nodes.len()];
        for (time, seen) in changes {
            for (column, floor) in columns.iter_mut().zip(self.times(time, seen)) {
                column.push(*floor);
            }
        }
        let arrays = columns
            .into_iter()
            .map(|times| time_array(times.into_iter()));
        arrays.collect()
    }
}

fn text(floor: CommitTime) -> String {
    if floor == NEVER {
        NEVER_TEXT.to_owned()
    } else {
        floor.to_string()
    }
}
