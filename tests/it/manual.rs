//! Rule `manual`: what a write did not know waits for a person.

use serde_json::Value;

use crate::on_every_major;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, wait_until};

const SCHEMA: &str = "create table t (id int primary key, v text, big text);
    alter table t alter big set storage external";
const MANUAL: &str = "[conflict]\nstrategy = \"manual\"\n";
const LARGE: &str = "repeat('x', 9000)";

async fn running(majors: &[u32]) -> Cluster {
    let options = ClusterOptions::majors(majors).config(MANUAL);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
}

/// Writes of both nodes, neither knowing of the other's; then all of it has been applied.
async fn apart(cluster: &Cluster, east: &str, west: &str) {
    cluster.write_unknowing(east, west).await;
    cluster.settle().await;
}

/// What waits on a node, the oldest first: `east-17`.
async fn waiting(node: &Node) -> Vec<String> {
    let sql = format!(
        "select '{}-' || id from mmrepl.conflict
         where outcome = 'pending' and resolved_at is null order by id",
        node.name
    );
    node.rows(&sql)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

async fn only(node: &Node) -> String {
    let mut all = waiting(node).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn value(node: &Node) -> String {
    let sql = "select coalesce(string_agg(id || v, ' ' order by id), 'none') from t";
    node.value(sql).await
}

async fn resolve(cluster: &Cluster, id: &str, take: &str) -> String {
    cluster
        .mmrepl_ok(&["conflicts", "resolve", id, "--take", take])
        .await
}

async fn nothing_waits(cluster: &Cluster) {
    cluster.settle().await;
    for node in &cluster.nodes {
        assert_eq!(waiting(node).await, Vec::<String>::new(), "{}", node.name);
    }
}

async fn pending_in_status(cluster: &Cluster, count: u64) {
    wait_until("status to count what waits", LIMIT, async || {
        let link = cluster.link_status("west", "east").await?;
        let there = link["pending_conflicts"].as_u64();
        ensure(there == Some(count), || format!("{there:?}"))
    })
    .await;
}

/// One after the other: each knows the other's.
async fn known_edits(cluster: &Cluster) {
    let (east, west) = (cluster.east(), cluster.west());
    east.sql(&format!(
        "insert into t select g, 'a', {LARGE} from generate_series(1, 3) g"
    ))
    .await;
    cluster.wait_equal().await;
    west.sql("update t set v = 'b'").await;
    cluster.wait_equal().await;
    east.sql("update t set v = 'c'").await;
    cluster.wait_equal().await;
    nothing_waits(cluster).await;
}

async fn both_sides_wait(majors: &[u32]) {
    let cluster = running(majors).await;
    let (east, west) = (cluster.east(), cluster.west());
    known_edits(&cluster).await;
    apart(
        &cluster,
        "update t set v = 'e' where id = 1",
        "update t set v = 'w' where id < 3",
    )
    .await;
    assert_eq!(
        [value(east).await, value(west).await],
        ["1e 2w 3c", "1w 2w 3c"]
    );
    let (here, there) = (only(east).await, only(west).await);
    pending_in_status(&cluster, 1).await;
    let listed = cluster
        .mmrepl_ok(&["conflicts", "list", "--pending", "--json"])
        .await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["conflicts"].as_array().unwrap().len(), 2);
    let shown = cluster.mmrepl_ok(&["conflicts", "show", &here]).await;
    assert!(
        shown.contains("by manual: what was there stays until a person"),
        "{shown}"
    );
    // A later write of the same node waits in the place of the older one, with its own values.
    west.sql("update t set v = 'x' where id = 1").await;
    cluster.settle().await;
    let older = cluster
        .mmrepl_fails(&["conflicts", "resolve", &here, "--take", "remote"])
        .await;
    assert!(
        older.contains("a later write of west waits in its place"),
        "{older}"
    );
    let here = only(east).await;
    let said = resolve(&cluster, &here, "remote").await;
    assert!(
        said.contains("updated the row of public.t with what west has"),
        "{said}"
    );
    cluster.wait_equal().await;
    assert_eq!(value(east).await, "1x 2w 3c");
    nothing_waits(&cluster).await;
    pending_in_status(&cluster, 0).await;
    let again = cluster
        .mmrepl_fails(&["conflicts", "resolve", &here, "--take", "local"])
        .await;
    assert!(
        again.contains("it was resolved at") && again.contains("remote"),
        "{again}"
    );
    let superseded = ["conflicts", "resolve", &there, "--take", "local"];
    let superseded = cluster.mmrepl_fails(&superseded).await;
    assert!(
        superseded.contains("a later write that knew both"),
        "{superseded}"
    );
    let large = format!("select bool_and(big = {LARGE})::text from t");
    assert_eq!(west.value(&large).await, "true");
}
on_every_major!(
    what_was_written_apart_waits_on_both_sides,
    super::both_sides_wait
);

/// What east and west do apart, which side of east's record stays, what every node has then.
const DECISIONS: [(&str, &str, &str, &str); 9] = [
    (
        "update t set v = 'e' where id = 1",
        "delete from t where id = 1",
        "local",
        "1e 2a",
    ),
    (
        "update t set v = 'e' where id = 1",
        "delete from t where id = 1",
        "remote",
        "2a",
    ),
    (
        "delete from t where id = 1",
        "update t set v = 'w' where id = 1",
        "local",
        "2a",
    ),
    (
        "delete from t where id = 1",
        "update t set v = 'w' where id = 1",
        "remote",
        "1w 2a",
    ),
    (
        "insert into t values (3, 'e')",
        "insert into t values (3, 'w')",
        "local",
        "1a 2a 3e",
    ),
    (
        "insert into t values (3, 'e')",
        "insert into t values (3, 'w')",
        "remote",
        "1a 2a 3w",
    ),
    (
        "update t set id = 3 where id = 1",
        "insert into t values (3, 'w')",
        "remote",
        "2a 3w",
    ),
    (
        "delete from t where id = 1; insert into t values (1, 'e')",
        "update t set v = 'w' where id = 1",
        "remote",
        "1w 2a",
    ),
    (
        "truncate t",
        "update t set v = 'w' where id = 2",
        "remote",
        "2w",
    ),
];

async fn every_kind(majors: &[u32]) {
    let cluster = running(majors).await;
    let (east, west) = (cluster.east(), cluster.west());
    for (at_east, at_west, take, wanted) in DECISIONS {
        let what = format!("{at_east} / {at_west}, {take}");
        east.sql("delete from t; insert into t values (1, 'a'), (2, 'a')")
            .await;
        cluster.wait_equal().await;
        apart(&cluster, at_east, at_west).await;
        let id = only(east).await;
        assert_eq!(waiting(west).await.len(), 1, "{what}");
        resolve(&cluster, &id, take).await;
        cluster.wait_equal().await;
        assert_eq!(value(west).await, wanted, "{what}");
        nothing_waits(&cluster).await;
    }
    // Deleted on both sides: there is nothing to decide, and it can come back.
    apart(&cluster, "delete from t", "delete from t").await;
    nothing_waits(&cluster).await;
    west.sql("insert into t values (2, 'again')").await;
    cluster.wait_equal().await;
    assert_eq!(value(east).await, "2again");
    nothing_waits(&cluster).await;
}
on_every_major!(every_kind_of_conflict_is_decided, super::every_kind);

/// A person decides about what is there, not about what was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_written_since_is_shown_before_it_is_decided() {
    let cluster = running(&ClusterOptions::pair().majors).await;
    let east = cluster.east();
    east.sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    apart(&cluster, "update t set v = 'e'", "update t set v = 'w'").await;
    let id = only(east).await;
    east.sql("update t set v = 'e2'").await;
    let said = cluster
        .mmrepl_fails(&["conflicts", "resolve", &id, "--take", "remote"])
        .await;
    assert!(said.contains("was written again on east since"), "{said}");
    let shown = cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    assert!(shown.contains("e2"), "{shown}");
    east.sql("delete from t").await;
    let said = cluster
        .mmrepl_fails(&["conflicts", "resolve", &id, "--take", "remote"])
        .await;
    assert!(said.contains("was written again"), "{said}");
    resolve(&cluster, &id, "remote").await;
    cluster.wait_equal().await;
    assert_eq!(value(east).await, "1w");
    nothing_waits(&cluster).await;
    let said = cluster
        .mmrepl_fails(&["conflicts", "resolve", "east-99999", "--take", "local"])
        .await;
    assert!(said.contains("there is no conflict east-99999"), "{said}");
}

