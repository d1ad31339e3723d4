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
pub mod mend;
pub mod neighbours;
mod rights;
mod rules;
pub mod scope;
mod sequence_facts;
mod sequences;
mod settings;
mod structure;
mod subscriptions;
mod tables;
mod unreachable;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::catalog::dropped::DroppedNode;
use crate::config::Config;
use crate::damage::Damage;
use crate::ids::NodeName;
use crate::lineage::Finding;
use facts::NodeFacts;
use mend::Mend;
pub use unreachable::unreachable;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Replication cannot work or would lose something: `check` exits 1 and `init` refuses.
    Error,
    /// Replication works; something may surprise later.
    Warning,
    /// Good to know.
    Info,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The node it was found on.
    pub node: NodeName,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, one sentence that names everything.
    pub what: String,
    /// The same where a long list is cut, for a terminal.
    pub brief: String,
    /// What mends it.
    pub mend: Mend,
}

/// What programs read: whole lists, and `fix` only where there is one.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fix = (!self.mend.is_empty()).then(|| self.mend.to_string());
        let mut fields = serializer.serialize_struct("Problem", 4)?;
        fields.serialize_field("node", &self.node)?;
        fields.serialize_field("severity", &self.severity)?;
        fields.serialize_field("what", &self.what)?;
        fields.serialize_field("fix", &fix)?;
        fields.end()
    }
}

impl Problem {
    fn new(node: &NodeName, severity: Severity, what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            node: node.clone(),
            severity,
            brief: what.clone(),
            what,
            mend: Mend::default(),
        }
    }

    /// A problem of many things; `say` makes the sentence from their list.
    fn of_many(
        node: &NodeName,
        severity: Severity,
        names: &[String],
        say: impl Fn(&str) -> String,
    ) -> Self {
        let brief = say(&short_list(names));
        Self {
            brief,
            ..Self::new(node, severity, say(&names.join(", ")))
        }
    }

    /// Adds a statement that mends it, without its semicolon.
    fn sql(mut self, statement: impl AsRef<str>) -> Self {
        self.mend.sql(statement.as_ref());
        self
    }

    /// Adds what a person is to do or to decide.
    fn note(mut self, sentence: impl AsRef<str>) -> Self {
        self.mend.note(sentence.as_ref());
        self
    }

    fn error(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Error, what)
    }

    fn warning(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Warning, what)
    }

    fn info(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Info, what)
    }
}

/// How many names a sentence lists on a terminal before it only counts the rest.
const NAMES_MAX: usize = 5;

/// `a, b, c and 17 more`.
fn short_list(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

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
    mend::say_once(&mut problems);
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
