//! `mmrepl status` tells the truth in every state.

use std::time::Duration;

use mmrepl::lsn::Lsn;
use serde_json::Value;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};

const SCHEMA: &str = "create table t (id int primary key, v text)";
/// What a link may be while a server cannot be reached.
const AWAY: [&str; 2] = ["unreachable", "retrying"];

async fn exit_code(cluster: &Cluster) -> Option<i32> {
    cluster.mmrepl(&["status"]).await.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_and_idle() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (1, 'x'); insert into t values (2, 'y')")
        .await;
    cluster.wait_equal().await;
    let link = wait_until("an idle link", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let idle = link["lag"]["seconds"] == 0.0
            && link["totals"]["rows"] == 2
            && link["slot"]["active"] == true;
        ensure(idle, || link.to_string())?;
        Ok::<_, String>(link)
    })
    .await;
    assert_eq!(link["state"], "streaming");
    assert_eq!(link["reason"], Value::Null);
    assert_eq!(link["source"], "daemon");
    assert_eq!(link["last_error"], Value::Null);
    assert_eq!(
        link["slot"]["name"],
        format!("mmrepl_{}_west", cluster.name)
    );
    assert!(
        link["clock_offset_ms"]
            .as_f64()
            .is_some_and(|offset| offset.abs() < 1000.0),
        "{link}"
    );
    assert_eq!(exit_code(&cluster).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_field_is_there() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let status = cluster.status().await.unwrap();
    assert_eq!(status["cluster"], cluster.name);
    assert!(status["at"].is_string());
    for link in status["links"].as_array().unwrap() {
        for pointer in [
            "/from",
            "/to",
            "/state",
            "/since",
            "/reason",
            "/source",
            "/slot/retained_bytes",
            "/slot/wal_status",
            "/lsn/current",
            "/lsn/sent",
            "/lsn/applied",
            "/lsn/durable",
            "/lsn/confirmed",
            "/lag/bytes",
            "/lag/seconds",
            "/totals/transactions",
            "/totals/rows",
            "/totals/conflicts",
            "/totals/retries",
            "/totals/reconnects",
            "/rates/transactions_per_second",
            "/rates/rows_per_second",
            "/clock_offset_ms",
            "/last_error",
        ] {
            assert!(
                link.pointer(pointer).is_some(),
                "{pointer} is missing in {link}"
            );
        }
    }
}

