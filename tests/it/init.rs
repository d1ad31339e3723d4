//! `init`, `check` and `drop` on real servers.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

pub(super) const PLAIN: &str = "create table t (id int primary key, v text)";

/// Tables of every shape that init treats differently.
pub(super) const SHAPES: &str = r#"
create extension if not exists citext;
create table t (id int primary key, v text);
create table "Ünï ""q"".x" ("K é" int primary key, "a.b" text);
create table uq (a int not null unique, v text);
create table nokey (a int, b text);
create table deferred (id int primary key deferrable, v text);
create table own_full (id int primary key); alter table own_full replica identity full;
create table own_none (id int primary key); alter table own_none replica identity nothing;
create table own_index (id int primary key, u int not null unique);
alter table own_index replica identity using index own_index_u_key;
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);
create table p2 partition of p for values from (10) to (20) partition by list (k);
create table p21 partition of p2 for values in (10, 11, 12);
create table pu (id int not null, k int not null, unique (id, k)) partition by range (k);
create table pu1 partition of pu for values from (0) to (10);
create table pn (k int) partition by range (k);
create table pn1 partition of pn for values from (0) to (10);
create unlogged table ul (id int primary key);
"#;

/// Everything that init makes or changes, as one text.
const TRACES: &str = "
select string_agg(line, chr(10) order by line) from (
    select 'schema ' || nspname from pg_namespace where nspname = 'mmrepl'
    union all select 'publication ' || pubname from pg_publication
    union all select 'published ' || prrelid::regclass from pg_publication_rel
    union all select 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text
        from pg_trigger where tgname like 'mmrepl%'
    union all select 'identity ' || oid::regclass || ' ' || relreplident::text from pg_class
        where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
    union all select 'slot ' || slot_name from pg_replication_slots
        where database = current_database()
    union all select 'origin ' || roname from pg_replication_origin
        where roname like 'mmrepl\\_NAME\\_%'
) l(line)";

const TRIGGERS: &str =
    "select string_agg(tgname || tgenabled::text, ' ' order by tgname) from pg_trigger";

async fn traces(cluster: &Cluster) -> Vec<String> {
    let sql = TRACES.replace("NAME", &cluster.name.replace('_', "\\_"));
    let mut found = Vec::new();
    for node in &cluster.nodes {
        found.push(node.value(&sql).await);
    }
    found
}

pub(super) fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

pub(super) async fn pair(schema: &str) -> Cluster {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(schema).await;
    cluster
}

/// Rows of a query on both nodes are the same, and are these.
pub(super) async fn both_have(cluster: &Cluster, query: &str, value: &str) {
    for node in &cluster.nodes {
        assert_eq!(node.value(query).await, value, "{query} on {}", node.name);
    }
}

