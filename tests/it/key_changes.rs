//! The key of a table gets another name, type or shape: no statement of the application fails by
//! our triggers, and deletes are remembered under the key as it is from then on.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

const TABLES: &str = r#"
create table t (id int primary key, v text);
create table "Odd ""T" ("K é" int primary key, v text);
create table two (a int, b text, v text, primary key (a, b));
create table uq (id int not null unique, v text);
create table n (id numeric primary key, v text);
create table clock (id int primary key, v text);
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);
create table loose (id int, k int, v text, primary key (id, k));"#;

const RULES: &str = "
[[conflict.table]]
name = \"public.clock\"
strategy = \"hybrid_clock\"
";

/// What is done to a table on both nodes, the row that is written and deleted then, and the key
/// that is remembered.
const CHANGES: [(&str, &str, &str, &str); 14] = [
    ("t", "alter table t rename id to ident", "11, 'a'", "{11}"),
    ("t", "alter table t alter ident type bigint", "3000000000, 'a'", "{3000000000}"),
    (
        "t",
        "alter table t rename ident to old; alter table t rename v to ident",
        "12, 'a'",
        "{12}",
    ),
    (
        "t",
        "alter table t rename to t2; create view t as select * from t2; drop view t;
         alter table t2 rename to t",
        "13, 'a'",
        "{13}",
    ),
    (
        "t",
        "alter table t add tenant int not null default 7; alter table t drop constraint t_pkey;
         alter table t add primary key (old, tenant)",
        "14, 'a', 8",
        "{14,8}",
    ),
    (
        "two",
        "alter table two rename a to c; alter table two rename b to a",
        "1, 'x', 'v'",
        "{1,x}",
    ),
    ("two", "alter table two drop constraint two_pkey, add primary key (a)", "2, 'y', 'v'", "{y}"),
    (
        "\"Odd \"\"T\"",
        r#"alter table "Odd ""T" rename "K é" to "d.""K""";
           alter table "Odd ""T" alter column "d.""K""" set data type bigint"#,
        "1, 'a'",
        "{1}",
    ),
    (
        "uq",
        "alter table uq add big bigint; update uq set big = id; alter table uq alter big set not null;
         alter table uq add unique (big); alter table uq drop column id;
         alter table uq rename big to id",
        "'a', 5",
        "{5}",
    ),
    ("n", "alter table n alter id type numeric(10, 3)", "1.500, 'a'", "{1.5}"),
    ("n", "alter table n alter id type text using trim_scale(id)::text", "'x', 'a'", "{x}"),
    ("clock", "alter table clock rename id to ident", "5, 'a'", "{5}"),
    (
        "p",
        "create table p2 partition of p for values from (10) to (20); alter table p rename id to ident",
        "1, 11, 'a'",
        "{1,11}",
    ),
    (
        "p",
        "alter table p attach partition loose for values from (20) to (30)",
        "1, 21, 'a'",
        "",
    ),
];

on_usual_majors!(a_changed_key_is_followed, super::followed);

async fn followed(majors: &[u32]) {
    let options = ClusterOptions {
        majors: majors.to_vec(),
        more_config: RULES.to_owned(),
        ..ClusterOptions::pair()
    };
    let cluster = Cluster::running_with(options, TABLES).await;
    cluster.wait_streaming().await;
    for (table, change, row, key) in CHANGES {
        if key.is_empty() {
            cluster
                .sql_everywhere("alter table loose rename id to ident")
                .await;
        }
        cluster.sql_everywhere(change).await;
        let east = cluster.east();
        let columns = if table == "clock" { " (ident, v)" } else { "" };
        east.sql(&format!("insert into {table}{columns} values ({row})"))
            .await;
        super::init::soon(&cluster, &format!("select count(*) from {table}"), "1").await;
        east.sql(&format!("delete from {table}")).await;
        super::init::soon(&cluster, &format!("select count(*) from {table}"), "0").await;
        let left = format!(
            "select count(*) from mmrepl.tombstone where relation = '{table}'::regclass and key = '{key}'"
        );
        if !key.is_empty() {
            assert_eq!(east.value(&left).await, "1", "{change}");
        }
    }
    cluster.mmrepl_ok(&["init"]).await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    let check = cluster.mmrepl(&["check"]).await;
    assert!(check.status.success(), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_made_later_passes_its_truncate_on() {
    let cluster = Cluster::running(TABLES).await;
    cluster.wait_streaming().await;
    cluster
        .sql_everywhere("create table p2 partition of p for values from (10) to (20)")
        .await;
    let east = cluster.east();
    east.sql("insert into p values (1, 11, 'a'), (2, 12, 'b')")
        .await;
    super::init::soon(&cluster, "select count(*) from p", "2").await;
    east.sql("truncate p2").await;
    super::init::soon(&cluster, "select count(*) from p", "0").await;
}

/// Without event triggers, which take a superuser, the trigger functions find the key themselves.
#[tokio::test(flavor = "multi_thread")]
async fn without_event_triggers_deletes_follow_all_the_same() {
    let cluster = Cluster::running(TABLES).await;
    cluster.wait_streaming().await;
    cluster
        .sql_everywhere(
            "drop event trigger mmrepl_release_columns; drop event trigger mmrepl_follow_tables;
             alter table t rename id to ident; alter table two drop constraint two_pkey;
             alter table two add primary key (b, a)",
        )
        .await;
    let east = cluster.east();
    for (table, row, key) in [("t", "1, 'a'", "{1}"), ("two", "1, 'x', 'v'", "{x,1}")] {
        east.sql(&format!("insert into {table} values ({row})"))
            .await;
        super::init::soon(&cluster, &format!("select count(*) from {table}"), "1").await;
        east.sql(&format!("delete from {table}")).await;
        super::init::soon(&cluster, &format!("select count(*) from {table}"), "0").await;
        let left = format!(
            "select count(*) from mmrepl.tombstone where relation = '{table}'::regclass and key = '{key}'"
        );
        assert_eq!(east.value(&left).await, "1", "{table}");
    }
}
