//! The triggers that leave tombstones, as SQL. Pure; their functions are in
//! `migrations/functions/`.
//!
//! All fire whatever the role of the session (`enable always`): applied deletes leave tombstones
//! like local ones, and what a bulk loader or a subscription writes in role `replica` is a new
//! write like any other. Those that must let alone what we apply, because it has its version
//! already, find out in their functions: each statement of a session copies the conditions of all
//! triggers of its table and reads those of its own kind anew, which takes longer than the call.
//!
//! A worker of a native subscription fires row triggers only. What hangs on a statement has a twin
//! for it, per row, which fires in role `replica` alone (`enable replica`).

use super::blocks;
use super::merging::Merging;
use super::moved::{Condition, Moved};
use super::own::{self, Found, KeyIndex, Keyed, Leaves, Lift, Own, OwnFunction};
use super::versions::InRow;
use crate::catalog::key_form::KeyForm;
use crate::catalog::names::ident;
use crate::catalog::table::{Key, KeyColumn, Table};
use crate::wire::settings::APPLIES;

/// Triggers fire in the order of their names.
const MERGE_TRIGGER: &str = "zzz_mmrepl_merge";

/// True in sessions that do not apply what other nodes wrote.
fn not_applying() -> String {
    format!("(pg_catalog.current_setting('{APPLIES}', true) is distinct from 'on')")
}

/// True in a worker that writes what a subscription sends it: it runs no statement. Each session
/// copies all conditions of a table for each of its statements, so this one is short.
const IN_WORKER: &str = "(pg_catalog.current_query() is null)";

/// In which sessions a trigger fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fires {
    /// In all.
    Always,
    /// In those with `session_replication_role = replica`.
    InReplica,
}

/// A trigger as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    /// `pg_trigger.tgenabled`.
    pub(super) enabled: char,
    /// `pg_get_triggerdef`, printed with an empty search path.
    pub(super) definition: String,
    /// A partition has it from its parent.
    pub(super) cloned: bool,
}

/// What is wrong with a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    /// It does something else than it must.
    Other,
    /// It never fires.
    Disabled,
    /// It fires for applications and not for what is applied, or the other way round.
    FiresOtherwise,
    /// The function that it calls, or that its condition calls, is missing or does something else.
    Function,
}

/// What there is on a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct There<'a> {
    pub(super) triggers: &'a [Trigger],
    /// The functions that are a table's own.
    pub(super) functions: &'a [OwnFunction],
}

impl Fault {
    /// After the trigger's name.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Other => "is not as init makes it",
            Self::Disabled => "is disabled",
            Self::FiresOtherwise => "does not fire for the sessions it must",
            Self::Function => "has a function that is missing or was replaced",
        }
    }
}

/// A trigger as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    fires: Fires,
    /// Between the name and `on`: `after delete`.
    event: &'static str,
    /// Between the table and `execute`.
    scope: String,
    /// The function with its arguments, as `pg_get_triggerdef` prints it.
    call: String,
    /// Arguments behind them that save time and may be out of date.
    hint: Option<String>,
    /// The functions that are the table's own: what it calls, what its condition calls.
    functions: Vec<Own>,
}

impl Wanted {
    fn new(name: &'static str, event: &'static str, scope: &str, call: String) -> Self {
        Self {
            name,
            fires: Fires::Always,
            event,
            scope: scope.to_owned(),
            call,
            hint: None,
            functions: Vec::new(),
        }
    }

    /// With functions of the table's own.
    fn with(self, functions: impl IntoIterator<Item = Own>) -> Self {
        Self {
            functions: functions.into_iter().collect(),
            ..self
        }
    }

    /// The same with what tells quickly that the key is as it was.
    fn hinted(self, hint: &KeyIndex) -> Self {
        let (index, columns) = (hint.index, quoted(&hint.columns));
        Self {
            hint: Some(format!(", '{index}', {columns}")),
            ..self
        }
    }

    /// The function with all its arguments.
    fn whole_call(&self) -> String {
        let Some(hint) = &self.hint else {
            return self.call.clone();
        };
        let open = self.call.strip_suffix(')').unwrap_or(&self.call);
        format!("{open}{hint})")
    }

    /// Whether that call does what ours does, with whatever hint.
    fn calls(&self, there: &str) -> bool {
        if self.hint.is_none() {
            return there == self.call;
        }
        let open = self.call.strip_suffix(')').unwrap_or(&self.call);
        let hint = there.strip_prefix(open);
        let index = hint.and_then(|hint| hint.strip_prefix(", '"));
        let digits = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
        index.is_some_and(|index| {
            let rest = index.trim_start_matches(|c: char| c.is_ascii_digit());
            digits(index) && rest.starts_with("', '{") && rest.ends_with("}')")
        })
    }

