//! The triggers that keep versions in rows, as SQL. Pure; their functions are in
//! `migrations/functions/`.

use super::merging::Merging;
use crate::catalog::names::{ident, literal};
use crate::catalog::table::Table;
use crate::conflict::{Custom, Rule};
use crate::ids::NodeName;

/// How a table keeps versions on one node.
#[derive(Clone, Debug)]
pub(super) struct InRow {
    rule: Rule,
    /// `"mmrepl_version"`.
    column: String,
    type_name: String,
    /// Where versions have a place for each node: this one's, from 1, and how many there are.
    place: (usize, usize),
    node: NodeName,
    merging: Option<Merging>,
}

impl InRow {
    /// Nothing where the rule keeps none in the row.
    pub(super) fn of(rule: &Rule, table: &Table, node: &NodeName) -> Option<Self> {
        let name = rule.column().filter(|_| table.key.is_some())?;
        let own_type = || table.column(name).map(|column| column.type_name.clone());
        let added = rule.added_type().map(str::to_owned);
        let place = match rule {
            Rule::NodePriority(nodes)
            | Rule::Manual(nodes)
            | Rule::Custom(Custom { nodes, .. }) => {
                let place = nodes.iter().position(|name| name == node);
                (place.map_or(0, |place| place + 1), nodes.len())
            }
            _ => (0, 0),
        };
        Some(Self {
            rule: rule.clone(),
            column: ident(name),
            type_name: added.or_else(own_type)?,
            place,
            node: node.clone(),
            merging: rule.merge().map(|merge| Merging::of(merge, table, node)),
        })
    }

    fn edited(&self, version: &str) -> String {
        let (place, places) = self.place;
        format!("mmrepl.count_edit({version}, {place}, {places})")
    }

    /// A write here at `clock` that knows `version`.
    fn written(&self, version: &str, clock: &str) -> String {
        let (place, places) = self.place;
        format!("mmrepl.write_known({version}, {place}, {places}, {clock})")
    }

    /// The version of a delete of row `d`, as text.
    pub(super) fn of_delete(&self) -> String {
        let column = &self.column;
        match self.rule {
            Rule::HybridClock => {
                format!("{}::pg_catalog.text", self.after_delete())
            }
            Rule::Merge(_) => format!(
                "{}::pg_catalog.text OPERATOR(pg_catalog.||) {}",
                self.after_delete(),
                self.by_this_node()
            ),
            Rule::FirstWriteWins => {
                let next = format!("coalesce(d.{column}, 0) OPERATOR(pg_catalog.+) 1");
                format!("({next})::pg_catalog.text")
            }
            Rule::NodePriority(_) => {
                format!("{}::pg_catalog.text", self.edited(&format!("d.{column}")))
            }
            Rule::Manual(_) | Rule::Custom(_) => {
                let deleted = self.written(&format!("d.{column}"), "mmrepl.delete_clock()");
                format!("{deleted}::pg_catalog.text")
            }
            Rule::VersionColumn(_) | Rule::LastWriteWins => format!("d.{column}::pg_catalog.text"),
        }
    }

    /// The clock of a delete of row `d`.
    fn after_delete(&self) -> String {
        let column = &self.column;
        format!("greatest(mmrepl.delete_clock(), coalesce(d.{column}, 0) OPERATOR(pg_catalog.+) 1)")
    }

    /// Whether the texts that a delete leaves are the same under all settings.
    pub(super) fn is_settled(&self) -> bool {
        self.merging.is_none() && !self.type_name.starts_with("timestamp")
    }

    /// The version of the delete of the old key of a row that is now `n`.
    pub(super) fn of_move(&self) -> String {
        let version = format!("n.{}::text", self.column);
        match self.rule {
            Rule::Merge(_) => format!("{version} || {}", self.by_this_node()),
            Rule::Manual(_) | Rule::Custom(_) => {
                let left = self.written(&format!("d.{}", self.column), "null");
                format!("{left}::text")
            }
            _ => version,
        }
    }

