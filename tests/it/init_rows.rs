//! Whose rows count when nodes are set up, and how they come to be equal.

use super::init::{PLAIN, assert_says, both_have, pair, soon};
use crate::support::{Cluster, ClusterOptions};

#[tokio::test(flavor = "multi_thread")]
async fn different_rows_are_refused_until_somebody_says_whose_count() {
    let cluster = pair(PLAIN).await;
    cluster
        .east()
        .sql("insert into t select n, 'ä' from generate_series(1, 5) n")
        .await;
    cluster
        .west()
        .sql("insert into t values (1, 'ä'), (9, 'x')")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "node west lacks rows that east has in public.t (2 against 5)",
            "--copy-from east",
            "--assume-identical",
        ],
    );
    // The slots of the refused run are gone: nothing holds WAL back.
    both_have(
        &cluster,
        "select count(*) from pg_replication_slots where database = current_database()",
        "0",
    )
    .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    both_have(
        &cluster,
        "select string_agg(id || v, ',' order by id) from t",
        "1ä,2ä,3ä,4ä,5ä",
    )
    .await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn assume_identical_does_not_look() {
    let cluster = pair(PLAIN).await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_are_equal_whatever_the_encoding_and_column_order() {
    let cluster = Cluster::start(ClusterOptions::pair().encodings(&["UTF8", "LATIN1"])).await;
    cluster
        .east()
        .sql("create table t (id int primary key, v text, n numeric, f float8)")
        .await;
    cluster
        .west()
        .sql("create table t (f float8, n numeric, id int primary key, v text, more int)")
        .await;
    let rows = "insert into t (id, v, n, f)
        values (1, 'é', 1.50, 0.1), (2, null, 'NaN', 'inf'), (3, '', null, null)";
    cluster.sql_everywhere(rows).await;
    let said = cluster.mmrepl_ok(&["init"]).await;
    assert_says(
        &said,
        &["of which 1 hold rows: equal", "LATIN1", "column more"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_as_the_sources_and_is_not_sent_back() {
    let schema = "
        create table a (id int generated always as identity primary key,
            g int generated always as (v * 2) stored, v int);
        create table b (id int primary key, a int references a, j jsonb);
        create table p (id int, k int, primary key (id, k)) partition by range (k);
        create table p1 partition of p for values from (0) to (10);
        create function boom() returns trigger language plpgsql as $$ begin raise 'fired'; end $$;";
    let mut cluster = pair(schema).await;
    let fill = "insert into a (v) select n from generate_series(1, 100) n;
        insert into b select n, n, jsonb_build_object('n', n) from generate_series(1, 100) n;
        insert into p select n, n % 10 from generate_series(1, 50) n;";
    cluster.east().sql(fill).await;
    cluster
        .west()
        .sql(
            "insert into a (v) values (7); insert into p values (99, 1);
        create trigger boom before insert on a for each row execute function boom()",
        )
        .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    both_have(
        &cluster,
        "select count(*) || ' ' || sum(g) from a",
        "100 10100",
    )
    .await;
    both_have(&cluster, "select count(*) from b", "100").await;
    both_have(&cluster, "select count(*) from p", "50").await;
    both_have(&cluster, "select count(*) from mmrepl.tombstone", "0").await;
    let origins = "select count(distinct o.roident) || ' ' || min(n.name)
        from a, pg_xact_commit_timestamp_origin(a.xmin) o
        join mmrepl.node n on n.origin_id = o.roident";
    assert_eq!(cluster.west().value(origins).await, "1 east");
    // What is written from here on arrives, on top of the copy.
    cluster.start_daemons();
    cluster
        .east()
        .sql("update b set j = '{}' where id = 1; delete from p where id = 50")
        .await;
    cluster
        .west()
        .sql("update b set j = '[]' where id = 2")
        .await;
    soon(
        &cluster,
        "select string_agg(j::text, '' order by id) from b where id < 3",
        "{}[]",
    )
    .await;
    soon(&cluster, "select count(*) from p", "49").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_later_join_while_the_daemons_run() {
    let mut cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster.start_daemons();
    cluster
        .east()
        .sql("create table later (id int primary key, v text)")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "west",
            "table public.later is on east but not here",
            "pg_dump --schema-only",
        ],
    );
    cluster
        .west()
        .sql("create table later (id int primary key, v text)")
        .await;
    cluster.mmrepl_ok(&["init"]).await;
    cluster
        .east()
        .sql("insert into later values (1, 'e')")
        .await;
    cluster
        .west()
        .sql("insert into later values (2, 'w')")
        .await;
    soon(&cluster, "select count(*) from later", "2").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_later_with_different_rows_need_a_word() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster
        .sql_everywhere("create table later (id int primary key)")
        .await;
    cluster
        .west()
        .sql("insert into later values (1), (2)")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["node east lacks rows that west has in public.later (0 against 2)"],
    );
    both_have(
        &cluster,
        "select count(*) from pg_publication_tables where tablename = 'later'",
        "0",
    )
    .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    both_have(&cluster, "select count(*) from later", "2").await;
    both_have(
        &cluster,
        "select count(*) from pg_publication_tables where tablename = 'later'",
        "1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_become_equal_to_the_one_that_counts() {
    let major = crate::support::pool::usual_major();
    let cluster = Cluster::start(ClusterOptions::majors(&[major; 3])).await;
    cluster.sql_everywhere(PLAIN).await;
    cluster
        .west()
        .sql("insert into t values (1, 'w'), (2, 'w')")
        .await;
    cluster
        .node("north")
        .sql("insert into t values (3, 'n')")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["public.t", "--copy-from"]);
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    both_have(
        &cluster,
        "select string_agg(id || v, ',' order by id) from t",
        "1w,2w",
    )
    .await;
    both_have(&cluster, "select count(*) from mmrepl.apply_position", "2").await;
    let slots = "select count(*) from pg_replication_slots where database = current_database()";
    both_have(&cluster, slots, "2").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    // Taking one node out leaves the others at work.
    cluster
        .mmrepl_ok(&["drop", "--yes", "--node", "north", "--discard"])
        .await;
    assert_eq!(cluster.east().value(slots).await, "1");
    assert_eq!(cluster.west().value(slots).await, "1");
    assert_eq!(cluster.node("north").value(slots).await, "0");
}
