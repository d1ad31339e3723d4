//! Tombstones go when nobody needs them any more, and not before.

use serde_json::Value;

use crate::on_every_major;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const TABLE: &str = "create table t (id int primary key, v text)";
const SHORT: &str = "\n[conflict]\ntombstones = \"1s\"\n";
const COUNT: &str = "select (select count(*) from mmrepl.tombstone)
    + (select count(*) from mmrepl.keys_in_blocks())";

async fn pair(majors: &[u32]) -> Cluster {
    Cluster::running_with(ClusterOptions::majors(majors).config(SHORT), TABLE).await
}

async fn usual() -> Cluster {
    pair(&[crate::support::pool::usual_major(); 2]).await
}

async fn wait_count(cluster: &Cluster, node: &str, sql: &str, expected: &str) {
    wait_until(&format!("{sql} on {node}"), LIMIT, async || {
        let found = cluster.node(node).value(sql).await;
        ensure(found == expected, || found)
    })
    .await;
}

/// Waits until the daemon of a node says that its tombstones wait for this.
async fn wait_reason(cluster: &Cluster, node: &str, text: &str) {
    let fits = |said: &Value| {
        let reason = said["waits_for"].as_str();
        reason.is_some_and(|reason| reason.contains(text))
    };
    wait_tombstones(cluster, node, fits).await;
}

/// What the daemon of a node says about its tombstones, once it fits.
async fn wait_tombstones(cluster: &Cluster, node: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("the tombstones of {node}"), LIMIT, async || {
        let status = cluster.status().await?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let found = nodes.iter().find(|about| about["node"] == node);
        let found = found.map(|about| about["tombstones"].clone());
        let found = found.ok_or_else(|| format!("no {node} in {status}"))?;
        ensure(fits(&found), || found.to_string())?;
        Ok::<_, String>(found)
    })
    .await
}

async fn go_on_idle_nodes(majors: &[u32]) {
    let cluster = pair(majors).await;
    cluster.wait_streaming().await;
    for (node, first) in [(cluster.east(), 1), (cluster.west(), 5001)] {
        let fill = format!("insert into t select {first} + n, 'x' from generate_series(0, 2499) n");
        node.sql(&fill).await;
        let gone = format!("delete from t where id between {first} and {first} + 2499");
        node.sql(&gone).await;
    }
    // From here on nobody writes anything.
    for node in ["east", "west"] {
        wait_count(&cluster, node, COUNT, "0").await;
        let said = wait_tombstones(&cluster, node, |said| said["kept"] == 0).await;
        assert!(said["pruned"].as_u64() >= Some(2500), "{said}");
        assert!(said["waits_for"].is_null(), "{said}");
    }
    cluster.wait_equal().await;
}
on_every_major!(
    tombstones_go_although_every_node_is_idle,
    super::go_on_idle_nodes
);

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_away_keeps_the_tombstones_and_finds_them_when_it_comes_back() {
    let mut cluster = usual().await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'old')").await;
    wait_count(&cluster, "west", "select count(*) from t", "1").await;
    // West's daemon is away: its update is older than east's delete and arrives after it.
    cluster.take_daemon("west").terminate();
    cluster.west().sql("update t set v = 'older'").await;
    cluster.east().sql("delete from t").await;
    wait_reason(&cluster, "east", "east has not applied west").await;
    // Several periods pass in which everything else would allow the tombstone to go.
    let rounds =
        "select (clock_timestamp() - left_at > interval '5 s')::text from mmrepl.tombstone";
    wait_count(&cluster, "east", rounds, "true").await;

    cluster.start_daemon("west");
    for node in ["east", "west"] {
        wait_count(&cluster, node, COUNT, "0").await;
        wait_count(&cluster, node, "select count(*) from t", "0").await;
    }
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_link_keeps_the_tombstones_of_both_ends() {
    let cluster = usual().await;
    cluster.wait_streaming().await;
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    for (node, id) in [("east", 1), ("west", 2)] {
        let all = format!("insert into t values ({id}, 'x'); delete from t where id = {id}");
        cluster.node(node).sql(&all).await;
    }
    for node in ["east", "west"] {
        wait_reason(&cluster, node, "west has not applied east").await;
        assert_eq!(cluster.node(node).value(COUNT).await, "1");
    }
    let table = cluster.mmrepl(&["status"]).await;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("keeps 1 tombstones"), "{table}");
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    wait_count(&cluster, "east", COUNT, "0").await;
    wait_count(&cluster, "west", COUNT, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tombstone_of_a_transaction_that_ends_late_is_not_taken_for_an_old_one() {
    let cluster = usual().await;
    cluster.wait_streaming().await;
    let east = cluster.east();
    east.sql("insert into t values (1, 'x'), (2, 'y')").await;
    let late = east.client().await;
    crate::support::pg::execute(&late, "begin; delete from t where id = 1").await;
    east.sql("delete from t where id = 2").await;
    // Any other transaction of a higher number has to wait for the open one.
    let aged = "select (clock_timestamp() - left_at > interval '4 s')::text from mmrepl.tombstone";
    wait_count(&cluster, "east", aged, "true").await;
    crate::support::pg::execute(&late, "commit").await;
    wait_count(&cluster, "east", COUNT, "0").await;
    wait_count(&cluster, "west", "select count(*) from t", "0").await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_wait_for_the_slowest_of_their_links() {
    let major = crate::support::pool::usual_major();
    let cluster = pair(&[major; 3]).await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    for node in ["west", "north"] {
        wait_count(&cluster, node, "select count(*) from t", "1").await;
    }
    cluster.mmrepl_ok(&["pause", "north->west"]).await;
    cluster.wait_state("north", "west", &["paused"]).await;
    // Older than the delete, and on its way to west only.
    cluster.node("north").sql("update t set v = 'older'").await;
    wait_count(&cluster, "east", "select v from t", "older").await;
    cluster.east().sql("delete from t").await;
    for node in ["east", "west", "north"] {
        wait_reason(&cluster, node, "west has not applied north").await;
    }
    cluster.mmrepl_ok(&["resume", "north->west"]).await;
    for node in ["east", "west", "north"] {
        wait_count(&cluster, node, COUNT, "0").await;
        wait_count(&cluster, node, "select count(*) from t", "0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_younger_than_the_retention_stay_and_are_counted() {
    let cluster = Cluster::running(TABLE).await;
    cluster.wait_streaming().await;
    for (node, id) in [("east", 1), ("west", 3)] {
        let all = format!(
            "insert into t values ({id}, 'x'), ({id} + 1, 'y');
             delete from t where id in ({id}, {id} + 1)"
        );
        cluster.node(node).sql(&all).await;
    }
    for node in ["east", "west"] {
        let said = wait_tombstones(&cluster, node, |said| said["kept"] == 2).await;
        assert_eq!(said["pruned"], 0, "{said}");
        assert!(said["oldest"].is_string() && said["waits_for"].is_null());
        assert_eq!(cluster.node(node).value(COUNT).await, "2");
    }
}
