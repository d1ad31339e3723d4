//! Rules that decide by a version kept in the row.

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions, Node};

/// `t` under a rule, on two nodes.
fn options(majors: &[u32], rule: &str) -> ClusterOptions {
    let table = format!("[[conflict.table]]\nname = \"public.t\"\n{rule}\n");
    ClusterOptions::majors(majors).config(&table)
}

const COLUMN: &str = "strategy = \"version_column\"\nversion_column = \"version\"";
const CLOCK: &str = "strategy = \"hybrid_clock\"";

/// Writes of both nodes, neither knowing of the other's; then both become equal.
async fn concurrently(cluster: &Cluster, east: &str, west: &str) {
    cluster.pause_all().await;
    cluster.east().sql(east).await;
    cluster.west().sql(west).await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
}

/// One writes, both are equal.
async fn alone(cluster: &Cluster, node: &Node, sql: &str) {
    node.sql(sql).await;
    cluster.wait_equal().await;
}

async fn value(cluster: &Cluster) -> String {
    let sql = "select coalesce(string_agg(v, ' ' order by id), 'none') from t";
    cluster.east().value(sql).await
}

/// Type, and values in ascending order; the first comes before NULL's opposite, no version at all.
const TYPES: [(&str, [&str; 3]); 5] = [
    ("smallint", ["-1", "2", "10"]),
    ("int", ["-1", "2", "10"]),
    (
        "bigint",
        ["-9223372036854775808", "2", "9223372036854775807"],
    ),
    ("numeric", ["-1.5", "10.25", "NaN"]),
    (
        "timestamptz",
        [
            "0044-03-15 12:00+00 BC",
            "2026-01-01 00:00:00.5+00",
            "infinity",
        ],
    ),
];

async fn the_greater_version_wins(majors: &[u32]) {
    for (type_name, [low, middle, high]) in TYPES {
        let schema = format!("create table t (id int primary key, v text, version {type_name})");
        let cluster = Cluster::running_with(options(majors, COLUMN), &schema).await;
        cluster.wait_streaming().await;
        let first =
            format!("insert into t select g, 'first', '{low}' from generate_series(1, 4) g");
        alone(&cluster, cluster.east(), &first).await;
        let set = |v: &str, version: &str, id: u8| {
            format!("update t set v = '{v}', version = '{version}' where id = {id};")
        };
        // West writes later, and loses where its version is lower.
        let east = [set("e", high, 1), set("e", middle, 2), set("e", middle, 3)].concat();
        let west = [set("w", middle, 1), set("w", high, 2), set("w", middle, 3)].concat();
        let nothing = "update t set v = 'w', version = null where id = 4";
        concurrently(&cluster, &east, &(west + nothing)).await;
        assert_eq!(value(&cluster).await, "e w w w", "{type_name}");
        // A version does not go back.
        alone(&cluster, cluster.west(), &set("back", low, 1)).await;
        let kept = format!("select version = '{high}' and v = 'back' from t where id = 1");
        assert_eq!(cluster.east().value(&kept).await, "t", "{type_name}");
        let kept = format!("select version = '{low}' from t where id = 4");
        assert_eq!(cluster.east().value(&kept).await, "t", "{type_name}");
    }
}
on_every_major!(
    the_greater_version_wins_on_both_nodes,
    super::the_greater_version_wins
);

const SCHEMA: &str = "create table t (id int primary key, v text, version bigint)";

