//! What the source writes.

/// One kind of backlog. `{n}` stands for the number of rows.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) schema: &'static str,
    /// The table that must be equal in the end.
    pub(crate) table: &'static str,
    before: &'static str,
    backlog: &'static str,
}

impl Workload {
    pub(crate) fn before(&self, rows: u64) -> String {
        self.before.replace("{n}", &rows.to_string())
    }

    pub(crate) fn backlog(&self, rows: u64) -> String {
        self.backlog.replace("{n}", &rows.to_string())
    }
}

const NARROW: &str = "create table t (id int primary key, v int not null, note text)";
const WIDE: &str = "create table t (id int primary key, v text not null)";
const FILL: &str = "insert into t select i, 0, 'before' from generate_series(1, {n}) i";

/// Named as in the project's performance notes.
pub(crate) const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "w2 single-row insert transactions",
        schema: NARROW,
        table: "t",
        before: "select 1",
        backlog: "do $$ begin for i in 1..{n} loop
            insert into t values (i, i, 'x'); commit; end loop; end $$",
    },
    Workload {
        name: "w3 one transaction of inserts",
        schema: NARROW,
        table: "t",
        before: "select 1",
        backlog: "insert into t select i, i, 'x' from generate_series(1, {n}) i",
    },
    Workload {
        name: "w4a single-row update transactions",
        schema: NARROW,
        table: "t",
        before: FILL,
        backlog: "do $$ begin for i in 1..{n} loop
            update t set v = i where id = i; commit; end loop; end $$",
    },
    Workload {
        name: "w4b updates, 100 per transaction",
        schema: NARROW,
        table: "t",
        before: FILL,
        backlog: "do $$ begin for i in 1..{n} loop update t set v = i where id = i;
            if i % 100 = 0 then commit; end if; end loop; end $$",
    },
    Workload {
        name: "w5 deletes in one transaction",
        schema: NARROW,
        table: "t",
        before: FILL,
        backlog: "delete from t",
    },
    Workload {
        name: "w6 rows of 1 kB, 1000 per transaction",
        schema: WIDE,
        table: "t",
        before: "select 1",
        backlog: "do $$ begin for i in 1..{n} loop
            insert into t values (i, repeat(md5(i::text), 32));
            if i % 1000 = 0 then commit; end if; end loop; end $$",
    },
];
