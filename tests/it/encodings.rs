//! Bytes that are no characters: databases that keep any, and the type `"char"`.

use crate::support::{Cluster, ClusterOptions};
use crate::{on_majors, on_usual_majors};

const ANY: &str = "
    create table t (id int primary key, v text);
    create table named (k text primary key, v text);
    create table plain (v text)";

/// All rows of all tables, in characters that every client reads.
const ALL: &str = "select string_agg(encode(convert_to(r, 'SQL_ASCII'), 'escape'), ' ' order by r)
    from (select t::text r from t union all select named::text from named
          union all select plain::text from plain) a";

/// Bytes that are no UTF-8 are copied, compared, replicated, recorded and brought back as they are.
async fn any_bytes(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).encodings(&["SQL_ASCII", "SQL_ASCII"]);
    let mut cluster = Cluster::start(options).await;
    cluster.sql_everywhere(ANY).await;
    let rows = r"insert into t values (1, E'caf\xe9'), (2, E'\xff\\x');
        insert into named values (E'\xe9', 'e'); insert into plain values (E'\xe9')";
    cluster.east().sql(rows).await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert!(said.contains("node west lacks rows"), "{said}");
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let all = r#"(1,caf\351) (2,"\377\\\\x") (\351) (\351,e)"#;
    assert_eq!(cluster.west().value(ALL).await, all);
    cluster.stop_daemons();
    let (east, west) = (cluster.east(), cluster.west());
    east.sql(
        r"update t set v = E'east \xe9' where id = 1; insert into plain values (E'\xfe');
        update named set v = E'\xe8'; update plain set v = E'\xea' where v = E'\xe9'",
    )
    .await;
    west.sql(
        r"update t set v = E'west \xe9' where id = 1; insert into named values (E'\xfc', 'u');
        delete from t where id = 2; update named set v = E'\xe7' where k = E'\xe9'",
    )
    .await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.settle().await;
    let all = r#"(1,"west \351") (\351,\347) (\352) (\374,u) (\376)"#;
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(node.value(ALL).await, all, "{}", node.name);
    }
    let said = cluster.mmrepl_ok(&["conflicts", "list"]).await;
    assert!(said.contains("update_update"), "{said}");
    let lost = "select 'west-' || id from mmrepl.conflict where table_name = 't'
        and kind = 'update_update'";
    let lost = cluster.west().value(lost).await;
    let said = cluster.mmrepl_ok(&["conflicts", "show", &lost]).await;
    assert!(said.contains(r"east \351"), "{said}");
    cluster.mmrepl_ok(&["conflicts", "restore", &lost]).await;
    cluster.settle().await;
    let row = r"select (v = E'east \xe9')::text from t where id = 1";
    assert_eq!(cluster.east().value(row).await, "true");
}
on_usual_majors!(any_bytes_are_kept, super::any_bytes);

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_no_characters_elsewhere() {
    let options = ClusterOptions::pair().encodings(&["SQL_ASCII", "UTF8"]);
    let cluster = Cluster::start(options).await;
    cluster.sql_everywhere(ANY).await;
    for command in ["check", "init"] {
        let said = cluster.mmrepl_fails(&[command]).await;
        let named = "west: the database is UTF8, on east it is SQL_ASCII";
        assert!(said.contains(named), "{said}");
    }
}

/// From 16 on a byte above 127 is printed as four characters, of which older servers read one.
async fn a_byte_above_127(majors: &[u32]) {
    let schema = "create table c (id int primary key, b \"char\")";
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let plain = r"insert into c values (1, 'x'), (2, '\'), (3, ''), (4, null)";
    cluster.west().sql(plain).await;
    cluster.settle().await;
    cluster.allow_error("above 127");
    cluster.allow_error("22021");
    cluster
        .west()
        .sql("insert into c values (5, (-23)::int::\"char\")")
        .await;
    cluster
        .wait_reason(("west", "east"), &["blocked"], "above 127")
        .await;
    cluster
        .east()
        .sql("insert into c values (6, (-23)::int::\"char\")")
        .await;
    cluster
        .wait_reason(("east", "west"), &["blocked"], "22021")
        .await;
    let said = cluster.mmrepl_ok(&["check", "--json"]).await;
    assert!(said.contains("b of public.c"), "{said}");
}
on_majors!(a_byte_is_no_backslash, a_byte_above_127, 14, 18);
