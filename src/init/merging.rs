//! What keeps the clocks of rows that merge, and the image that tombstones keep, as SQL. Pure.
//!
//! One function per table and node, with every column by name: what an application's statement
//! changed is found without looking anything up. A column that is added later is not in it until
//! `mmrepl init` runs again; until then it goes with the row's version.

use super::own::Own;
use crate::catalog::names::{ident, literal};
use crate::catalog::table::{Column, Table};
use crate::conflict::{COUNT_COLUMN, Merge, STATE_COLUMN};
use crate::ids::NodeName;
use crate::wire::settings::APPLIES;

/// A function takes at most 100 arguments.
const PAIRS_PER_CALL: usize = 40;
/// `pg_type.oid` of `numeric`, the one type of a counter with places after the point.
const NUMERIC: u32 = 1700;

/// How the rows of a table merge on one node.
#[derive(Clone, Debug)]
pub(super) struct Merging {
    /// The function that keeps the clocks.
    name: String,
    /// What it does.
    body: String,
    image: String,
}

impl Merging {
    /// For a table with a key.
    pub(super) fn of(merge: &Merge, table: &Table, node: &NodeName) -> Self {
        let parts = Parts { merge, table };
        Self {
            name: format!("merge_{}", table.oid),
            body: parts.body(node),
            image: image(table),
        }
    }

    /// The call of the function.
    pub(super) fn call(&self) -> String {
        format!("mmrepl.{}()", self.name)
    }

    /// The function.
    pub(super) fn function(&self) -> Own {
        Own::of_trigger(self.name.clone(), "", self.body.clone())
    }

    /// Row `d` as a `text[]` of names and values in turn.
    pub(super) fn image(&self) -> &str {
        &self.image
    }
}

/// Every value as its type prints it.
fn image(table: &Table) -> String {
    let columns = table.columns.iter().filter(|column| !column.generated);
    let pair = |column: &Column| {
        let name = ident(&column.name);
        // A composite of NULLs is not NULL itself.
        let value = format!(
            "case when pg_catalog.num_nulls(d.{name}) OPERATOR(pg_catalog.=) 0 \
             then pg_catalog.format('%s', d.{name}) end"
        );
        format!("{}, {value}", literal(&column.name))
    };
    let pairs: Vec<String> = columns.map(pair).collect();
    format!("array[{}]::pg_catalog.text[]", pairs.join(", "))
}

/// The parts of the function's body.
struct Parts<'a> {
    merge: &'a Merge,
    table: &'a Table,
}