    fn enabled(&self) -> char {
        match self.fires {
            Fires::Always => 'A',
            Fires::InReplica => 'R',
        }
    }

    /// Whether `there` does the same: the call carries the key, the rest follows from it and the
    /// kind.
    fn is(&self, there: &Trigger) -> bool {
        let per_row = self.scope.contains("for each row");
        let (_, call) = there
            .definition
            .split_once(" EXECUTE FUNCTION ")
            .unwrap_or_default();
        self.calls(call)
            && there.definition.contains("FOR EACH ROW") == per_row
            && there.definition.contains(" WHEN (") == self.scope.contains(" when (")
            && there.definition.contains(APPLIES) == self.scope.contains(APPLIES)
            && OWN
                .iter()
                .all(|own| there.definition.contains(own) == self.scope.contains(own))
    }

    /// What is wrong with it among those that exist.
    pub(super) fn fault(&self, existing: There<'_>) -> Option<Fault> {
        let mut triggers = existing.triggers.iter();
        let there = triggers.find(|trigger| trigger.name == self.name);
        match there {
            None => Some(Fault::Missing),
            Some(there) if !self.is(there) => Some(Fault::Other),
            Some(_) if self.lacks(existing, Found::Other) => Some(Fault::Function),
            Some(there) if there.enabled == 'D' => Some(Fault::Disabled),
            Some(there) => (there.enabled != self.enabled()).then_some(Fault::FiresOtherwise),
        }
    }

    /// Whether one of its functions is as bad as that.
    fn lacks(&self, existing: There<'_>, found: Found) -> bool {
        let mut functions = self.functions.iter();
        functions.any(|own| own.among(existing.functions) == found)
    }

    /// The statements that make it, nothing when `existing` has it already.
    pub(super) fn statements(&self, qualified: &str, existing: There<'_>) -> Vec<String> {
        let fault = self.fault(existing);
        let functions = self.functions.iter();
        let functions = functions.filter(|own| own.among(existing.functions) != Found::AsMade);
        let mut statements: Vec<String> = functions.map(Own::statement).collect();
        if matches!(fault, Some(Fault::Missing | Fault::Other)) {
            statements.push(format!(
                "create or replace trigger {} {} on {qualified}{} execute function {}",
                self.name,
                self.event,
                self.scope,
                self.whole_call()
            ));
        }
        if fault.is_some() {
            statements.push(self.enable(qualified));
        }
        statements
    }

    fn enable(&self, qualified: &str) -> String {
        let how = match self.fires {
            Fires::Always => "enable always",
            Fires::InReplica => "enable replica",
        };
        format!("alter table {qualified} {how} trigger {}", self.name)
    }
}

/// What a published table must have; `by_column` says whether conditions may name columns. Where
/// there is no key to remember, truncates still are.
pub(super) fn of_table(
    table: &Table,
    in_row: Option<&InRow>,
    index: Option<&KeyIndex>,
    by_column: bool,
) -> Vec<Wanted> {
    let Some(key) = &table.key else {
        return truncates(table);
    };
    let Some(index) = index else {
        return Vec::new();
    };
    let moved = Moved {
        table,
        key,
        by_column,
    };
    let mut wanted = of_key(moved, index, in_row);
    for trigger in &mut wanted {
        if BY_KEY.iter().any(|by_key| trigger.call.starts_with(by_key)) {
            *trigger = trigger.clone().hinted(index);
        }
        if table.partitioned {
            trigger.name = of_root(trigger.name);
        }
    }
    wanted
}

/// The functions that get the key.
const BY_KEY: [&str; 2] = ["mmrepl.leave_tombstone(", "mmrepl.lift_versions("];

/// What the names of a table's own functions in conditions begin with.
const OWN: [&str; 2] = ["mmrepl.moved_", "mmrepl.goes_back_"];

