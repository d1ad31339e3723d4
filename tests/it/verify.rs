//! `mmrepl verify`: every difference is found and named, and nothing that is under way is one.

use serde_json::Value;

use super::init::{assert_says, soon};
use crate::on_majors;
use crate::on_usual_majors;
use crate::support::compare::difference;
use crate::support::writers::{SCHEMA, Writer};
use crate::support::{Cluster, ClusterOptions, Node, Rng};

const TABLES: &str = r#"
create type mood as enum ('sad', 'well');
create table numbered (id int primary key, v text, n numeric, m mood, j jsonb, f float8);
create table named (name text primary key, at timestamptz, b bytea);
create table unique_ids (id uuid primary key, v text);
create table pairs (a int, b text, v int, primary key (a, b));
create table loose (a int, v text);
create table parted (id int, k int, v text, primary key (id, k)) partition by range (k);
create table parted_1 partition of parted for values from (0) to (50);
create table parted_2 partition of parted for values from (50) to (200);
create table "Odd ""one" ("N" int primary key, "a,b" text);"#;

const FILL: &str = r#"
insert into numbered
    select i, 'v' || i, i / 7.0, 'well', '{"a": 1.0}', i / 3.0 from generate_series(1, 5000) i;
insert into named select 'näme ' || i, '2026-01-01', '\x00ff' from generate_series(1, 3000) i;
insert into unique_ids select md5(i::text)::uuid, 'v' from generate_series(1, 3000) i;
insert into pairs select i % 7, i::text, i from generate_series(1, 3000) i;
insert into loose select i % 100, 'same' from generate_series(1, 3000) i;
insert into parted select i, i % 200, 'v' from generate_series(1, 3000) i;
insert into "Odd ""one" select i, 'x' from generate_series(1, 100) i"#;

/// What is done behind mmrepl's back on west, the table, and what is told.
const DAMAGE: [(&str, &str, &[&str]); 10] = [
    (
        "update numbered set v = 'flipped' where id = 4711",
        "public.numbered",
        &["id = 4711", "v = flipped", "v = v4711"],
    ),
    (
        "update numbered set m = 'sad' where id = 1",
        "public.numbered",
        &["m = sad", "m = well"],
    ),
    (
        "delete from named where name = 'näme 77'",
        "public.named",
        &["name = näme 77", "west: no row"],
    ),
    (
        "insert into unique_ids values ('00000000-0000-0000-0000-000000000001', 'extra')",
        "public.unique_ids",
        &["00000000-0000-0000-0000-000000000001", "east: no row"],
    ),
    (
        "update pairs set b = 'moved' where a = 3 and b = '10'",
        "public.pairs",
        &["a = 3, b = 10", "a = 3, b = moved", "2 row(s) differ"],
    ),
    (
        "delete from loose where ctid = (select min(ctid) from loose where a = 5)",
        "public.loose",
        &["a = 5, v = same (30 times)", "a = 5, v = same (29 times)"],
    ),
    (
        "update parted set v = null where id = 60",
        "public.parted",
        &["v is null", "v = v"],
    ),
    (
        "delete from parted_1",
        "public.parted",
        &["750 row(s) differ", "and 730 more"],
    ),
    (
        r#"update "Odd ""one" set "a,b" = 'y' where "N" = 5"#,
        r#"public."Odd ""one""#,
        &["N = 5", "a,b = y"],
    ),
    (
        "update numbered set n = n * 1.000 where id = 9",
        "public.numbered",
        &[],
    ),
];

/// Writes that leave no trace: no trigger fires, and nothing is published.
async fn behind(cluster: &Cluster, sql: &str) {
    behind_on(cluster, cluster.west(), sql).await;
}

