//! Messages that a role without rights writes into a node's WAL say nothing about the cluster.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pg};

const SCHEMA: &str = "create table t (id int primary key, v text)";

/// Claims that east had applied everything of west up to the year 2100.
fn claim(cluster: &Cluster, more: &str) -> String {
    let name = &cluster.name;
    format!(
        "select pg_logical_emit_message(false, 'mmrepl',
            'applied {name} west 0/1 4102444800000000{more}')"
    )
}

async fn says_nothing(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    let fill = "insert into t select i, 'a' from generate_series(1, 9) i";
    cluster.write_on(cluster.east(), fill).await;
    let role = format!("forger_{}", cluster.name);
    cluster.east().sql(&format!("create role {role}")).await;
    let east = cluster.east().client().await;
    pg::execute(&east, &format!("set role {role}")).await;
    let read = pg::try_rows(&east, "select * from mmrepl.secret").await;
    assert!(read.is_err(), "a role without rights reads the secret");
    for (id, more) in [(1, ""), (2, " x"), (3, &format!(" {}", "0".repeat(64)))] {
        pg::execute(&east, &claim(&cluster, more)).await;
        let set = |v: &str| format!("update t set v = '{v}{id}' where id = {id}");
        cluster.write_apart(&set("east"), &set("west")).await;
        assert_eq!(conflicts(&cluster).await, 2 * id, "{more}");
    }
    // What east had applied in truth is known: edits in turn are none.
    for v in ["b", "c", "d"] {
        let set = format!("update t set v = '{v}' where id = 5");
        cluster.write_on(cluster.east(), &set).await;
        cluster
            .write_on(cluster.west(), &set.replace("set v = '", "set v = '2"))
            .await;
    }
    assert_eq!(conflicts(&cluster).await, 6);
    cluster.east().sql(&format!("drop role {role}")).await;
}
on_usual_majors!(a_forged_marker_says_nothing, super::says_nothing);

async fn conflicts(cluster: &Cluster) -> i64 {
    let count = "select count(*) from mmrepl.conflict";
    let mut all = 0;
    for node in &cluster.nodes {
        all += node.value(count).await.parse::<i64>().unwrap();
    }
    all
}
