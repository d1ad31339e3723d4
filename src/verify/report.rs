//! What a comparison has found. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::ids::NodeName;
use crate::text;

/// The answer to the whole command.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether no table differs and all were compared.
    pub equal: bool,
    /// Every table, by name.
    pub tables: Vec<TableReport>,
    /// Rows that point at nothing, where they were asked for.
    pub foreign_keys: Vec<ForeignKeyReport>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TableReport {
    /// `schema.table`.
    pub table: String,
    /// How many rows each node had, at slightly different moments.
    pub rows: BTreeMap<NodeName, i64>,
    /// How many rows differ.
    pub different: u64,
    /// There may be more: counting ended early.
    pub at_least: bool,
    /// Rows that were written anew each time they were looked at, so that nobody can tell.
    pub busy: u64,
    /// How many rows were mended, and are equal now.
    pub repaired: u64,
    /// Rows that wait for a person, which are no differences.
    pub pending: u64,
    /// Rows that are kept aside, which are no differences.
    pub kept_aside: u64,
    /// Some of the rows that differ.
    pub differences: Vec<Difference>,
    /// Why it was not compared.
    pub error: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Rows of one key that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key's columns and their values; empty in a table without a key.
    pub key: BTreeMap<String, String>,
    /// What is different.
    pub kind: DifferenceKind,
    /// The row of each node.
    pub rows: Vec<NodeRow>,
    /// What mends it, or why nothing does; where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
}

/// What mends rows of one key, or why nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The node whose write counts, where that is decided.
    pub by: Option<NodeName>,
    /// What the others do.
    pub action: Option<Action>,
    /// The nodes that do.
    pub on: Vec<NodeName>,
    /// Why the rows are not mended; nothing where they are, or would be.
    pub why_not: Option<String>,
    /// The row is kept aside on some node.
    #[serde(skip)]
    pub(super) kept_aside: bool,
    /// No version decides.
    #[serde(skip)]
    pub(super) undecided: bool,
    /// Nothing changes by itself.
    #[serde(skip)]
    pub(super) is_final: bool,
}

/// What a node does to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It writes the row that another node has.
    Write,
    /// It deletes its row.
    Delete,
    /// It has the row as often as another node, from then on.
    Count,
}

/// What is different about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Some node has no such row.
    Missing,
    /// All have one, with other values.
    Value,
    /// A table without a key has the row more often on some node.
    Count,
}

/// A row of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeName,
    /// How often it has the row.
    pub count: i64,
    /// Columns and values; nothing where there is no row.
    pub row: Option<BTreeMap<String, Option<String>>>,
    /// When it was written, where that is known.
    pub written_at: Option<String>,
    /// The node that wrote it, where that is known.
    pub written_by: Option<String>,
}

/// A foreign key with rows that point at nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignKeyReport {
    /// `schema.table` of the rows.
    pub table: String,
    /// The constraint.
    pub constraint: String,
    /// `schema.table` that they should point at.
    pub references: String,
    /// How many such rows each node has.
    pub rows: BTreeMap<NodeName, i64>,
    /// Some of their values.
    pub examples: Vec<String>,
}

impl Report {
    /// The exit code: 0 equal, 1 different, 2 where something could not be compared.
    pub fn exit_code(&self) -> u8 {
        if self.tables.iter().any(|table| table.error.is_some()) {
            return 2;
        }
        u8::from(!self.equal)
    }

    /// Sets whether all is equal.
    pub(super) fn conclude(mut self) -> Self {
        self.tables.sort_by(|a, b| a.table.cmp(&b.table));
        let well = |table: &TableReport| table.different == 0 && table.error.is_none();
        self.equal = self.tables.iter().all(well) && self.foreign_keys.is_empty();
        self
    }

    /// For people: one block for each table that is not equal, and a last line.
    pub fn words(&self) -> String {
        let mut words = String::new();
        for table in &self.tables {
            words.push_str(&table.words());
        }
        for key in &self.foreign_keys {
            words.push_str(&key.words());
        }
        let differ = self.tables.iter().filter(|table| table.different > 0);
        let failed = self.tables.iter().filter(|table| table.error.is_some());
        let (differ, failed) = (differ.count(), failed.count());
        if self.tables.iter().any(TableReport::is_asked_for) {
            words.push_str(ASKED_FOR);
        }
        let rows: i64 = self.tables.iter().map(TableReport::rows_max).sum();
        let count = self.tables.len();
        let _ = match (differ, failed) {
            (0, 0) => writeln!(words, "{count} table(s) are equal, {rows} rows"),
            (_, 0) => writeln!(words, "{differ} of {count} table(s) differ, {rows} rows"),
            _ => writeln!(
                words,
                "{differ} of {count} table(s) differ, {failed} could not be compared"
            ),
        };
        words
    }
}

