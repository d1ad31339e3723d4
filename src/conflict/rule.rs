//! The rules that decide by a version, and where each keeps it.

use std::collections::BTreeMap;
use std::fmt;

use super::concurrency::MARKER_PREFIX;
use super::{Rank, Stamp, Tie};
use crate::ids::NodeName;

/// The column of `hybrid_clock` and `first_write_wins`.
pub const COUNT_COLUMN: &str = "mmrepl_version";
/// The column of `node_priority`. It has another type, so it has another name: a table may change
/// its rule while changes under the old one are under way.
pub const VECTOR_COLUMN: &str = "mmrepl_versions";

/// The column of `manual` and `custom`: what a write knew of each node, in the order of the file.
pub const KNOWN_COLUMN: &str = "mmrepl_known";
/// The column in which rows that merge keep their clocks (`MergeState`).
pub const STATE_COLUMN: &str = "mmrepl_merge";

/// What the first delete of a transaction says in the WAL, before the time.
const DELETES: &str = "deletes at ";

/// Which of two versions of a row stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The later commit time.
    #[default]
    LastWriteWins,
    /// The greater value of the application's column of this name, then the later.
    VersionColumn(String),
    /// The greater clock of the row, then the later.
    HybridClock,
    /// The greater number of edits, then the earlier.
    FirstWriteWins,
    /// The greater numbers of edits by each node, these being the nodes in order of priority.
    NodePriority(Vec<NodeName>),
    /// What knows the other replaces it; between the others a person decides. These are the nodes
    /// in the order of the file.
    Manual(Vec<NodeName>),
    /// What knows the other replaces it; of the others a function makes one row.
    Custom(Custom),
    /// Neither alone: see `Image`.
    Merge(Merge),
}

/// A function of the user that makes one row of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// The nodes in the order of the file.
    pub nodes: Vec<NodeName>,
    /// The schema of the function.
    pub schema: String,
    /// The function: `(a jsonb, b jsonb, meta jsonb) returns jsonb`.
    pub function: String,
}

impl fmt::Display for Custom {
    /// `public.merge_orders`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.function)
    }
}

/// What of two versions of a row survives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// The newest value of each column; else all but the counters go with the greater clock.
    pub by_column: bool,
    /// Columns whose changes add up.
    pub counters: Vec<String>,
}

impl Rule {
    /// The word in the configuration file and in the history.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LastWriteWins => "last_write_wins",
            Self::VersionColumn(_) => "version_column",
            Self::FirstWriteWins => "first_write_wins",
            Self::NodePriority(_) => "node_priority",
            Self::Manual(_) => "manual",
            Self::Custom(_) => "custom",
            Self::Merge(merge) if merge.by_column => "column_merge",
            Self::HybridClock | Self::Merge(_) => "hybrid_clock",
        }
    }

    /// The column that holds a row's version.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::LastWriteWins => None,
            Self::VersionColumn(name) => Some(name),
            Self::HybridClock | Self::FirstWriteWins | Self::Merge(_) => Some(COUNT_COLUMN),
            Self::NodePriority(_) => Some(VECTOR_COLUMN),
            Self::Manual(_) | Self::Custom(_) => Some(KNOWN_COLUMN),
        }
    }

    /// The type of a column that mmrepl adds.
    pub const fn added_type(&self) -> Option<&'static str> {
        match self {
            Self::LastWriteWins | Self::VersionColumn(_) => None,
            Self::HybridClock | Self::FirstWriteWins | Self::Merge(_) => Some("bigint"),
            Self::NodePriority(_) | Self::Manual(_) | Self::Custom(_) => Some("bigint[]"),
        }
    }

    /// The columns that mmrepl adds, with their types.
    pub fn added(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let version = self.column().zip(self.added_type());
        let state = self.merge().map(|_| (STATE_COLUMN, "jsonb"));
        version.into_iter().chain(state)
    }

    /// How rows merge, where they do.
    pub const fn merge(&self) -> Option<&Merge> {
        match self {
            Self::Merge(merge) => Some(merge),
            _ => None,
        }
    }

    /// The nodes that have a place in the versions, where these say what a write knew.
    pub fn places(&self) -> Option<&[NodeName]> {
        match self {
            Self::Manual(nodes) | Self::Custom(Custom { nodes, .. }) => Some(nodes),
            _ => None,
        }
    }

    /// The function that decides, where one does.
    pub const fn custom(&self) -> Option<&Custom> {
        match self {
            Self::Custom(custom) => Some(custom),
            _ => None,
        }
    }

    /// Whether rows carry their version.
    pub const fn is_in_row(&self) -> bool {
        !matches!(self, Self::LastWriteWins)
    }

    /// What decides between equal versions.
    pub const fn tie(&self) -> Tie {
        match self {
            Self::FirstWriteWins => Tie::Earlier,
            Self::Manual(_) | Self::Custom(_) => Tie::Known,
            _ => Tie::Later,
        }
    }

    /// The version of a delete made on node `by` of a row that had the version `deleted`. `clock`
    /// is what the deleting transaction said of its clock.
    pub fn rank_of_delete(
        &self,
        deleted: Option<&Rank>,
        by: &NodeName,
        clock: Option<i64>,
    ) -> Option<Rank> {
        let counted = Rank::count(deleted).saturating_add(1);
        match self {
            Self::LastWriteWins => None,
            Self::VersionColumn(_) => deleted.cloned(),
            Self::HybridClock => Some(Rank::of_count(counted.max(clock.unwrap_or(counted)))),
            Self::Merge(_) => Some(Rank::of_stamp(Stamp {
                clock: counted.max(clock.unwrap_or(counted)),
                node: by.to_string(),
            })),
            Self::FirstWriteWins => Some(Rank::of_count(counted)),
            Self::NodePriority(nodes) => Some(Rank::edited_by(deleted, by, nodes)),
            Self::Manual(nodes) | Self::Custom(Custom { nodes, .. }) => {
                Some(Rank::written_by(deleted, by, nodes, clock))
            }
        }
    }
}