/// WAL that is not the link's is no lag, and what is the link's is as old as its commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_link_tells_whether_anything_waits() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.wait_equal().await;
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    let other = "create schema other; create table other.t (id int primary key);
        insert into other.t select generate_series(1, 1000)";
    cluster.east().sql(other).await;
    let end = cluster
        .east()
        .value("select pg_current_wal_flush_lsn()")
        .await;
    let end: Lsn = end.parse().unwrap();
    let lsn =
        |link: &Value, name: &str| -> Lsn { link["lsn"][name].as_str().unwrap().parse().unwrap() };
    wait_until("no lag, and WAL beyond", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let beyond = lsn(&link, "current") >= end && lsn(&link, "applied") < end;
        let none = link["lag"]["seconds"] == 0.0 && link["lag"]["exact"] == true;
        ensure(beyond && none, || link.to_string())
    })
    .await;
    cluster.east().sql("insert into t values (2, 'x')").await;
    wait_until("the age of the commit", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let age = link["lag"]["seconds"].as_f64().unwrap_or(0.0);
        let known = age > 1.0 && link["lag"]["exact"] == true && link["state"] == "paused";
        ensure(known, || link.to_string())
    })
    .await;
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    cluster.wait_streaming().await;
    cluster.east().sql("drop schema other cascade").await;
    cluster.wait_equal().await;
    wait_until("no lag", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let none = link["lag"]["seconds"] == 0.0 && link["lag"]["exact"] == true;
        ensure(none, || link.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catching_up_with_a_backlog() {
    let cluster = Cluster::running_with(ClusterOptions::pair().own_servers(), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    let backlog = "do $$ begin
        for i in 1..60000 loop insert into t values (i, 'x'); commit; end loop; end $$";
    cluster.east().sql(backlog).await;
    let paused = cluster.link_status("east", "west").await.unwrap();
    assert_eq!(paused["state"], "paused", "{paused}");
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    let seen = cluster.wait_state("east", "west", &["catching_up"]).await;
    assert!(seen["lag"]["bytes"].as_u64().unwrap() > 0, "{seen}");
    assert!(seen["lag"]["seconds"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["reason"].is_string(), "{seen}");
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_down_and_comes_back() {
    let mut cluster = Cluster::running_with(ClusterOptions::pair().own_servers(), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.server_mut("west").stop();
    // West is the target of one link and the source of the other.
    let reason = cluster.wait_reason(("east", "west"), &AWAY, "west").await;
    assert!(!reason.contains("panicked"), "{reason}");
    cluster.wait_reason(("west", "east"), &AWAY, "west").await;
    assert_eq!(exit_code(&cluster).await, Some(1));
    cluster
        .east()
        .sql("insert into t values (1, 'meanwhile')")
        .await;
    cluster.server_mut("west").start().unwrap();
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value("select v from t").await, "meanwhile");
    assert_eq!(exit_code(&cluster).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_by_a_missing_column() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.allow_error("colour");
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("alter table t add column colour text; insert into t values (1, 'x', 'red')")
        .await;
    let reason = cluster
        .wait_reason(("east", "west"), &["blocked"], "colour")
        .await;
    assert!(reason.contains('t'), "{reason}");
    let link = cluster.link_status("east", "west").await.unwrap();
    assert!(link["last_error"]["message"].is_string(), "{link}");
    assert_eq!(link["last_error"]["retryable"], false, "{link}");
    // The other direction does not suffer.
    cluster.west().sql("insert into t values (2, 'y')").await;
    wait_until("the row of west on east", LIMIT, async || {
        let count = cluster
            .east()
            .value("select count(*) from t where id = 2")
            .await;
        ensure(count == "1", || count)
    })
    .await;
    cluster
        .west()
        .sql("alter table t add column colour text")
        .await;
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster
            .west()
            .value("select colour from t where id = 1")
            .await,
        "red"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_survives_a_restart_of_the_daemon() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    cluster.take_daemon("east").terminate();
    cluster.start_daemon("east");
    cluster.wait_state("east", "west", &["paused"]).await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    let link = cluster.wait_state("east", "west", &["paused"]).await;
    assert!(link["reason"].is_string(), "{link}");
    assert_eq!(cluster.west().value("select count(*) from t").await, "0");
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_down() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.wait_equal().await;
    let status = cluster.take_daemon("east").terminate();
    assert!(status.success(), "{status}");
    let link = cluster.wait_state("east", "west", &["stopped"]).await;
    assert!(
        ["checkpoint", "server"].contains(&link["source"].as_str().unwrap()),
        "{link}"
    );
    assert!(link["reason"].as_str().unwrap().contains("east"), "{link}");
    assert_eq!(link["slot"]["active"], false, "{link}");
    let other = cluster.link_status("west", "east").await.unwrap();
    assert_eq!(other["state"], "streaming", "{other}");
    assert_eq!(exit_code(&cluster).await, Some(1));
    // Without the daemon it still says how far behind the peer is.
    cluster
        .east()
        .sql("insert into t select g, repeat('x', 1000) from generate_series(2, 500) g")
        .await;
    let link = cluster.link_status("east", "west").await.unwrap();
    assert!(link["lag"]["bytes"].as_u64().unwrap() > 100_000, "{link}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_shows_as_lag() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let locker = cluster.west().client().await;
    pg::execute(&locker, "begin; lock table t in access exclusive mode").await;
    let rows = "insert into t select n, 'x' from generate_series(1, 500) n";
    cluster.east().sql(rows).await;
    let link = wait_until("the age of the waiting commit", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let age = link["lag"]["seconds"].as_f64().unwrap_or(0.0);
        ensure(age > 1.0, || link.to_string())?;
        Ok::<_, String>(link)
    })
    .await;
    // Rows are counted, not transactions, and fit into what is said to be the most.
    let bound = |name: &str| link["bounds"][name].as_u64().unwrap();
    assert_eq!(bound("queue_rows"), 500, "{link}");
    assert!(bound("queue_rows_max") > bound("window_rows"), "{link}");
    // What the source says of itself: all of it was sent, and nothing that is not there.
    let lsn = |name: &str| -> Lsn { link["lsn"][name].as_str().unwrap().parse().unwrap() };
    assert!(
        lsn("applied") < lsn("sent") && lsn("received") <= lsn("sent"),
        "{link}"
    );
    pg::execute(&locker, "commit").await;
    cluster.wait_equal().await;
    wait_until("an empty queue", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        ensure(link["bounds"]["queue_rows"] == 0, || link.to_string())
    })
    .await;
    cluster.wait_streaming().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_daemon_ends_quickly_and_well() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    for name in ["east", "west"] {
        let start = std::time::Instant::now();
        assert!(cluster.take_daemon(name).terminate().success());
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{name} took {:?}",
            start.elapsed()
        );
    }
}
