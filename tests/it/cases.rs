//! The cases of the case table: what is written, and what every node must have in the end.

use super::case_table::Writes;

/// One case, on the table `{t} (id, small, large)`.
pub struct Case {
    /// What a failure calls it.
    pub name: &'static str,
    /// Written first; every node has it.
    pub before: Writes,
    /// Written while no node hears of another.
    pub apart: Writes,
    /// Written after one link to east was let through, while the others still wait.
    pub after: Writes,
    /// `1=small/large 2=…`.
    pub wanted: &'static str,
}

const E: &str = "east";
const W: &str = "west";
const N: &str = "north";

const ROW: Writes = &[(E, "insert into {t} values (1, 'a', large('A'))")];
const ROW_OF_WEST: Writes = &[(W, "insert into {t} values (1, 'a', large('A'))")];
const TWO_ROWS: Writes = &[(
    E,
    "insert into {t} values (1, 'a', large('A')), (2, 'b', large('B'))",
)];
const NOTHING: Writes = &[];

const fn case(name: &'static str, before: Writes, apart: Writes, wanted: &'static str) -> Case {
    Case {
        name,
        before,
        apart,
        after: NOTHING,
        wanted,
    }
}

const EAST_INSERTS: (&str, &str) = (E, "insert into {t} values (1, 'e', large('E'))");
const WEST_INSERTS: (&str, &str) = (W, "insert into {t} values (1, 'w', large('W'))");
const EAST_SMALL: (&str, &str) = (E, "update {t} set small = 'e' where id = 1");
const WEST_SMALL: (&str, &str) = (W, "update {t} set small = 'w' where id = 1");
const EAST_LARGE: (&str, &str) = (E, "update {t} set large = large('E') where id = 1");
const WEST_LARGE: (&str, &str) = (W, "update {t} set large = large('W') where id = 1");
const EAST_DELETES: (&str, &str) = (E, "delete from {t} where id = 1");
const WEST_DELETES: (&str, &str) = (W, "delete from {t} where id = 1");
const EAST_MOVES: (&str, &str) = (E, "update {t} set id = 3 where id = 1");
const WEST_MOVES: (&str, &str) = (W, "update {t} set id = 3 where id = 2");
const EAST_TRUNCATES: (&str, &str) = (E, "truncate {t}");
const WEST_TRUNCATES: (&str, &str) = (W, "truncate {t}");
const EAST_REPLACES: (&str, &str) = (
    E,
    "begin; delete from {t} where id = 1; insert into {t} values (1, 'e', large('E')); commit",
);
const WEST_REPLACES: (&str, &str) = (
    W,
    "begin; delete from {t} where id = 1; insert into {t} values (1, 'w', large('W')); commit",
);

