//! The version that a table keeps in its rows: where it stands, what a change's is. Pure.

use postgres_protocol::escape::escape_identifier as quote;

use crate::apply::shape::mapping::{MapError, TableMap};
use crate::apply::shape::merging::Merging;
use crate::commit_time::CommitTime;
use crate::conflict::{Rank, Rule, STATE_COLUMN, Tie};
use crate::ids::NodeName;
use crate::pgoutput::Tuple;

/// What a source that had seen a write is never too old for: see [`Versions::floor_time`].
const ANY_TIME: CommitTime = CommitTime::MAX;

/// The rule of a table, for changes of one source.
#[derive(Debug, Clone)]
pub struct Versions {
    rule: Rule,
    source: NodeName,
    column: Option<VersionColumn>,
    merging: Option<Merging>,
}

/// The column that holds a row's version.
#[derive(Debug, Clone)]
struct VersionColumn {
    name: String,
    /// Among the source's columns.
    index: usize,
    type_name: String,
}

impl Versions {
    /// Finds the column that `rule` needs.
    pub fn new(rule: Rule, source: NodeName, map: &TableMap) -> Result<Self, MapError> {
        let column = rule.column().map(|name| {
            let index = map.columns.iter().position(|column| column.name == name);
            let there = index.filter(|index| map.columns[*index].written);
            let index = there.ok_or_else(|| map.no_version(name, rule.name()))?;
            Ok(VersionColumn {
                name: name.to_owned(),
                index,
                type_name: map.columns[index].type_name.clone(),
            })
        });
        let column = column.transpose()?;
        let merging = rule.merge().zip(column.as_ref());
        let merging = merging.map(|(merge, version)| {
            let name = rule.name();
            Merging::new(merge, version.index, map).map_err(|lacks| map.no_version(lacks, name))
        });
        Ok(Self {
            merging: merging.transpose()?,
            column,
            rule,
            source,
        })
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether rows carry their version.
    pub fn is_in_row(&self) -> bool {
        self.column.is_some()
    }

    /// What decides between equal versions.
    pub fn tie(&self) -> Tie {
        self.rule.tie()
    }

    /// The version of a row that was inserted or updated.
    pub fn of_row(&self, row: &Tuple) -> Option<Rank> {
        if let Some(merging) = &self.merging {
            return merging.version_of(row).map(Rank::of_stamp);
        }
        let value = row.0.get(self.column.as_ref()?.index)?;
        Rank::read(value.as_bytes().map(|bytes| &bytes[..]))
    }

    /// The version of a delete of `old`, which is nothing where the source did not send the row.
    pub fn of_delete(&self, old: Option<&Tuple>, clock: Option<i64>) -> Option<Rank> {
        self.column.as_ref()?;
        let deleted = old.and_then(|row| self.of_row(row));
        self.rule
            .rank_of_delete(deleted.as_ref(), &self.source, clock)
    }

    /// The version of the delete of the key that a row had before it `moved`. What moved has a
    /// version above its old one, which will do, unless versions say what is known of one key.
    pub fn of_move(&self, old: Option<&Tuple>, moved: Option<&Rank>) -> Option<Rank> {
        match self.rule.places() {
            Some(_) => self.of_delete(old, None),
            None => moved.cloned(),
        }
    }

    /// Whether the whole row is looked at before it is written.
    pub(in crate::apply) fn looks_whole(&self) -> bool {
        self.merging.is_some() || self.rule.custom().is_some()
    }

    /// How rows merge, where they do.
    pub fn merging(&self) -> Option<&Merging> {
        self.merging.as_ref()
    }

    /// The time for `conflict::Seen::floor`: whether a row is older its version says, so all that
    /// counts is what the source had seen.
    pub fn floor_time(&self, time: CommitTime) -> CommitTime {
        if self.is_in_row() { ANY_TIME } else { time }
    }

    /// The index of the version among the source's columns.
    pub(in crate::apply) fn index(&self) -> Option<usize> {
        self.column.as_ref().map(|column| column.index)
    }

    /// The version of row `alias` as text; NULL where there is none.
    pub(in crate::apply) fn printed(&self, alias: &str) -> String {
        match &self.column {
            Some(column) if self.merging.is_some() => {
                let (version, state) = (quote(&column.name), quote(STATE_COLUMN));
                let node = format!("coalesce({alias}.{state} ->> 'n', '')");
                format!("{alias}.{version}::text || ' ' || {node}")
            }
            Some(column) => format!("{alias}.{}::text", quote(&column.name)),
            None => "null::text".to_owned(),
        }
    }

    /// "The version of row `alias` loses against `incoming`, a text", and then nothing is to be
    /// decided when the source knew the row: what knows a version and equals it was made later.
    pub(in crate::apply) fn is_below(&self, alias: &str, incoming: &str) -> Option<String> {
        let column = self.column.as_ref()?;
        let held = format!("{alias}.{}", quote(&column.name));
        let incoming = format!("({incoming})::{}", column.type_name);
        Some(match self.tie() {
            Tie::Later => format!("coalesce({held} <= {incoming}, {held} is null)"),
            Tie::Known => format!("mmrepl.knows({incoming}, {held})"),
            Tie::Earlier => {
                format!("coalesce({held} < {incoming}, {held} is null and {incoming} is not null)")
            }
        })
    }
}
