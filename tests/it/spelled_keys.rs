//! Keys that are equal and are spelled differently: one key, and the winner's spelling everywhere.

use std::collections::BTreeMap;

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, pool, wait_until};

/// A key's columns with two spellings of one key, and another key.
struct Spelled {
    name: &'static str,
    /// Columns of the key in the table.
    columns: &'static str,
    /// Their names.
    key: &'static str,
    /// Equal to `b`.
    a: &'static str,
    b: &'static str,
    /// Another key.
    c: &'static str,
}

const fn one(name: &'static str, columns: &'static str, [a, b, c]: [&'static str; 3]) -> Spelled {
    Spelled {
        name,
        columns,
        key: "k",
        a,
        b,
        c,
    }
}

const TYPES: [Spelled; 18] = [
    one("citext", "k citext", ["'Ann@x'", "'ann@X'", "'bob'"]),
    one("numeric", "k numeric", ["1.0", "1.00", "2"]),
    one("float", "k float8", ["'-0'", "'0'", "1.5"]),
    one(
        "interval",
        "k interval",
        ["'1 day'", "'24:00:00'", "'2 days'"],
    ),
    one(
        "jsonb",
        "k jsonb",
        ["'[1.0, \"x\"]'", "'[1, \"x\"]'", "'[[1], \"x\"]'"],
    ),
    one(
        "nocase",
        "k text collate nocase",
        ["'straße'", "'STRAßE'", "'gasse'"],
    ),
    one(
        "array",
        "k numeric[]",
        ["'{1.0,2}'", "'{1,2.00}'", "'[0:1]={1,2}'"],
    ),
    one(
        "range",
        "k numrange",
        ["'[1.0,2)'", "'[1,2.00)'", "'[1,3)'"],
    ),
    one(
        "composite",
        "k pair",
        ["'(1.0,x)'", "'(1.000,x)'", "'(1.0,y)'"],
    ),
    one("domain", "k price", ["5", "5.000", "7"]),
    one(
        "nocases",
        "k text[] collate nocase",
        ["'{ab,\"c d\"}'", "'{AB,\"C D\"}'", "'{ab}'"],
    ),
    // Whatever is written, these print one text for one key.
    one("padded", "k char(6)", ["'ab'", "'ab   '", "'b'"]),
    one(
        "address",
        "k inet",
        ["'10.0.0.1'", "'10.0.0.1/32'", "'10.0.0.1/8'"],
    ),
    one(
        "card",
        "k macaddr",
        [
            "'08:00:2b:01:02:03'",
            "'08002B-010203'",
            "'08:00:2b:01:02:04'",
        ],
    ),
    one("bits", "k bit varying", ["'101'", "B'101'", "'1010'"]),
    one(
        "zoned",
        "k timetz",
        ["'12:00+00'", "'12:00:00.0Z'", "'13:00+01'"],
    ),
    // Not spelled differently, but compared by a collation of its own.
    one("german", "k text collate german", ["'Ä'", "'Ä'", "'ä'"]),
    Spelled {
        name: "several",
        columns: "k int, l citext, m numeric, n text",
        key: "k, l, m, n",
        a: "1, 'Ann', 1.50, 'x'",
        b: "1, 'ANN', 1.5, 'x'",
        c: "1, 'ann', 1.5, 'X'",
    },
];

const SCHEMA: &str = "
    create extension if not exists citext;
    create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create collation german (provider = icu, locale = 'de');
    create domain price as numeric;
    create type pair as (n numeric, t text);";

/// Statements, each on a node; `{a}`, `{b}` and `{c}` are keys. A row is there at first where the
/// key `{a}` has one: `before`.
struct Act {
    name: &'static str,
    before: &'static [&'static str],
    apart: &'static [(&'static str, &'static str)],
    /// What is there in the end: `{b}=w`.
    wanted: &'static str,
}

const ROW: &[&str] = &["insert into {t} values ({a}, '1')"];
const E: &str = "east";
const W: &str = "west";