/// Two nodes.
pub const PAIR: [Case; 47] = [
    case("insert, no row", NOTHING, &[EAST_INSERTS], "1=e/E"),
    case(
        "insert, no row, older tombstone",
        ROW,
        &[WEST_DELETES, EAST_DELETES, EAST_INSERTS],
        "1=e/E",
    ),
    case(
        "insert, newer tombstone",
        NOTHING,
        &[EAST_INSERTS, WEST_INSERTS, WEST_DELETES],
        "",
    ),
    case(
        "insert, older row",
        NOTHING,
        &[WEST_INSERTS, EAST_INSERTS],
        "1=e/E",
    ),
    case(
        "insert, newer row",
        NOTHING,
        &[EAST_INSERTS, WEST_INSERTS],
        "1=w/W",
    ),
    case(
        "update, row of the same node",
        ROW,
        &[EAST_SMALL, EAST_LARGE],
        "1=e/E",
    ),
    case(
        "update, row of the target",
        ROW_OF_WEST,
        &[EAST_SMALL],
        "1=e/A",
    ),
    case(
        "update, older row of another node",
        ROW,
        &[WEST_SMALL, EAST_SMALL],
        "1=e/A",
    ),
    case(
        "update, newer row of another node",
        ROW,
        &[EAST_SMALL, WEST_SMALL],
        "1=w/A",
    ),
    case(
        "update, row missing, newer tombstone",
        ROW,
        &[EAST_SMALL, WEST_DELETES],
        "",
    ),
    case(
        "update, row missing, older tombstone",
        ROW,
        &[WEST_DELETES, EAST_SMALL],
        "1=e/A",
    ),
    case(
        "update, row missing, older tombstone, all values sent",
        ROW,
        &[WEST_DELETES, EAST_LARGE],
        "1=a/E",
    ),
    case(
        "delete, newer row of another node",
        ROW,
        &[EAST_DELETES, WEST_SMALL],
        "1=w/A",
    ),
    case(
        "delete, older row of another node",
        ROW,
        &[WEST_SMALL, EAST_DELETES],
        "",
    ),
    case("delete, row of the same node", ROW, &[EAST_DELETES], ""),
    case(
        "delete, row missing",
        ROW,
        &[WEST_DELETES, EAST_DELETES],
        "",
    ),
    case(
        "delete, row missing, then an older insert",
        NOTHING,
        &[WEST_INSERTS, EAST_INSERTS, EAST_DELETES],
        "",
    ),
    case(
        "delete and reinsert, older update",
        ROW,
        &[WEST_SMALL, EAST_REPLACES],
        "1=e/E",
    ),
    case(
        "delete and reinsert, newer update",
        ROW,
        &[EAST_REPLACES, WEST_SMALL],
        "1=w/A",
    ),
    case(
        "delete and reinsert in two transactions, update between",
        ROW,
        &[EAST_DELETES, WEST_SMALL, EAST_INSERTS],
        "1=e/E",
    ),
    case(
        "delete and reinsert, older delete",
        ROW,
        &[WEST_DELETES, EAST_REPLACES],
        "1=e/E",
    ),
    case(
        "delete and reinsert, newer delete",
        ROW,
        &[EAST_REPLACES, WEST_DELETES],
        "",
    ),
    case(
        "delete and reinsert on both",
        ROW,
        &[EAST_REPLACES, WEST_REPLACES],
        "1=w/W",
    ),
    case(
        "key change, older update of the old key",
        TWO_ROWS,
        &[WEST_SMALL, EAST_MOVES],
        "2=b/B 3=a/A",
    ),
    case(
        "key change, newer update of the old key",
        TWO_ROWS,
        &[EAST_MOVES, WEST_SMALL],
        "1=w/A 2=b/B 3=a/A",
    ),
    case(
        "key change, older delete of the old key",
        TWO_ROWS,
        &[WEST_DELETES, EAST_MOVES],
        "2=b/B 3=a/A",
    ),
    case(
        "key change, newer delete of the old key",
        TWO_ROWS,
        &[EAST_MOVES, WEST_DELETES],
        "2=b/B 3=a/A",
    ),
    case(
        "key change to a key that is inserted later",
        ROW,
        &[
            EAST_MOVES,
            (W, "insert into {t} values (3, 'w', large('W'))"),
        ],
        "3=w/W",
    ),
    case(
        "key change to a key that was inserted before",
        ROW,
        &[
            (W, "insert into {t} values (3, 'w', large('W'))"),
            EAST_MOVES,
        ],
        "3=a/A",
    ),
    case(
        "key changes to the same key, west last",
        TWO_ROWS,
        &[EAST_MOVES, WEST_MOVES],
        "3=b/B",
    ),
    case(
        "key changes to the same key, east last",
        TWO_ROWS,
        &[WEST_MOVES, EAST_MOVES],
        "3=a/A",
    ),
    case(
        "key changes of one row to two keys",
        ROW,
        &[EAST_MOVES, (W, "update {t} set id = 4 where id = 1")],
        "3=a/A 4=a/A",
    ),
    case(
        "key changes of a row and back",
        ROW,
        &[
            EAST_MOVES,
            (E, "update {t} set id = 1 where id = 3"),
            WEST_LARGE,
        ],
        "1=a/W",
    ),
    case(
        "truncate, older rows",
        TWO_ROWS,
        &[WEST_SMALL, EAST_TRUNCATES],
        "",
    ),
    case(
        "truncate, some rows newer",
        TWO_ROWS,
        &[EAST_TRUNCATES, WEST_SMALL],
        "1=w/A",
    ),
    case(
        "truncate, an older insert",
        NOTHING,
        &[WEST_INSERTS, EAST_TRUNCATES],
        "",
    ),
    case(
        "truncate, a newer insert",
        NOTHING,
        &[EAST_TRUNCATES, WEST_INSERTS],
        "1=w/W",
    ),
    case(
        "truncate on both, a row between",
        NOTHING,
        &[EAST_TRUNCATES, EAST_INSERTS, WEST_TRUNCATES],
        "",
    ),
    case(
        "truncate on both, a row after",
        NOTHING,
        &[EAST_TRUNCATES, WEST_TRUNCATES, EAST_INSERTS],
        "1=e/E",
    ),
    case(
        "large value here, other column there later",
        ROW,
        &[EAST_LARGE, WEST_SMALL],
        "1=w/A",
    ),
    case(
        "other column there, large value here later",
        ROW,
        &[WEST_SMALL, EAST_LARGE],
        "1=a/E",
    ),
    case(
        "large values on both",
        ROW,
        &[WEST_LARGE, EAST_LARGE],
        "1=a/E",
    ),
    case(
        "large value here, row deleted there later",
        ROW,
        &[EAST_LARGE, WEST_DELETES],
        "",
    ),
    case(
        "large value here and other column, row deleted there before",
        ROW,
        &[WEST_DELETES, EAST_LARGE, EAST_SMALL],
        "1=e/E",
    ),
    case(
        "row deleted there and put back, other column here later",
        ROW,
        &[WEST_REPLACES, EAST_SMALL],
        "1=e/A",
    ),
    Case {
        name: "large value lost on its own node before the next update",
        before: NOTHING,
        apart: &[EAST_INSERTS, WEST_INSERTS],
        after: &[(E, "update {t} set small = 'x' where id = 1")],
        wanted: "1=x/W",
    },
    Case {
        name: "row moved to a key whose row the other node had deleted",
        before: NOTHING,
        apart: &[
            (E, "insert into {t} values (3, 'e', large('E'))"),
            (
                W,
                "insert into {t} values (3, 'w', large('W')); delete from {t} where id = 3",
            ),
        ],
        after: &[(
            E,
            "insert into {t} values (1, 'x', large('X')); update {t} set id = 3 where id = 1",
        )],
        wanted: "3=x/X",
    },
];

