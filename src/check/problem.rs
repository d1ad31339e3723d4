//! One finding of the preflight.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::mend::Mend;
use crate::ids::NodeName;

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
    pub(super) fn new(node: &NodeName, severity: Severity, what: impl Into<String>) -> Self {
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
    pub(super) fn of_many(
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
    pub(super) fn sql(mut self, statement: impl AsRef<str>) -> Self {
        self.mend.sql(statement.as_ref());
        self
    }

    /// Adds what a person is to do or to decide.
    pub(super) fn note(mut self, sentence: impl AsRef<str>) -> Self {
        self.mend.note(sentence.as_ref());
        self
    }

    pub(super) fn error(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Error, what)
    }

    pub(super) fn warning(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Warning, what)
    }

    pub(super) fn info(node: &NodeName, what: impl Into<String>) -> Self {
        Self::new(node, Severity::Info, what)
    }
}

/// How many names a sentence lists on a terminal before it only counts the rest.
const NAMES_MAX: usize = 5;

/// `a, b, c and 17 more`.
pub(super) fn short_list(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
