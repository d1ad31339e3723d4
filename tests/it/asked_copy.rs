//! `init --copy-from` where every link is in order: it compares, and copies where rows differ.

use super::init::assert_says;
use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = "
    create table t (id int primary key, v text);
    create table same (id int primary key, v text);
    create table loose (v text);";

/// Changes rows of one node that no other gets: as if they had come from `source`.
async fn behind_the_back(cluster: &Cluster, node: &str, source: &str, sql: &str) {
    let client = cluster.node(node).client().await;
    let origin = format!("mmrepl_{}_{source}", cluster.name);
    crate::support::pg::execute(
        &client,
        &format!(
            "select pg_replication_origin_session_setup('{origin}');
             begin; {sql}; commit; select pg_replication_origin_session_reset()"
        ),
    )
    .await;
}

async fn differing(majors: &[u32]) -> Cluster {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let rows = "insert into t select g, 'v' || g from generate_series(1, 5) g;
        insert into same values (1, 'a'); insert into loose values ('a'), ('a'), ('b')";
    cluster.write_on(cluster.west(), rows).await;
    cluster.stop_daemons();
    let sql = "delete from t where id = 2; update t set v = 'other' where id = 3;
        insert into t values (9, 'only here'), (10, 'only here'); insert into loose values ('c')";
    behind_the_back(&cluster, "east", "west", sql).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
}

async fn asked_for(majors: &[u32]) {
    let mut cluster = differing(majors).await;
    let plain = cluster.mmrepl_ok(&["init"]).await;
    assert_says(
        &plain,
        &["rows were not compared", "--copy-from NODE --dry-run"],
    );
    assert!(plain.ends_with("nothing to do\n"), "{plain}");
    let told = [
        "east: does not have the rows of west in public.t: 1 row(s) on west alone, 2 row(s) on \
         east alone, 1 with other values",
        "public.loose: 0 row(s) on west alone, 1 row(s) on east alone",
    ];
    let dry = cluster
        .mmrepl_ok(&["init", "--copy-from", "west", "--dry-run"])
        .await;
    assert_says(&dry, &told);
    assert!(!dry.contains("public.same"), "{dry}");
    cluster.take_daemon("west").terminate();
    cluster
        .east()
        .sql("insert into t values (20, 'under way')")
        .await;
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    assert_says(&said, &told);
    assert_says(&said, &["kept 4 overwritten row(s) in the history"]);
    cluster.start_daemon("west");
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    let rows = "select string_agg(id || v, ' ' order by id) from t";
    let expected = "1v1 2v2 3v3 4v4 5v5 20under way";
    assert_eq!(cluster.west().value(rows).await, expected);
    cluster
        .west()
        .sql("update t set v = 'w' where id = 1")
        .await;
    cluster
        .east()
        .sql("update t set v = 'e' where id = 2")
        .await;
    cluster.wait_equal().await;
    let again = cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    assert_says(&again, &["compared 3 table(s) with west: equal"]);
    assert!(again.ends_with("nothing to do\n"), "{again}");
    restores(&cluster).await;
}

/// What was there alone comes back.
async fn restores(cluster: &Cluster) {
    let id = "select 'east-' || id from mmrepl.conflict
        where kind = 'overwritten' and key_values = '{9}'";
    let id = cluster.east().value(id).await;
    let restore = ["conflicts", "restore", &id];
    cluster.mmrepl_ok(&restore).await;
    cluster.wait_equal().await;
    let row = "select v from t where id = 9";
    assert_eq!(cluster.west().value(row).await, "only here");
}
on_usual_majors!(
    rows_that_differ_are_told_and_copied,
    crate::asked_copy::asked_for
);

/// What only the overwritten node has written is delivered first, or named.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_delivered_is_not_overwritten() {
    let mut cluster = differing(&[17, 17]).await;
    cluster.stop_daemons();
    cluster
        .east()
        .sql("insert into t values (30, 'the only copy')")
        .await;
    let said = cluster.mmrepl_fails(&["init", "--copy-from", "west"]).await;
    assert_says(&said, &["1 row(s) of public.t", "start the daemon of east"]);
    cluster.start_daemon("east");
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    cluster.start_daemon("west");
    cluster.wait_equal().await;
    let row = "select v from t where id = 30";
    assert_eq!(cluster.east().value(row).await, "the only copy");
}

/// Of three nodes only the one that differs is overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_equal_are_left_alone() {
    let options = ClusterOptions::majors(&[17, 17, 15]);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let rows = "insert into t select g, 'v' || g from generate_series(1, 5) g";
    cluster.write_on(cluster.west(), rows).await;
    cluster.stop_daemons();
    behind_the_back(&cluster, "north", "west", "delete from t where id > 3").await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.take_daemon("east").terminate();
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    assert_says(
        &said,
        &[
            "west: compared 3 table(s) with east: equal",
            "north: does not have the rows of east in public.t: 2 row(s) on east alone, 0 row(s)",
            "north: copied",
        ],
    );
    assert!(!said.contains("west: copied"), "{said}");
    cluster.start_daemon("east");
    cluster.wait_equal().await;
    for node in ["east", "west", "north"] {
        let sql = format!("insert into t select max(id) + 1, '{node}' from t");
        cluster.node(node).sql(&sql).await;
        cluster.wait_equal().await;
    }
    let count = "select count(*) from t";
    assert_eq!(cluster.node("north").value(count).await, "8");
}

/// Busy writers make no difference.
#[tokio::test(flavor = "multi_thread")]
async fn rows_under_way_are_no_difference() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let write = async |sql: &str, node: &crate::support::Node| {
        let client = node.client().await;
        loop {
            crate::support::pg::execute(&client, sql).await;
        }
    };
    let insert = "insert into t select coalesce(max(id), 0) + 2, 'w' from t where id % 2 = 0";
    let update = "insert into same values (7, '0') on conflict (id) do update
        set v = (same.v::int + 1)::text";
    let init = async || {
        let said = cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
        assert_says(&said, &["compared 3 table(s) with west: equal"]);
        assert!(said.ends_with("nothing to do\n"), "{said}");
    };
    tokio::select! {
        () = init() => {}
        () = write(insert, cluster.west()) => {}
        () = write(update, cluster.east()) => {}
    }
    cluster.wait_equal().await;
}
