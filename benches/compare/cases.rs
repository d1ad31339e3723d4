//! The conflicts.

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    East,
    West,
}

use Node::{East, West};

/// One conflict. East has `before` first and passes it on.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) schema: &'static str,
    pub(crate) before: &'static str,
    /// In this order, each a transaction that commits well after the one before.
    pub(crate) writes: &'static [(Node, &'static str)],
    pub(crate) tables: &'static [&'static str],
    /// What is compared of a row `t`: not the columns that a system adds for itself.
    pub(crate) shown: &'static str,
    /// The rows of the first table when no write that must count is lost; `None` where nobody says.
    pub(crate) wanted: Option<&'static str>,
    /// What has happened where both nodes have other rows than wanted.
    pub(crate) flaw: &'static str,
    /// How mmrepl is told to settle the case, where not by its default; the others have no choice.
    pub(crate) rule: &'static str,
    /// Rows that break a promise of the schema, and what they are called.
    pub(crate) broken: Option<(&'static str, &'static str)>,
}

const TABLE: &str = "create table t (id int primary key, a text, b text)";
const ROW: &str = "insert into t values (1, 'old', 'old')";

/// What most cases have: table `t`, with a row 1.
const PLAIN: Case = Case {
    name: "",
    schema: TABLE,
    before: ROW,
    writes: &[],
    tables: &["t"],
    shown: "t",
    wanted: None,
    flaw: "newest write lost",
    rule: "",
    broken: None,
};