const NORTH_INSERTS: (&str, &str) = (N, "insert into {t} values (1, 'n', large('N'))");
const NORTH_SMALL: (&str, &str) = (N, "update {t} set small = 'n' where id = 1");
const NORTH_LARGE: (&str, &str) = (N, "update {t} set large = large('N') where id = 1");
const NORTH_DELETES: (&str, &str) = (N, "delete from {t} where id = 1");

/// Three nodes.
pub const MESH: [Case; 11] = [
    case(
        "three inserts",
        NOTHING,
        &[WEST_INSERTS, NORTH_INSERTS, EAST_INSERTS],
        "1=e/E",
    ),
    case(
        "three updates",
        ROW,
        &[WEST_SMALL, EAST_LARGE, NORTH_SMALL],
        "1=n/A",
    ),
    case(
        "update, delete, update",
        ROW,
        &[WEST_SMALL, NORTH_DELETES, EAST_SMALL],
        "1=e/A",
    ),
    case(
        "update, update, delete",
        ROW,
        &[WEST_SMALL, EAST_LARGE, NORTH_DELETES],
        "",
    ),
    case(
        "delete between two inserts",
        NOTHING,
        &[WEST_INSERTS, EAST_INSERTS, EAST_DELETES, NORTH_INSERTS],
        "1=n/N",
    ),
    case(
        "key changes of one row",
        ROW,
        &[
            EAST_MOVES,
            (W, "update {t} set id = 4 where id = 1"),
            NORTH_LARGE,
        ],
        "1=a/N 3=a/A 4=a/A",
    ),
    case(
        "truncate between",
        ROW,
        &[WEST_SMALL, EAST_TRUNCATES, NORTH_INSERTS_2],
        "2=n/N",
    ),
    case(
        "three truncates",
        NOTHING,
        &[
            EAST_TRUNCATES,
            EAST_INSERTS,
            WEST_TRUNCATES,
            (N, "insert into {t} values (2, 'n', large('N'))"),
            (N, "truncate {t}"),
        ],
        "",
    ),
    Case {
        name: "the source's row was written by a third node in between",
        before: NOTHING,
        apart: &[EAST_INSERTS, NORTH_INSERTS],
        after: &[(E, "update {t} set small = 'x' where id = 1")],
        wanted: "1=x/N",
    },
    Case {
        name: "the source's row was deleted by a third node in between",
        before: ROW,
        apart: &[EAST_SMALL, NORTH_DELETES],
        after: &[(W, "update {t} set small = 'x' where id = 1")],
        wanted: "1=x/A",
    },
    Case {
        name: "the source's row moved over one that a third node deleted",
        before: TWO_ROWS,
        apart: &[(N, "delete from {t} where id = 2")],
        after: &[(E, "update {t} set id = 2 where id = 1")],
        wanted: "2=a/A",
    },
];

const NORTH_INSERTS_2: (&str, &str) = (N, "insert into {t} values (2, 'n', large('N'))");
