//! `session_replication_role = replica`, as bulk loaders, `pg_restore --disable-triggers` and
//! migrations of keys set it: what they write is a new write like any other.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = "
    create table plain (id int primary key, v text);
    create table clocked (id int primary key, v text);
    create table counted (id int primary key, n int not null, v text);
    create table parted (id int primary key, v text) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (100);
    create table parted_2 partition of parted for values from (100) to (200);
    create table parted_clock (id int primary key, v text) partition by range (id);
    create table parted_clock_1 partition of parted_clock for values from (0) to (100);
    create table parent (id int primary key);
    create table child (id int primary key, parent int references parent);";
const RULES: &str = "
[[conflict.table]]
name = \"public.clocked\"
strategy = \"hybrid_clock\"

[[conflict.table]]
name = \"public.parted_clock\"
strategy = \"hybrid_clock\"

[[conflict.table]]
name = \"public.counted\"
strategy = \"hybrid_clock\"
delta_columns = [\"n\"]
";
const FILL: &str = "
    insert into plain select i, 'a' from generate_series(1, 30) i;
    insert into clocked select i, 'a' from generate_series(1, 30) i;
    insert into counted select i, 10, 'a' from generate_series(1, 30) i;
    insert into parted select i, 'a' from generate_series(1, 199) i;
    insert into parted_clock select i, 'a' from generate_series(1, 99) i;
    insert into parent values (1), (2); insert into child values (1, 1)";

/// What such a session does, each by itself.
const WRITES: [&str; 8] = [
    "truncate parted_1",
    "delete from clocked where id < 10; delete from counted where id < 10",
    "update counted set n = n + 5 where id = 12; update clocked set v = 'b' where id = 12",
    "delete from parted_clock where id = 4; truncate parted_clock_1",
    "update plain set id = id + 1000 where id < 5; update clocked set id = id + 1000 where id = 20",
    "insert into child values (2, 77); delete from parent",
    "delete from plain; insert into plain values (1, 'again')",
    "truncate clocked, counted, parted",
];

async fn goes_on(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.write_on(cluster.east(), FILL).await;
    for write in WRITES {
        let sql = format!("set session_replication_role = replica; {write}");
        cluster.write_on(cluster.east(), &sql).await;
    }
    let empty = "select (select count(*) from parted) || ' ' || (select count(*) from counted)";
    assert_eq!(cluster.west().value(empty).await, "0 0");
}
on_usual_majors!(writes_in_replica_role_go_on, super::goes_on);

/// Both nodes write a row while neither hears of the other, one of them in replica role.
async fn decides(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.write_on(cluster.east(), FILL).await;
    let role = "set session_replication_role = replica;";
    cluster
        .write_apart(
            &format!(
                "{role} delete from clocked where id = 1; update counted set n = n + 1 where id = 1;
                 delete from plain where id = 1; truncate parted_clock_1"
            ),
            "update counted set n = n + 2 where id = 1",
        )
        .await;
    let counted = "select n from counted where id = 1";
    assert_eq!(cluster.west().value(counted).await, "13");
    cluster
        .write_apart(
            "update clocked set v = 'older' where id = 2; update plain set v = 'older' where id = 2",
            &format!("{role} delete from clocked where id = 2; delete from plain where id = 2"),
        )
        .await;
    let left = "select count(*) from (select id from clocked union all select id from plain) t
        where id = 2";
    assert_eq!(cluster.east().value(left).await, "0");
    let back = format!("{role} insert into clocked values (2, 'back')");
    cluster.write_on(cluster.east(), &back).await;
    assert_eq!(
        cluster
            .west()
            .value("select v from clocked where id = 2")
            .await,
        "back"
    );
}
on_usual_majors!(
    writes_in_replica_role_are_versions_like_others,
    super::decides
);
