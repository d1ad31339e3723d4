//! A table that is rewritten: its rows keep the versions that they had.

use crate::on_usual_majors;
use crate::support::pool::usual_major;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = "
    create table t (id int primary key, n int, v text);
    create schema other;
    create table other.u (n int, v text, k text, id int, primary key (k, id));
    create table parts (id int, day int, n int, v text, primary key (id, day))
        partition by list (day);
    create table parts_1 partition of parts for values in (1);
    create table parts_2 partition of parts for values in (2);
    create table many (id int primary key, n int, v text);";

const TABLES: &str = "[tables]\ninclude = [\"public.*\", \"other.*\"]\n";

const ROWS: &str = "
    insert into t select i, i, 'a' from generate_series(1, 60) i;
    insert into other.u select i, 'a', 'k' || i, i from generate_series(1, 60) i;
    insert into parts select i, 1 + i % 2, i, 'a' from generate_series(1, 60) i;
    insert into many select i, i, 'a' from generate_series(1, 60) i;";

/// What is done to all of them.
const REWRITE: &str = "
    alter table t alter n type bigint;
    begin;
    alter table other.u alter n type text;
    alter table parts alter n type bigint;
    commit;
    alter table many add w float8 default random();
    alter table many alter w drop default;
    update many set w = 0;";

async fn conflicts(cluster: &Cluster, node: &str) -> Vec<String> {
    let found = "select table_name || ' ' || array_to_string(key_values, ',') || ' ' || outcome
                 from mmrepl.conflict order by table_name, key_values";
    let rows = cluster.node(node).rows(found).await;
    rows.iter()
        .map(|row| row[0].clone().unwrap_or_default())
        .collect()
}

/// An outage: west writes, then east writes a few of the same rows, then both are rewritten.
async fn rows_keep_their_versions(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(TABLES);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), ROWS).await;
    cluster.stop_daemons();
    for table in ["t", "other.u", "parts"] {
        let (west, east) = (cluster.west(), cluster.east());
        west.sql(&format!("update {table} set v = 'b' where id <= 10"))
            .await;
        west.sql(&format!("delete from {table} where id = 11"))
            .await;
        east.sql(&format!("update {table} set v = 'c' where id = 3"))
            .await;
    }
    for node in [cluster.east(), cluster.west()] {
        node.sql(REWRITE).await;
    }
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    for table in ["t", "other.u", "parts"] {
        let told = format!("select string_agg(v, '' order by id) from {table} where id <= 12");
        assert_eq!(cluster.east().value(&told).await, "bbcbbbbbbba", "{table}");
    }
    let expected = |outcome: &str| {
        let rows = ["parts 3,2", "t 3", "u k3,3"];
        let rows = rows.map(|row| format!("{row} {outcome}"));
        rows.to_vec()
    };
    let found = |node: &'static str| {
        let cluster = &cluster;
        async move {
            let mut found = conflicts(cluster, node).await;
            found.retain(|row| !row.starts_with("many"));
            found
        }
    };
    assert_eq!(found("east").await, expected("kept_local"));
    assert_eq!(found("west").await, expected("applied"));
    let edit = "update t set v = 'later' where id > 20;
                update parts set v = 'later' where id > 20;";
    cluster.write_on(cluster.west(), edit).await;
    cluster
        .write_on(cluster.east(), "update t set v = v || '!'")
        .await;
    assert_eq!(found("east").await, expected("kept_local"));
    assert_eq!(found("west").await, expected("applied"));
}
on_usual_majors!(versions, crate::rewrites::rows_keep_their_versions);

/// Nobody keeps versions, as where an ordinary role has set mmrepl up.
const NO_EVENT_TRIGGERS: &str =
    "drop event trigger mmrepl_rewrite_begins; drop event trigger mmrepl_rewrite_ends";

