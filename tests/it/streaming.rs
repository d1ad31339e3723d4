//! Large transactions that are applied while they are still running on their node.

use serde_json::Value;
use tokio_postgres::Client;

use crate::on_every_major;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};

/// Every transaction beyond 64 kB is large.
const SCHEMA: &str = "
    do $$ begin
        execute format('alter database %I set logical_decoding_work_mem to ''64kB''',
            current_database());
    end $$;
    create table t (id bigint primary key, v text, n int not null default 0);
    insert into t select g, 'old ' || g from generate_series(1, 9000) g";
/// Rows from here on are new.
const NEW: &str = "insert into t select g, repeat('x', 100) from generate_series(10001, 15000) g";
const COUNT_NEW: &str = "select count(*) from t where id > 10000";

async fn cluster(majors: &[u32]) -> Cluster {
    cluster_with(ClusterOptions::majors(majors)).await
}

async fn cluster_with(options: ClusterOptions) -> Cluster {
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
}

async fn link(cluster: &Cluster) -> Value {
    cluster.link_status("east", "west").await.unwrap()
}

/// Waits until so many rows of a running transaction are on their way into west.
async fn wait_running(cluster: &Cluster, rows: u64) {
    wait_until("a running transaction to be applied", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let there = link["running_rows"].as_u64().unwrap_or(0);
        ensure(there >= rows, || link.to_string())
    })
    .await;
}

async fn wait_not_running(cluster: &Cluster) {
    wait_until("no running transaction", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        ensure(link["running_rows"].is_null(), || link.to_string())
    })
    .await;
}

/// How often a running transaction was given up, as the status tells.
async fn given_up(cluster: &Cluster) -> usize {
    let link = link(cluster).await;
    let notices = link["notices"].as_array().unwrap();
    let about = |notice: &&Value| {
        notice["message"]
            .as_str()
            .unwrap()
            .contains("still running")
    };
    notices.iter().filter(about).count()
}

async fn wait_given_up(cluster: &Cluster) {
    wait_until("the link to give up", LIMIT, async || {
        ensure(given_up(cluster).await > 0, || "not given up".to_owned())
    })
    .await;
}

/// A transaction on east that has begun and written.
async fn begin(cluster: &Cluster, sql: &str) -> Client {
    let client = cluster.east().client().await;
    pg::execute(&client, &format!("begin; {sql}")).await;
    client
}

async fn it_arrives_with_its_commit(majors: &[u32]) {
    let cluster = cluster(majors).await;
    let more = "update t set n = 1 where id <= 1000; delete from t where id between 1001 and 2000;
        insert into t select g, 'again' from generate_series(1001, 1500) g;
        update t set id = id + 20000 where id between 3001 and 3300;
        update t set v = 'twice' where id between 10001 and 10500";
    let client = begin(&cluster, &format!("{NEW}; {more}")).await;
    wait_running(&cluster, 7800).await;
    cluster
        .east()
        .sql("update t set n = 7 where id = 8000")
        .await;
    wait_until("a small one to pass it", LIMIT, async || {
        let n = cluster
            .west()
            .value("select n from t where id = 8000")
            .await;
        ensure(n == "7", || n)
    })
    .await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "0");
    pg::execute(&client, "commit").await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "5300");
    wait_not_running(&cluster).await;
    assert_eq!(given_up(&cluster).await, 0);
    let conflicts = "select count(*) from mmrepl.conflict";
    assert_eq!(cluster.west().value(conflicts).await, "0");
    // The next one, and nothing of it went back.
    begin(&cluster, "update t set n = 9; commit").await;
    cluster.wait_equal().await;
    let back = cluster.link_status("west", "east").await.unwrap();
    assert_eq!(back["totals"]["rows"], 0, "{back}");
    assert_eq!(given_up(&cluster).await, 0);
    // West writes what east's running transaction wrote.
    cluster.west().sql("update t set v = 'west'").await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(conflicts).await, "0");
}
on_every_major!(
    a_large_transaction_arrives_with_its_commit,
    super::it_arrives_with_its_commit
);

