//! Every type both ways, bit for bit.

use std::fmt::Write as _;

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions, Node};

/// What the types below need, on every node.
const PRELUDE: &str = r#"
    create extension if not exists citext;
    create extension if not exists hstore;
    create type mood as enum ('sad', 'so so', 'it''s "fine"');
    create domain positive as int check (value > 0);
    create domain short_text as varchar(20);
    create type point3 as (x int, y double precision, "Z label" text);
    create type segment as (a point3, b point3, tags text[], mood mood);
    create domain boxed as point3;
    create type float_range as range (subtype = double precision, subtype_diff = float8mi);
    create type text_range as range (subtype = text);
"#;

/// A type and values of it, as SQL expressions that are cast to it.
type Case = (&'static str, &'static [&'static str]);

const NUMBERS: &[Case] = &[
    ("smallint", &["-32768", "0", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["'-9223372036854775808'", "9223372036854775807"]),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "0.00",
            "-0.0000000000000000000000000000001",
            "123456789012345678901234567890.123456789012345678901234567890",
            "1e200",
            "repeat('9', 2000)",
        ],
    ),
    (
        "numeric(12,4)",
        &["'NaN'", "12345678.1234", "-0.0001", "1.5000"],
    ),
    (
        "real",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "3.4028235e38",
            "1.17549435e-38",
            "0.1",
        ],
    ),
    (
        "double precision",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "1.7976931348623157e308",
            "5e-324",
            "0.1",
            "0.30000000000000004",
            "123456789.12345679",
        ],
    ),
    ("money", &["'$1,234.56'", "'-$0.01'"]),
    ("oid", &["0", "4294967295"]),
    ("boolean", &["true", "false"]),
];

const TEXTS: &[Case] = &[
    (
        "text",
        &[
            "''",
            "' '",
            r"E'tab\tnewline\nreturn\rback\\slash'",
            "'quote '' and \"'",
            "'héllo wörld'",
            "'日本語'",
            "'😀👩‍👩‍👧'",
            "'NULL'",
            r"'\N'",
            r"'\.'",
            "'{}'",
            "'(,)'",
            "repeat('x', 100000)",
            "U&'\\0001\\007F\\FEFF'",
        ],
    ),
    ("varchar(10)", &["''", "'ten chars '", "'é'"]),
    ("char(10)", &["''", "'padded'", "'ten chars.'"]),
    ("\"char\"", &["'a'", "''"]),
    ("name", &["'a name'", "'Ünï'"]),
    (
        "bytea",
        &[
            r"'\x'",
            r"'\x00'",
            r"'\xdeadbeef00ff5c27'",
            "decode(repeat('00ff', 50000), 'hex')",
        ],
    ),
    ("citext", &["'MiXeD'", "''"]),
    (
        "json",
        &[
            r#"'{"b": 1,  "a": [null, 1.50, "x\u00e9"], "b": 2}'"#,
            "'null'",
            "'\"\"'",
        ],
    ),
    (
        "jsonb",
        &[
            r#"'{"b": 1,  "a": [null, 1.50, "é"], "n": 1e400}'"#,
            "'null'",
            "'[]'",
        ],
    ),
    ("jsonpath", &["'$.a[*] ? (@.b > 1)'"]),
    ("xml", &["'<a b=\"c\">t&amp;x<!-- c --></a>'", "'text'"]),
    (
        "hstore",
        &["''", r#"'a=>1, "b c"=>NULL, "q\"uote"=>"v\\w"'"#],
    ),
    (
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        ],
    ),
    ("mood", &["'sad'", "'so so'", "'it''s \"fine\"'"]),
    (
        "tsvector",
        &[
            "''",
            "'a:1A fat:2B,4C cat:5D ''q u'':3'",
            "to_tsvector('simple', 'The quick')",
        ],
    ),
    ("tsquery", &["'fat & (rat | ! cat)'", "'a <2> b:*AB'"]),
];

const TIMES: &[Case] = &[
    (
        "date",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 BC'",
            "'5874897-12-31'",
            "'2024-02-29'",
        ],
    ),
    ("time", &["'00:00'", "'24:00'", "'23:59:59.999999'"]),
    ("time(0)", &["'12:34:56'"]),
    (
        "timetz",
        &[
            "'00:00+15:59'",
            "'24:00-15:59'",
            "'12:00:00.000001+05:30:15'",
        ],
    ),
    (
        "timestamp",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'2024-03-31 02:30:00.000001'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'2024-03-31 02:30:00.123456+01'",
            "'0044-03-15 12:00 BC'",
        ],
    ),
    (
        "interval",
        &[
            "'0'",
            "'-1 year 2 mons -3 days +04:05:06.789'",
            "'178000000 years'",
            "'-0.000001 s'",
            "'1 mon -1 day'",
            "make_interval(hours => -25)",
        ],
    ),
];