/// Deletes have the version of the row they delete, and rows come back above them.
async fn deletes_have_versions(majors: &[u32]) {
    let cluster = Cluster::running_with(options(majors, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 'first', 5 from generate_series(1, 4) g";
    alone(&cluster, cluster.east(), fill).await;
    // The delete is later, its version is lower than the update's.
    let east = "update t set v = 'e', version = 6 where id in (1, 2)";
    concurrently(&cluster, east, "delete from t where id in (1, 3)").await;
    assert_eq!(value(&cluster).await, "e e first");
    // Equal versions: the later one wins, here a delete.
    concurrently(
        &cluster,
        "update t set v = 'e' where id = 4",
        "delete from t where id = 4",
    )
    .await;
    assert_eq!(value(&cluster).await, "e e");
    // Inserted again with a lower version, and without one.
    let again = "insert into t values (3, 'again', 1), (4, 'again', null)";
    alone(&cluster, cluster.west(), again).await;
    assert_eq!(value(&cluster).await, "e e again again");
    let lifted = "select string_agg(version::text, ' ' order by id) from t where id > 2";
    assert_eq!(cluster.east().value(lifted).await, "5 5");
    // A key that is taken again, a truncate that lost against a later version.
    alone(&cluster, cluster.east(), "delete from t where id = 3").await;
    alone(&cluster, cluster.west(), "update t set id = 3 where id = 1").await;
    let west = "update t set v = 'w', version = 9 where id = 2";
    concurrently(&cluster, "truncate t", west).await;
    assert_eq!(value(&cluster).await, "w");
}
on_every_major!(
    deletes_take_the_version_of_their_row,
    super::deletes_have_versions
);

/// The clock decides, and a write that knows another one is above it.
async fn the_clock_decides(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(options(majors, CLOCK), schema).await;
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 'first' from generate_series(1, 4) g";
    alone(&cluster, cluster.east(), fill).await;
    let west = "update t set v = 'w' where id = 1; delete from t where id = 2;
        update t set v = 'w' where id = 3";
    concurrently(&cluster, "update t set v = 'e' where id < 4", west).await;
    assert_eq!(value(&cluster).await, "w w first");
    // A version ahead of every clock: what comes after it is still above it.
    let ahead = "alter table t disable trigger user;
        update t set mmrepl_version = mmrepl_version + 1000000000000 where id = 4;
        alter table t enable trigger user";
    alone(&cluster, cluster.east(), ahead).await;
    alone(
        &cluster,
        cluster.west(),
        "update t set v = 'w' where id = 4",
    )
    .await;
    assert_eq!(value(&cluster).await, "w w w");
    alone(&cluster, cluster.west(), "delete from t where id = 4").await;
    alone(
        &cluster,
        cluster.east(),
        "insert into t values (4, 'again')",
    )
    .await;
    assert_eq!(value(&cluster).await, "w w again");
    // Both in one transaction, and a truncate.
    alone(
        &cluster,
        cluster.east(),
        "begin; delete from t; insert into t values (1, 'e'); commit",
    )
    .await;
    assert_eq!(value(&cluster).await, "e");
    alone(&cluster, cluster.west(), "truncate t").await;
    assert_eq!(value(&cluster).await, "none");
}
on_every_major!(the_clock_in_the_row_decides, super::the_clock_decides);

/// Partitions: deletes, moves between them, inserts into what was deleted.
async fn partitions_keep_versions(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text) partition by range (id);
        create table t1 partition of t for values from (0) to (10);
        create table t2 partition of t for values from (10) to (20)";
    let cluster = Cluster::running_with(options(majors, CLOCK), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    alone(
        &cluster,
        east,
        "insert into t values (1, 'a'), (2, 'b'), (11, 'c')",
    )
    .await;
    alone(
        &cluster,
        west,
        "update t set id = 12 where id = 1; delete from t where id = 11",
    )
    .await;
    alone(
        &cluster,
        east,
        "update t set id = 1 where id = 12; insert into t values (11, 'd')",
    )
    .await;
    assert_eq!(value(&cluster).await, "a b d");
    let later = "truncate t1; update t set v = 'w' where id = 11";
    concurrently(&cluster, "update t set v = 'e'", later).await;
    assert_eq!(value(&cluster).await, "w");
    alone(&cluster, east, "insert into t values (1, 'again')").await;
    assert_eq!(value(&cluster).await, "again w");
}
on_every_major!(
    partitions_keep_versions_too,
    super::partitions_keep_versions
);

/// A snapshot that is older than the delete must not bring the row back below it.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_does_not_insert_below_a_delete() {
    let pair = ClusterOptions::pair().majors;
    let cluster = Cluster::running_with(options(&pair, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    alone(
        &cluster,
        cluster.east(),
        "insert into t values (1, 'first', 5)",
    )
    .await;
    let client = cluster.east().client().await;
    let begin = "begin isolation level repeatable read; select count(*) from t";
    client.batch_execute(begin).await.unwrap();
    alone(&cluster, cluster.west(), "delete from t").await;
    let refused = client
        .batch_execute("insert into t values (1, 'old', 1)")
        .await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "40001");
    client.batch_execute("rollback").await.unwrap();
    let again = "begin isolation level serializable; insert into t values (1, 'again', 1); commit";
    alone(&cluster, cluster.east(), again).await;
    assert_eq!(
        cluster.west().value("select v || version from t").await,
        "again5"
    );
    let left = "select count(*) from mmrepl.tombstone where left_at = '-infinity'";
    assert_eq!(cluster.east().value(left).await, "0");
}

/// What a rule needs and does not find is said before anything is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_its_rule_is_refused() {
    for (schema, said) in [
        (
            "create table t (id int primary key)",
            "has no column version",
        ),
        (
            "create table t (id int primary key, version text)",
            "is text and not",
        ),
        ("create table t (id int, version int)", "has no key"),
        (
            "create table t (version int primary key)",
            "is part of the key",
        ),
    ] {
        let pair = ClusterOptions::pair().majors;
        let cluster = Cluster::start(options(&pair, COLUMN)).await;
        cluster.sql_everywhere(schema).await;
        let output = cluster.mmrepl_fails(&["init"]).await;
        assert!(output.contains(said), "{output}");
    }
}

/// Another rule and `init` again: what it needs is there; `drop` takes everything away.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_change_its_rule() {
    let pair = ClusterOptions::pair().majors;
    let mut cluster = Cluster::running_with(options(&pair, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    alone(
        &cluster,
        cluster.east(),
        "insert into t values (1, 'first', 5), (2, 'gone', 7)",
    )
    .await;
    alone(&cluster, cluster.west(), "delete from t where id = 2").await;
    cluster.stop_daemons();
    cluster.rewrite_config("[conflict]\nstrategy = \"hybrid_clock\"\n");
    cluster.init().await;
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing"));
    cluster.start_daemons();
    cluster.wait_streaming().await;
    concurrently(
        &cluster,
        "update t set v = 'e', version = 100",
        "update t set v = 'w', version = 99",
    )
    .await;
    assert_eq!(value(&cluster).await, "w");
    alone(
        &cluster,
        cluster.east(),
        "insert into t values (2, 'again', 1)",
    )
    .await;
    assert_eq!(value(&cluster).await, "w again");
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    let ours = "select (select count(*) from pg_attribute where attname like 'mmrepl%'
            and not attisdropped)
        + (select count(*) from pg_trigger where tgname like 'mmrepl%')";
    assert_eq!(cluster.east().value(ours).await, "0");
    let identity = "select relreplident::text from pg_class where relname = 't'";
    assert_eq!(cluster.west().value(identity).await, "d");
}