async fn it_is_rolled_back(majors: &[u32]) {
    let cluster = cluster(majors).await;
    let client = begin(&cluster, NEW).await;
    wait_running(&cluster, 4000).await;
    pg::execute(&client, "rollback").await;
    wait_not_running(&cluster).await;
    cluster
        .east()
        .sql("insert into t values (10001, 'after')")
        .await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "1");
    assert_eq!(given_up(&cluster).await, 0);
}
on_every_major!(a_large_transaction_is_rolled_back, super::it_is_rolled_back);

async fn a_part_is_rolled_back(majors: &[u32]) {
    let cluster = cluster(majors).await;
    let client = begin(&cluster, &format!("{NEW}; savepoint s")).await;
    pg::execute(
        &client,
        "update t set n = 1; delete from t where id > 14000",
    )
    .await;
    wait_running(&cluster, 10_000).await;
    pg::execute(
        &client,
        "rollback to s; update t set n = 2 where id > 10000; commit",
    )
    .await;
    cluster.wait_equal().await;
    let sum = "select sum(n) from t";
    assert_eq!(cluster.west().value(sum).await, "10000");
    assert_eq!(given_up(&cluster).await, 1);
}
on_every_major!(
    a_part_of_a_large_transaction_is_rolled_back,
    super::a_part_is_rolled_back
);

#[tokio::test(flavor = "multi_thread")]
async fn two_large_transactions_at_once() {
    let cluster = cluster_with(ClusterOptions::pair()).await;
    let one = begin(&cluster, NEW).await;
    wait_running(&cluster, 4000).await;
    let other = begin(&cluster, "update t set n = n + 1 where id <= 5000").await;
    pg::execute(&one, "update t set n = 5 where id > 10000").await;
    pg::execute(&other, "update t set n = n + 1 where id <= 5000; commit").await;
    wait_until("the second to arrive first", LIMIT, async || {
        let n = cluster.west().value("select n from t where id = 1").await;
        ensure(n == "2", || n)
    })
    .await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "0");
    pg::execute(&one, "commit").await;
    cluster.wait_equal().await;
    assert_eq!(given_up(&cluster).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_needs_a_look_makes_the_link_give_it_up() {
    let cluster = cluster_with(ClusterOptions::pair()).await;
    cluster.mmrepl_ok(&["pause", "west->east"]).await;
    cluster
        .west()
        .sql("insert into t values (12345, 'west')")
        .await;
    cluster
        .west()
        .sql("update t set v = 'west' where id = 17")
        .await;
    let client = begin(
        &cluster,
        &format!("{NEW}; update t set n = 1 where id < 100"),
    )
    .await;
    wait_given_up(&cluster).await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "1");
    pg::execute(&client, "commit").await;
    cluster.mmrepl_ok(&["resume", "west->east"]).await;
    cluster.wait_equal().await;
    let conflicts = "select count(*) from mmrepl.conflict where source = 'east'";
    assert_eq!(cluster.west().value(conflicts).await, "2");
    assert_eq!(
        cluster
            .east()
            .value("select v from t where id = 12345")
            .await,
        "x".repeat(100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_begins_again() {
    let mut cluster = cluster_with(ClusterOptions::pair()).await;
    let client = begin(&cluster, NEW).await;
    wait_running(&cluster, 4000).await;
    cluster.east().sql("update t set n = 3 where id = 1").await;
    cluster.take_daemon("east").kill9();
    cluster.start_daemon("east");
    wait_running(&cluster, 4000).await;
    pg::execute(
        &client,
        "update t set n = n + 1 where id > 10000 or id < 2000; commit",
    )
    .await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.west().value("select n from t where id = 1").await,
        "4"
    );
    assert_eq!(given_up(&cluster).await, 0);
}

/// Crashes of daemons and servers at every stage of large transactions, and a rollback in between.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_each_is_there_once() {
    let mut cluster = cluster_with(ClusterOptions::pair().durable()).await;
    cluster.allow_error("57P0");
    for round in 0..8 {
        let insert = format!(
            "insert into t select g + {round} * 10000, 'new' from generate_series(10001, 13000) g;
             update t set n = n + 1 where id <= 3000"
        );
        let client = begin(&cluster, &insert).await;
        wait_running(&cluster, 4000).await;
        cluster
            .east()
            .sql("update t set n = n + 1 where id = 9000")
            .await;
        match round % 4 {
            0 => {
                cluster.take_daemon("east").kill9();
                cluster.start_daemon("east");
            }
            1 => {
                cluster.server_mut("west").kill9();
                cluster.server_mut("west").start().unwrap();
            }
            2 => cluster.server_mut("west").restart().unwrap(),
            _ => {}
        }
        let end = if round == 5 { "rollback" } else { "commit" };
        pg::execute(&client, end).await;
        if round == 3 {
            cluster.server_mut("east").kill9();
            cluster.server_mut("east").start().unwrap();
        }
        cluster.wait_equal().await;
        cluster.wait_streaming().await;
    }
    let sums = "select (select sum(n) from t where id <= 3000),
        (select count(*) from t where id > 10000), (select n from t where id = 9000)";
    let sums = cluster.west().rows(sums).await;
    let expected = ["21000", "21000", "8"].map(|text| Some(text.to_owned()));
    assert_eq!(sums, [expected]);
}

/// The second one does not fit into memory beside the first.
#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_given_up_in_bounded_memory() {
    let options = ClusterOptions::pair().own_servers();
    let mut cluster = cluster_with(options).await;
    let first = begin(&cluster, NEW).await;
    wait_running(&cluster, 4000).await;
    let many = "insert into t select g, repeat('y', 100) from generate_series(100001, 220000) g";
    let second = begin(&cluster, many).await;
    wait_given_up(&cluster).await;
    pg::execute(&second, "commit").await;
    pg::execute(&first, "commit").await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(COUNT_NEW).await, "125000");
    let peak = cluster.daemon("east").peak_memory_bytes();
    assert!(peak < 100 * 1024 * 1024, "{peak} bytes");
}

