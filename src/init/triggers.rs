//! The triggers that leave tombstones, as SQL. Pure; their functions are in `migrations/`.
//!
//! All but `mmrepl_truncate_partition` are `enable always`, so that applied deletes leave
//! tombstones like local ones. That one turns an application's truncate of a partition into
//! deletes; an applied truncate is of whole tables and must not do so.

use crate::catalog::key_text::key_expression;
use crate::catalog::names::ident;
use crate::catalog::table::{Key, Table};

/// A trigger as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    /// `pg_trigger.tgenabled`.
    pub(super) enabled: char,
    /// `pg_get_triggerdef`, printed with an empty search path.
    pub(super) definition: String,
}

/// A trigger as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    always: bool,
    /// Between the name and `on`: `after delete`.
    event: &'static str,
    /// Between the table and `execute`.
    scope: String,
    /// The function with its argument, as `pg_get_triggerdef` prints it.
    call: String,
}

impl Wanted {
    fn new(name: &'static str, event: &'static str, scope: &str, call: String) -> Self {
        Self {
            name,
            always: true,
            event,
            scope: scope.to_owned(),
            call,
        }
    }

    fn enabled(&self) -> char {
        if self.always { 'A' } else { 'O' }
    }

    /// Whether `there` does the same: the call carries the key, the rest follows from it and the
    /// kind.
    fn is(&self, there: &Trigger) -> bool {
        let per_row = self.scope.contains("for each row");
        there
            .definition
            .ends_with(&format!("EXECUTE FUNCTION {}", self.call))
            && there.definition.contains("FOR EACH ROW") == per_row
            && there.definition.contains(" WHEN (") == self.scope.contains(" when (")
    }

    /// The statements that make it, nothing when `existing` has it already.
    pub(super) fn statements(&self, qualified: &str, existing: &[Trigger]) -> Vec<String> {
        let there = existing.iter().find(|trigger| trigger.name == self.name);
        let mut statements = Vec::new();
        if !there.is_some_and(|there| self.is(there)) {
            statements.push(format!(
                "create or replace trigger {} {} on {qualified}{} execute function {}",
                self.name, self.event, self.scope, self.call
            ));
        }
        let remade = !statements.is_empty();
        if (remade && self.always)
            || (!remade && there.is_some_and(|t| t.enabled != self.enabled()))
        {
            statements.push(self.enable(qualified));
        }
        statements
    }

    fn enable(&self, qualified: &str) -> String {
        let how = if self.always {
            "enable always"
        } else {
            "enable"
        };
        format!("alter table {qualified} {how} trigger {}", self.name)
    }
}

/// What a published table must have; nothing where there is no key to remember.
pub(super) fn of_table(table: &Table) -> Vec<Wanted> {
    let Some(key) = &table.key else {
        return Vec::new();
    };
    let argument = quoted(&key_expression(key, |_, column| {
        format!("d.{}", ident(&column.name))
    }));
    let one = format!("mmrepl.leave_tombstone({argument})");
    let rekey = Wanted::new(
        "mmrepl_rekey",
        "after update",
        &rekey_scope(key),
        one.clone(),
    );
    let truncate = Wanted::new(
        "mmrepl_truncate",
        "after truncate",
        " for each statement",
        "mmrepl.leave_truncate_tombstone()".to_owned(),
    );
    if table.partitioned {
        let delete = Wanted::new("mmrepl_delete", "after delete", " for each row", one);
        let begins = "mmrepl.truncate_begins()".to_owned();
        let begin = Wanted::new(
            "mmrepl_truncate_begin",
            "before truncate",
            " for each statement",
            begins,
        );
        return vec![delete, rekey, truncate, begin];
    }
    let all = format!("mmrepl.leave_tombstones({argument})");
    let old_rows = " referencing old table as mmrepl_old for each statement";
    vec![
        Wanted::new("mmrepl_delete", "after delete", old_rows, all),
        rekey,
        truncate,
    ]
}

/// What every partition under a published table with a key must have of its own.
pub(super) fn of_partition() -> Wanted {
    Wanted {
        name: "mmrepl_truncate_partition",
        always: false,
        event: "before truncate",
        scope: " for each statement".to_owned(),
        call: "mmrepl.truncate_partition()".to_owned(),
    }
}

/// A literal as `pg_get_triggerdef` prints it under `standard_conforming_strings`, which is pinned.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Row triggers that a partition inherits from its root; they must be `enable always` there too.
pub(super) const CLONED: [&str; 2] = ["mmrepl_delete", "mmrepl_rekey"];

/// Fires when the key changes by its own equality. Not `update of`: a BEFORE trigger may change a
/// column that the statement does not name.
fn rekey_scope(key: &Key) -> String {
    let same = |name: &str, equality: &str| format!("old.{name} {equality} new.{name}");
    let columns = key
        .columns
        .iter()
        .map(|column| same(&ident(&column.name), &column.equality));
    format!(
        " for each row when (not ({}))",
        columns.collect::<Vec<_>>().join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_is_there_needs_nothing() {
        let wanted = of_partition();
        let there = |enabled, definition: &str| Trigger {
            name: "mmrepl_truncate_partition".to_owned(),
            enabled,
            definition: definition.to_owned(),
        };
        let definition = "CREATE TRIGGER mmrepl_truncate_partition BEFORE TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE FUNCTION mmrepl.truncate_partition()";
        assert!(wanted.statements("t", &[there('O', definition)]).is_empty());
        assert_eq!(
            wanted.statements("t", &[there('D', definition)]),
            ["alter table t enable trigger mmrepl_truncate_partition"]
        );
        assert_eq!(wanted.statements("t", &[there('O', "other")]).len(), 1);
        assert_eq!(wanted.statements("t", &[]).len(), 1);
    }
}
