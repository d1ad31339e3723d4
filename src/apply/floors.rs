//! The times that guarded statements compare a row with, as parameters. Pure.

use std::sync::Arc;

use super::origins::Origins;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::ids::NodeName;

/// No row is old enough.
const NEVER: &str = "-infinity";

/// Makes floors as text (`conflict::Seen::floor`), remembering the last: rows of one transaction
/// share theirs.
pub(super) struct Floors {
    /// In the order of the parameters: the target, then third nodes by origin.
    nodes: Vec<NodeName>,
    last: Option<(CommitTime, Arc<Seen>)>,
    texts: Vec<String>,
}

impl Floors {
    /// For guarded statements on the target of `origins`.
    pub(super) fn new(origins: &Origins) -> Self {
        let (target, third) = origins.others();
        let third = third.into_iter().map(|(_, node)| node.clone());
        Self {
            nodes: std::iter::once(target.clone()).chain(third).collect(),
            last: None,
            texts: Vec::new(),
        }
    }

    /// The floors of a change made at `time` by a node that had `seen` so much.
    pub(super) fn texts(&mut self, time: CommitTime, seen: &Arc<Seen>) -> &[String] {
        let same = |(last, had): &(CommitTime, Arc<Seen>)| *last == time && Arc::ptr_eq(had, seen);
        if !self.last.as_ref().is_some_and(same) {
            let floor = |node| {
                seen.floor(node, time)
                    .map_or_else(|| NEVER.to_owned(), |time| time.to_string())
            };
            self.texts = self.nodes.iter().map(floor).collect();
            self.last = Some((time, Arc::clone(seen)));
        }
        &self.texts
    }

    /// The floors of many changes.
    pub(super) fn of<'a>(
        &mut self,
        changes: impl Iterator<Item = (CommitTime, &'a Arc<Seen>)>,
    ) -> Vec<Vec<String>> {
        changes
            .map(|(time, seen)| self.texts(time, seen).to_vec())
            .collect()
    }
}