/// Such writes on any node.
async fn behind_on(cluster: &Cluster, node: &Node, sql: &str) {
    let client = node.client().await;
    let quiet = format!(
        "begin; set local session_replication_role = replica;
         select pg_replication_origin_session_setup('{}'); {sql}; commit;
         select pg_replication_origin_session_reset()",
        format_args!("mmrepl_{}_east-again", cluster.name)
    );
    crate::support::pg::execute(&client, &quiet).await;
}

async fn found(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLES).await;
    cluster.wait_streaming().await;
    cluster.east().sql(FILL).await;
    cluster.wait_equal().await;
    let said = cluster.mmrepl_ok(&["verify"]).await;
    assert_says(&said, &["7 table(s) are equal, 20100 rows"]);
    for (damage, table, told) in DAMAGE {
        behind(&cluster, damage).await;
        if told.is_empty() {
            cluster.mmrepl_ok(&["verify"]).await;
            let said = cluster.mmrepl_fails(&["verify", "--exact"]).await;
            assert_says(&said, &[table, "1 row(s) differ"]);
        } else {
            let said = cluster.mmrepl_fails(&["verify"]).await;
            assert_says(&said, told);
            assert_says(&said, &[table, "1 of 7 table(s) differ"]);
        }
        let json = cluster
            .mmrepl(&["verify", "--json", "--limit", "1", "--exact"])
            .await;
        assert_eq!(json.status.code(), Some(1), "{damage}");
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        let tables = json["tables"].as_array().unwrap();
        let one = tables.iter().find(|entry| entry["table"] == table).unwrap();
        assert!(one["different"].as_u64() >= Some(1), "{one}");
        assert_eq!(one["differences"].as_array().unwrap().len(), 1, "{one}");
        // Mended by hand.
        copy(&cluster, table.trim_start_matches("public.")).await;
        cluster.mmrepl_ok(&["verify", "--exact"]).await;
    }
}

/// Copies a table from east to west.
async fn copy(cluster: &Cluster, table: &str) {
    let literals = format!("select quote_literal(t) from {table} t");
    let rows = cluster.east().rows(&literals).await;
    let rows = rows.iter().filter_map(|row| row[0].as_ref());
    let rows: Vec<String> = rows.map(|row| format!("({row}::{table})")).collect();
    let rows = rows.join(", ");
    let fill = format!("insert into {table} select (r).* from unnest(array[{rows}]) r");
    behind(cluster, &format!("truncate {table}; {fill}")).await;
}
on_usual_majors!(whatever_differs_is_found, super::found);

/// Four writers, and comparisons all the while.
async fn under_load(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let mut rng = Rng::from_env(20_261_130);
    let writers: Vec<Writer> = [("east", "a"), ("west", "b")]
        .into_iter()
        .map(|(node, name)| Writer::start(name, cluster.node(node).dsn(), rng.fork()))
        .collect();
    let rounds = std::env::var("MMREPL_VERIFY_ROUNDS").ok();
    let rounds: u32 = rounds.and_then(|text| text.parse().ok()).unwrap_or(5);
    for _ in 0..rounds {
        let said = cluster.mmrepl_ok(&["verify"]).await;
        assert_says(&said, &["are equal"]);
    }
    for writer in writers {
        writer.stop().await;
    }
    cluster.wait_equal().await;
    assert!(difference(cluster.east(), cluster.west()).await.is_ok());
}
on_usual_majors!(what_is_under_way_is_no_difference, super::under_load);

/// Rows that wait for a person differ until somebody decides, and are told as what they are.
async fn waiting(majors: &[u32]) {
    let rule = "[[conflict.table]]\nname = \"public.t\"\nstrategy = \"manual\"\n";
    let options = ClusterOptions::majors(majors).config(rule);
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    let fill = "insert into t (id, v) select i, 'v' from generate_series(1, 50) i";
    cluster.write_on(cluster.east(), fill).await;
    let update = |v: &str| format!("update t set v = '{v}' where id = 7");
    cluster
        .write_unknowing(&update("east"), &update("west"))
        .await;
    let waits = "select count(*) from mmrepl.conflict where outcome = 'pending'";
    soon(&cluster, waits, "1").await;
    let said = cluster.mmrepl_ok(&["verify"]).await;
    assert_says(
        &said,
        &[
            "1 table(s) are equal",
            "1 row(s), each of which waits for a person",
        ],
    );
}
on_usual_majors!(what_waits_for_a_person_is_no_difference, super::waiting);

