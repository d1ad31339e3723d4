//! Why applying failed.

use crate::apply::shape::mapping::MapError;
use crate::catalog::CatalogError;
use crate::error::{RetryClass, Retryable};
use crate::ids::NodeName;
use crate::wire::WireError;

/// SQLSTATE of `mmrepl.require_clock`: the target's clock is behind the commit time.
const CLOCK_BEHIND: &str = "MR001";
/// SQLSTATE of `mmrepl.advance_position`: somebody else moved the position.
const POSITION_MOVED: &str = "MR002";
/// SQLSTATE of `mmrepl.raise_deleted`: a concurrent delete of a key being inserted.
const DELETED_MEANWHILE: &str = "MR003";

/// SQLSTATE of `mmrepl.refuse_shadows`: rows of the table are kept aside.
const KEPT_ASIDE: &str = "MR004";
/// SQLSTATE of `mmrepl.expect_rows`: a row was not taken, or a question found something.
const NOT_EXPECTED: &str = "MR005";
/// SQLSTATE of `mmrepl.expect_types`: a column is of another type than before.
const TYPES_CHANGED: &str = "MR006";

/// An error while a group of changes was applied. The target transaction is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The target refused or could not be reached.
    #[error("{}{source}", in_table(.table.as_deref()))]
    Target {
        /// `schema.table` of the change, where one statement failed.
        table: Option<String>,
        /// What the server or the connection said.
        source: WireError,
    },
    /// Rows could not be copied; without COPY the same rows may go in.
    #[error("{table}: {source}")]
    CopyRefused {
        /// `schema.table` of the rows.
        table: String,
        /// What the server said.
        source: WireError,
    },
    /// The function of rule `custom` failed.
    #[error("{table}: function {function}(jsonb, jsonb, jsonb): {source}")]
    Function {
        /// `schema.table` of the row.
        table: String,
        /// `schema.name`.
        function: String,
        /// What the server said.
        source: Box<WireError>,
    },
    /// It returned something else than a row of the table with the same key.
    #[error(
        "{table}: function {function}(jsonb, jsonb, jsonb) returned {what}: mend it on every node, the link goes on by itself"
    )]
    BadResult {
        /// `schema.table` of the row.
        table: String,
        /// `schema.name`.
        function: String,
        /// What is wrong with the result.
        what: String,
    },
    /// A write without all its columns, where they are needed.
    #[error(
        "the source did not send whole old rows of {table}: `mmrepl init` sets REPLICA IDENTITY FULL for what is written from then on; what was written before can only be left out"
    )]
    NotWhole {
        /// `schema.table` of the row.
        table: String,
    },
    /// The source could not be asked for an unchanged large value.
    #[error("cannot read a large value of {table} from the source: {source}")]
    Fetch {
        /// `schema.table` of the row.
        table: String,
        /// What the server or the connection said.
        source: WireError,
    },
    /// The source does not show a transaction yet that it has sent.
    #[error(
        "{table}: the source sent a change that it does not show yet, and a large value must be read there; if this lasts, see whether its commits wait for a synchronous standby"
    )]
    NotShown {
        /// `schema.table` of the row.
        table: String,
    },
    /// The target's catalog could not be read.
    #[error("cannot look up {table} on the target: {source}")]
    Catalog {
        /// `schema.table`.
        table: String,
        /// What the server or the connection said.
        source: Box<CatalogError>,
    },
    /// The tables do not fit.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The table was rewritten, and nobody kept when its rows were written.
    #[error(
        "{table} was rewritten on {target} and nobody kept when its rows were written, so what {source_node} wrote before cannot be judged: `mmrepl rewritten '{table}' --take {source_node} --yes` makes the rows of {source_node} count, `--take {target}` those of {target}"
    )]
    Rewritten {
        /// `schema.table` of the row.
        table: String,
        /// The node whose change it is.
        source_node: NodeName,
        /// The node where the table was rewritten.
        target: NodeName,
    },
    /// The target's clock has not passed the commit time yet.
    #[error("the target's clock is behind the commit time of the change")]
    ClockBehind {
        /// By how much, microseconds.
        micros: i64,
    },
    /// A concurrent local write came in between, or rows are kept aside: in order that is seen.
    #[error("a local write of the same row came in between")]
    Overtaken,
    /// A group that was sent ahead holds a row that must be looked at before it is written.
    #[error("a row must be compared with the one that is there; the transaction is applied again")]
    Untaken,
    /// A table's columns are not of the types that the link knew.
    #[error("{0}; the transaction is applied again")]
    TypesChanged(WireError),
    /// The position row is not where this link left it.
    #[error(
        "the position of this link on the target was moved by somebody else: see that only one daemon runs for the node"
    )]
    PositionMoved,
    /// The stream holds a change that its own relation contradicts.
    #[error("the source sent a change of {table} without the values of its key")]
    KeyMissing {
        /// `schema.table`.
        table: String,
    },
}