const OTHERS: &[Case] = &[
    (
        "inet",
        &["'192.168.0.1/24'", "'::1'", "'2001:db8::/32'", "'10.0.0.1'"],
    ),
    ("cidr", &["'192.168.0.0/16'", "'2001:db8::/32'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("bit(5)", &["B'10101'", "B'00000'"]),
    (
        "bit varying",
        &["B''", "B'1011000111'", "repeat('10', 500)"],
    ),
    ("point", &["'(0.1,-0)'", "'(NaN,Infinity)'"]),
    ("line", &["'{1,-2,3.5}'"]),
    ("lseg", &["'[(0,0),(1e300,1)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1),(2,0))'"]),
    ("polygon", &["'((0,0),(1,1),(2,0))'"]),
    ("circle", &["'<(0.1,0.2),3>'"]),
    ("pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    ("xid8", &["'18446744073709551615'"]),
    ("txid_snapshot", &["'10:20:10,14,15'"]),
    ("tid", &["'(42,7)'"]),
    ("regclass", &["'pg_class'"]),
    ("positive", &["1", "2147483647"]),
    ("short_text", &["''", "'domain'"]),
    (
        "point3",
        &[
            "row(1, 0.1, 'a \"b\", (c)')",
            "row(null, null, null)",
            "row(0, 'NaN', '')",
        ],
    ),
    (
        "segment",
        &[
            r#"row(row(1, 2, '\'), row(3, null, ''), array['a', null, '"', '{}'], 'sad')"#,
            "row(null, row(null, null, null), '{}', null)",
        ],
    ),
    ("boxed", &["row(1, 2, 'three')"]),
    ("int4range", &["'empty'", "'[1,10)'", "'(,5]'", "'(,)'"]),
    (
        "int8range",
        &["'[-9223372036854775808,9223372036854775807)'"],
    ),
    ("numrange", &["'[1.10,2.20]'", "'(-Infinity,NaN)'"]),
    ("daterange", &["'[2024-01-01,infinity)'", "'empty'"]),
    ("tsrange", &["'[\"2024-01-01 00:00:00.000001\",)'"]),
    ("tstzrange", &["'(,\"2024-01-01 00:00:00+00\"]'"]),
    ("float_range", &["'[0.1,0.30000000000000004)'"]),
    ("text_range", &[r#"'["a,b","c\"d\\e"]'"#]),
    ("int4multirange", &["'{}'", "'{[1,3),[5,8),[10,)}'"]),
    ("nummultirange", &["'{[1.0,2.5],(7,)}'"]),
    (
        "tstzmultirange",
        &["'{[2024-01-01 00:00+00,2024-02-01 00:00+00)}'"],
    ),
    (
        "datemultirange",
        &["'{(,2000-01-01),[2024-01-01,infinity]}'"],
    ),
];

/// Arrays beyond one of each type: NULLs, empty, several dimensions, other lower bounds.
const ARRAYS: &[Case] = &[
    (
        "int[]",
        &[
            "'{}'",
            "'{1,NULL,3}'",
            "'[-2:0]={7,8,9}'",
            "'[1:2][0:1]={{1,2},{NULL,4}}'",
        ],
    ),
    (
        "text[]",
        &[
            r#"'{"",NULL,"NULL","a,b","q\"\\","{x}"," "}'"#,
            "'[5:5]={x}'",
        ],
    ),
    ("bytea[]", &[r"array['\x00'::bytea, null, '\x5c22']"]),
    (
        "timestamptz[]",
        &["'{infinity,NULL,\"0044-03-15 12:00:00+00 BC\"}'"],
    ),
    ("float8[]", &["'{NaN,-0,0.1,NULL}'"]),
    ("point3[]", &["array[row(1, 2, 'x,y')::point3, null]"]),
    ("mood[]", &["'{sad,NULL,\"it''s \\\"fine\\\"\"}'"]),
    ("int4range[]", &["array['[1,2)'::int4range, 'empty', null]"]),
    ("jsonb[]", &[r#"array['{"a": "b"}'::jsonb, null, 'null']"#]),
    ("hstore[]", &["array['a=>b'::hstore, null]"]),
    ("box[]", &["'{(1,1),(0,0);(3,3),(2,2)}'"]),
];

fn all_cases() -> impl Iterator<Item = (usize, &'static Case)> {
    [NUMBERS, TEXTS, TIMES, OTHERS, ARRAYS]
        .into_iter()
        .flatten()
        .enumerate()
}

/// One table per type: the value, an array of it with NULLs, and another lower bound.
fn tables() -> String {
    let table = |(n, (type_name, _)): (usize, &Case)| {
        let array = if type_name.ends_with("[]") {
            "text[]".into()
        } else {
            format!("{type_name}[]")
        };
        format!("create table t{n} (id int primary key, v {type_name}, vs {array});\n")
    };
    PRELUDE.to_owned() + &all_cases().map(table).collect::<String>()
}

fn inserts(first_id: usize) -> String {
    let mut sql = String::new();
    for (n, (type_name, values)) in all_cases() {
        let element = if type_name.ends_with("[]") {
            "text"
        } else {
            type_name
        };
        for (i, value) in values.iter().enumerate() {
            let (id, value) = (first_id + i, format!("({value})::{type_name}"));
            let array = format!("array_fill({value}::text::{element}, array[2], array[-1])");
            let _ = writeln!(sql, "insert into t{n} values ({id}, {value}, {array});");
        }
        let _ = writeln!(
            sql,
            "insert into t{n} values ({}, null, array[null::{element}]);",
            first_id + 90
        );
    }
    sql
}

/// Each row gets the value of another row: every type goes through UPDATE too.
fn updates(first_id: usize) -> String {
    let last = first_id + 99;
    let update = |(n, _): (usize, &Case)| {
        format!(
            "update t{n} set v = o.v, vs = array_append(o.vs, null) from t{n} o
             where t{n}.id = {first_id} and o.id = (select max(id) from t{n} x
                where x.v is not null and x.id between {first_id} and {last});\n"
        )
    };
    all_cases().map(update).collect()
}

/// Enough rows of every type for one statement to write many of them.
fn many_at_once() -> String {
    let many = |(n, _): (usize, &Case)| {
        format!(
            "insert into t{n} select id + 1000 * g, v, vs from t{n}, generate_series(1, 4) g;
             update t{n} set vs = array_append(vs, null) where id > 1000;
             update t{n} set v = null where id > 3000;
             delete from t{n} where id > 4000;\n"
        )
    };
    all_cases().map(many).collect()
}

async fn every_type(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), &tables()).await;
    cluster.wait_streaming().await;
    cluster.east().sql(&inserts(1)).await;
    cluster.west().sql(&inserts(101)).await;
    cluster.wait_equal().await;
    assert_every_value_arrived(cluster.west()).await;
    // Each side changes the rows of the other.
    cluster.east().sql(&updates(101)).await;
    cluster.west().sql(&updates(1)).await;
    cluster.wait_equal().await;
    cluster.east().sql(&many_at_once()).await;
    cluster.wait_equal().await;
}
on_every_major!(every_type_goes_both_ways, super::every_type);

async fn assert_every_value_arrived(node: &Node) {
    let client = node.client().await;
    for (n, (type_name, values)) in all_cases() {
        let found = crate::support::pg::value(&client, &format!("select count(*) from t{n}")).await;
        assert_eq!(found, (2 * (values.len() + 1)).to_string(), "{type_name}");
    }
}

/// Types that can be a key, with a value that is easy to get wrong.
const KEYS: &[(&str, &str)] = &[
    ("numeric", "1.50"),
    ("double precision", "'-0'"),
    ("real", "0.1"),
    ("text", "E'a''b\\\\c'"),
    ("char(5)", "'ab'"),
    ("citext", "'MiXeD'"),
    ("bytea", r"'\x00ff'"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ("date", "'infinity'"),
    ("timestamptz", "'2024-03-31 02:30:00.123456+01'"),
    ("interval", "'1 mon -1 day'"),
    ("inet", "'10.0.0.1/8'"),
    ("mood", "'so so'"),
    ("positive", "7"),
    ("point3", "row(1, 0.1, 'x')"),
    ("int[]", "'[-1:0]={1,2}'"),
    ("int4range", "'[1,5)'"),
    ("jsonb", "'{\"a\": 1}'"),
    ("boolean", "true"),
    ("\"char\"", "'x'"),
    ("name", "'n'"),
    ("oid", "4294967295"),
    ("pg_lsn", "'16/B374D848'"),
    ("bit(3)", "B'101'"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_finds_its_row() {
    let keys = || KEYS.iter().enumerate();
    let table = |(n, (kind, _)): (usize, &(&str, &str))| {
        format!("create table k{n} (k {kind} primary key, v text);\n")
    };
    let tables = keys().map(table).collect::<Vec<_>>().concat();
    let cluster = Cluster::running(&(PRELUDE.to_owned() + &tables)).await;
    cluster.wait_streaming().await;
    let each = |sql: &dyn Fn(usize, &str, &str) -> String| -> String {
        keys()
            .map(|(n, (kind, value))| sql(n, kind, value))
            .collect()
    };
    let insert =
        each(&|n, kind, value| format!("insert into k{n} values (({value})::{kind}, 'new');\n"));
    cluster.east().sql(&insert).await;
    cluster.wait_equal().await;
    cluster
        .west()
        .sql(&each(&|n, _, _| {
            format!("update k{n} set v = 'changed';\n")
        }))
        .await;
    cluster.wait_equal().await;
    let changed = each(&|n, _, _| format!(" + (select count(*) from k{n} where v = 'changed')"));
    assert_eq!(
        cluster.east().value(&format!("select 0{changed}")).await,
        KEYS.len().to_string()
    );
    cluster
        .west()
        .sql(&each(&|n, _, _| format!("delete from k{n};\n")))
        .await;
    cluster.wait_equal().await;
    let left = each(&|n, _, _| format!(" + (select count(*) from k{n})"));
    assert_eq!(cluster.east().value(&format!("select 0{left}")).await, "0");
    // A deleted key comes back.
    cluster.west().sql(&insert).await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.east().value(&format!("select 0{left}")).await,
        KEYS.len().to_string()
    );
}