impl fmt::Display for Rule {
    /// `version_column(v)`, `custom(east, west) by public.f`: all that must agree between nodes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::VersionColumn(column) => write!(f, "({column})"),
            Self::NodePriority(nodes) | Self::Manual(nodes) => write!(f, "({})", listed(nodes)),
            Self::Custom(custom) => write!(f, "({}) by {custom}", listed(&custom.nodes)),
            Self::Merge(merge) if !merge.counters.is_empty() => {
                write!(f, " adding up {}", merge.counters.join(", "))
            }
            _ => Ok(()),
        }
    }
}

fn listed(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

/// The rule of every table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For tables that are not named.
    pub default: Rule,
    /// By `schema.table`.
    pub tables: BTreeMap<String, Rule>,
}

impl Rules {
    /// Whether a person may have to decide.
    pub fn need_a_person(&self) -> bool {
        let mut all = self.tables.values().chain([&self.default]);
        all.any(|rule| matches!(rule, Rule::Manual(_)))
    }

    /// The rule of a table. Without a key its rows are matched whole and none applies.
    pub fn of(&self, schema: &str, table: &str, has_key: bool) -> &Rule {
        if !has_key {
            return &Rule::LastWriteWins;
        }
        let named = self.tables.get(&format!("{schema}.{table}"));
        named.unwrap_or(&self.default)
    }
}

/// Reads what a deleting transaction says of its clock: microseconds since 1970.
pub fn delete_clock(prefix: &str, content: &[u8]) -> Option<i64> {
    if prefix != MARKER_PREFIX {
        return None;
    }
    let text = std::str::from_utf8(content).ok()?;
    text.strip_prefix(DELETES)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<NodeName> {
        ["west", "east"].map(|name| name.parse().unwrap()).into()
    }

    fn deleted(rule: &Rule, version: &str, clock: Option<i64>) -> Option<String> {
        let rank = version.parse().ok();
        let rank = rule.rank_of_delete(rank.as_ref(), &nodes()[1], clock);
        rank.map(|rank| rank.to_string())
    }

    #[test]
    fn a_delete_is_above_the_row_it_deletes() {
        let text = |text: &str| Some(text.to_owned());
        let column = Rule::VersionColumn("v".to_owned());
        assert_eq!(deleted(&column, "7.50", None), text("7.50"));
        assert_eq!(deleted(&column, "", None), None);
        assert_eq!(deleted(&Rule::HybridClock, "7", Some(5)), text("8"));
        assert_eq!(deleted(&Rule::HybridClock, "7", Some(50)), text("50"));
        assert_eq!(deleted(&Rule::FirstWriteWins, "7", Some(50)), text("8"));
        assert_eq!(deleted(&Rule::FirstWriteWins, "", None), text("1"));
        let priority = Rule::NodePriority(nodes());
        assert_eq!(deleted(&priority, "{1,2}", None), text("{1,3}"));
        let manual = Rule::Manual(nodes());
        assert_eq!(deleted(&manual, "{1,2}", None), text("{1,3}"));
        assert_eq!(deleted(&manual, "{1,2}", Some(9)), text("{1,9}"));
        let merge = Rule::Merge(Merge::default());
        assert_eq!(deleted(&merge, "7 west", Some(5)), text("8 east"));
        assert_eq!(deleted(&merge, "", Some(50)), text("50 east"));
        assert_eq!(deleted(&Rule::LastWriteWins, "7", None), None);
    }

    #[test]
    fn the_clock_of_a_delete_is_read_from_its_message() {
        assert_eq!(delete_clock("mmrepl", b"deletes at 17"), Some(17));
        assert_eq!(delete_clock("mmrepl", b"applied a b 0/1 7"), None);
        assert_eq!(delete_clock("other", b"deletes at 17"), None);
    }

    #[test]
    fn a_table_without_a_key_has_no_rule_of_its_own() {
        let rules = Rules {
            default: Rule::HybridClock,
            tables: [("public.t".to_owned(), Rule::FirstWriteWins)].into(),
        };
        assert_eq!(rules.of("public", "t", true), &Rule::FirstWriteWins);
        assert_eq!(rules.of("public", "u", true), &Rule::HybridClock);
        assert_eq!(rules.of("public", "t", false), &Rule::LastWriteWins);
        let counters = vec!["a".to_owned(), "b".to_owned()];
        let merge = |by_column, counters| {
            Rule::Merge(Merge {
                by_column,
                counters,
            })
        };
        assert_eq!(merge(true, vec![]).to_string(), "column_merge");
        assert_eq!(
            merge(false, counters).to_string(),
            "hybrid_clock adding up a, b"
        );
        assert_eq!(
            Rule::NodePriority(nodes()).to_string(),
            "node_priority(west, east)"
        );
    }
}