fn in_table(table: Option<&str>) -> String {
    table.map(|table| format!("{table}: ")).unwrap_or_default()
}

/// The number in the message of `mmrepl.require_clock`: how far the commit time lies ahead.
fn micros_ahead(error: &WireError) -> i64 {
    let WireError::Server(error) = error else {
        return 0;
    };
    let number = |word: &str| word.parse().ok();
    error.message.split(' ').find_map(number).unwrap_or(0)
}

impl ApplyError {
    /// Sorts a failure on the target into what it means for the link.
    pub fn target(source: WireError, table: Option<String>) -> Self {
        match source.sqlstate() {
            Some(CLOCK_BEHIND) => Self::ClockBehind {
                micros: micros_ahead(&source),
            },
            Some(POSITION_MOVED) => Self::PositionMoved,
            Some(DELETED_MEANWHILE | KEPT_ASIDE) => Self::Overtaken,
            Some(NOT_EXPECTED) => Self::Untaken,
            Some(TYPES_CHANGED) => Self::TypesChanged(source),
            _ => Self::Target { table, source },
        }
    }

    /// Whether leaving the change out is a way past it: not where another command is the way.
    pub fn may_be_skipped(&self) -> bool {
        !matches!(self, Self::Rewritten { .. }) && !self.lacks_identity()
    }

    /// Whether the target's table has lost its replica identity, without which the server refuses
    /// every update (SQLSTATE 55000, which stands for other things too).
    pub fn lacks_identity(&self) -> bool {
        self.sqlstate() == Some("55000") && self.to_string().contains("replica identity")
    }

    /// The table the error is about.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Target { table, .. } => table.as_deref(),
            Self::Fetch { table, .. }
            | Self::Catalog { table, .. }
            | Self::CopyRefused { table, .. }
            | Self::KeyMissing { table }
            | Self::Function { table, .. }
            | Self::BadResult { table, .. }
            | Self::NotWhole { table }
            | Self::NotShown { table }
            | Self::Rewritten { table, .. }
            | Self::Map(
                MapError::NoTable { table, .. }
                | MapError::NoColumn { table, .. }
                | MapError::KeyNotSent { table, .. }
                | MapError::Narrower { table, .. }
                | MapError::BareByte { table, .. }
                | MapError::NoOldRows { table }
                | MapError::NoVersion { table, .. },
            ) => Some(table),
            Self::ClockBehind { .. }
            | Self::Overtaken
            | Self::Untaken
            | Self::TypesChanged(_)
            | Self::PositionMoved => None,
        }
    }
}

impl Retryable for ApplyError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Target { source, .. } | Self::Fetch { source, .. } => source.retry_class(),
            Self::Function { source, .. } => source.retry_class(),
            Self::Catalog { source, .. } => source.retry_class(),
            Self::Map(_)
            | Self::KeyMissing { .. }
            | Self::BadResult { .. }
            | Self::Rewritten { .. }
            | Self::NotWhole { .. } => RetryClass::Definite,
            Self::ClockBehind { .. }
            | Self::Overtaken
            | Self::Untaken
            | Self::TypesChanged(_)
            | Self::PositionMoved
            | Self::NotShown { .. }
            | Self::CopyRefused { .. } => RetryClass::Transient,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Target { source, .. }
            | Self::Fetch { source, .. }
            | Self::CopyRefused { source, .. } => source.sqlstate(),
            Self::Function { source, .. } => source.sqlstate(),
            Self::Catalog { source, .. } => source.sqlstate(),
            _ => None,
        }
    }
}