const UNIQUE: &str = "create table t (id int primary key, email text unique)";
/// Large values are stored out of line, so the stream leaves them out where they do not change.
const LARGE: &str = "create table t (id int primary key, a text, b text);
    alter table t alter column b set storage external";

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "insert against insert of the same key",
        before: "",
        writes: &[
            (East, "insert into t values (1, 'east', 'east')"),
            (West, "insert into t values (1, 'west', 'west')"),
        ],
        wanted: Some("(1,west,west)"),
        ..PLAIN
    },
    Case {
        name: "update against update of the same column",
        writes: &[
            (East, "update t set a = 'east' where id = 1"),
            (West, "update t set a = 'west' where id = 1"),
        ],
        wanted: Some("(1,west,old)"),
        ..PLAIN
    },
    Case {
        name: "update against update of another column",
        writes: &[
            (East, "update t set a = 'east' where id = 1"),
            (West, "update t set b = 'west' where id = 1"),
        ],
        wanted: Some("(1,old,west)"),
        ..PLAIN
    },
    Case {
        name: "older update against newer delete",
        writes: &[
            (East, "update t set a = 'east' where id = 1"),
            (West, "delete from t where id = 1"),
        ],
        wanted: Some("no rows"),
        ..PLAIN
    },
    Case {
        name: "newer update against older delete",
        writes: &[
            (West, "delete from t where id = 1"),
            (East, "update t set a = 'east' where id = 1"),
        ],
        wanted: Some("(1,east,old)"),
        ..PLAIN
    },
    Case {
        name: "older delete and reinsert against newer update",
        writes: &[
            (East, "delete from t where id = 1"),
            (East, "insert into t values (1, 'east', 'east')"),
            (West, "update t set a = 'west' where id = 1"),
        ],
        wanted: Some("(1,west,old)"),
        ..PLAIN
    },
    Case {
        name: "newer delete and reinsert against older update",
        writes: &[
            (West, "update t set a = 'west' where id = 1"),
            (East, "delete from t where id = 1"),
            (East, "insert into t values (1, 'east', 'east')"),
        ],
        wanted: Some("(1,east,east)"),
        ..PLAIN
    },
    Case {
        name: "older delete and reinsert against newer delete",
        writes: &[
            (East, "delete from t where id = 1"),
            (East, "insert into t values (1, 'east', 'east')"),
            (West, "delete from t where id = 1"),
        ],
        wanted: Some("no rows"),
        ..PLAIN
    },
    Case {
        name: "newer delete and reinsert against older delete",
        writes: &[
            (West, "delete from t where id = 1"),
            (East, "delete from t where id = 1"),
            (East, "insert into t values (1, 'east', 'east')"),
        ],
        wanted: Some("(1,east,east)"),
        ..PLAIN
    },
    Case {
        name: "delete against delete",
        writes: &[
            (East, "delete from t where id = 1"),
            (West, "delete from t where id = 1"),
        ],
        wanted: Some("no rows"),
        ..PLAIN
    },
    Case {
        name: "key change against update",
        writes: &[
            (East, "update t set id = 10 where id = 1"),
            (West, "update t set a = 'west' where id = 1"),
        ],
        ..PLAIN
    },
    Case {
        name: "key change against key change to the same new key",
        before: "insert into t values (1, 'one', 'old'), (2, 'two', 'old')",
        writes: &[
            (East, "update t set id = 10 where id = 1"),
            (West, "update t set id = 10 where id = 2"),
        ],
        wanted: Some("(10,two,old)"),
        ..PLAIN
    },
    Case {
        name: "older truncate against newer insert",
        writes: &[
            (East, "truncate t"),
            (West, "insert into t values (2, 'west', 'west')"),
        ],
        wanted: Some("(2,west,west)"),
        ..PLAIN
    },
    Case {
        name: "unique value taken on both sides by insert",
        schema: UNIQUE,
        before: "",
        writes: &[
            (East, "insert into t values (1, 'a@x')"),
            (West, "insert into t values (2, 'a@x')"),
        ],
        ..PLAIN
    },
    Case {
        name: "unique value taken on both sides by update",
        schema: UNIQUE,
        before: "insert into t values (1, 'one@x'), (2, 'two@x')",
        writes: &[
            (East, "update t set email = 'a@x' where id = 1"),
            (West, "update t set email = 'a@x' where id = 2"),
        ],
        ..PLAIN
    },
    Case {
        name: "a chain of unique values",
        schema: UNIQUE,
        before: "insert into t values (1, 'one@x'), (2, 'two@x')",
        writes: &[
            (East, "update t set email = 'a@x' where id = 1"),
            (East, "update t set email = 'one@x' where id = 2"),
            (West, "insert into t values (3, 'a@x')"),
            (West, "update t set email = 'b@x' where id = 2"),
        ],
        ..PLAIN
    },
    Case {
        name: "two columns of a row edited apart, both edits wanted",
        writes: &[
            (East, "update t set a = 'east' where id = 1"),
            (West, "update t set b = 'west' where id = 1"),
        ],
        shown: "(t.id, t.a, t.b)",
        wanted: Some("(1,east,west)"),
        flaw: "one edit lost",
        rule: "[[conflict.table]]\nname = \"public.t\"\nstrategy = \"column_merge\"\n",
        ..PLAIN
    },
    Case {
        name: "a counter raised and lowered",
        schema: "create table t (id int primary key, on_hand int not null)",
        before: "insert into t values (1, 10)",
        writes: &[
            (East, "update t set on_hand = on_hand + 5 where id = 1"),
            (West, "update t set on_hand = on_hand - 3 where id = 1"),
        ],
        shown: "(t.id, t.on_hand)",
        wanted: Some("(1,12)"),
        flaw: "one change lost",
        rule: "[[conflict.table]]\nname = \"public.t\"\nstrategy = \"hybrid_clock\"\n\
            delta_columns = [\"on_hand\"]\n",
        ..PLAIN
    },
    Case {
        name: "older change of a large value against newer change beside it",
        schema: LARGE,
        before: "insert into t values (1, 'old', repeat('.', 4000) || 'old')",
        writes: &[
            (
                West,
                "update t set b = repeat('.', 4000) || 'west' where id = 1",
            ),
            (East, "update t set a = 'east' where id = 1"),
        ],
        wanted: Some("(1,east,…old)"),
        ..PLAIN
    },
    Case {
        name: "child inserted against parent deleted",
        schema: "create table t (id int primary key);
            create table child (id int primary key, parent int not null references t)",
        before: "insert into t values (1)",
        writes: &[
            (East, "insert into child values (1, 1)"),
            (West, "delete from t where id = 1"),
        ],
        tables: &["t", "child"],
        broken: Some((
            "select count(*)::text from child where parent not in (select id from t)",
            "child without a parent",
        )),
        ..PLAIN
    },
];
