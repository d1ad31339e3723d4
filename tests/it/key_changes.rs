//! The key of a table gets another name, type or shape: no statement of the application fails by
//! our triggers, and deletes are remembered under the key as it is from then on.

use std::fmt::Write as _;

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

/// Types whose equal values print differently, or that other rules of `catalog::key_text` are for,
/// each with a value.
const KINDS: [(&str, &str); 8] = [
    ("citext", "Ab"),
    ("jsonb", r#"{"a": 1.50}"#),
    ("numeric[]", "{1.50,2}"),
    ("int4[]", "{1,2}"),
    ("interval", "1 mon"),
    ("numrange", "[1.0,2.50)"),
    ("int4range", "[1,3)"),
    ("uuid", "c0ffee00-0000-4000-8000-000000000000"),
];

on_usual_majors!(
    a_key_of_another_type_is_remembered_as_init_has_it,
    super::other_types
);

/// What the trigger functions put together themselves is what `init` puts together later.
async fn other_types(majors: &[u32]) {
    let mut tables = "create extension citext;".to_owned();
    let (mut alter, mut insert, mut delete) = (String::new(), String::new(), String::new());
    for (at, (kind, value)) in KINDS.iter().enumerate() {
        let _ = write!(tables, "create table k{at} (id text primary key, v text);");
        let _ = write!(
            alter,
            "alter table k{at} alter id type {kind} using id::{kind};"
        );
        let _ = write!(insert, "insert into k{at} values ('{value}', 'a');");
        let _ = write!(delete, "delete from k{at};");
    }
    let options = ClusterOptions::majors(majors);
    let cluster = Cluster::running_with(options, &tables).await;
    cluster.wait_streaming().await;
    cluster.sql_everywhere(&alter).await;
    let east = cluster.east();
    let last = format!("select count(*) from k{}", KINDS.len() - 1);
    let left = "select string_agg(relation::regclass || key, ' ' order by 1) from
        (select distinct relation, key from mmrepl.tombstone) t(relation, key)";
    let mut remembered = Vec::new();
    for _ in 0..2 {
        east.sql(&insert).await;
        super::init::soon(&cluster, &last, "1").await;
        east.sql(&delete).await;
        super::init::soon(&cluster, &last, "0").await;
        remembered.push(east.value(left).await);
        cluster.mmrepl_ok(&["init"]).await;
    }
    assert_eq!(remembered[0], remembered[1]);
    assert_eq!(
        remembered[0].split(" k").count(),
        KINDS.len(),
        "{remembered:?}"
    );
}

const OWNED: &str = "
create table t (id int primary key, big text, v text);
create table two (a int, b int, v text, primary key (a, b));
create table clock (id int primary key, v text);
create table kept (id int primary key, ver int, v text);
create table decided (id int primary key, v text);
create table gen (id int primary key, v text, g int generated always as (1) stored);
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);";

const OWNED_RULES: &str = "
[[conflict.table]]
name = \"public.clock\"
strategy = \"hybrid_clock\"
[[conflict.table]]
name = \"public.decided\"
strategy = \"manual\"
[[conflict.table]]
name = \"public.kept\"
strategy = \"version_column\"
version_column = \"ver\"
";

/// What an application does to its tables, and writes then.
const OWNED_CHANGES: [&str; 9] = [
    "alter table t alter id type bigint; update t set v = 'b';
     update t set id = 3000000000 where id = 2",
    "alter table t rename id to ident; update t set v = 'c'; update t set ident = 11 where ident = 1",
    "alter table two drop a; alter table two add primary key (b);
     update two set v = 'b'; update two set b = 12 where b = 2",
    "alter table clock alter id type bigint; alter table clock rename id to ident;
     update clock set v = 'b'; update clock set ident = 11 where ident = 1",
    "alter table kept alter id type bigint, alter ver type bigint; update kept set ver = 5;
     update kept set ver = 4",
    "alter table decided alter id type bigint; update decided set v = 'b';
     update decided set id = 11 where id = 1",
    "alter table gen alter id type bigint; update gen set v = 'b';
     update gen set id = 11 where id = 1",
    "alter table p alter id type bigint; update p set v = 'b'; update p set id = 11 where id = 1",
    "alter table p rename id to ident; update p set v = 'c'; update p set ident = 12 where ident = 2",
];

on_usual_majors!(an_ordinary_role_never_makes_statements_fail, super::owned);

/// Nobody could make event triggers here: no statement fails because of our triggers, and keys that
/// rows leave are remembered under the key as it is.
async fn owned(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(OWNED_RULES);
    let mut cluster = Cluster::start(options).await;
    cluster.sql_everywhere(OWNED).await;
    let tables = ["t", "two", "clock", "kept", "decided", "gen", "p", "p1"];
    let role = super::row_security::as_owner(&mut cluster, &tables).await;
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let east = cluster.east();
    let fill = "insert into t values (1, repeat('x', 9000), 'a'), (2, repeat('y', 9000), 'a');
        insert into two values (1, 1, 'a'), (2, 2, 'a');
        insert into clock values (1, 'a'), (2, 'a');
        insert into kept values (1, 1, 'a');
        insert into decided values (1, 'a'), (2, 'a');
        insert into gen values (1, 'a'); insert into p values (1, 1, 'a'), (2, 2, 'a')";
    east.sql(fill).await;
    cluster.wait_equal().await;
    for changes in OWNED_CHANGES {
        let (ddl, writes) = changes.split_once("update").unwrap_or_default();
        cluster.sql_everywhere(ddl).await;
        east.sql(&format!("update{writes}")).await;
        // What is under way meets tables as they were.
        cluster.wait_equal().await;
    }
    let left =
        "select string_agg(relation::regclass || key, ' ' order by relation::regclass::text, key)
        from mmrepl.tombstone";
    assert_eq!(
        east.value(left).await,
        "clock{1} decided{1} gen{1} p{1,1} p{2,2} t{1} t{2} two{2}"
    );
    assert_eq!(east.value("select ver from kept").await, "5");
    cluster.mmrepl_ok(&["init"]).await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    cluster.stop_daemons();
    let check = cluster.mmrepl(&["check"]).await;
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("may not make event triggers"), "{said}");
    // Rows that these statements rewrote look as if they had been written on west.
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    cluster
        .sql_everywhere(&format!("drop owned by {role} cascade; drop role {role}"))
        .await;
}
