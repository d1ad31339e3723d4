//! One thing that `init` does, and who is told of it.

use crate::check::Problem;
use crate::ids::NodeName;

/// One thing to do on one node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// The node.
    pub node: NodeName,
    /// What it does, as an action.
    pub what: String,
    /// The statements, run in one transaction unless `kind` says otherwise.
    pub sql: Vec<String>,
    #[serde(skip)]
    pub(super) kind: StepKind,
}

/// How a step is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StepKind {
    /// The statements in one transaction.
    #[default]
    Transaction,
    /// The statements in one transaction, with what `fingerprints` wants around them.
    Fingerprinted,
    /// The migrations runner.
    Migrate,
}

impl Step {
    pub(super) fn new(node: &NodeName, what: impl Into<String>, sql: Vec<String>) -> Self {
        Self {
            node: node.clone(),
            what: what.into(),
            sql,
            kind: StepKind::Transaction,
        }
    }

    /// For statements on triggers or the publication.
    pub(super) fn fingerprinted(self) -> Self {
        Self {
            kind: StepKind::Fingerprinted,
            ..self
        }
    }
}

/// Receives a line whenever something was done or, in a dry run, would be.
pub trait Progress: Send {
    /// One step on one node.
    fn step(&mut self, step: &Step);
    /// A finding of the preflight.
    fn problem(&mut self, problem: &Problem);
    /// What `init` waits for, once it has waited for a while.
    fn waiting(&mut self, sentence: &str);
}
