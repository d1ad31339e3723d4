//! What is wrong with a server that `init` has set up: something it made is gone or was changed.
//!
//! [`crate::init`] compares and mends, [`crate::housekeeping`] looks every minute, `status`, the
//! metrics and `check` show it. Nothing of that is an error that ends a link by itself: that is why
//! somebody has to look.

use serde::{Deserialize, Serialize};

/// What kind of thing is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// Schema `mmrepl`, its tables or its functions.
    Schema,
    /// The publication, or a table's part in it.
    Publication,
    /// The triggers on a table.
    Triggers,
    /// The replica identity of a table.
    Identity,
    /// A replication slot.
    Slot,
    /// A replication origin.
    Origin,
    /// The position of a link that ends here.
    Position,
    /// A table that takes part by the configuration and is not replicated.
    Table,
    /// A table that does not take part and is replicated.
    Excluded,
    /// What was written and not sent while the publication was not right.
    Gap,
    /// What the daemon's role may do.
    Rights,
}

impl DamageKind {
    /// The name used in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Publication => "publication",
            Self::Triggers => "triggers",
            Self::Identity => "identity",
            Self::Slot => "slot",
            Self::Origin => "origin",
            Self::Position => "position",
            Self::Table => "table",
            Self::Excluded => "excluded",
            Self::Gap => "gap",
            Self::Rights => "rights",
        }
    }
}

/// One thing that is not as `init` made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What kind of thing it is.
    pub kind: DamageKind,
    /// What is wrong and what follows from it, one sentence.
    pub what: String,
    /// Whether writes made while it lasts get lost or come out differently on the nodes.
    pub loses_rows: bool,
    /// The command that mends it.
    pub mend: String,
}

/// The command that mends most things.
pub const INIT: &str = "mmrepl init";

impl Damage {
    /// Damage that `mmrepl init` mends.
    pub fn new(kind: DamageKind, loses_rows: bool, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            loses_rows,
            mend: INIT.to_owned(),
        }
    }

    /// The same with another command.
    #[must_use]
    pub fn mended_by(mut self, command: impl Into<String>) -> Self {
        self.mend = command.into();
        self
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: run `{}`", self.what, self.mend)
    }
}
