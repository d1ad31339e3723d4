//! Tables of shapes that few databases have, and functions that lean on their caller.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = "
    create table bare ();
    create table filled ();
    create table t (id int primary key, n int);
    create extension file_fdw;
    create server files foreign data wrapper file_fdw;
    create table parted (k int, v text) partition by list (k);
    create table parted_1 partition of parted for values in (1);
    create foreign table parted_2 partition of parted for values in (2)
        server files options (filename '/dev/null', format 'csv');
    create function rate(n int) returns int immutable language sql return n * 2;
    create function taxed(n int) returns int immutable language plpgsql as
        'begin return rate(n); end';
    create table noted (at timestamptz default now());";

const EXCLUDE: &str = "\n[tables]\nexclude = [\"public.noted\"]\n";

/// Only that there is a row, and how many, can be told.
async fn without_columns(cluster: &Cluster) {
    let insert = |count: usize| "insert into bare default values;".repeat(count);
    let (east, west) = (cluster.east(), cluster.west());
    assert_eq!(west.value("select count(*) from filled").await, "3");
    east.sql(&insert(2)).await;
    west.sql(&insert(1)).await;
    let many = format!("begin; {} commit", insert(30));
    east.sql(&many).await;
    cluster.settle().await;
    let delete = "delete from bare where ctid = (select min(ctid) from bare)";
    west.sql(delete).await;
    east.sql(delete).await;
    cluster.settle().await;
    for node in [east, west] {
        assert_eq!(node.value("select count(*) from bare").await, "31");
    }
    east.sql("truncate bare; insert into bare default values")
        .await;
    cluster.settle().await;
    assert_eq!(west.value("select count(*) from bare").await, "1");
}

/// A partition elsewhere does not replicate; the others do.
async fn with_a_foreign_partition(cluster: &Cluster) {
    let said = cluster.mmrepl_ok(&["check"]).await;
    let named = "public.parted_2 of public.parted";
    assert!(said.contains(named), "{said}");
    let insert = "insert into parted values (1, 'a'), (1, 'b')";
    cluster.write_apart(insert, insert).await;
    let there = "select string_agg(v, ' ' order by v) from parted";
    assert_eq!(cluster.east().value(there).await, "a a b b");
    assert_eq!(cluster.west().value(there).await, "a a b b");
}

async fn are_replicated(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(EXCLUDE);
    let mut cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SCHEMA).await;
    let rows = "insert into filled default values;".repeat(3);
    cluster.east().sql(&rows).await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    without_columns(&cluster).await;
    with_a_foreign_partition(&cluster).await;
    a_function_of_an_index(&mut cluster).await;
    an_event_trigger(&mut cluster).await;
}
on_usual_majors!(are_replicated, super::are_replicated);

/// A function in an index is called with our empty search path.
async fn a_function_of_an_index(cluster: &mut Cluster) {
    let mend = "alter function public.taxed(integer) set search_path = public";
    cluster.allow_error("rate");
    cluster
        .west()
        .sql("create index taxed_n on t (taxed(n))")
        .await;
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(
        said.contains("index taxed_n") && said.contains("taxed"),
        "{said}"
    );
    cluster.east().sql("insert into t values (1, 1)").await;
    cluster
        .wait_reason(("east", "west"), &["blocked"], mend)
        .await;
    cluster.west().sql(mend).await;
    cluster.wait_state("east", "west", &["streaming"]).await;
    cluster.wait_equal().await;
}

/// As is one of an event trigger, which would refuse what `init` makes.
async fn an_event_trigger(cluster: &mut Cluster) {
    let noted = "
        create function note() returns event_trigger language plpgsql as
            'begin insert into noted default values; end';
        create event trigger notes on ddl_command_end execute function note()";
    cluster.west().sql(noted).await;
    cluster
        .sql_everywhere("create table later (id int primary key)")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    let named = "event trigger notes calls public.note()";
    let mend = "alter function public.note() set search_path = public";
    assert!(said.contains(named) && said.contains(mend), "{said}");
    cluster.west().sql(mend).await;
    cluster.init().await;
    cluster.east().sql("insert into later values (1)").await;
    cluster.settle().await;
    assert_eq!(
        cluster.west().value("select count(*) from later").await,
        "1"
    );
    cluster.west().sql("drop event trigger notes").await;
}
