//! What the source writes.

use std::fmt::Write as _;

/// How a backlog comes about.
pub(crate) enum Backlog {
    /// One statement; `{n}` stands for the number of rows, `{m}` for the rows there are before.
    Sql(&'static str),
    /// As many transactions of pgbench, by four clients.
    Pgbench,
}

/// One kind of backlog.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is counted, in transactions of pgbench or in rows.
    pub(crate) unit: &'static str,
    /// How many of them the full size has.
    pub(crate) full: u64,
    /// So many times as fast as the server's own subscription it is meant to be.
    pub(crate) goal: f64,
    /// The tables that must be equal in the end; see also `spread`.
    pub(crate) tables: &'static [&'static str],
    /// So many tables the rows are spread over; 0 where `tables` names them all.
    pub(crate) spread: u32,
    pub(crate) backlog: Backlog,
    schema: &'static str,
    before: &'static str,
    /// Its transactions are small, so it matters whether they may share a target transaction.
    pub(crate) small: bool,
    /// It is also drained over a slow network, and through the source's Unix-domain socket.
    pub(crate) over_network: bool,
    /// The triggers that mmrepl has on the source write there, which would be work for the others.
    pub(crate) apart: bool,
}

impl Workload {
    /// Empty tables, for every node.
    pub(crate) fn schema(&self) -> String {
        if self.name == "w6" {
            return wide_table();
        }
        if self.spread > 0 {
            return self
                .all_tables()
                .iter()
                .map(|table| narrow(table))
                .collect();
        }
        self.schema.to_owned()
    }

    /// The tables that must be equal in the end.
    pub(crate) fn all_tables(&self) -> Vec<String> {
        let spread = (0..self.spread).map(|number| format!("many_{number}"));
        let named = self.tables.iter().map(|table| (*table).to_owned());
        named.chain(spread).collect()
    }

    /// What is there before, written on the source and replicated.
    pub(crate) fn before(&self, rows: u64, scale: u64) -> String {
        let filled = fill(self.before, rows);
        filled.replace("{scale}", &scale.to_string())
    }

    /// The statement of a backlog that is one.
    pub(crate) fn statement(&self, rows: u64) -> Option<String> {
        match self.backlog {
            Backlog::Sql(sql) => Some(self.fill(sql, rows)),
            Backlog::Pgbench => None,
        }
    }

    fn fill(&self, template: &str, rows: u64) -> String {
        fill(template, rows)
            .replace("{wide}", &wide_values())
            .replace("{spread}", &self.spread.to_string())
    }
}

/// There are 2 rows before for 5 updates, so that keys come again, but not soon.
fn fill(template: &str, rows: u64) -> String {
    let before = (rows * 2 / 5).max(1);
    let filled = template.replace("{n}", &rows.to_string());
    filled.replace("{m}", &before.to_string())
}

/// 30 columns of every usual type, about 1 kB.
const WIDE: [(&str, usize, &str, &str); 6] = [
    ("t", 8, "text", "repeat(md5(i::text || '{c}'), 2)"),
    (
        "j",
        3,
        "jsonb",
        "jsonb_build_object('id', i, 'tag', md5(i::text), 'n', {c})",
    ),
    ("n", 6, "numeric(12,2)", "i * {c} / 7.0"),
    (
        "at",
        4,
        "timestamptz",
        "timestamptz '2025-01-01Z' + i * interval '{c} s'",
    ),
    ("i", 7, "int", "i + {c}"),
    ("u", 1, "uuid", "md5(i::text)::uuid"),
];

fn wide_table() -> String {
    let mut sql = "create table t (id int primary key".to_owned();
    for (prefix, count, type_name, _) in WIDE {
        for number in 1..=count {
            let _ = write!(sql, ", {prefix}{number} {type_name} not null");
        }
    }
    sql + ")"
}

fn wide_values() -> String {
    let mut values = "i".to_owned();
    for (_, count, _, value) in WIDE {
        for number in 1..=count {
            values = values + ", " + &value.replace("{c}", &number.to_string());
        }
    }
    values
}

const NARROW: &str = "create table t (id int primary key, v int not null, note text)";

fn narrow(table: &str) -> String {
    NARROW.replace("table t ", &format!("table {table} ")) + ";\n"
}
const FILL_M: &str = "insert into t select i, 0, 'before' from generate_series(1, {m}) i";

/// As `pgbench -i` makes them; its history has no key.
const PGBENCH_TABLES: &str = "
    create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
    create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
    create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
    create table pgbench_history
        (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))";
const PGBENCH_ROWS: &str = "
    insert into pgbench_branches select b, 0 from generate_series(1, {scale}) b;
    insert into pgbench_tellers
        select t, (t - 1) / 10 + 1, 0 from generate_series(1, {scale} * 10) t;
    insert into pgbench_accounts
        select a, (a - 1) / 100000 + 1, 0, '' from generate_series(1, {scale} * 100000) a";

