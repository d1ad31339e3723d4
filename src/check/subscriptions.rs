//! Subscriptions of the nodes to servers outside of the cluster. Pure.
//!
//! What a subscription brings keeps the time at which it was written elsewhere. Where one node
//! alone gets such rows they go on to the others. Where two get them, a row that both get is sent
//! by each to the other, and times that lie before what either node has seen decide nothing.

use super::Problem;
use super::facts::NodeFacts;

/// Warns where more than one node subscribes.
pub(super) fn check(nodes: &[NodeFacts]) -> Vec<Problem> {
    let subscribed: Vec<&NodeFacts> = nodes
        .iter()
        .filter(|facts| !facts.subscriptions.is_empty())
        .collect();
    if subscribed.len() < 2 {
        return Vec::new();
    }
    let warn = |facts: &&NodeFacts| {
        let what = format!(
            "{} brings rows here, and another node has a subscription too: rows that both bring may \
             differ on the nodes",
            facts.subscriptions.join(", ")
        );
        let advice = "let one node alone subscribe, or each to other tables";
        Problem::warning(&facts.name, what).note(advice)
    };
    subscribed.iter().map(warn).collect()
}
