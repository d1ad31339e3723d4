//! What a record says.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::commit_time::CommitTime;
use crate::ids::{LinkName, NodeName};

/// Where a record stands: the node that decided, and its number there. Unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictId {
    /// The node whose history holds the record.
    pub node: NodeName,
    /// Its number there.
    pub number: i64,
}

/// The text is not the name of a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a conflict such as east-17; `mmrepl conflicts list` shows them")]
pub struct BadConflictId(String);

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.node, self.number))
    }
}

impl FromStr for ConflictId {
    type Err = BadConflictId;

    fn from_str(text: &str) -> Result<Self, BadConflictId> {
        let parse = || {
            let (node, number) = text.rsplit_once('-')?;
            Some(Self {
                node: node.parse().ok()?,
                number: number.parse().ok()?,
            })
        };
        parse().ok_or_else(|| BadConflictId(text.to_owned()))
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// One column of a row, as the type's output function prints it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its value; `None` is NULL.
    pub value: Option<String>,
    /// The value is of a database that keeps any bytes: backslashes are doubled and bytes above 127
    /// are `\351`, as `encode(…, 'escape')` has it.
    #[serde(skip)]
    pub escaped: bool,
}

impl fmt::Debug for Column {
    /// Without the value, which is data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// One of the two writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The node it was made on.
    pub node: Option<NodeName>,
    /// When it committed there.
    pub at: Option<CommitTime>,
    /// The replication origin it had on the node that decided; 0 is that node itself.
    pub origin: Option<u32>,
    /// The version that decided, where the table keeps it in the row.
    pub version: Option<String>,
    /// The row; `None` when the write was a delete.
    pub row: Option<Vec<Column>>,
}

/// One decided conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Its name in the cluster.
    #[serde(serialize_with = "as_text")]
    pub id: ConflictId,
    /// When it was decided, by the clock of the deciding node.
    pub decided_at: CommitTime,
    /// The link that brought the incoming write.
    #[serde(serialize_with = "as_text")]
    pub link: LinkName,
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The key's columns; empty for a table without a key.
    pub key: Vec<Column>,
    /// What met what.
    pub kind: String,
    /// The rule that decided.
    pub rule: String,
    /// `applied`: the incoming write won; `kept_local`: what was here stayed; `merged`: parts of
    /// both did, where rows merge; `pending`: what was here stays until a person decides.
    pub outcome: String,
    /// The write that the link brought.
    pub incoming: Side,
    /// What the deciding node had.
    pub local: Side,
    /// When somebody brought the losing value back.
    pub restored_at: Option<CommitTime>,
    /// When a conflict that was `pending` ended.
    pub resolved_at: Option<CommitTime>,
    /// How: `local` or `remote` by a person, `superseded` by a write that knew the incoming one,
    /// `replaced` by a later conflict with the same source.
    pub resolved_as: Option<String>,
}

impl Conflict {
    /// True when the incoming write won.
    pub fn applied(&self) -> bool {
        self.outcome == "applied"
    }

    /// True as long as a person has to decide.
    pub fn is_pending(&self) -> bool {
        self.outcome == "pending" && self.resolved_at.is_none()
    }

    /// The write that lost.
    pub fn loser(&self) -> &Side {
        if self.applied() {
            &self.local
        } else {
            &self.incoming
        }
    }

    /// `public.orders`.
    pub fn table_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// How often something happened on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatsLine {
    /// The node that decided.
    pub node: NodeName,
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// What met what; `None` in the line that counts what was not recorded.
    pub kind: Option<String>,
    /// Who won; `None` in that line.
    pub outcome: Option<String>,
    /// Conflicts recorded, or in that line left out.
    pub count: i64,
    /// The last of them.
    pub last: CommitTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_are_read_as_written() {
        let id: ConflictId = "east_1-17".parse().unwrap();
        assert_eq!((id.node.as_str(), id.number), ("east_1", 17));
        assert_eq!(id.to_string(), "east_1-17");
        for text in ["17", "east", "east-", "-17", "east-x", "East-1"] {
            assert!(text.parse::<ConflictId>().is_err(), "{text}");
        }
    }
}
