//! What `init` made is changed behind our back: it is named, it is mended, and nothing is silent.

use serde_json::Value;

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const TABLES: &str = "
create table t (id int primary key, v text);
create table u (id int primary key, v text);
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);";

pub(super) async fn running(majors: &[u32], schema: &str) -> Cluster {
    let options = ClusterOptions {
        majors: majors.to_vec(),
        ..ClusterOptions::pair()
    };
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    cluster
}

/// The damage that the status shows of `node`.
pub(super) async fn damage(cluster: &Cluster, node: &str) -> Result<Vec<Value>, String> {
    let status = cluster.status().await?;
    let nodes = status["nodes"].as_array().ok_or("no nodes")?;
    let found = nodes.iter().find(|found| found["node"] == node);
    let damage = found.ok_or("the node is not told of")?["damage"].as_array();
    Ok(damage.cloned().unwrap_or_default())
}

/// Waits until the status names this of `node`; gives the entry.
pub(super) async fn shown(cluster: &Cluster, node: &str, words: &str) -> Value {
    wait_until(&format!("`{words}` of {node}"), LIMIT, async || {
        let damage = damage(cluster, node).await?;
        let says = |entry: &&Value| entry["what"].as_str().unwrap_or("").contains(words);
        damage
            .iter()
            .find(says)
            .cloned()
            .ok_or_else(|| format!("{damage:?}"))
    })
    .await
}