    /// The second half of a stamp.
    fn by_this_node(&self) -> String {
        literal(&format!(" {}", self.node))
    }

    /// How rows merge, where they do.
    pub(super) fn merging(&self) -> Option<&Merging> {
        self.merging.as_ref()
    }

    /// The condition on which the version would go back, where the application keeps it.
    pub(super) fn goes_back(&self, old: &str, new: &str) -> Option<String> {
        let column = &self.column;
        let ours = matches!(self.rule, Rule::VersionColumn(_) | Rule::LastWriteWins);
        ours.then(|| {
            format!(
                "({new}.{column} < {old}.{column} or {new}.{column} is null and {old}.{column} is not null)"
            )
        })
    }

    /// When the version is kept, per row: the event and the call of the function.
    pub(super) fn keeper(&self) -> (&'static str, String) {
        const BOTH: &str = "before insert or update";
        match &self.rule {
            Rule::HybridClock => (BOTH, "mmrepl.keep_clock()".to_owned()),
            Rule::Merge(_) => {
                let call = self
                    .merging
                    .as_ref()
                    .map_or_else(String::new, Merging::call);
                (BOTH, call)
            }
            Rule::FirstWriteWins => (BOTH, "mmrepl.keep_count()".to_owned()),
            Rule::NodePriority(_) => {
                let (place, places) = self.place;
                let call = format!("mmrepl.keep_edits('{place}', '{places}')");
                (BOTH, call)
            }
            Rule::Manual(_) | Rule::Custom(_) => {
                let (place, places) = self.place;
                let call = format!("mmrepl.keep_known('{place}', '{places}')");
                (BOTH, call)
            }
            Rule::VersionColumn(_) | Rule::LastWriteWins => {
                let name = self.rule.column().unwrap_or_default();
                let call = format!("mmrepl.keep_version('{}')", name.replace('\'', "''"));
                ("before update", call)
            }
        }
    }

    /// The value that lifts row `d` above the tombstone `x`, NULL where it is above.
    pub(super) fn lifted(&self) -> String {
        let (column, type_name) = (&self.column, &self.type_name);
        let deleted = match self.rule {
            Rule::Merge(_) => "split_part(x.version, ' ', 1)::bigint".to_owned(),
            // Another rule may have left it.
            Rule::Manual(_) | Rule::Custom(_) => {
                format!("(case when x.version like '{{%' then x.version::{type_name} end)")
            }
            _ => format!("x.version::{type_name}"),
        };
        match self.rule {
            Rule::HybridClock | Rule::FirstWriteWins | Rule::Merge(_) => {
                format!("case when coalesce(d.{column}, 0) <= {deleted} then {deleted} + 1 end")
            }
            Rule::NodePriority(_) => format!(
                "case when coalesce(d.{column} <= {deleted}, true) then {} end",
                self.edited(&deleted)
            ),
            Rule::Manual(_) | Rule::Custom(_) => format!(
                "case when not mmrepl.knows(d.{column}, {deleted}) \
                 or d.{column}[{0}] <= ({deleted})[{0}] then {1} end",
                self.place.0,
                self.written(&format!("mmrepl.join_known(d.{column}, {deleted})"), "null")
            ),
            // An equal version will do: the row is the later one.
            Rule::VersionColumn(_) | Rule::LastWriteWins => format!(
                "case when coalesce(d.{column} < {deleted}, d.{column} is null) then {deleted} end"
            ),
        }
    }

    /// The column, quoted.
    pub(super) fn column(&self) -> &str {
        &self.column
    }

    /// The function that keeps the version of a row that gets another key, where it is another.
    pub(super) fn keeper_of_moved(&self) -> Option<String> {
        let (place, places) = self.place;
        self.rule
            .places()
            .map(|_| format!("mmrepl.know_anew('{place}', '{places}')"))
    }

    /// Whether deletes need the clock.
    pub(super) fn has_clock(&self) -> bool {
        matches!(
            self.rule,
            Rule::HybridClock | Rule::Merge(_) | Rule::Manual(_) | Rule::Custom(_)
        )
    }
}