impl Parts<'_> {
    fn is_counter(&self, column: &Column) -> bool {
        self.merge.counters.contains(&column.name)
    }

    fn counters(&self) -> impl Iterator<Item = &Column> {
        let columns = self.table.columns.iter();
        columns.filter(|column| self.is_counter(column))
    }

    /// Columns with a clock of their own.
    fn registers(&self) -> impl Iterator<Item = &Column> {
        let in_key = |name: &str| {
            let mut key = self.table.key.iter().flat_map(|key| &key.columns);
            key.any(|column| column.name == name)
        };
        let ours = |name: &str| [COUNT_COLUMN, STATE_COLUMN].contains(&name);
        let all = self.table.columns.iter().filter(|_| self.merge.by_column);
        all.filter(move |column| {
            let name = column.name.as_str();
            !column.generated && !in_key(name) && !ours(name) && !self.is_counter(column)
        })
    }

    fn body(&self, node: &NodeName) -> String {
        let key = self.table.key.iter().flat_map(|key| &key.columns);
        let same: Vec<String> = key
            .map(|column| {
                let name = ident(&column.name);
                format!("old.{name} {} new.{name}", column.equality)
            })
            .collect();
        let registers: Vec<&Column> = self.registers().collect();
        let counters: Vec<&Column> = self.counters().collect();
        let finite: String = counters.iter().map(|column| self.finite(column)).collect();
        let set: String = registers.iter().copied().map(changed).collect();
        let counted: String = counters.iter().copied().map(counted).collect();
        format!(
            "
declare
    me constant pg_catalog.text := {};
    clock pg_catalog.int8;
    anew boolean := true;
    stamp pg_catalog.jsonb;
    columns pg_catalog.jsonb := '{{}}';
    counters pg_catalog.jsonb := '{{}}';
begin
    if pg_catalog.current_setting('{APPLIES}', true) OPERATOR(pg_catalog.=) 'on' then
        return new;
    end if;
{finite}    if pg_catalog.current_setting('mmrepl.lifting', true) OPERATOR(pg_catalog.<>) '' then
        clock := new.{COUNT_COLUMN};
    else
        clock := mmrepl.clock_now();
        if tg_op OPERATOR(pg_catalog.=) 'UPDATE' then
            clock := greatest(clock, old.{COUNT_COLUMN} OPERATOR(pg_catalog.+) 1);
            anew := not ({});
        end if;
    end if;
    stamp := pg_catalog.jsonb_build_array(clock, me);
    if anew then
        columns := columns{};
        counters := counters{};
    else
        columns := coalesce(old.{STATE_COLUMN} OPERATOR(pg_catalog.->) 'c', columns);
        counters := coalesce(old.{STATE_COLUMN} OPERATOR(pg_catalog.->) 'd', counters);
{set}{counted}    end if;
    new.{COUNT_COLUMN} := clock;
    new.{STATE_COLUMN} := pg_catalog.jsonb_build_object('n', me, 'c', columns, 'd', counters);
    return new;
end ",
            literal(node.as_str()),
            same.join(" and "),
            objects(&registers, |_| "stamp".to_owned()),
            objects(&counters, |column| {
                let from = format!("new.{}::pg_catalog.text", ident(&column.name));
                format!(
                    "pg_catalog.jsonb_build_object('b', stamp OPERATOR(pg_catalog.||) \
                     pg_catalog.to_jsonb({from}), 'e', '{{}}'::pg_catalog.jsonb)"
                )
            }),
        )
    }

    /// What adds up must be a number.
    fn finite(&self, column: &Column) -> String {
        if column.type_oid != NUMERIC {
            return String::new();
        }
        let message = format!(
            "mmrepl: changes of {} of {} add up, so it cannot be NaN or infinite",
            column.name,
            self.table.readable()
        );
        format!(
            "    if new.{}::pg_catalog.text OPERATOR(pg_catalog.=) \
             any (array['NaN', 'Infinity', '-Infinity']) then\n        \
             raise exception using errcode = '22003', message = {};\n    end if;\n",
            ident(&column.name),
            literal(&message)
        )
    }
}

/// ` || jsonb_build_object('a', …, 'b', …) || …`
fn objects(columns: &[&Column], value: impl Fn(&Column) -> String) -> String {
    let pair = |column: &&Column| format!("{}, {}", literal(&column.name), value(column));
    let calls = columns.chunks(PAIRS_PER_CALL).map(|chunk| {
        let pairs: Vec<String> = chunk.iter().map(pair).collect();
        format!(
            " OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object({})",
            pairs.join(", ")
        )
    });
    calls.collect()
}

/// "The column was changed", by every byte of it: not every type has an equality.
fn differs(column: &Column) -> String {
    let name = ident(&column.name);
    format!("pg_catalog.record_image_ne(row(new.{name}), row(old.{name}))")
}

fn changed(column: &Column) -> String {
    format!(
        "        if {} then\n            \
         columns := columns || jsonb_build_object({}, stamp);\n        end if;\n",
        differs(column),
        literal(&column.name)
    )
}

fn counted(column: &Column) -> String {
    let name = ident(&column.name);
    // As many places as there were: what other nodes compute from base and sums has them.
    let places = if column.type_oid == NUMERIC {
        format!(
            "            new.{name} := old.{name} OPERATOR(pg_catalog.+) \
             (new.{name} OPERATOR(pg_catalog.-) old.{name});\n"
        )
    } else {
        String::new()
    };
    format!(
        "        if {} then\n{places}            \
         counters := mmrepl.count_delta(counters, {}, old.{name}, new.{name}, me, clock);\n        \
         end if;\n",
        differs(column),
        literal(&column.name)
    )
}
