//! A transaction that the source has sent but does not show yet: it is in the WAL, and its session
//! still waits for a synchronous standby. A large value must not be read from the row before it.

use std::time::Duration;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, pg, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_is_read_once_the_source_shows_the_change() {
    let options = ClusterOptions::pair().own_servers();
    let schema = "create table t (id int primary key, large text not null);
        alter table t alter column large set storage external";
    let mut cluster = Cluster::running_with(options, schema).await;
    cluster.allow_error("does not show yet");
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (1, repeat('moved', 1000)), (2, repeat('gone', 1000))")
        .await;
    cluster.wait_equal().await;
    let standbys = |names: &str| {
        let set = format!("alter system set synchronous_standby_names = '{names}'");
        [set, "select pg_reload_conf()".to_owned()]
    };
    let writer = cluster.east().client().await;
    pg::execute(&writer, "set synchronous_commit = on").await;
    for statement in standbys("nobody") {
        cluster.east().sql(&statement).await;
    }
    wait_until("the setting to be there", LIMIT, async || {
        let names = pg::value(&writer, "show synchronous_standby_names").await;
        ensure(names == "nobody", || names)
    })
    .await;
    let written = tokio::spawn(async move {
        let move_row =
            "begin; delete from t where id = 2; update t set id = 2 where id = 1; commit";
        pg::execute(&writer, move_row).await;
    });
    wait_until("the link to look in vain", LIMIT, async || {
        let status = cluster.link_status("east", "west").await?;
        let retries = status["totals"]["retries"].as_u64().unwrap_or(0);
        ensure(retries > 0 || status["state"] == "retrying", || {
            status.to_string()
        })
    })
    .await;
    assert!(!written.is_finished(), "the commit had to wait");
    for statement in standbys("") {
        cluster.east().sql(&statement).await;
    }
    written.await.unwrap();
    cluster.wait_equal().await;
    let moved = "select id || left(large, 5) from t";
    assert_eq!(cluster.west().value(moved).await, "2moved");
}
