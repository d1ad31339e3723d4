//! Trigger functions of a table's own, as SQL. Pure.
//!
//! A statement that stands in a function is planned once for each session; one that is put together
//! when a trigger fires is read, planned and forgotten each time, which costs an application many
//! times its own delete. So `init` makes functions for each table, with its key in them.
//!
//! They run with the session's settings: to switch them costs as much as a small statement. All
//! names and operators are qualified therefore; where the text of the key or of a version depends
//! on a setting, that one is set. (`is distinct from`, `in` and `nullif` look for `=` by the search
//! path.)
//!
//! The key may have changed since: another name, another type, another index. Every function makes
//! sure first that it has not, and otherwise finds the key as it is now.

use crate::catalog::key_form::KeyForm;
use crate::catalog::key_text::key_expression;
use crate::catalog::names::{ident, literal};
use crate::catalog::table::{Key, KeyColumn, Table};

/// What the names of trigger functions begin with; the table's number follows.
pub(super) const NAMES: [&str; 3] = ["deleted", "lifted", "merge"];

/// Where the number of an index stands in a body. It may be out of date: REINDEX CONCURRENTLY
/// gives another one.
const INDEX: &str = "pg_catalog.pg_get_indexdef(";

/// The settings on which texts depend.
const SETTINGS: &str = " set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' \
     set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex'";

/// Types whose text depends on no setting.
const SETTLED: [&str; 9] = [
    "smallint", "integer", "bigint", "text", "uuid", "boolean", "name", "inet", "cidr",
];

/// A function as a server has it, or as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnFunction {
    /// Without its schema.
    pub(super) name: String,
    pub(super) body: String,
    pub(super) definer: bool,
    /// Whether it switches settings.
    pub(super) pins: bool,
}

/// What is there of a function that must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    AsMade,
    /// The number of its index is another one: it takes longer.
    Late,
    Other,
}

/// The statement that makes a function, and what the catalog has of it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    function: OwnFunction,
    /// Arguments and result.
    head: &'static str,
    /// Between the language and the body.
    options: String,
}

impl Own {
    /// A trigger function that runs as its owner; `options` are settings.
    pub(super) fn of_trigger(name: String, options: &str, body: String) -> Self {
        Self {
            function: OwnFunction {
                name,
                body,
                definer: true,
                pins: !options.is_empty(),
            },
            head: "() returns trigger",
            options: format!(" security definer{options}"),
        }
    }

    /// A function over two rows of any table.
    pub(super) fn of_rows(name: String, body: String) -> Self {
        Self {
            function: OwnFunction {
                name,
                body,
                definer: false,
                pins: false,
            },
            head: "(old_row anyelement, new_row anyelement) returns boolean",
            options: " stable".to_owned(),
        }
    }

    pub(super) fn statement(&self) -> String {
        let (head, options) = (self.head, &self.options);
        format!(
            "create or replace function mmrepl.{}{head} language plpgsql{options} as {}",
            self.function.name,
            literal(&self.function.body)
        )
    }

    /// Looks for it among those that exist.
    pub(super) fn among(&self, existing: &[OwnFunction]) -> Found {
        let named = |there: &&OwnFunction| there.name == self.function.name;
        match existing.iter().find(named) {
            Some(there) if *there == self.function => Found::AsMade,
            Some(there) if without_index(there) == without_index(&self.function) => Found::Late,
            _ => Found::Other,
        }
    }
}

/// The function with no number where the index has its own.
fn without_index(function: &OwnFunction) -> OwnFunction {
    let mut parts = function.body.split(INDEX);
    let first = parts.next().unwrap_or_default().to_owned();
    let body = parts.fold(first, |body, part| {
        body + INDEX + part.trim_start_matches(|c: char| c.is_ascii_digit())
    });
    OwnFunction {
        body,
        ..function.clone()
    }
}

/// The index of a table's key, by which triggers see that the key is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyIndex {
    /// `pg_class.oid`.
    pub(super) index: u32,
    /// Its columns as `pg_get_indexdef` prints them, as the text of an array.
    pub(super) columns: String,
    /// The columns one by one.
    pub(super) printed: Vec<String>,
}

/// A table with its key, for the functions over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed<'a> {
    pub(super) table: &'a Table,
    pub(super) key: &'a Key,
    pub(super) index: &'a KeyIndex,
}

impl Keyed<'_> {
    /// The text of the key of the row `d`.
    pub(super) fn text(self) -> String {
        format!("{}::pg_catalog.text", self.texts())
    }

    /// The same as a `text[]`.
    pub(super) fn texts(self) -> String {
        key_expression(self.key, |_, column| format!("d.{}", ident(&column.name)))
    }

    /// The settings that its text needs, as options of a function.
    fn settings(self) -> &'static str {
        if self.key.columns.iter().all(is_settled) {
            ""
        } else {
            SETTINGS
        }
    }

    /// "The key has changed": the index is another or has other columns, and it is not only that.
    fn has_changed(self) -> String {
        let index = self.index.index;
        let same = (1..).zip(&self.index.printed).map(|(place, column)| {
            let column = literal(column);
            format!("{INDEX}{index}, {place}, false) OPERATOR(pg_catalog.=) {column}")
        });
        let same: Vec<String> = same.collect();
        format!(
            "({}) is not true and (mmrepl.key_shape(tg_relid) OPERATOR(pg_catalog.=) {}) is not true",
            same.join(" and "),
            literal(&self.shape())
        )
    }

    /// Names and types of the key, as `mmrepl.key_shape` gives them.
    pub(super) fn shape(self) -> String {
        let column = |column: &KeyColumn| {
            let of_table = self.table.column(&column.name);
            let type_oid = of_table.map_or(0, |column| column.type_oid);
            format!("{}:{type_oid}", ident(&column.name))
        };
        let columns: Vec<String> = self.key.columns.iter().map(column).collect();
        columns.join(",")
    }
}