/// West's writer holds a row that east's small transaction changes, and waits for one that east's
/// large transaction has written: no server sees that circle.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_writer_between_the_sessions_is_let_through() {
    let cluster = cluster_with(ClusterOptions::pair()).await;
    let large = begin(&cluster, "update t set n = n + 1 where id <= 5000").await;
    wait_running(&cluster, 4000).await;
    let local = cluster.west().client().await;
    pg::execute(&local, "begin; update t set v = 'west' where id = 8000").await;
    cluster
        .east()
        .sql("update t set n = 5 where id = 8000")
        .await;
    let waiting = "update t set v = 'west' where id = 1; commit";
    let ((), ()) = tokio::join!(pg::execute(&local, waiting), wait_given_up(&cluster));
    pg::execute(&large, "commit").await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster
            .west()
            .value("select sum(n) from t where id <= 5000")
            .await,
        "5000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_turned_off() {
    let off = ClusterOptions::pair().config("\n[apply]\nstreaming = false\n");
    let cluster = cluster_with(off).await;
    let client = begin(&cluster, NEW).await;
    cluster.east().sql("update t set n = 7 where id = 1").await;
    wait_until("a small one to arrive", LIMIT, async || {
        let n = cluster.west().value("select n from t where id = 1").await;
        ensure(n == "7", || n)
    })
    .await;
    assert!(link(&cluster).await["running_rows"].is_null());
    pg::execute(&client, "commit").await;
    cluster.wait_equal().await;
    let sessions =
        "select count(*) from pg_stat_activity where application_name like '%apply running'
        and datname = current_database()";
    assert_eq!(cluster.west().value(sessions).await, "0");
}

/// The daemon dies just before, and just after, it commits on the target.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_at_the_commit_applies_it_once() {
    let mut cluster = cluster_with(ClusterOptions::pair()).await;
    for point in ["after_apply:1", "after_commit:1"] {
        cluster.take_daemon("east").kill9();
        cluster.set_daemon_env("MMREPL_FAILPOINT", point);
        cluster.start_daemon("east");
        let client = begin(&cluster, "update t set n = n + 1").await;
        wait_running(&cluster, 8000).await;
        pg::execute(&client, "commit").await;
        let dying = cluster.take_daemon("east");
        let ended = tokio::task::spawn_blocking(|| dying.wait_end()).await;
        assert!(!ended.unwrap().success());
        cluster.clear_daemon_env("MMREPL_FAILPOINT");
        cluster.start_daemon("east");
        cluster.wait_equal().await;
    }
    assert_eq!(cluster.west().value("select sum(n) from t").await, "18000");
}