const PLAIN: Workload = Workload {
    name: "",
    title: "",
    unit: "rows",
    full: 500_000,
    goal: 1.0,
    tables: &["t"],
    spread: 0,
    backlog: Backlog::Sql(""),
    schema: NARROW,
    before: "",
    small: false,
    over_network: false,
    apart: false,
};

pub(crate) const WORKLOADS: [Workload; 7] = [
    Workload {
        name: "w1",
        title: "pgbench (TPC-B, scale 10, 4 clients)",
        unit: "transactions",
        full: 100_000,
        goal: 2.0,
        tables: &[
            "pgbench_branches",
            "pgbench_tellers",
            "pgbench_accounts",
            "pgbench_history",
        ],
        backlog: Backlog::Pgbench,
        schema: PGBENCH_TABLES,
        before: PGBENCH_ROWS,
        small: true,
        over_network: true,
        ..PLAIN
    },
    Workload {
        name: "w2",
        title: "transactions of one insert",
        goal: 1.5,
        backlog: Backlog::Sql(
            "do $$ begin for i in 1..{n} loop
                insert into t values (i, i, 'x'); commit; end loop; end $$",
        ),
        small: true,
        over_network: true,
        ..PLAIN
    },
    Workload {
        name: "w3",
        title: "one transaction of inserts",
        full: 2_000_000,
        goal: 1.3,
        backlog: Backlog::Sql("insert into t select i, i, 'x' from generate_series(1, {n}) i"),
        ..PLAIN
    },
    Workload {
        name: "w4a",
        title: "transactions of one update",
        goal: 2.0,
        before: FILL_M,
        backlog: Backlog::Sql(
            "do $$ begin for i in 1..{n} loop
                update t set v = i where id = i * 7919::bigint % {m} + 1; commit;
                end loop; end $$",
        ),
        small: true,
        over_network: true,
        ..PLAIN
    },
    Workload {
        name: "w4b",
        title: "transactions of 100 updates",
        goal: 1.4,
        before: FILL_M,
        backlog: Backlog::Sql(
            "do $$ begin for i in 1..{n} loop
                update t set v = i where id = i * 7919::bigint % {m} + 1;
                if i % 100 = 0 then commit; end if; end loop; end $$",
        ),
        small: true,
        ..PLAIN
    },
    Workload {
        name: "w5",
        title: "one transaction of deletes",
        full: 1_000_000,
        goal: 1.2,
        before: "insert into t select i, 0, 'before' from generate_series(1, {n}) i",
        backlog: Backlog::Sql("delete from t"),
        apart: true,
        ..PLAIN
    },
    Workload {
        name: "w6",
        title: "rows of 1 kB in 30 columns, 1000 per transaction",
        full: 200_000,
        goal: 1.3,
        backlog: Backlog::Sql(
            "do $$ begin for k in 1..{n} by 1000 loop
                insert into t select {wide} from generate_series(k, least(k + 999, {n})) i;
                commit; end loop; end $$",
        ),
        over_network: true,
        ..PLAIN
    },
];

/// Neighbours go to different tables: of the rows of one table every other one is an insert, the
/// next an update of it.
macro_rules! spread {
    ($after_each:literal) => {
        concat!(
            "do $$ begin for k in 0..{n} - 1 loop
                if k / {spread} % 2 = 0 then
                    execute format('insert into many_%s values ($1, 0, $2)',
                        k * 7919::bigint % {spread}) using k / {spread}, 'x';
                else
                    execute format('update many_%s set v = $2 where id = $1',
                        k * 7919::bigint % {spread}) using k / {spread} - 1, k;
                end if; ",
            $after_each,
            " end loop; end $$"
        )
    };
}
const SPREAD_ONE: &str = spread!("");
const SPREAD_EACH: &str = spread!("commit;");

const SPREAD: Workload = Workload {
    full: 11_000,
    tables: &[],
    ..PLAIN
};

/// Few rows for each of many tables, as the first hour after a set-up brings them.
pub(crate) const MANY: [Workload; 4] = [
    Workload {
        name: "many/100/one",
        title: "one transaction over 100 tables",
        spread: 100,
        full: 11_900,
        backlog: Backlog::Sql(SPREAD_ONE),
        ..SPREAD
    },
    Workload {
        name: "many/100/each",
        title: "transactions of one row, over 100 tables",
        spread: 100,
        full: 11_900,
        backlog: Backlog::Sql(SPREAD_EACH),
        ..SPREAD
    },
    Workload {
        name: "many/1000/one",
        title: "one transaction over 1,000 tables",
        spread: 1_000,
        backlog: Backlog::Sql(SPREAD_ONE),
        ..SPREAD
    },
    Workload {
        name: "many/1000/each",
        title: "transactions of one row, over 1,000 tables",
        spread: 1_000,
        backlog: Backlog::Sql(SPREAD_EACH),
        ..SPREAD
    },
];