/// The query comes to give this value on both nodes.
pub(super) async fn soon(cluster: &Cluster, query: &str, value: &str) {
    for node in &cluster.nodes {
        wait_until(query, LIMIT, async || {
            let found = node.value(query).await;
            ensure(found == value, || format!("{found} on {}", node.name))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_has_nothing_to_do() {
    let cluster = pair(SHAPES).await;
    let first = cluster.mmrepl_ok(&["init"]).await;
    assert!(first.ends_with("done\n"), "{first}");
    let after = traces(&cluster).await;
    let second = cluster.mmrepl_ok(&["init"]).await;
    assert!(second.ends_with("nothing to do\n"), "{second}");
    assert_eq!(traces(&cluster).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_sql_and_changes_nothing() {
    let cluster = pair(SHAPES).await;
    let before = traces(&cluster).await;
    let shown = cluster.mmrepl_ok(&["init", "--dry-run"]).await;
    assert_says(
        &shown,
        &[
            "create publication",
            "enable always trigger",
            "migrations/tables/001_nodes.sql",
            "nothing was changed",
        ],
    );
    assert_eq!(traces(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_leaves_nothing_behind() {
    let cluster = pair(SHAPES).await;
    let before = traces(&cluster).await;
    cluster.init().await;
    assert_ne!(traces(&cluster).await, before);
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    assert_eq!(traces(&cluster).await, before);
    let again = cluster.mmrepl_ok(&["drop", "--yes"]).await;
    assert_says(&again, &["east: nothing to drop", "west: nothing to drop"]);
    cluster.init().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_identities_carry_the_key_and_keep_what_users_chose() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let identities = "
        select string_agg(relname || ' ' || relreplident::text, ',' order by relname collate \"C\")
        from pg_class where relnamespace = 'public'::regnamespace
          and relkind in ('r', 'p') and relpersistence = 'p'";
    let expected = "deferred f,nokey f,own_full f,own_index f,own_none d,p d,p1 d,p2 d,p21 d,\
        pn f,pn1 f,pu i,pu1 i,t d,uq i,Ünï \"q\".x d";
    both_have(&cluster, identities, expected).await;
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    let expected = "deferred d,nokey d,own_full f,own_index i,own_none n,p d,p1 d,p2 d,p21 d,\
        pn d,pn1 d,pu d,pu1 d,t d,uq d,Ünï \"q\".x d";
    both_have(&cluster, identities, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_refused_and_made_anew_on_demand() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let slot = format!("mmrepl_{}_west", cluster.name);
    cluster
        .east()
        .sql(&format!("select pg_drop_replication_slot('{slot}')"))
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "east->west",
            "its replication slot is gone",
            "--copy-from east",
            "--assume-identical",
        ],
    );
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    // A slot that begins after the target's position: the same.
    cluster
        .west()
        .sql("update mmrepl.apply_position set end_lsn = '0/1'")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["east->west", "begins at", "the target's position"]);
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.mmrepl_ok(&["init"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_completed() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    // As if it had stopped before the position rows, and before one trigger.
    cluster
        .sql_everywhere("delete from mmrepl.apply_position")
        .await;
    cluster
        .east()
        .sql("drop trigger mmrepl_rekey on t; alter publication mmrepl drop table t")
        .await;
    cluster
        .west()
        .sql("alter table t disable trigger mmrepl_delete; delete from mmrepl.node where not here")
        .await;
    cluster.mmrepl_ok(&["init"]).await;
    both_have(
        &cluster,
        &format!("{TRIGGERS} where tgrelid = 't'::regclass and tgname like 'mmrepl%'"),
        "mmrepl_deleteA mmrepl_delete_rowR mmrepl_rekeyA mmrepl_truncateA",
    )
    .await;
    both_have(&cluster, "select count(*) from mmrepl.apply_position", "1").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_completed_by_another_run() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    // With them the partition would have its triggers at once.
    let alone =
        "drop event trigger mmrepl_release_columns; drop event trigger mmrepl_follow_tables";
    cluster.sql_everywhere(alone).await;
    cluster
        .sql_everywhere("create table p3 partition of p for values from (20) to (30)")
        .await;
    let said = cluster.mmrepl_ok(&["init"]).await;
    assert!(said.ends_with("done\n"), "{said}");
    both_have(
        &cluster,
        &format!("{TRIGGERS} where tgrelid = 'p3'::regclass"),
        "mmrepl_root_deleteA mmrepl_root_rekeyA mmrepl_truncate_partitionA",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_set_up_as_another_node_is_refused() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let swap = "update mmrepl.node set here = false;
        update mmrepl.node set here = true where name = 'west'";
    cluster.east().sql(swap).await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["east", "was set up as node west"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_refuses_while_a_daemon_runs_and_goes_on_without_an_unreachable_node() {
    let mut cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster.start_daemons();
    let active =
        "select count(*) from pg_replication_slots where database = current_database() and active";
    soon(&cluster, active, "1").await;
    let said = cluster.mmrepl_fails(&["drop", "--yes"]).await;
    assert_says(&said, &["is in use: stop the daemon of east"]);
    both_have(&cluster, "select count(*) from pg_publication", "1").await;
    cluster.stop_daemons();
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let port = format!("port={} ", cluster.west().server().port());
    assert!(config.contains(&port), "{config}");
    std::fs::write(cluster.config(), config.replace(&port, "port=1 ")).unwrap();
    let said = cluster.mmrepl_fails(&["drop", "--yes"]).await;
    assert_says(
        &said,
        &[
            "east: dropped slot",
            "node west: ",
            "mmrepl drop --node west",
        ],
    );
    cluster.rewrite_config("");
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    both_have(&cluster, "select count(*) from pg_publication", "0").await;
}