/// Deleted on the other side, then here as well: the two deletes become one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_on_both_sides_is_resolved_without_a_write() {
    let cluster = running(&ClusterOptions::pair().majors).await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    apart(&cluster, "update t set v = 'e'", "delete from t").await;
    let id = only(east).await;
    east.sql("delete from t").await;
    cluster
        .mmrepl_fails(&["conflicts", "resolve", &id, "--take", "local"])
        .await;
    let said = resolve(&cluster, &id, "local").await;
    assert!(said.contains("deleted on both sides"), "{said}");
    nothing_waits(&cluster).await;
    for node in [east, west] {
        node.sql("insert into t values (1, 'again')").await;
        cluster.wait_equal().await;
        node.sql("delete from t").await;
        cluster.wait_equal().await;
    }
    nothing_waits(&cluster).await;
}

/// However many there are, none is left out, and none goes with age.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_never_left_out_or_pruned() {
    let config = format!("{MANUAL}history_per_minute = 1\nhistory = \"1s\"\n");
    let options = ClusterOptions::pair().config(&config);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t select g, 'a' from generate_series(1, 200) g")
        .await;
    cluster.wait_equal().await;
    // One that nobody waits for is pruned; the others are as old by then.
    let old = "insert into mmrepl.conflict (source, target, schema_name, table_name, kind, rule,
            outcome, incoming_time, incoming_origin)
        values ('west', 'east', 'public', 'gone', 'update_update', 'manual', 'applied', now(), 0)";
    apart(&cluster, "update t set v = 'e'", "update t set v = 'w'").await;
    east.sql(old).await;
    let pruned = "select count(*) from mmrepl.conflict where table_name = 'gone'";
    wait_until("the history to be pruned", LIMIT, async || {
        let left = east.value(pruned).await;
        ensure(left == "0", || left.clone())
    })
    .await;
    assert_eq!(
        [waiting(east).await.len(), waiting(west).await.len()],
        [200, 200]
    );
}