const ACTS: [Act; 16] = [
    Act {
        name: "an update, and a later new spelling",
        before: ROW,
        apart: &[
            (E, "update {t} set v = 'east'"),
            (W, "update {t} set ({k}) = row({b})"),
        ],
        wanted: "{b}=1",
    },
    Act {
        name: "a new spelling, and a later update",
        before: ROW,
        apart: &[
            (W, "update {t} set ({k}) = row({b})"),
            (E, "update {t} set v = 'east'"),
        ],
        wanted: "{a}=east",
    },
    Act {
        name: "a delete, and a later new spelling",
        before: ROW,
        apart: &[
            (E, "delete from {t}"),
            (W, "update {t} set ({k}) = row({b})"),
        ],
        wanted: "{b}=1",
    },
    Act {
        name: "a new spelling, and a later delete",
        before: ROW,
        apart: &[
            (W, "update {t} set ({k}) = row({b})"),
            (E, "delete from {t}"),
        ],
        wanted: "",
    },
    Act {
        name: "both insert",
        before: &[],
        apart: &[
            (E, "insert into {t} values ({a}, 'e')"),
            (W, "insert into {t} values ({b}, 'w')"),
        ],
        wanted: "{b}=w",
    },
    Act {
        name: "both insert, the other way round",
        before: &[],
        apart: &[
            (W, "insert into {t} values ({a}, 'w')"),
            (E, "insert into {t} values ({b}, 'e')"),
        ],
        wanted: "{b}=e",
    },
    Act {
        name: "insert or update on both nodes",
        before: ROW,
        apart: &[
            (
                E,
                "insert into {t} values ({b}, 'e') on conflict ({k}) do update \
                 set ({k}) = row({x}), v = excluded.v",
            ),
            (
                W,
                "insert into {t} values ({a}, 'w') on conflict ({k}) do update \
                 set ({k}) = row({x}), v = excluded.v",
            ),
        ],
        wanted: "{a}=w",
    },
    Act {
        name: "a delete, and a later insert",
        before: ROW,
        apart: &[
            (W, "update {t} set v = 'w'"),
            (E, "delete from {t}"),
            (E, "insert into {t} values ({b}, 'e')"),
        ],
        wanted: "{b}=e",
    },
    Act {
        name: "an insert that is older than a delete",
        before: ROW,
        apart: &[
            (E, "delete from {t}"),
            (E, "insert into {t} values ({b}, 'e')"),
            (W, "delete from {t}"),
        ],
        wanted: "",
    },
    Act {
        name: "a new spelling with a new value, alone",
        before: ROW,
        apart: &[
            (E, "update {t} set v = '2'"),
            (E, "update {t} set ({k}) = row({b}), v = '3'"),
            (E, "update {t} set v = v || '4'"),
        ],
        wanted: "{b}=34",
    },
    Act {
        name: "to and fro in one transaction",
        before: ROW,
        apart: &[(
            E,
            "begin; update {t} set v = '2'; update {t} set ({k}) = row({b}); delete from {t}; \
             insert into {t} values ({a}, '3'); update {t} set ({k}) = row({b}); \
             update {t} set v = '4'; commit",
        )],
        wanted: "{b}=4",
    },
    Act {
        name: "deleted and inserted in another spelling, again and again",
        before: ROW,
        apart: &[(
            E,
            "begin; delete from {t}; insert into {t} values ({b}, '2'); delete from {t}; \
             insert into {t} values ({a}, '3'), ({c}, '3'); delete from {t}; \
             insert into {t} values ({b}, '5'); commit",
        )],
        wanted: "{b}=5",
    },
    Act {
        name: "a key that moves away and another that takes its place",
        before: &["insert into {t} values ({a}, '1')"],
        apart: &[
            (E, "update {t} set ({k}) = row({c})"),
            (E, "insert into {t} values ({b}, '2')"),
            (E, "delete from {t} where v = '1'"),
        ],
        wanted: "{b}=2",
    },
    Act {
        name: "a key that moves, and an older update",
        before: ROW,
        apart: &[
            (W, "update {t} set v = 'w', ({k}) = row({b})"),
            (E, "update {t} set ({k}) = row({c})"),
        ],
        wanted: "{c}=1",
    },
    Act {
        name: "the other key is another key",
        before: &["insert into {t} values ({a}, '1'), ({c}, '9')"],
        apart: &[
            (E, "update {t} set v = 'e' where v = '1'"),
            (W, "delete from {t} where v = '9'"),
            (E, "update {t} set ({k}) = row({b}) where v = 'e'"),
        ],
        wanted: "{b}=e",
    },
    Act {
        name: "many deleted and inserted",
        before: ROW,
        apart: &[
            (W, "update {t} set v = 'w'"),
            (
                E,
                "begin; update {t} set ({k}) = row({b}); delete from {t}; \
                 insert into {t} values ({a}, 'x'); commit",
            ),
        ],
        wanted: "{a}=x",
    },
];

