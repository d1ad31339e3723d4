//! Preflight: everything that would keep a cluster from working, found before anything is changed.
//!
//! [`facts`] asks every server; the other modules are pure and turn the answers into problems, all
//! of them at once, each with the command that mends it. `mmrepl check` prints them, `mmrepl init`
//! refuses while one of them is an error.

mod bodies;
mod clock;
mod counters;
pub mod facts;
mod facts_query;
mod functions;
pub mod gather;
pub mod local_ways;
pub mod mend;
pub mod neighbours;
mod problem;
mod rights;
mod rules;
pub mod scope;
mod script;
mod sequence_facts;
mod sequences;
mod settings;
mod structure;
mod subscriptions;
mod tables;
mod unreachable;

use crate::catalog::dropped::DroppedNode;
use crate::config::Config;
use crate::damage::Damage;
use crate::ids::NodeName;
use crate::lineage::Finding;
use facts::NodeFacts;
pub use problem::{Problem, Severity};
pub use script::script;
pub use unreachable::unreachable;

/// Whether any problem is an error.
pub fn has_errors(problems: &[Problem]) -> bool {
    problems
        .iter()
        .any(|problem| problem.severity == Severity::Error)
}

/// Judges what the servers said. Errors first, otherwise in the order of the checks.
pub fn judge(config: &Config, nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for facts in nodes {
        problems.extend(settings::check(config, facts));
        problems.extend(neighbours::check(config, facts));
        problems.extend(rights::check(facts));
        problems.extend(tables::check(facts));
        problems.extend(bodies::check(facts));
        problems.extend(rules::check(config, facts));
        problems.extend(counters::check(config, facts));
    }
    problems.extend(settings::check_identities(nodes));
    problems.extend(settings::check_encodings(nodes));
    problems.extend(clock::check(config.conflict.max_clock_skew, nodes));
    problems.extend(structure::check(nodes));
    problems.extend(subscriptions::check(nodes));
    problems.extend(scope::check(config, nodes));
    problems.extend(sequences::check(nodes));
    problems.extend(functions::check(nodes));
    problems.sort_by_key(|problem| problem.severity);
    script::say_once(&mut problems);
    problems
}

/// The problem that a link's history is broken, with what each node has alone; it shows on the node
/// that the link feeds.
pub fn broken(finding: &Finding, apart: Option<String>) -> Problem {
    let apart = apart.map(|apart| format!("; {apart}"));
    let apart = apart.unwrap_or_default();
    let what = format!("link {}: {}{apart}", finding.link, finding.cause);
    Problem::error(&finding.link.to, what).note(finding.advice.to_string())
}

/// The problem that the configuration names a node that was dropped.
pub fn dropped(node: &NodeName, dropped: &DroppedNode) -> Problem {
    let DroppedNode { node: gone, at } = dropped;
    let what = format!("node {gone} was dropped on {at}, and the file still names it");
    Problem::error(node, what).note(format!(
        "take its [[node]] section out of the file on every host, or set it up again: mmrepl init --rejoin {gone}"
    ))
}

/// The hint that the role is no superuser, and what that costs.
pub fn without_event_triggers(node: &NodeName) -> Problem {
    let what = "mmrepl's role is no superuser and may not make event triggers: each updated row \
                costs its writer a call more (1.4 microseconds, more with large values); when a \
                table's key changes `mmrepl status` asks for init; where ALTER TABLE rewrites rows \
                links may wait for `mmrepl rewritten`; subscriptions are noticed a second later";
    Problem::info(node, what)
}

/// The problem that a server answered, but refused a question.
pub fn unreadable(node: &NodeName, error: &dyn std::error::Error) -> Problem {
    Problem::error(node, error.to_string())
}

/// The problem that something `init` made is not as it was.
pub fn damaged(node: &NodeName, damage: &Damage) -> Problem {
    Problem::error(node, damage.what.clone()).note(format!("run {}", damage.mend))
}
