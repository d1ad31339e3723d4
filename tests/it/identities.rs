//! Identity columns beside the key that only an insert may set (`generated always`).

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pool};

const SCHEMA: &str = "
    create function large(text) returns text language sql immutable
        as $$ select repeat('.', 2500) || $1 $$;
    create table t (id int primary key, v text,
        w bigint generated always as identity,
        twice bigint generated always as (length(v) * 2) stored, large text);
    alter table t alter column large set storage external;
    create table only_numbers (id int primary key, w int generated always as identity);
    create table numbers (id int generated always as identity primary key,
        w smallint generated always as identity);
    create table merged (id int primary key, w bigint generated always as identity, v text,
        u text unique)";

const TABLES: [&str; 4] = ["t", "only_numbers", "numbers", "merged"];

/// What every node must have of each table.
async fn contents(cluster: &Cluster, node: usize) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!(
            "select coalesce(string_agg(replace(x::text, repeat('.', 2500), ''), ' '
             order by id), '') from {table} x"
        );
        all.push(cluster.nodes[node].value(&sql).await);
    }
    all
}

async fn play(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    for column in [
        "t.w",
        "only_numbers.w",
        "numbers.w",
        "numbers.id",
        "merged.w",
    ] {
        let (table, column) = column.split_once('.').unwrap();
        west.sql(&format!(
            "alter table {table} alter {column} restart with 1000"
        ))
        .await;
    }
    east.sql(
        "insert into t (id, v, large) select n, 'a', large('A') from generate_series(1, 20) n",
    )
    .await;
    east.sql("insert into only_numbers values (1), (2); insert into numbers default values")
        .await;
    east.sql("insert into merged (id, v, u) values (1, 'a', 'a'), (2, 'b', 'b')")
        .await;
    cluster.settle().await;
    // Nothing crosses: single rows, many rows, and a value that only an insert may set.
    east.sql("update t set v = 'bb' where id = 1; update t set w = default where id = 2")
        .await;
    east.sql("update t set v = 'ccc', w = default where id > 10")
        .await;
    west.sql("update only_numbers set w = default; update numbers set w = default")
        .await;
    cluster.settle().await;
    let wanted = contents(&cluster, 0).await;
    assert_eq!(contents(&cluster, 1).await, wanted);
    write_apart(&cluster).await;
    let wanted = contents(&cluster, 1).await;
    for node in 0..cluster.nodes.len() {
        assert_eq!(contents(&cluster, node).await, wanted);
    }
    // The last writer's value.
    let query = "select string_agg((w >= 1000)::text, ' ' order by id) from t
        where id in (3, 4, 5, 100, 101)";
    let last = "true false true true false";
    assert_eq!(east.value(query).await, last);
    for table in ["only_numbers", "numbers"] {
        let all_are = format!("select (min(w) >= 1000)::text from {table}");
        assert_eq!(east.value(&all_are).await, "true", "{table}");
    }
}

/// Both nodes write the same rows while neither hears of the other.
async fn write_apart(cluster: &Cluster) {
    let (east, west) = (cluster.east(), cluster.west());
    cluster.pause_all().await;
    east.sql("insert into t (id, v) values (100, 'e'); update t set w = default where id = 3")
        .await;
    west.sql("insert into t (id, v) values (100, 'w'); update t set w = default where id = 3")
        .await;
    west.sql("insert into t (id, v) values (101, 'w'); update t set v = 'w' where id = 4")
        .await;
    east.sql("insert into t (id, v) values (101, 'e'); update t set w = default where id = 4")
        .await;
    east.sql("delete from t where id = 5").await;
    west.sql("update t set w = default where id = 5").await;
    for node in [east, west] {
        node.sql("update only_numbers set w = default; update numbers set w = default")
            .await;
    }
    east.sql("update merged set w = default, u = 'c' where id = 1")
        .await;
    west.sql("update merged set w = default, u = 'c' where id = 2")
        .await;
    cluster.resume_all().await;
    cluster.settle().await;
}

async fn a_pair(majors: &[u32]) {
    play(majors).await;
}
on_usual_majors!(two_nodes, super::a_pair);

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes() {
    play(&[pool::usual_major(); 3]).await;
}