/// One act on a table of one type.
struct Played {
    spelled: &'static Spelled,
    act: &'static Act,
    table: String,
}

/// Types that every act is played with, and alone where the order of links matters.
const FULLY: [&str; 2] = ["citext", "several"];
/// How many acts the others play.
const SHORT: usize = 6;

fn played(fully: bool) -> Vec<Played> {
    let of_type = |spelled: &'static Spelled| {
        let acts = if FULLY.contains(&spelled.name) {
            ACTS.len()
        } else if fully {
            0
        } else {
            SHORT
        };
        (0..acts).map(move |number| Played {
            spelled,
            act: &ACTS[number],
            table: format!("{}_{number:02}", spelled.name),
        })
    };
    TYPES.iter().flat_map(of_type).collect()
}

impl Played {
    fn sql(&self, text: &str) -> String {
        let spelled = self.spelled;
        let excluded = format!("excluded.{}", spelled.key.replace(", ", ", excluded."));
        text.replace("{t}", &self.table)
            .replace("{k}", spelled.key)
            .replace("{x}", &excluded)
            .replace("{a}", spelled.a)
            .replace("{b}", spelled.b)
            .replace("{c}", spelled.c)
    }

    fn create(&self) -> String {
        let columns = self.spelled.columns;
        self.sql(&format!(
            "create table {{t}} ({columns}, v text, ver int default 1, primary key ({{k}}));"
        ))
    }

    /// The rows as the server prints them, and what the wanted ones look like.
    fn query(&self) -> String {
        let row = |keys: &str| {
            format!(
                "(select row({{k}})::text from {} where which = '{keys}')",
                {
                    let name = self.spelled.name;
                    format!("spelled_{name}")
                }
            )
        };
        let wanted = self.act.wanted.replace('\'', "''");
        let mut text = format!("'{wanted}'");
        for which in ["a", "b", "c"] {
            text = format!("replace({text}, '!{which}!', {})", row(which));
        }
        let rows = "coalesce(string_agg(row({k})::text || '=' || v, ' ' order by v), '')";
        let query = format!("select '{{t}}', {rows}, {text} from {{t}}");
        let shielded = query
            .replace("{a}", "!a!")
            .replace("{b}", "!b!")
            .replace("{c}", "!c!");
        self.sql(&shielded)
    }
}

/// A table for each type that holds the three keys, to see how the server prints them.
fn spellings() -> String {
    let of = |spelled: &Spelled| {
        let Spelled {
            name,
            columns,
            a,
            b,
            c,
            ..
        } = spelled;
        format!(
            "create table spelled_{name} (which text primary key, {columns});
             insert into spelled_{name} values ('a', {a}), ('b', {b}), ('c', {c});"
        )
    };
    TYPES.iter().map(of).collect()
}

async fn compare(cluster: &Cluster, played: &[Played]) -> Result<(), String> {
    let all: Vec<String> = played.iter().map(Played::query).collect();
    let mut wrong = Vec::new();
    for node in &cluster.nodes {
        let rows = node.rows(&all.join(" union all ")).await;
        for row in rows.iter().filter(|row| row[1] != row[2]) {
            let table = row[0].as_deref().unwrap();
            let one = played.iter().find(|one| one.table == table).unwrap();
            let (act, name) = (one.act.name, node.name);
            wrong.push(format!(
                "{table}, {act}: {name} has {:?}, not {:?}",
                row[1], row[2]
            ));
        }
    }
    ensure(wrong.is_empty(), || {
        format!("{} wrong\n{}", wrong.len(), wrong.join("\n"))
    })
}

