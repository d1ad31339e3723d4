//! Two links that write the same key of one target at the same moment.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, pool, wait_until};

const SCHEMA: &str = "create table a (id int primary key); create table b (id int primary key)";

/// West's transaction has inserted the row on north but cannot commit; east's delete of it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_does_not_overtake_an_insert_of_another_link() {
    let majors = [pool::usual_major(); 3];
    let cluster = Cluster::running_with(ClusterOptions::majors(&majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let north = cluster.node("north").client().await;
    pg::execute(&north, "begin; lock table b in access share mode").await;
    cluster
        .west()
        .sql("begin; insert into a values (1); truncate b; commit")
        .await;
    wait_until("west's row on east", LIMIT, async || {
        let rows = cluster.east().value("select count(*) from a").await;
        ensure(rows == "1", || rows)
    })
    .await;
    let waits = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and not l.granted";
    wait_until("west's truncate to wait on north", LIMIT, async || {
        let waiting = cluster.node("north").value(waits).await;
        ensure(waiting == "1", || waiting)
    })
    .await;
    cluster.east().sql("delete from a").await;
    let met = format!("select ({waits}) + (select count(*) from mmrepl.tombstone where key <> '')");
    wait_until("east's delete to arrive on north", LIMIT, async || {
        let met = cluster.node("north").value(&met).await;
        ensure(met == "2", || met)
    })
    .await;
    pg::execute(&north, "rollback").await;
    cluster.wait_equal().await;
    assert_eq!(cluster.east().value("select count(*) from a").await, "0");
}
