//! Rule `custom`: what becomes of a key when a change arrives. Pure; the essay is at
//! `conflict::Siblings`.

use crate::apply::plan::change::RowChange;
use crate::apply::shape::op::RowOp;
use crate::commit_time::CommitTime;
use crate::conflict::{Rank, Sibling, Siblings};
use crate::ids::NodeName;
use crate::pgoutput::Tuple;

/// A change, and what the key held before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The writes that count now.
    pub siblings: Siblings<Tuple>,
    /// Whether what was there was written without knowing the change, and the other way round, and
    /// a row is there on one side at least.
    pub is_conflict: bool,
}

/// A change as a write of its key.
pub fn of_change(change: &RowChange) -> Sibling<Tuple> {
    let row = match &change.op {
        RowOp::Put(put) => Some(put.values.clone()),
        RowOp::Delete(_) => None,
    };
    let version = change.rank.clone();
    Sibling {
        version: version.unwrap_or_else(Rank::knowing_nothing),
        row,
    }
}

/// What a key has once `change` has arrived; `holds` is its row, else its tombstone, and `kept`
/// what else was kept. Nothing where the change was known.
pub fn take(
    change: &RowChange,
    holds: Option<Sibling<Tuple>>,
    kept: Vec<Sibling<Tuple>>,
) -> Option<Taken> {
    let write = of_change(change);
    let has_row = write.row.is_some() || holds.as_ref().is_some_and(|held| held.row.is_some());
    let before = Siblings::of(holds, kept);
    let is_news = before.are_news_to(&write.version);
    let siblings = before.with(write)?;
    let is_conflict = has_row && is_news && siblings.only().is_none();
    Some(Taken {
        siblings,
        is_conflict,
    })
}

/// What the function is told of two sides, without the key: the table, and of each side the node
/// that wrote it last, when, and what it knew.
pub(in crate::apply) fn meta(table: &str, sides: [&Rank; 2], nodes: &[NodeName]) -> String {
    let side = |version: &Rank| {
        let writer = version.writer(nodes);
        let time = writer.map(|(time, _): (CommitTime, _)| time.to_string());
        let node = writer.map(|(_, node)| node.as_str());
        serde_json::json!({ "node": node, "version": version.to_string(), "time": time })
    };
    let [a, b] = sides;
    serde_json::json!({ "table": table, "a": side(a), "b": side(b) }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_told_who_wrote_what_and_when() {
        let nodes: Vec<NodeName> = ["west", "east"].map(|name| name.parse().unwrap()).into();
        let told = meta(
            "public.t",
            [
                &"{0,1}".parse().unwrap(),
                &"{1700000000000000,1}".parse().unwrap(),
            ],
            &nodes,
        );
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["table"], "public.t");
        assert_eq!(told["a"]["node"], "east");
        assert_eq!(told["b"]["node"], "west");
        assert_eq!(told["b"]["version"], "{1700000000000000,1}");
        assert_eq!(told["b"]["time"], "2023-11-14T22:13:20.000000Z");
    }
}
