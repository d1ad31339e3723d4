//! Who has a unique value: what is written, and what every node must have.

use super::case_table::Writes;

/// One case, on a table `{t}` of its own.
pub struct UniqueCase {
    /// What a failure calls it.
    pub name: &'static str,
    /// Columns and constraints.
    pub columns: &'static str,
    /// More statements that make the table.
    pub more: &'static str,
    /// Written first; every node has it.
    pub before: Writes,
    /// Written while no node hears of another.
    pub apart: Writes,
    /// What is there then, `(1,a) (2,b)`, and how many rows are kept aside on each node.
    pub wanted: (&'static str, u32),
    /// Written once every node has that.
    pub after: Writes,
    /// What is there in the end.
    pub at_last: (&'static str, u32),
    /// The first major that has what the case needs.
    pub since: u32,
}

const E: &str = "east";
const W: &str = "west";

const PLAIN: &str = "id int primary key, u text unique";

const BASE: UniqueCase = UniqueCase {
    name: "",
    columns: PLAIN,
    more: "",
    before: &[],
    apart: &[],
    wanted: ("", 0),
    after: &[],
    at_last: ("", 0),
    since: 14,
};

const BOTH_INSERT_A: Writes = &[
    (E, "insert into {t} values (1, 'a')"),
    (W, "insert into {t} values (2, 'a')"),
];

/// Two nodes.
pub const UNIQUE: [UniqueCase; 20] = [
    UniqueCase {
        name: "both insert a value, and the newer row is deleted",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[(W, "delete from {t} where id = 2")],
        at_last: ("(1,a)", 0),
        ..BASE
    },
    UniqueCase {
        name: "both insert a value, and the other node deletes the newer row",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[(E, "delete from {t} where id = 2")],
        at_last: ("(1,a)", 0),
        ..BASE
    },
    UniqueCase {
        name: "both update to a value, and the newer row gives it away",
        before: &[(E, "insert into {t} values (1, 'x'), (2, 'y')")],
        apart: &[
            (E, "update {t} set u = 'z' where id = 1"),
            (W, "update {t} set u = 'z' where id = 2"),
        ],
        wanted: ("(2,z)", 1),
        after: &[(E, "update {t} set u = 'q' where id = 2")],
        at_last: ("(1,z) (2,q)", 0),
        ..BASE
    },
    UniqueCase {
        name: "an update against an insert",
        before: &[(W, "insert into {t} values (1, 'x')")],
        apart: &[
            (W, "insert into {t} values (2, 'z')"),
            (E, "update {t} set u = 'z' where id = 1"),
        ],
        wanted: ("(1,z)", 1),
        after: &[(W, "update {t} set u = 'x' where id = 1")],
        at_last: ("(1,x) (2,z)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a chain: the shadow that returns pushes another row aside",
        columns: "id int primary key, u text unique, v text unique",
        apart: &[
            (E, "insert into {t} values (1, 'a', null)"),
            (W, "insert into {t} values (2, 'a', 'b')"),
            (E, "insert into {t} values (3, null, 'b')"),
        ],
        wanted: ("(1,a,) (3,,b)", 1),
        after: &[(E, "delete from {t} where id = 3")],
        at_last: ("(2,a,b)", 1),
        ..BASE
    },
    UniqueCase {
        name: "values that move on inside one transaction",
        before: &[(E, "insert into {t} values (1, 'a'), (2, 'b'), (3, 'c')")],
        apart: &[(
            E,
            "begin; update {t} set u = 'd' where id = 3; update {t} set u = 'c' where id = 2; \
             update {t} set u = 'b' where id = 1; commit",
        )],
        wanted: ("(1,b) (2,c) (3,d)", 0),
        at_last: ("(1,b) (2,c) (3,d)", 0),
        ..BASE
    },
    UniqueCase {
        name: "values that change places under a deferrable constraint",
        columns: "id int primary key, u text unique deferrable",
        before: &[(E, "insert into {t} values (1, 'a'), (2, 'b')")],
        apart: &[(
            E,
            "update {t} set u = case u when 'a' then 'b' else 'a' end",
        )],
        wanted: ("(1,b) (2,a)", 0),
        at_last: ("(1,b) (2,a)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a constraint checked at the commit",
        columns: "id int primary key, u text unique deferrable initially deferred",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[(E, "update {t} set u = 'b' where id = 2")],
        at_last: ("(1,a) (2,b)", 0),
        ..BASE
    },
    UniqueCase {
        name: "several columns",
        columns: "id int primary key, a int, b text, unique (a, b)",
        apart: &[
            (E, "insert into {t} values (1, 1, 'x'), (3, 1, null)"),
            (
                W,
                "insert into {t} values (2, 1, 'x'), (4, 1, null), (5, 2, 'x')",
            ),
        ],
        wanted: ("(2,1,x) (3,1,) (4,1,) (5,2,x)", 1),
        after: &[(E, "update {t} set a = 7 where id = 2")],
        at_last: ("(1,1,x) (2,7,x) (3,1,) (4,1,) (5,2,x)", 0),
        ..BASE
    },
    UniqueCase {
        name: "some rows only",
        columns: "id int primary key, u text, active bool",
        more: "create unique index on {t} (u) where active",
        apart: &[
            (E, "insert into {t} values (1, 'a', true), (3, 'a', false)"),
            (W, "insert into {t} values (2, 'a', true), (4, 'a', false)"),
        ],
        wanted: ("(2,a,t) (3,a,f) (4,a,f)", 1),
        after: &[(W, "update {t} set active = false where id = 2")],
        at_last: ("(1,a,t) (2,a,f) (3,a,f) (4,a,f)", 0),
        ..BASE
    },
    UniqueCase {
        name: "an expression",
        columns: "id int primary key, n text",
        more: "create unique index on {t} (lower(n), (id % 1))",
        apart: &[
            (E, "insert into {t} values (1, 'Ann')"),
            (W, "insert into {t} values (2, 'aNN')"),
        ],
        wanted: ("(2,aNN)", 1),
        after: &[(E, "delete from {t}")],
        at_last: ("(1,Ann)", 0),
        ..BASE
    },
    UniqueCase {
        name: "NULL equal to NULL",
        columns: "id int primary key, u text, unique nulls not distinct (u)",
        apart: &[
            (E, "insert into {t} values (1, null)"),
            (W, "insert into {t} values (2, null)"),
        ],
        wanted: ("(2,)", 1),
        after: &[(E, "update {t} set u = 'x'")],
        at_last: ("(1,) (2,x)", 0),
        since: 15,
        ..BASE
    },
    UniqueCase {
        name: "an exclusion constraint",
        columns: "id int primary key, r int4range, exclude using gist (r with &&)",
        apart: &[
            (E, "insert into {t} values (1, '[1,5)'), (3, '[20,30)')"),
            (W, "insert into {t} values (2, '[4,9)')"),
        ],
        wanted: ("(2,\"[4,9)\") (3,\"[20,30)\")", 1),
        after: &[(W, "update {t} set r = '[5,9)' where id = 2")],
        at_last: ("(1,\"[1,5)\") (2,\"[5,9)\") (3,\"[20,30)\")", 0),
        ..BASE
    },
    UniqueCase {
        name: "a computed column",
        columns: "id int primary key, n int, h int unique generated always as (n / 10) stored",
        apart: &[
            (E, "insert into {t} values (1, 11)"),
            (W, "insert into {t} values (2, 12)"),
        ],
        wanted: ("(2,12,1)", 1),
        after: &[(E, "update {t} set n = 25")],
        at_last: ("(1,11,1) (2,25,2)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a collation that ignores case",
        columns: "id int primary key, u text collate nocase unique",
        apart: &[
            (E, "insert into {t} values (1, 'Ann')"),
            (W, "insert into {t} values (2, 'ann')"),
        ],
        wanted: ("(2,ann)", 1),
        after: &[(E, "delete from {t}")],
        at_last: ("(1,Ann)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a large value that the stream leaves out",
        columns: "id int primary key, u text unique, l text",
        more: "alter table {t} alter l set storage external",
        before: &[(
            E,
            "insert into {t} values (1, 'x', large('A')), (2, 'y', large('B'))",
        )],
        apart: &[
            (E, "update {t} set u = 'z' where id = 1"),
            (W, "update {t} set u = 'z' where id = 2"),
        ],
        wanted: ("(2,z,B)", 1),
        after: &[(E, "delete from {t} where id = 2")],
        at_last: ("(1,z,A)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a new row takes the key of a shadow",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[
            (W, "insert into {t} values (1, 'n')"),
            (W, "delete from {t} where id = 2"),
        ],
        at_last: ("(1,n)", 0),
        ..BASE
    },
    UniqueCase {
        name: "a new row takes the key of a shadow and is deleted at once",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[(
            W,
            "begin; insert into {t} values (1, 'n'); delete from {t} where id = 1; \
             delete from {t} where id = 2; commit",
        )],
        at_last: ("", 0),
        ..BASE
    },
    UniqueCase {
        name: "a truncate takes shadows with it",
        apart: BOTH_INSERT_A,
        wanted: ("(2,a)", 1),
        after: &[(E, "truncate {t}")],
        at_last: ("", 0),
        ..BASE
    },
    UniqueCase {
        name: "a key of several columns, and a column that only inserts may set",
        columns: "a int, b text, i int generated always as identity, u text unique, \
                  primary key (b, a)",
        apart: &[
            (
                E,
                "insert into {t} (a, b, u) overriding system value values (1, 'x', 'v')",
            ),
            (
                W,
                "insert into {t} (a, b, u) overriding system value values (2, 'it''s', 'v')",
            ),
        ],
        wanted: ("(2,it's,1,v)", 1),
        after: &[(E, "delete from {t}")],
        at_last: ("(1,x,1,v)", 0),
        ..BASE
    },
];