/// Rows in each table; `numbers` has ten times as many.
fn millions() -> u64 {
    let rows = std::env::var("MMREPL_VERIFY_ROWS").ok();
    rows.and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// One flipped value, one missing and one extra row in each of large tables, and how fast they are
/// found beside `select count(*)`. `MMREPL_VERIFY_ROWS=1000000` is the size of
/// `docs/performance.md`.
async fn in_large_tables(majors: &[u32]) {
    const LARGE: &str = r#"
create table numbers (id bigint primary key, v text);
create table words (id text collate "C" primary key, v int);
create table ids (id uuid primary key, v int);
create table pairs (a int, b int, v int, primary key (a, b));"#;
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), LARGE).await;
    cluster.wait_streaming().await;
    // Another order of words on each side.
    let other = r#"alter table words alter id type text collate "en-x-icu""#;
    let icu = "select count(*) from pg_collation where collname = 'en-x-icu'";
    if cluster.west().value(icu).await != "0" {
        cluster.west().sql(other).await;
    }
    let rows = millions();
    let tables = [
        ("numbers", 10 * rows, "i, 'v' || i"),
        ("words", rows, "'Word ' || i, i"),
        ("ids", rows, "md5(i::text)::uuid, i"),
        ("pairs", rows, "i % 1000, i / 1000, i"),
    ];
    for node in [cluster.east(), cluster.west()] {
        for (table, count, values) in tables {
            let fill =
                format!("insert into {table} select {values} from generate_series(1, {count}) i");
            behind_on(&cluster, node, &fill).await;
            node.sql(&format!("vacuum analyze {table}")).await;
        }
    }
    let middle = rows / 2;
    for damage in [
        format!("update numbers set v = 'x' where id = {middle}"),
        format!("delete from numbers where id = {middle} + 1"),
        "insert into numbers values (-1, 'extra')".to_owned(),
        format!("update words set v = 0 where id = 'Word {middle}'"),
        "delete from words where id = 'Word 7'".to_owned(),
        "insert into words values ('extra', 1)".to_owned(),
        format!("update ids set v = 0 where id = md5('{middle}')::uuid"),
        "delete from ids where id = md5('7')::uuid".to_owned(),
        "insert into ids values ('00000000-0000-0000-0000-000000000001', 1)".to_owned(),
        "update pairs set v = 0 where a = 7 and b = 7".to_owned(),
        "delete from pairs where a = 8 and b = 8".to_owned(),
        "insert into pairs values (-1, -1, 1)".to_owned(),
    ] {
        behind_on(&cluster, cluster.west(), &damage).await;
    }
    for (table, ..) in tables {
        let began = std::time::Instant::now();
        cluster
            .east()
            .value(&format!("select count(*) from {table}"))
            .await;
        let counting = began.elapsed().as_secs_f64();
        let json = cluster
            .mmrepl(&["verify", "--json", "--table", table])
            .await;
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        let report = &json["tables"][0];
        assert_eq!(report["different"], 3, "{report}");
        let (count, seconds) = (&report["rows"]["east"], report["seconds"].as_f64().unwrap());
        let rate = count.as_f64().unwrap() / seconds;
        println!(
            "{table}: {count} rows on each of two nodes in {seconds:.2} s, {rate:.0} rows a second \
             and node; select count(*) takes {counting:.2} s"
        );
    }
}
on_majors!(in_large_tables_of_two_versions, in_large_tables, 15, 18);
on_majors!(in_large_tables_of_one, in_large_tables, 17, 17);
