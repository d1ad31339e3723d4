//! What a comparison is asked for.

use crate::ids::NodeName;

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tables by name or pattern; all that take part where there is none.
    pub tables: Vec<String>,
    /// Compare the texts of values instead of values.
    pub exact: bool,
    /// Count rows that point at nothing, too.
    pub foreign_keys: bool,
    /// How many rows that differ are shown of each table.
    pub limit: usize,
    /// How many tables are compared at once.
    pub jobs: usize,
    /// Which share of the time is spent reading, above 0 up to 1.
    pub share: f64,
    /// Mend what differs.
    pub repair: Option<RepairOptions>,
}

/// How differences are mended.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// The node whose rows count where no version decides.
    pub from: Option<NodeName>,
}
