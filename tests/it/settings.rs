//! Whatever a database or a role is set to, our own sessions do not depend on it.

use std::fmt::Write as _;

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pg};

const SCHEMA: &str = "
    create table t (id int primary key, v text, at timestamptz default 'now');
    create table counted (id int primary key, n int, v text);
    create table parted (id int primary key, v text) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (100);
    create table plain (a int, b text);";

const RULES: &str = "
[conflict]
max_clock_skew = \"20s\"

[[conflict.table]]
name = \"public.counted\"
strategy = \"hybrid_clock\"
";

/// Each of these ends, hides or changes something for a session that does not set it itself.
const HOSTILE: [(&str, &str); 24] = [
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "2ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "3ms"),
    ("idle_session_timeout", "20ms"),
    ("search_path", "nowhere"),
    ("client_encoding", "LATIN1"),
    ("synchronous_commit", "off"),
    ("session_replication_role", "replica"),
    ("row_security", "on"),
    ("quote_all_identifiers", "on"),
    ("transform_null_equals", "on"),
    ("standard_conforming_strings", "off"),
    ("datestyle", "German, DMY"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "Asia/Kathmandu"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-10"),
    ("array_nulls", "off"),
    ("lc_monetary", "C"),
    ("client_min_messages", "debug1"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// A superuser with these settings, and one that is no superuser as the role of its sessions.
async fn hostile_role(cluster: &Cluster, major: u32) -> String {
    let role = format!("r_{}", cluster.name);
    let mut sql = format!("create role {role} superuser login; create role {role}_none;");
    let since_17 = (major >= 17).then_some(("transaction_timeout", "20ms"));
    for (name, value) in HOSTILE.iter().chain(&since_17) {
        let _ = write!(sql, "alter role {role} set {name} = '{value}';");
    }
    let _ = write!(sql, "alter role {role} set role = {role}_none;");
    cluster.sql_everywhere(&sql).await;
    role
}

async fn nothing_matters(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let mut cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SCHEMA).await;
    let role = hostile_role(&cluster, majors[0]).await;
    cluster.log_in_as(&role);
    cluster
        .east()
        .sql("insert into t select i, 'from the start' from generate_series(1, 5000) i")
        .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let everywhere = "
        insert into t select 10000 + 10000 * $n + i, 'x' from generate_series(1, 3000) i;
        insert into counted values ($n, 1, 'a'); update counted set n = n + 1 where id = $n;
        insert into parted values ($n, 'p'); insert into plain values ($n, null);
        delete from t where id % 10 = $n; update t set v = 'again' where id % 10 = $n + 2;";
    cluster.east().sql(&everywhere.replace("$n", "1")).await;
    cluster.west().sql(&everywhere.replace("$n", "2")).await;
    cluster.wait_equal().await;
    cluster
        .write_apart(
            "update t set v = 'east' where id = 9; delete from counted where id = 1",
            "update t set v = 'west' where id = 9; update counted set v = 'b' where id = 1",
        )
        .await;
    restores(&cluster).await;
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing to do"));
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    let drop = format!("drop role {role}; drop role {role}_none");
    cluster.sql_everywhere(&drop).await;
}
on_usual_majors!(
    what_a_role_is_set_to_does_not_matter,
    super::nothing_matters
);

/// A row that is brought back is a new write: it fires triggers and is replicated.
async fn restores(cluster: &Cluster) {
    let find = "select 'east' || '-' || id from mmrepl.conflict where table_name = 't'";
    let found = pg::rows(&cluster.east().client().await, find).await;
    let (node, id) = match found.first().and_then(|row| row[0].clone()) {
        Some(id) => ("east", id),
        None => (
            "west",
            cluster.west().value(&find.replace("east", "west")).await,
        ),
    };
    let before = cluster
        .node(node)
        .value("select v from t where id = 9")
        .await;
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    assert_ne!(
        cluster.east().value("select v from t where id = 9").await,
        before
    );
}