/// Which links are let through one after the other, before all of them go on.
type Order = &'static [(&'static str, &'static str)];

async fn play(majors: &[u32], fully: bool, order: Order) {
    play_with(ClusterOptions::majors(majors), fully, order).await;
}

async fn play_with(options: ClusterOptions, fully: bool, order: Order) {
    let played = played(fully);
    let tables: String = played.iter().map(Played::create).collect();
    let schema = format!("{SCHEMA}{}{tables}", spellings());
    let cluster = Cluster::running_with(options, &schema).await;
    cluster.wait_streaming().await;
    let mut clients = BTreeMap::new();
    for node in &cluster.nodes {
        clients.insert(node.name, node.client().await);
    }
    for one in &played {
        for sql in one.act.before {
            pg::execute(&clients["east"], &one.sql(sql)).await;
        }
    }
    cluster.settle().await;
    cluster.pause_all().await;
    for one in &played {
        for (node, sql) in one.act.apart {
            pg::execute(&clients[node], &one.sql(sql)).await;
        }
    }
    for (from, to) in order {
        cluster.let_through(from, to).await;
    }
    cluster.resume_all().await;
    cluster.settle().await;
    wait_until("every act", LIMIT, async || {
        compare(&cluster, &played).await
    })
    .await;
}

async fn a_pair(majors: &[u32]) {
    play(majors, false, &[]).await;
}
on_usual_majors!(two_nodes, super::a_pair);

#[tokio::test(flavor = "multi_thread")]
async fn either_link_may_be_first() {
    let majors = [pool::usual_major(); 2];
    play(&majors, true, &[("west", "east"), ("east", "west")]).await;
    play(&majors, true, &[("east", "west"), ("west", "east")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes() {
    play(&[pool::usual_major(); 3], true, &[("west", "north")]).await;
}

/// Where rows carry their version.
#[tokio::test(flavor = "multi_thread")]
async fn rules_with_a_version_in_the_row() {
    // The tables that only show how keys are printed have no such column.
    let tables = "\n[tables]\nexclude = [\"public.spelled_*\"]\n\n[conflict]\n";
    let clock = format!("{tables}strategy = \"hybrid_clock\"\n");
    let of_table = |one: &Played| {
        let name = &one.table;
        format!(
            "\n[[conflict.table]]\nname = \"public.{name}\"\nstrategy = \"version_column\"
version_column = \"ver\"\n"
        )
    };
    let column: String = played(true).iter().map(of_table).collect();
    let column = format!("{tables}strategy = \"last_write_wins\"\n{column}");
    for config in [clock, column] {
        play_with(ClusterOptions::pair().config(&config), true, &[]).await;
    }
}

/// Unique beside the key, by the index's own equality.
async fn unique_values(majors: &[u32]) {
    let schema = "
        create extension if not exists citext;
        create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table u (id int primary key, mail citext unique, price numeric unique,
            name text collate nocase unique)";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    cluster
        .write_apart(
            "insert into u values (1, 'Ann@x', 1.0, 'a'), (3, 'c', 1.50, 'c'), (5, 'e', 5, 'Eve')",
            "insert into u values (2, 'ann@X', 2, 'b'), (4, 'd', 1.5, 'd'), (6, 'f', 6, 'EVE')",
        )
        .await;
    let ids = "select coalesce(string_agg(id::text, ' ' order by id), '') from u";
    assert_eq!(cluster.east().value(ids).await, "2 4 6");
    cluster
        .write_on(cluster.east(), "delete from u where id in (2, 4, 6)")
        .await;
    wait_until("the rows kept aside", LIMIT, async || {
        let found = cluster.west().value(ids).await;
        ensure(found == "1 3 5", || found)
    })
    .await;
    cluster.wait_equal().await;
}
on_usual_majors!(unique_values_are_one, super::unique_values);
