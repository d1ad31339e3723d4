//! Three nodes: transactions of one source that are applied as one keep their own times.
//!
//! North writes between two transactions of east that reach west together. Its write is newer than
//! the first of them and must win there, though west's rows look as if they were all written last.

use crate::support::pool::usual_major;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = "
    create table t (id int primary key, v text);
    create table u (a text, n numeric, v text, code text unique, primary key (a, n));
    create table log (v text);
    create table emptied (id int primary key, v text);";

/// Many more transactions: some are applied together, however they happen to be read.
const LATER: &str = "do $$ begin for n in 1000..1100 loop
    insert into t values (n, 'later'); commit; end loop; end $$";

/// What west keeps of rows that were applied together.
const KEPT: &str = "select count(*) from mmrepl.source_time";

async fn three(config: &str) -> Cluster {
    let options = ClusterOptions::majors(&[usual_major(); 3]).config(config);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
}

/// East's first write, north's, and east's last: nobody knows of anybody. West hears of east first.
async fn write_between(cluster: &Cluster, east: &str, north: &str) {
    cluster.pause_all().await;
    cluster.east().sql(east).await;
    cluster.node("north").sql(north).await;
    cluster.east().sql(LATER).await;
    cluster.let_through("east", "west").await;
    cluster.let_through("north", "west").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
}

async fn assert_grouped(cluster: &Cluster) {
    let kept: u32 = cluster.node("west").value(KEPT).await.parse().unwrap();
    assert!(kept > 0, "nothing was applied together");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_wins_between_two_writes() {
    let cluster = three("").await;
    let west = cluster.node("west");
    let fill = "insert into t select n, 'first' from generate_series(1, 60) n;
        insert into u select 'k ' || n, n + 0.50, 'first' from generate_series(1, 60) n";
    cluster.write_on(cluster.east(), fill).await;
    write_between(
        &cluster,
        "update t set v = 'east' where id <= 40;
         update u set v = 'east' where n < 40;
         insert into t values (100, 'east')",
        "update t set v = 'north' where id <= 20;
         update u set v = 'north', n = n + 0.00 where n < 20;
         insert into t values (100, 'north')",
    )
    .await;
    assert_grouped(&cluster).await;
    let counts = "select (select count(*) from t where v = 'north') || ' ' ||
        (select count(*) from u where v = 'north')";
    assert_eq!(west.value(counts).await, "21 19");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_writes_what_was_deleted_before() {
    let cluster = three("").await;
    let fill = "insert into t select n, 'first' from generate_series(1, 90) n";
    cluster.write_on(cluster.east(), fill).await;
    write_between(
        &cluster,
        "delete from t where id <= 3; delete from t where id between 10 and 60",
        "update t set v = 'north' where id in (2, 20, 21)",
    )
    .await;
    assert_grouped(&cluster).await;
    let west = cluster.node("west");
    let left = "select string_agg(id::text, ' ' order by id) from t where v = 'north'";
    assert_eq!(west.value(left).await, "2 20 21");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_takes_a_unique_value_in_between() {
    let cluster = three("").await;
    write_between(
        &cluster,
        "insert into u values ('east', 1, 'x', 'code'); insert into u values ('other', 1, 'x', 'free')",
        "insert into u values ('north', 1, 'x', 'code')",
    )
    .await;
    let west = cluster.node("west");
    let holder = "select a from u where code = 'code'";
    assert_eq!(west.value(holder).await, "north");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_truncates_in_between() {
    let cluster = three("").await;
    let fill = "insert into emptied select n, 'first' from generate_series(1, 30) n";
    cluster.write_on(cluster.east(), fill).await;
    write_between(
        &cluster,
        "update emptied set v = 'east' where id <= 20",
        "truncate emptied",
    )
    .await;
    let west = cluster.node("west");
    assert_eq!(west.value("select count(*) from emptied").await, "0");
}

/// Rows without a key are told apart by all their values: north truncates what it has of east's
/// rows, and west, which has them together with later ones, must not think that they are later.
#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_truncates_rows_without_a_key() {
    let cluster = three("").await;
    let fill = "insert into log select 'first ' || n from generate_series(1, 30) n";
    cluster.write_on(cluster.east(), fill).await;
    cluster.pause_all().await;
    let rows = "insert into log select 'east ' || n from generate_series(1, 20) n;
        insert into log values (null), ('a \"quoted\", one'), ('');
        update log set v = 'changed' where v = 'first 1'";
    cluster.east().sql(rows).await;
    cluster.let_through("east", "north").await;
    let truncate = "truncate log; insert into log values ('north')";
    cluster.node("north").sql(truncate).await;
    cluster.east().sql(LATER).await;
    cluster.let_through("east", "west").await;
    assert_grouped(&cluster).await;
    cluster.let_through("north", "west").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let west = cluster.node("west");
    assert_eq!(
        west.value("select string_agg(v, ' ') from log").await,
        "north"
    );
}

/// A truncate is not applied together with anything.
#[tokio::test(flavor = "multi_thread")]
async fn truncates_go_apart() {
    let cluster = three("").await;
    cluster.pause_all().await;
    let east = cluster.east();
    for n in 1..=5 {
        let sql = format!("insert into log values ('{n}'); insert into t values ({n}, 'x')");
        east.sql(&sql).await;
    }
    east.sql("truncate emptied").await;
    east.sql("insert into emptied values (1, 'after')").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let west = cluster.node("west");
    let kept = format!("{KEPT} where relation = 'emptied'::regclass");
    assert_eq!(west.value(&kept).await, "0");
    assert_eq!(west.value("select count(*) from log").await, "5");
}

/// Once nothing can arrive any more that was written in between, the times go.
#[tokio::test(flavor = "multi_thread")]
async fn the_times_are_forgotten() {
    let cluster = three("[conflict]\ntombstones = \"1s\"\n").await;
    let fill = "insert into t select n, 'first' from generate_series(1, 60) n";
    cluster.write_on(cluster.east(), fill).await;
    write_between(
        &cluster,
        "update t set v = 'east'",
        "update t set v = 'n' where id = 1",
    )
    .await;
    let west = cluster.node("west");
    assert_grouped(&cluster).await;
    // A sweep takes those that have been there for a while.
    west.sql("update mmrepl.source_time set left_at = left_at - interval '1 hour'")
        .await;
    crate::support::wait_until(
        "the times to be forgotten",
        crate::support::LIMIT,
        async || {
            let kept = west.value(KEPT).await;
            crate::support::wait::ensure(kept == "0", || kept.clone())
        },
    )
    .await;
}
