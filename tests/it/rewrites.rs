//! A table that is rewritten: its rows keep the versions that they had.

use crate::support::pool::usual_major;
use crate::support::{Cluster, ClusterOptions};
use crate::{on_majors, on_usual_majors};

const SCHEMA: &str = "
    create table t (id int primary key, n int, v text);
    create schema other;
    create table other.u (n int, v text, k text, id int, primary key (k, id));
    create table parts (id int, day int, n int, v text, primary key (id, day))
        partition by list (day);
    create table parts_1 partition of parts for values in (1);
    create table parts_2 partition of parts for values in (2);
    create table many (id int primary key, n int, v text);
    create table wide (id int, n int, v text, primary key (n, id));
    create table leaves (id int, day int, v text, primary key (id, day)) partition by list (day);
    create table leaves_1 partition of leaves for values in (1);
    create table leaves_2 partition of leaves for values in (2);";

const TABLES: &str = "[tables]\ninclude = [\"public.*\", \"other.*\"]\n";

const ROWS: &str = "
    insert into t select i, i, 'a' from generate_series(1, 60) i;
    insert into other.u select i, 'a', 'k' || i, i from generate_series(1, 60) i;
    insert into parts select i, 1 + i % 2, i, 'a' from generate_series(1, 60) i;
    insert into many select i, i, 'a' from generate_series(1, 60) i;
    insert into wide select i, i, 'a' from generate_series(1, 60) i;
    insert into leaves select i, 1 + i % 2, 'a' from generate_series(1, 60) i;";

/// Those whose rows keep their versions; of the last two a column of the key is changed.
const KEPT: [&str; 5] = ["t", "other.u", "parts", "wide", "leaves"];

/// What is done to all of them.
const REWRITE: &str = "
    alter table t alter n type bigint;
    begin;
    alter table other.u alter n type text;
    alter table parts alter n type bigint;
    commit;
    alter table many add w float8 default random();
    alter table many alter w drop default;
    do $$ begin alter table public.wide alter column id type bigint; end $$;
    alter table leaves alter id set data type bigint;
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
    for table in KEPT {
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
    for table in KEPT {
        let told = format!("select string_agg(v, '' order by id) from {table} where id <= 12");
        assert_eq!(cluster.east().value(&told).await, "bbcbbbbbbba", "{table}");
    }
    let expected = |outcome: &str| {
        let rows = ["leaves 3,2", "parts 3,2", "t 3", "u k3,3", "wide 3,3"];
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
    let noted = "select count(*) from mmrepl.rewriting";
    assert_eq!(cluster.east().value(noted).await, "0");
    by_others(&mut cluster).await;
}

/// Waits until the link says that the table was rewritten, and takes what west has.
async fn take_west(cluster: &Cluster) {
    cluster
        .wait_reason(("west", "east"), &["blocked"], "public.t was rewritten")
        .await;
    cluster
        .mmrepl_ok(&["rewritten", "public.t", "--take", "west", "--yes"])
        .await;
    cluster.wait_streaming().await;
}

/// By a role that owns the table and nothing else they are kept as well; under REPEATABLE READ they
/// are not, and a change from before is not judged.
async fn by_others(cluster: &mut Cluster) {
    cluster.stop_daemons();
    let role = format!("owner_{}", cluster.name);
    let update = "update wide set v = 'd' where id = 1; update t set v = 'd' where id = 1";
    cluster.west().sql(update).await;
    let owned = format!(
        "create role {role}; alter table wide owner to {role}; grant create on schema public
         to {role}; set role {role}; alter table wide alter id type int; reset role"
    );
    cluster.east().sql(&owned).await;
    let snapshot = "begin isolation level repeatable read;
        alter table t alter n type int; commit";
    cluster.east().sql(snapshot).await;
    let both = "alter table wide alter id type int; alter table t alter n type int";
    cluster.west().sql(both).await;
    cluster.allow_error("was rewritten");
    cluster.start_daemons();
    take_west(cluster).await;
    cluster.settle().await;
    let told = "select (select v from t where id = 1) || (select v from wide where id = 1)";
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(node.value(told).await, "dd");
    }
    let drop = format!("reassign owned by {role} to current_user; drop owned by {role}");
    cluster
        .east()
        .sql(&format!("{drop}; drop role {role}"))
        .await;
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

/// 19's REPACK moves rows like VACUUM FULL, or, CONCURRENTLY, writes each anew: nobody keeps their
/// versions then, and what is older is not judged.
async fn repacked(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(TABLES);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("was rewritten");
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), ROWS).await;
    cluster.stop_daemons();
    for table in ["t", "many"] {
        let update = format!("update {table} set v = 'b' where id <= 10");
        cluster.west().sql(&update).await;
        let later = format!("update {table} set v = 'c' where id = 3");
        cluster.east().sql(&later).await;
    }
    cluster.east().sql("repack many").await;
    cluster.east().sql("repack (concurrently) t").await;
    cluster.start_daemons();
    take_west(&cluster).await;
    cluster.wait_equal().await;
    for table in ["t", "many"] {
        let told = format!("select string_agg(v, '' order by id) from {table} where id <= 12");
        let rows = cluster.east().value(&told).await;
        assert_eq!(rows, "bbcbbbbbbbaa", "{table}");
    }
}
on_majors!(repack_19, crate::rewrites::repacked, 19, 19);