/// Then a change from before the rewrite is not judged, and a person says whose rows count.
async fn what_nobody_kept_is_not_judged(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(TABLES);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("was rewritten");
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), ROWS).await;
    cluster.sql_everywhere(NO_EVENT_TRIGGERS).await;
    cluster.stop_daemons();
    for table in ["t", "many"] {
        let update = format!("update {table} set v = 'b' where id <= 10");
        cluster.west().sql(&update).await;
        let later = format!("update {table} set v = 'c' where id = 3");
        cluster.east().sql(&later).await;
    }
    // These keep what `xmin` says.
    cluster.east().sql("vacuum full many").await;
    cluster.east().sql("cluster many using many_pkey").await;
    cluster
        .east()
        .sql("alter table t alter n type bigint")
        .await;
    cluster
        .west()
        .sql("alter table t alter n type bigint")
        .await;
    cluster.start_daemons();
    let reason = cluster
        .wait_reason(("west", "east"), &["blocked"], "public.t was rewritten")
        .await;
    assert!(
        reason.contains("mmrepl rewritten 'public.t' --take west --yes"),
        "{reason}"
    );
    let refused = cluster
        .mmrepl(&["rewritten", "public.t", "--take", "west"])
        .await;
    assert_eq!(refused.status.code(), Some(2));
    cluster
        .mmrepl_ok(&["rewritten", "public.t", "--take", "west", "--yes"])
        .await;
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    for table in ["t", "many"] {
        let told = format!("select string_agg(v, '' order by id) from {table} where id <= 12");
        let found = cluster.east().value(&told).await;
        let third = if table == "t" { "b" } else { "c" };
        assert_eq!(found, format!("bb{third}bbbbbbbaa"), "{table}");
    }
    let again = cluster
        .mmrepl(&["rewritten", "public.t", "--take", "west", "--yes"])
        .await;
    assert_eq!(again.status.code(), Some(2));
}
on_usual_majors!(nobody_kept, crate::rewrites::what_nobody_kept_is_not_judged);

/// Both nodes are written to while both are rewritten, and a truncate from before meets rows.
async fn rewrites_under_writers(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(TABLES);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), ROWS).await;
    let writes = |node: &str| {
        format!(
            "do $$ begin for i in 1..400 loop
               update t set v = '{node}' || i where id = 1 + (i * 7) % 60; commit; end loop; end $$"
        )
    };
    let (east, west) = (writes("east"), writes("west"));
    let rewrite = "alter table t alter n type bigint; alter table t alter n type int;
        begin; update t set v = 'before' where id = 59; savepoint s;
        alter table t alter n type bigint; release s;
        update t set v = 'after' where id = 60; commit";
    tokio::join!(
        cluster.east().sql(&east),
        cluster.west().sql(&west),
        cluster.east().sql(rewrite),
        cluster.west().sql(rewrite),
    );
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    // East empties tables before west, which does not know, writes and is rewritten.
    cluster.stop_daemons();
    cluster.east().sql("truncate t, many").await;
    cluster
        .west()
        .sql("update t set v = 'later' where id = 7")
        .await;
    cluster.west().sql("alter table t alter n type int").await;
    cluster
        .west()
        .sql("alter table many alter n type bigint")
        .await;
    cluster.east().sql("alter table t alter n type int").await;
    cluster
        .east()
        .sql("alter table many alter n type bigint")
        .await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    for node in [cluster.east(), cluster.west()] {
        let rows = node.value("select string_agg(id || v, ',') from t").await;
        assert_eq!(rows, "7later");
        assert_eq!(node.value("select count(*) from many").await, "0");
    }
}
on_usual_majors!(live, crate::rewrites::rewrites_under_writers);

/// Three nodes: what a third one wrote keeps its node and its time as well.
#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_each_keeps_who_wrote_what() {
    let options = ClusterOptions::majors(&[usual_major(); 3]).config(TABLES);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), ROWS).await;
    cluster.pause_all().await;
    let write = |v: &str, to: u32| format!("update t set v = '{v}' where id <= {to}");
    cluster.west().sql(&write("west", 10)).await;
    cluster.node("north").sql(&write("north", 6)).await;
    cluster.let_through("north", "east").await;
    cluster.east().sql(&write("east", 2)).await;
    cluster
        .sql_everywhere("alter table t alter n type bigint")
        .await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let told = "select string_agg(v, ' ' order by id) from t where id <= 10";
    assert_eq!(
        cluster.west().value(told).await,
        "east east north north north north west west west west"
    );
    // West had heard of nobody; east and north had not heard of west.
    let counted = async |node: &str| {
        let count = "select count(*) from mmrepl.conflict where table_name = 't'";
        cluster.node(node).value(count).await
    };
    assert_eq!(counted("east").await, "6");
}
