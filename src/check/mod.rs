//! Preflight: everything that would keep a cluster from working, found before anything is changed.
//!
//! [`facts`] asks every server; the other modules are pure and turn the answers into problems, all
//! of them at once, each with the command that mends it. `mmrepl check` prints them, `mmrepl init`
//! refuses while one of them is an error.

mod clock;
mod counters;
pub mod facts;
mod facts_query;
mod functions;
pub mod neighbours;
mod rights;
mod rules;
mod sequences;
mod settings;
mod structure;
mod tables;

use crate::config::Config;
use crate::error::Retryable;
use crate::ids::NodeName;
use crate::wire::WireError;
use facts::NodeFacts;

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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The node it was found on.
    pub node: NodeName,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, one sentence.
    pub what: String,
    /// The command that mends it, where there is one.
    pub fix: Option<String>,
}

impl Problem {
    fn new(node: &NodeName, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            node: node.clone(),
            severity,
            what: what.into(),
            fix: None,
        }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
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
        problems.extend(rules::check(config, facts));
        problems.extend(counters::check(config, facts));
    }
    problems.extend(settings::check_identities(nodes));
    problems.extend(settings::check_encodings(nodes));
    problems.extend(clock::check(config.conflict.max_clock_skew, nodes));
    problems.extend(structure::check(nodes));
    problems.extend(sequences::check(nodes));
    problems.extend(functions::check(nodes));
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// The problem that a server could not be asked at all.
pub fn unreachable(node: &NodeName, target: &str, error: &WireError) -> Problem {
    let what = format!("cannot connect to {target}: {error}");
    let fix = match error.sqlstate() {
        Some("28P01") => {
            "set the right password in the dsn, in $PGPASSWORD or in the password file"
        }
        Some("28000") => {
            "allow the role in pg_hba.conf, for the database itself and, for streaming, with the same rights; then: select pg_reload_conf()"
        }
        Some("3D000") => "create the database, or set the right dbname in the dsn",
        Some("53300") => "raise max_connections or close connections",
        _ => {
            "start the server, or set the right host and port in the dsn; listen_addresses, firewalls and pg_hba.conf can also be the cause"
        }
    };
    Problem::error(node, what).fix(fix)
}

/// The problem that a server answered, but refused a question.
pub fn unreadable(node: &NodeName, error: &crate::catalog::CatalogError) -> Problem {
    Problem::error(node, error.to_string())
}
