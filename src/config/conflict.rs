//! How conflicts are settled, as the file says it.

use std::time::Duration;

use crate::ids::NodeName;

/// The rule that decides which of two versions of a row stays (design: which write wins).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The newest commit time wins; ties go to the node name that sorts last.
    #[default]
    LastWriteWins,
    /// A column that the application keeps decides first.
    VersionColumn,
    /// A column that mmrepl keeps decides first.
    HybridClock,
    /// The oldest version wins.
    FirstWriteWins,
    /// The node listed first wins.
    NodePriority,
    /// The newest value of each column wins.
    ColumnMerge,
    /// A SQL function decides.
    Custom,
    /// The local row stays and a person decides.
    Manual,
}

impl Strategy {
    /// The word in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastWriteWins => "last_write_wins",
            Self::VersionColumn => "version_column",
            Self::HybridClock => "hybrid_clock",
            Self::FirstWriteWins => "first_write_wins",
            Self::NodePriority => "node_priority",
            Self::ColumnMerge => "column_merge",
            Self::Custom => "custom",
            Self::Manual => "manual",
        }
    }
}

/// The section `[conflict]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictConfig {
    /// The rule for tables that no [`TableRule`] names.
    pub strategy: Strategy,
    /// How far clocks may differ before a link stops.
    pub max_clock_skew: Duration,
    /// How long conflict records are kept.
    pub history: Duration,
    /// Conflicts recorded per link, table and minute before only a sample is.
    pub history_per_minute: u64,
    /// How long the memory of deletes is kept at least.
    pub tombstones: Duration,
    /// The nodes in order of priority, where the file says one.
    pub node_priority: Option<Vec<NodeName>>,
    /// Rules of single tables, in the order of the file.
    pub tables: Vec<TableRule>,
}

/// One `[[conflict.table]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRule {
    /// The table as `schema.table`.
    pub name: String,
    /// The rule.
    pub strategy: Strategy,
    /// The column for `version_column`.
    pub version_column: Option<String>,
    /// The nodes in order of priority, where the table has its own.
    pub node_priority: Option<Vec<NodeName>>,
    /// Columns whose changes add up.
    pub delta_columns: Vec<String>,
    /// The schema and the name of the function for `custom`.
    pub function: Option<(String, String)>,
}

impl TableRule {
    /// Nothing but the strategy.
    pub(super) fn of(strategy: Strategy) -> Self {
        Self {
            name: String::new(),
            strategy,
            version_column: None,
            node_priority: None,
            delta_columns: Vec::new(),
            function: None,
        }
    }
}
