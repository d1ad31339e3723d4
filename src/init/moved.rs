//! When triggers fire because a row gets another key, or its version would go back, as SQL. Pure.
//!
//! A condition that names columns costs next to nothing, and keeps these columns from getting
//! another type and from being dropped. Event triggers release them in time; who may not make event
//! triggers has the condition in a function, which nothing depends on: an application's statement
//! never fails because of us. That costs each updated row another call.

use super::own::Own;
use super::versions::InRow;
use crate::catalog::names::ident;
use crate::catalog::table::{Key, Table};

/// A table with a key, and how conditions over it are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved<'a> {
    pub(super) table: &'a Table,
    pub(super) key: &'a Key,
    /// Whether conditions may name columns.
    pub(super) by_column: bool,
}

/// A condition, and its function, where it has one.
pub(super) struct Condition {
    pub(super) text: String,
    pub(super) function: Option<Own>,
}

impl Moved<'_> {
    /// The key changes by its own equality. Not `update of`: a BEFORE trigger may change a column
    /// that the statement does not name. What is not known counts as a change after the update,
    /// where it is looked at once more.
    pub(super) fn key(&self, before: bool) -> Condition {
        let moved = |old: &str, new: &str| {
            let columns = self.key.columns.iter().map(|column| {
                let name = ident(&column.name);
                format!("{old}.{name} {} {new}.{name}", column.equality)
            });
            format!("not ({})", columns.collect::<Vec<_>>().join(" and "))
        };
        if self.names_columns(before) {
            return by_column(moved("old", "new"));
        }
        let name = format!("moved_{}", self.table.oid);
        let call = format!("mmrepl.{name}(old, new)");
        Condition {
            text: if before {
                call
            } else {
                format!("{call} is not false")
            },
            function: Some(function(name, &moved("old_row", "new_row"))),
        }
    }

    /// The row's version would go back.
    pub(super) fn version(&self, in_row: &InRow) -> Option<Condition> {
        let now = in_row.goes_back("old", "new")?;
        if self.names_columns(true) {
            return Some(by_column(now));
        }
        let name = format!("goes_back_{}", self.table.oid);
        Some(Condition {
            text: format!("mmrepl.{name}(old, new)"),
            function: Some(function(name, &in_row.goes_back("old_row", "new_row")?)),
        })
    }

    /// Before an update no condition may look at the whole of a row with generated columns.
    fn names_columns(&self, before: bool) -> bool {
        let generated = self.table.columns.iter().any(|column| column.generated);
        self.by_column || before && generated
    }
}

fn by_column(text: String) -> Condition {
    Condition {
        text,
        function: None,
    }
}

/// NULL where the columns are not what they were.
fn function(name: String, condition: &str) -> Own {
    let body = format!(
        "
begin
    return {condition};
exception when others then
    return null;
end "
    );
    Own::of_rows(name, body)
}