/// Three nodes: two writes wait on each; each decision ends what it knows.
async fn three(majors: &[u32]) {
    let cluster = running(majors).await;
    let (east, west, north) = (cluster.east(), cluster.west(), cluster.node("north"));
    east.sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    cluster.pause_all().await;
    for node in &cluster.nodes {
        node.sql(&format!("update t set v = '{}'", node.name)).await;
    }
    cluster.resume_all().await;
    cluster.settle().await;
    for node in &cluster.nodes {
        assert_eq!(waiting(node).await.len(), 2, "{}", node.name);
        assert_eq!(value(node).await, format!("1{}", node.name));
    }
    let first = waiting(east).await.remove(0);
    resolve(&cluster, &first, "local").await;
    cluster.settle().await;
    let counts = [
        waiting(east).await.len(),
        waiting(west).await.len() + waiting(north).await.len(),
    ];
    assert_eq!(counts, [1, 3]);
    let last = only(east).await;
    resolve(&cluster, &last, "local").await;
    cluster.wait_equal().await;
    assert_eq!(value(north).await, "1east");
    nothing_waits(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_decided_step_by_step() {
    let usual = crate::support::pool::usual_major();
    three(&[usual; 3]).await;
}

/// Another rule in the same table before and after; `drop` takes the column away.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_come_from_another_rule() {
    let options = ClusterOptions::pair().config("[conflict]\nstrategy = \"hybrid_clock\"\n");
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (1, 'a'), (2, 'gone')")
        .await;
    cluster.wait_equal().await;
    cluster.west().sql("delete from t where id = 2").await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    cluster.rewrite_config(MANUAL);
    cluster.init().await;
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing"));
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (2, 'again')")
        .await;
    cluster.wait_equal().await;
    apart(
        &cluster,
        "update t set v = 'e'",
        "update t set v = 'w' where id = 1",
    )
    .await;
    let id = only(cluster.west()).await;
    resolve(&cluster, &id, "local").await;
    cluster.wait_equal().await;
    assert_eq!(value(cluster.east()).await, "1w 2e");
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    let ours = "select (select count(*) from pg_attribute where attname like 'mmrepl%'
            and not attisdropped)
        + (select count(*) from pg_trigger where tgname like 'mmrepl%')";
    assert_eq!(cluster.east().value(ours).await, "0");
}

/// Partitions, rows that move between them, keys that change.
async fn partitions(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text) partition by range (id);
        create table t1 partition of t for values from (0) to (10);
        create table t2 partition of t for values from (10) to (20)";
    let options = ClusterOptions::majors(majors).config(MANUAL);
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t values (1, 'a'), (2, 'b'), (11, 'c')")
        .await;
    cluster.wait_equal().await;
    let moves = "update t set id = 12 where id = 1; update t set id = 3 where id = 2;
        delete from t2 where id = 11";
    west.sql(moves).await;
    cluster.wait_equal().await;
    east.sql("update t set id = 1 where id = 12; insert into t values (11, 'd')")
        .await;
    cluster.wait_equal().await;
    nothing_waits(&cluster).await;
    // The old key is gone on one side and edited on the other; the new one is nobody else's.
    apart(
        &cluster,
        "update t set id = 12 where id = 1",
        "update t set v = 'w' where id = 1",
    )
    .await;
    let id = only(east).await;
    resolve(&cluster, &id, "local").await;
    cluster.wait_equal().await;
    assert_eq!(value(west).await, "3b 11d 12a");
    nothing_waits(&cluster).await;
}
on_every_major!(rows_that_move_between_partitions, super::partitions);

/// Versions have a place for each node in the order of the file: another order is refused.
#[tokio::test(flavor = "multi_thread")]
async fn another_order_of_the_nodes_is_refused() {
    let mut cluster = running(&ClusterOptions::pair().majors).await;
    cluster.stop_daemons();
    cluster.nodes.reverse();
    cluster.rewrite_config(MANUAL);
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert!(
        said.contains("have places for east, west: keep that order"),
        "{said}"
    );
    cluster.allow_error("have places for");
    cluster.start_daemons();
    let link = ("east", "west");
    cluster
        .wait_reason(link, &["blocked", "stopped"], "have places for east, west")
        .await;
    cluster.stop_daemons();
    cluster.nodes.reverse();
    cluster.rewrite_config(MANUAL);
    cluster.start_daemons();
    cluster.wait_streaming().await;
}