fn is_settled(column: &KeyColumn) -> bool {
    let name = column.type_name.as_str();
    match column.form {
        KeyForm::Cast => SETTLED.contains(&name) || name.starts_with("character varying"),
        KeyForm::Numeric
        | KeyForm::Money
        | KeyForm::Number
        | KeyForm::Padded
        | KeyForm::LowerCase
        | KeyForm::Collated(_) => true,
        KeyForm::Label
        | KeyForm::Output
        | KeyForm::Float
        | KeyForm::Jsonb
        | KeyForm::Hash(_)
        | KeyForm::Array(_) => false,
    }
}

/// A tombstone takes the place of the one that is there.
const REPLACE: &str = "on conflict (relation, key, bulk) do update \
     set left_at = excluded.left_at, version = excluded.version, image = excluded.image";

/// What every function has. A column that is called like a variable of a trigger stays a column:
/// columns are named with their row.
const DECLARE: &str = "
#variable_conflict use_variable
declare
    mmrepl_keys pg_catalog.text[];
    mmrepl_before pg_catalog.text[];
    mmrepl_statement pg_catalog.text;
    mmrepl_blocks pg_catalog.int8 := 0;
begin
";

/// No statement of a plan that is kept reads a whole table because that was small once.
const BY_INDEX: &str = " set enable_seqscan = off";

/// "The snapshot is that of the whole transaction."
const OLD_SNAPSHOT: &str = "pg_catalog.current_setting('transaction_isolation') \
     OPERATOR(pg_catalog.=) any (array['repeatable read', 'serializable'])";

/// What a delete leaves beside the key, over the row `d`.
#[derive(Clone, Debug)]
pub(super) struct Leaves {
    pub(super) version: String,
    pub(super) image: Option<String>,
    /// Whether the texts of version and image are the same under all settings.
    pub(super) settled: bool,
}

/// The part that finds the key as it is now.
fn if_moved(keyed: Keyed<'_>, left: Option<&Leaves>) -> String {
    format!(
        "    if {} then
        mmrepl_before := mmrepl.pin_settings();
        mmrepl_statement := mmrepl.tombstones_made_anew(tg_relid, {}, {}, {}, {});
        if mmrepl_statement is not null then
            execute mmrepl_statement using tg_relid;
        end if;
        mmrepl_before := mmrepl.unpin_settings(mmrepl_before);
        return null;
    end if;
",
        keyed.has_changed(),
        literal(&keyed.texts()),
        literal(&keyed.shape()),
        literal(left.map_or("null", |left| &left.version)),
        literal(image(left)),
    )
}

fn image(left: Option<&Leaves>) -> &str {
    let image = left.and_then(|left| left.image.as_deref());
    image.unwrap_or("null::pg_catalog.text[]")
}

/// After DELETE, per statement: a tombstone for each row.
pub(super) fn deleted(keyed: Keyed<'_>, left: Option<&Leaves>) -> Own {
    let settled = left.is_none_or(|left| left.settled);
    let settings = if settled { keyed.settings() } else { SETTINGS };
    let body = format!(
        "{DECLARE}{}{}    insert into mmrepl.tombstone (relation, key, version, image)
        select distinct on (2) tg_relid, {}, {}, {} from mmrepl_old d
        {REPLACE};
    return null;
end ",
        if_moved(keyed, left),
        if left.is_none() {
            only_peer(keyed)
        } else {
            String::new()
        },
        keyed.text(),
        left.map_or("null", |left| &left.version),
        image(left),
    );
    Own::of_trigger(format!("deleted_{}", keyed.table.oid), settings, body)
}

/// The part that leaves nothing where the only peer deletes, but for keys that have a tombstone.
fn only_peer(keyed: Keyed<'_>) -> String {
    let replaced = format!(
        "insert into mmrepl.tombstone (relation, key) select distinct $1, k.key \
         from (select {} from mmrepl_old d) k(key) cross join lateral \
         (select from mmrepl.tombstones_of($1, k.key) t \
         where t.key OPERATOR(pg_catalog.<>) '' limit 1) found {REPLACE}",
        keyed.text()
    );
    format!(
        "    if pg_catalog.current_setting('mmrepl.only_peer', true) OPERATOR(pg_catalog.=) 'on' then
        if mmrepl.applies_from_only_peer() then
            if exists (select from mmrepl.tombstone t
                    where t.relation OPERATOR(pg_catalog.=) tg_relid)
                or mmrepl.has_blocks(tg_relid) then
                execute {} using tg_relid;
            end if;
            return null;
        end if;
    end if;
",
        literal(&replaced)
    )
}