/// The name on a partitioned table. A partition gets a clone of the same name, and a table that had
/// a trigger of its own by that name could not become a partition.
fn of_root(name: &'static str) -> &'static str {
    match name {
        "mmrepl_delete" => "mmrepl_root_delete",
        "mmrepl_rekey" => "mmrepl_root_rekey",
        "mmrepl_version" => "mmrepl_root_version",
        "mmrepl_version_moved" => "mmrepl_root_version_moved",
        "mmrepl_lift" => "mmrepl_root_lift",
        "mmrepl_lift_moved" => "mmrepl_root_lift_moved",
        "mmrepl_delete_begin" => "mmrepl_root_delete_begin",
        MERGE_TRIGGER => "zzz_mmrepl_root_merge",
        other => other,
    }
}

fn of_key(moved: Moved<'_>, index: &KeyIndex, in_row: Option<&InRow>) -> Vec<Wanted> {
    let Moved { table, key, .. } = moved;
    let keyed = Keyed { table, key, index };
    let rekeyed = moved.key(false);
    let argument = format!("{}, {}", quoted(&keyed.texts()), quoted(&keyed.shape()));
    let image = in_row.and_then(InRow::merging).map(Merging::image);
    let with = |version: Option<String>| {
        let more = version.iter().map(String::as_str).chain(image);
        let more: Vec<String> = more.map(quoted).collect();
        [vec![argument.clone()], more].concat().join(", ")
    };
    let deleted = with(in_row.map(InRow::of_delete));
    let one = format!("mmrepl.leave_tombstone({deleted})");
    let twin = twin("mmrepl_delete_row", "after delete", one.clone());
    let left = with(in_row.map(InRow::of_move));
    let rekey = Wanted::new(
        "mmrepl_rekey",
        "after update",
        &on_condition(&rekeyed),
        format!("mmrepl.leave_tombstone({left})"),
    );
    let rekey = rekey.with(rekeyed.function);
    let delete = if table.partitioned {
        Wanted::new("mmrepl_delete", "after delete", " for each row", one)
    } else {
        of_deletes(keyed, in_row)
    };
    let mut wanted = vec![delete, rekey];
    if !table.partitioned {
        wanted.push(twin);
    }
    match in_row {
        Some(in_row) => wanted.extend(versioned(moved, keyed, in_row)),
        None => wanted.extend(truncates(table)),
    }
    wanted
}

/// What statements leave that delete rows. The argument says which versions.
fn of_deletes(keyed: Keyed<'_>, in_row: Option<&InRow>) -> Wanted {
    let version = in_row.map(InRow::of_delete);
    let left = in_row.map(|in_row| Leaves {
        version: in_row.of_delete(),
        image: in_row.merging().map(|merging| merging.image().to_owned()),
        settled: in_row.is_settled(),
    });
    let own = if left.is_none() && is_unique_at_once(keyed.key) {
        own::remembered(keyed, &blocks::statements(keyed))
    } else {
        own::deleted(keyed, left.as_ref())
    };
    let argument = version.as_deref().map_or_else(String::new, quoted);
    let call = format!("mmrepl.deleted_{}({argument})", keyed.table.oid);
    let old_rows = " referencing old table as mmrepl_old for each statement";
    Wanted::new("mmrepl_delete", "after delete", old_rows, call).with([own])
}

/// What a worker of a subscription fires in place of a trigger per statement.
fn twin(name: &'static str, event: &'static str, call: String) -> Wanted {
    let scope = format!(" for each row when {IN_WORKER}");
    Wanted {
        fires: Fires::InReplica,
        ..Wanted::new(name, event, &scope, call)
    }
}

/// Whether two rows never have the same key, not even for a moment, and no two keys the same text:
/// what a type that somebody else defined prints may leave something out.
fn is_unique_at_once(key: &Key) -> bool {
    !key.deferrable
        && key
            .columns
            .iter()
            .all(|column| column.form != KeyForm::Output)
}

/// Whether the trigger that was there leaves the same versions, whatever else is new.
pub(super) fn keeps_versions(there: &Trigger, in_row: Option<&InRow>) -> bool {
    let version = in_row.map(|in_row| quoted(&in_row.of_delete()));
    version.is_some_and(|version| there.definition.contains(&version))
}

/// The memory of truncates, where rows do not carry their version.
fn truncates(table: &Table) -> Vec<Wanted> {
    let truncate = Wanted::new(
        "mmrepl_truncate",
        "after truncate",
        " for each statement",
        "mmrepl.leave_truncate_tombstone()".to_owned(),
    );
    if table.partitioned {
        let begins = "mmrepl.truncate_begins()".to_owned();
        let begin = Wanted::new(
            "mmrepl_truncate_begin",
            "before truncate",
            " for each statement",
            begins,
        );
        return vec![truncate, begin];
    }
    vec![truncate]
}

/// What keeps the versions of rows. These let alone what is applied: it has the source's version.
fn versioned(moved: Moved<'_>, keyed: Keyed<'_>, in_row: &InRow) -> Vec<Wanted> {
    let partitioned = moved.table.partitioned;
    let truncate = Wanted::new(
        "mmrepl_truncate_delete",
        "before truncate",
        " for each statement",
        "mmrepl.truncate_as_delete()".to_owned(),
    );
    let mut wanted = vec![keeper(moved, in_row), truncate];
    wanted.extend(lifts(moved, keyed, in_row));
    if let Some(call) = in_row.keeper_of_moved() {
        let rekeyed = moved.key(true);
        let scope = on_condition(&rekeyed);
        let keeper = Wanted::new("mmrepl_version_moved", "before update", &scope, call);
        wanted.push(keeper.with(rekeyed.function));
    }
    if in_row.has_clock() {
        let begins = || "mmrepl.delete_begins()".to_owned();
        let scope = if partitioned {
            " for each row"
        } else {
            " for each statement"
        };
        let begin = Wanted::new("mmrepl_delete_begin", "before delete", scope, begins());
        wanted.push(begin);
        if !partitioned {
            wanted.push(twin("mmrepl_delete_begin_row", "before delete", begins()));
        }
    }
    wanted
}

/// What lifts rows that come back: by an insert, by another key, by a subscription.
fn lifts(moved: Moved<'_>, keyed: Keyed<'_>, in_row: &InRow) -> Vec<Wanted> {
    let Moved { table, key, .. } = moved;
    let same = |column: &KeyColumn| {
        let name = ident(&column.name);
        format!("t.{name} {} d.{name}", column.equality)
    };
    let same: Vec<String> = key.columns.iter().map(same).collect();
    let (same, value) = (same.join(" and "), in_row.lifted());
    let arguments = [
        keyed.texts(),
        keyed.shape(),
        same.clone(),
        in_row.column().to_owned(),
        value.clone(),
    ];
    let arguments: Vec<String> = arguments.iter().map(|text| quoted(text)).collect();
    let per_row = format!("mmrepl.lift_versions({})", arguments.join(", "));
    let rekeyed = moved.key(false);
    let rekeys = on_condition(&rekeyed);
    let by_key = Wanted::new(
        "mmrepl_lift_moved",
        "after update",
        &rekeys,
        per_row.clone(),
    );
    let by_key = by_key.with(rekeyed.function);
    if table.partitioned {
        let scope = format!(" for each row when {}", not_applying());
        let inserted = Wanted::new("mmrepl_lift", "after insert", &scope, per_row);
        return vec![inserted, by_key];
    }
    let lift = Lift {
        same: &same,
        column: in_row.column(),
        value: &value,
    };
    let new_rows = " referencing new table as mmrepl_new for each statement";
    let call = format!("mmrepl.lifted_{}()", table.oid);
    let inserted = Wanted::new("mmrepl_lift", "after insert", new_rows, call);
    let inserted = inserted.with([own::lifted(keyed, lift)]);
    let twin = twin("mmrepl_lift_row", "after insert", per_row);
    vec![inserted, by_key, twin]
}

/// What keeps the version. Where rows merge it is the last to see the row, after the application's
/// own triggers: what those change counts as well.
fn keeper(moved: Moved<'_>, in_row: &InRow) -> Wanted {
    let (event, call) = in_row.keeper();
    let condition = moved.version(in_row);
    let name = match in_row.merging() {
        Some(_) => MERGE_TRIGGER,
        None => "mmrepl_version",
    };
    let scope = match &condition {
        Some(condition) => on_condition(condition),
        None => " for each row".to_owned(),
    };
    let function = in_row.merging().map(Merging::function);
    let function = function.or(condition.and_then(|condition| condition.function));
    Wanted::new(name, event, &scope, call).with(function)
}

/// What every partition under a published table must have of its own. It turns an
/// application's truncate of a partition into deletes; an applied truncate is of whole tables.
pub(super) fn of_partition() -> Wanted {
    let scope = format!(" for each statement when {}", not_applying());
    let call = "mmrepl.truncate_partition()".to_owned();
    Wanted::new("mmrepl_truncate_partition", "before truncate", &scope, call)
}

/// A literal as `pg_get_triggerdef` prints it under `standard_conforming_strings`, which is pinned.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Row triggers that a partition inherits from its root; they must be `enable always` there too.
pub(super) const CLONED: [&str; 8] = [
    "mmrepl_root_delete",
    "mmrepl_root_rekey",
    "mmrepl_root_version",
    "mmrepl_root_version_moved",
    "mmrepl_root_lift",
    "mmrepl_root_lift_moved",
    "mmrepl_root_delete_begin",
    "zzz_mmrepl_root_merge",
];

/// Fires per row when the condition holds.
fn on_condition(condition: &Condition) -> String {
    format!(" for each row when ({})", condition.text)
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
            cloned: false,
        };
        let definition = "CREATE TRIGGER mmrepl_truncate_partition BEFORE TRUNCATE ON public.t FOR EACH STATEMENT WHEN ((current_setting('mmrepl.applying'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION mmrepl.truncate_partition()";
        let statements = |triggers: &[Trigger]| {
            let functions = &[];
            wanted.statements(
                "t",
                There {
                    triggers,
                    functions,
                },
            )
        };
        assert!(statements(&[there('A', definition)]).is_empty());
        for enabled in ['O', 'D'] {
            assert_eq!(
                statements(&[there(enabled, definition)]),
                ["alter table t enable always trigger mmrepl_truncate_partition"]
            );
        }
        assert_eq!(statements(&[there('A', "other")]).len(), 2);
        assert_eq!(statements(&[]).len(), 2);
    }
}