/// Waits until no node has damage.
pub(super) async fn all_well(cluster: &Cluster) {
    wait_until("no damage", LIMIT, async || {
        for node in &cluster.nodes {
            let damage = damage(cluster, node.name).await?;
            ensure(damage.is_empty(), || format!("{}: {damage:?}", node.name))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

/// A row written on each node comes to be on the other.
pub(super) async fn replicates(cluster: &Cluster, table: &str, columns: &str) {
    for node in &cluster.nodes {
        let id = if node.name == "east" { 9001 } else { 9002 };
        node.sql(&format!("insert into {table} ({columns}) values ({id}, 1)"))
            .await;
    }
    let count = format!("select count(*) from {table} where id in (9001, 9002)");
    super::init::soon(cluster, &count, "2").await;
    cluster
        .east()
        .sql(&format!("delete from {table} where id in (9001, 9002)"))
        .await;
    super::init::soon(cluster, &count, "0").await;
}

/// Every damage to a table that `init` mends with the daemons running: what was done, the words
/// that the status and `check` have, whether rows get lost by it.
const MENDED: [(&str, &str, bool); 15] = [
    (
        "alter publication mmrepl drop table t",
        "table public.t takes part and is not",
        false,
    ),
    (
        "alter publication mmrepl set (publish = 'insert, update')",
        "does not send deletes",
        true,
    ),
    (
        "alter publication mmrepl set (publish_via_partition_root = false)",
        "names of partitions",
        true,
    ),
    (
        "alter table t disable trigger all",
        "trigger mmrepl_delete is disabled",
        true,
    ),
    (
        "alter table t disable trigger all; alter table t enable trigger all",
        "does not fire",
        true,
    ),
    (
        "drop trigger mmrepl_delete on t",
        "mmrepl_delete is missing",
        true,
    ),
    (
        "drop trigger mmrepl_rekey on t; create trigger mmrepl_rekey after update on t
      for each statement execute function mmrepl.leave_truncate_tombstone()",
        "mmrepl_rekey is not as",
        true,
    ),
    (
        "do $$ begin execute 'create or replace function mmrepl.deleted_' || 't'::regclass::oid
      || '() returns trigger language plpgsql as ''begin return null; end''' ; end $$",
        "mmrepl_delete has a function that is missing or was replaced",
        true,
    ),
    (
        "alter table t replica identity nothing",
        "replica identity nothing",
        false,
    ),
    (
        "alter table t replica identity full; alter table t replica identity nothing",
        "identity nothing",
        false,
    ),
    (
        "alter table t rename to t_old; create table t (like t_old including all);
      drop table t_old",
        "table public.t takes part and is not",
        false,
    ),
    (
        "begin; create table t_new (like t including all); alter table t rename to t_old;
      alter table t_new rename to t; drop table t_old; commit",
        "table public.t takes part",
        false,
    ),
    (
        "create table p2 partition of p for values from (10) to (20);
      drop trigger mmrepl_truncate_partition on p2",
        "mmrepl_truncate_partition is missing",
        true,
    ),
    (
        "alter table p disable trigger all",
        "mmrepl_root_delete",
        true,
    ),
    (
        "create table fresh (id int primary key, v text)",
        "table public.fresh takes part and is not",
        false,
    ),
];

on_usual_majors!(
    what_changed_is_named_and_mended_beside_the_daemons,
    super::named_and_mended
);

async fn named_and_mended(majors: &[u32]) {
    let cluster = running(majors, TABLES).await;
    for (sql, words, loses) in MENDED {
        let both = sql.starts_with("create table");
        let nodes = if both {
            &cluster.nodes[..]
        } else {
            &cluster.nodes[..1]
        };
        for node in nodes {
            node.sql(sql).await;
        }
        let entry = shown(&cluster, "east", words).await;
        assert_eq!(entry["loses_rows"], loses, "{sql}: {entry}");
        let status = cluster.mmrepl(&["status"]).await;
        assert_eq!(status.status.code(), Some(1), "{sql}");
        let check = cluster.mmrepl_fails(&["check"]).await;
        assert!(
            check.contains(words) && check.contains("mmrepl init"),
            "{sql}: {check}"
        );
        cluster.mmrepl_ok(&["init"]).await;
        let check = cluster.mmrepl(&["check"]).await;
        assert!(check.status.success(), "{sql}: {check:?}");
        all_well(&cluster).await;
        let again = cluster.mmrepl_ok(&["init"]).await;
        assert!(again.ends_with("nothing to do\n"), "{sql}: {again}");
        replicates(&cluster, "t", "id, v").await;
    }
    replicates(&cluster, "p", "id, k").await;
    let log = cluster.log("east");
    assert_eq!(
        log.matches("does not send deletes").count(),
        1,
        "once per change: {log}"
    );
}

/// What `init` made in its own schema and beside it: what was done, and the words that are shown.
const OF_OURS: [(&str, &str); 4] = [
    (
        "create or replace function mmrepl.leave_truncate_tombstone() returns trigger
         language plpgsql as 'begin return null; end'",
        "function mmrepl.leave_truncate_tombstone is missing or was replaced",
    ),
    (
        "drop function mmrepl.version_aside(text[], text[], text)",
        "function mmrepl.version_aside is missing",
    ),
    (
        "alter table mmrepl.rewrite disable trigger mmrepl_commits",
        "mmrepl_commits on mmrepl.rewrite is missing or disabled",
    ),
    (
        "alter event trigger mmrepl_rewrite_ends disable; drop event trigger mmrepl_subscription",
        "missing or disabled: mmrepl_rewrite_ends, mmrepl_subscription",
    ),
];

on_usual_majors!(what_init_made_beside_tables_is_mended, super::of_ours);

async fn of_ours(majors: &[u32]) {
    let mut cluster = running(majors, TABLES).await;
    for (sql, _) in OF_OURS {
        cluster.east().sql(sql).await;
    }
    for (_, words) in OF_OURS {
        shown(&cluster, "east", words).await;
    }
    let check = cluster.mmrepl_fails(&["check"]).await;
    for (_, words) in OF_OURS {
        assert!(check.contains(words), "{words}: {check}");
    }
    mended(&cluster).await;

    // A publication for all tables cannot be altered into one of some.
    cluster.allow_error("");
    let all = "drop publication mmrepl; create publication mmrepl for all tables";
    cluster.east().sql(all).await;
    shown(&cluster, "east", "is for all tables").await;
    mended(&cluster).await;

    cluster.stop_daemons();
    let origin = format!("mmrepl_{}_west", cluster.name);
    let drop = format!("select pg_replication_origin_drop('{origin}')");
    cluster.east().value(&drop).await;
    cluster.rewrite_config("[tables]\nexclude = [\"public.u\"]\n");
    cluster.start_daemons();
    shown(
        &cluster,
        "east",
        &format!("replication origin {origin} is gone"),
    )
    .await;
    shown(&cluster, "east", "table public.u does not take part").await;
    mended(&cluster).await;

    cluster.east().sql("drop schema mmrepl cascade").await;
    shown(&cluster, "east", "schema mmrepl is not there").await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert!(said.contains("init --copy-from west"), "{said}");
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    cluster.start_daemons();
    mended(&cluster).await;
}

async fn mended(cluster: &Cluster) {
    cluster.mmrepl_ok(&["init"]).await;
    cluster.wait_streaming().await;
    all_well(cluster).await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    replicates(cluster, "t", "id, v").await;
}