/// After DELETE, per statement, where tombstones have no version and the key is unique at any
/// moment, not only at the end of a transaction: a row for each key, or what the statements
/// `blocks` leave of very many rows, which say in `mmrepl_blocks` how many blocks it is.
///
/// Who deletes a row has waited for whoever deleted the one that had its key before. So with a
/// snapshot taken now an earlier tombstone of the key is visible, and no other can come in between.
/// A snapshot of the whole transaction may be older, and a parent table gives its children's rows
/// too: these go the slow way, like the few rows that are not worth another statement.
pub(super) fn remembered(keyed: Keyed<'_>, blocks: &str) -> Own {
    let key = keyed.text();
    let body = format!(
        "{DECLARE}{}{}    mmrepl_keys := array(select {key} from mmrepl_old d limit 20);
    if pg_catalog.cardinality(mmrepl_keys) OPERATOR(pg_catalog.=) 1 then
        insert into mmrepl.tombstone (relation, key) values (tg_relid, mmrepl_keys[1])
            {REPLACE};
    elsif pg_catalog.cardinality(mmrepl_keys) OPERATOR(pg_catalog.<) 20
        or {OLD_SNAPSHOT}
        or (select c.relhassubclass from pg_catalog.pg_class c
            where c.oid OPERATOR(pg_catalog.=) tg_relid) then
        insert into mmrepl.tombstone (relation, key)
            select distinct tg_relid, {key} from mmrepl_old d
            {REPLACE};
    else
{blocks}        if mmrepl_blocks OPERATOR(pg_catalog.>) 0 then
            return null;
        end if;
        execute mmrepl.forgetting((select pg_catalog.count(*) from (
                select from mmrepl_old limit 100001) counted), {}) using tg_relid;
        execute {} using tg_relid, pg_catalog.clock_timestamp();
    end if;
    return null;
end ",
        if_moved(keyed, None),
        only_peer(keyed),
        literal(&format!("(select {key} from mmrepl_old d) k(key)")),
        literal(&format!(
            "insert into mmrepl.tombstone (relation, key, left_at, bulk) \
             select distinct $1, {key}, $2, true from mmrepl_old d"
        )),
    );
    let name = format!("deleted_{}", keyed.table.oid);
    Own::of_trigger(name, keyed.settings(), body)
}

/// How a row that comes back is lifted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lift<'a> {
    /// "Row `t` has the key of `d`."
    pub(super) same: &'a str,
    /// The column of the version.
    pub(super) column: &'a str,
    /// Its value over `d` and the tombstone `x`, NULL where nothing is to be lifted.
    pub(super) value: &'a str,
}

/// After INSERT, per statement: looks whether one of the keys was deleted or is kept aside. That is
/// rare, and what follows is put together then: see `mmrepl.lift_versions`, which has the reasons.
pub(super) fn lifted(keyed: Keyed<'_>, lift: Lift<'_>) -> Own {
    let (key, oid) = (keyed.text(), keyed.table.oid);
    let body = format!(
        "{DECLARE}    if pg_catalog.current_setting('mmrepl.applying', true) OPERATOR(pg_catalog.=) 'on'
        or pg_catalog.pg_advisory_xact_lock_shared(1835889264, {}) is null then
        return null;
    end if;
    if not ({OLD_SNAPSHOT} or {}) then
        if not exists (select from mmrepl_new d cross join lateral (
                select from mmrepl.tombstone t where t.relation OPERATOR(pg_catalog.=) tg_relid
                    and t.key OPERATOR(pg_catalog.=) {key}
                union all
                select from mmrepl.shadow s where s.relation OPERATOR(pg_catalog.=) tg_relid
                    and s.key OPERATOR(pg_catalog.=) ({key} collate pg_catalog.\"default\")
                limit 1) found) then
            return null;
        end if;
    end if;
    mmrepl_before := mmrepl.pin_settings();
    mmrepl_keys := mmrepl.lifting(tg_relid, {}, {}, {}, {}, {}, 'mmrepl_new');
    if mmrepl_keys is not null then
        if {OLD_SNAPSHOT} then
            execute mmrepl_keys[1] using tg_relid;
            mmrepl_statement := mmrepl.forget_probes(tg_relid);
        end if;
        mmrepl_statement := pg_catalog.set_config('mmrepl.lifting', 'on', true);
        execute mmrepl_keys[2] using tg_relid;
        mmrepl_statement := pg_catalog.set_config('mmrepl.lifting', '', true);
    end if;
    mmrepl_before := mmrepl.unpin_settings(mmrepl_before);
    return null;
end ",
        oid.cast_signed(),
        keyed.has_changed(),
        literal(&keyed.texts()),
        literal(&keyed.shape()),
        literal(lift.same),
        literal(lift.column),
        literal(lift.value),
    );
    let options = format!("{BY_INDEX}{}", keyed.settings());
    Own::of_trigger(format!("lifted_{oid}"), &options, body)
}