/// How what nothing decides is decided.
const ASKED_FOR: &str = "what no version decides, a person does: `mmrepl verify --repair --table \
     TABLE --from NODE` makes the rows of NODE count there; what they replace is kept in the \
     history\n";

impl TableReport {
    /// Whether some of its rows wait for a person who says whose count.
    fn is_asked_for(&self) -> bool {
        let repairs = self
            .differences
            .iter()
            .filter_map(|one| one.repair.as_ref());
        repairs.into_iter().any(|repair| repair.undecided)
    }

    /// The rows of the node that has most.
    fn rows_max(&self) -> i64 {
        self.rows.values().copied().max().unwrap_or_default()
    }

    fn words(&self) -> String {
        let mut words = String::new();
        let table = &self.table;
        if let Some(error) = &self.error {
            let _ = writeln!(words, "{table}: not compared: {error}");
        }
        if self.repaired > 0 {
            let _ = writeln!(words, "{table}: {} row(s) were mended", self.repaired);
        }
        let about = if self.at_least { "at least " } else { "" };
        if self.different > 0 {
            let _ = writeln!(words, "{table}: {about}{} row(s) differ", self.different);
        }
        for difference in &self.differences {
            words.push_str(&difference.words());
        }
        let left = self.different.saturating_sub(self.differences.len() as u64);
        if left > 0 && !self.differences.is_empty() {
            let _ = writeln!(
                words,
                "  … and {about}{left} more (--limit shows more of them)"
            );
        }
        for (count, what) in [
            (
                self.busy,
                "changed each time it was looked at, so nobody can tell",
            ),
            (
                self.pending,
                "waits for a person (`mmrepl conflicts list --pending`)",
            ),
            (
                self.kept_aside,
                "is kept aside until a unique value comes free",
            ),
        ] {
            if count > 0 {
                let _ = writeln!(words, "{table}: {count} row(s), each of which {what}");
            }
        }
        words
    }
}

impl Difference {
    fn words(&self) -> String {
        let key = self
            .key
            .iter()
            .map(|(name, value)| format!("{name} = {value}"));
        let key = key.collect::<Vec<_>>().join(", ");
        let mut words = format!(
            "  {}\n",
            text::visible(if key.is_empty() { "a row" } else { &key })
        );
        for row in &self.rows {
            let _ = writeln!(words, "    {}: {}", row.node, row.words());
        }
        if let Some(repair) = &self.repair {
            let _ = writeln!(words, "    {}", text::visible(&repair.words()));
        }
        words
    }
}

impl Repair {
    /// Nothing decides.
    pub(super) fn refused(why: String) -> Self {
        Self {
            why_not: Some(why),
            is_final: true,
            ..Self::default()
        }
    }

    /// Something came in between.
    pub(super) fn later(why: &str) -> Self {
        Self {
            why_not: Some(why.to_owned()),
            ..Self::default()
        }
    }

    /// What is done, or would be.
    pub(super) fn planned(node: NodeName, action: Action, on: Vec<NodeName>) -> Self {
        Self {
            by: Some(node),
            action: Some(action),
            on,
            ..Self::default()
        }
    }

    /// Settling the row once more comes to the same.
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    fn words(&self) -> String {
        if let Some(why_not) = &self.why_not {
            return format!("not mended: {why_not}");
        }
        let on: Vec<&str> = self.on.iter().map(NodeName::as_str).collect();
        let (on, by) = (on.join(", "), self.by.as_ref());
        let by = by.map_or_else(String::new, ToString::to_string);
        match self.action {
            Some(Action::Delete) => format!("deleted on {by}: goes on {on}"),
            Some(Action::Count) => format!("as often on {on} as on {by}"),
            _ => format!("the row of {by} goes to {on}"),
        }
    }
}

impl NodeRow {
    fn words(&self) -> String {
        let Some(row) = &self.row else {
            return "no row".to_owned();
        };
        let value = |(name, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{name} = {value}"),
            None => format!("{name} is null"),
        };
        let values = row.iter().map(value).collect::<Vec<_>>().join(", ");
        let mut words = text::visible(&values).into_owned();
        if self.count > 1 {
            let _ = write!(words, " ({} times)", self.count);
        }
        if let Some(at) = &self.written_at {
            let by = self.written_by.as_ref().map(|by| format!("on {by} "));
            let _ = write!(words, " (written {}at {at})", by.unwrap_or_default());
        }
        words
    }
}

impl ForeignKeyReport {
    fn words(&self) -> String {
        let rows = self
            .rows
            .iter()
            .map(|(node, rows)| format!("{rows} on {node}"));
        format!(
            "{}: rows point at nothing in {} by {}: {}; for example {}\n",
            self.table,
            self.references,
            self.constraint,
            rows.collect::<Vec<_>>().join(", "),
            text::visible(&self.examples.join(", "))
        )
    }
}
