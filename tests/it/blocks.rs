//! Statements that delete very many rows: their tombstones stand in blocks of many keys.

use crate::support::{Cluster, ClusterOptions, pg, pool};
use crate::{on_every_major, on_usual_majors};

/// How many tombstones stand alone, and how many in blocks.
const LEFT: &str = "select (select count(*) from mmrepl.tombstone) || ' '
    || (select count(*) from mmrepl.keys_in_blocks())";

/// Tables whose keys are of every kind that blocks tell apart, and 300 values of each kind.
const KINDS: [(&str, &str, &str); 9] = [
    ("int2", "id smallint", "select n - 150"),
    ("int8", "id bigint", "select n * 1000003 - 150000000"),
    (
        "ends",
        "id bigint",
        "select case when n <= 150 then 9223372036854775807 - n + 1
        else -9223372036854775808 + n - 151 end",
    ),
    ("uuid", "id uuid", "select md5(n::text)::uuid"),
    (
        "extremes",
        "id uuid",
        "select case when n <= 150
        then ('ffffffff-ffff-ffff-ffff-' || lpad((10 ^ 12 - n)::bigint::text, 12, '0'))::uuid
        else ('00000000-0000-0000-0000-' || lpad((n - 151)::text, 12, '0'))::uuid end",
    ),
    (
        "text",
        "id text",
        "select case n % 3 when 0 then 'key ' || n when 1 then n::text
        else '0' || n end",
    ),
    ("numeric", "id numeric", "select n / 2.0"),
    ("two", "id int, \"K\" text", "select n, 'it''s \"' || n"),
    (
        "stamp",
        "id timestamptz",
        "select '2026-01-01'::timestamptz + n * interval '1 hour'",
    ),
];

fn tables() -> String {
    let table = |(name, columns, _): &(&str, &str, &str)| {
        let key = if columns.contains(',') {
            "id, \"K\""
        } else {
            "id"
        };
        format!("create table k_{name} ({columns}, v text, primary key ({key}));")
    };
    KINDS.iter().map(table).collect()
}

/// Every key that was deleted is found, whatever the settings of the session; no other one is.
async fn kinds(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(&tables()).await;
    cluster.init().await;
    let client = cluster.east().client().await;
    for (name, _, values) in KINDS {
        let insert = format!(
            "set search_path = public; insert into k_{name} {values} from generate_series(1, 300) n;
             set search_path = ''; set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo';"
        );
        pg::execute(&client, &insert).await;
        // The keys one by one, so that each has a row first.
        let single = format!(
            "do $$ declare place tid; begin
                 for place in select ctid from public.k_{name} loop
                     delete from public.k_{name} where ctid = place;
                 end loop;
             end $$;
             create temp table wanted as select key from mmrepl.tombstone;
             truncate mmrepl.tombstone"
        );
        pg::execute(&client, &single).await;
        pg::execute(&client, &insert).await;
        pg::execute(&client, &format!("delete from public.k_{name}")).await;
        let both = "select (select count(*) from mmrepl.tombstone) || ' '
            || (select count(*) from mmrepl.keys_in_blocks()) || ' '
            || (select count(*) from mmrepl.keys_in_blocks() b join wanted w using (key))";
        assert_eq!(pg::value(&client, both).await, "0 300 300", "{name}");
        let relation = format!("'public.k_{name}'::regclass");
        let found = format!(
            "select count(x.xmin) || ' ' || count(distinct x.key) from wanted w
             cross join lateral mmrepl.tombstones_of({relation}, w.key) x"
        );
        assert_eq!(pg::value(&client, &found).await, "300 300", "{name}");
        let others = format!(
            "select count(*) from (select left(key, -1) || '1}}' from wanted
                 union select '{{0' || substr(key, 2) from wanted
                 union select key || ' ' from wanted
                 except select key from wanted) w(key)
             cross join lateral mmrepl.tombstones_of({relation}, w.key) x"
        );
        assert_eq!(pg::value(&client, &others).await, "0", "{name}");
        let other = "select count(*) from wanted w
            cross join lateral mmrepl.tombstones_of('mmrepl.node'::regclass, w.key) x";
        assert_eq!(pg::value(&client, other).await, "0", "{name}");
        let done = "drop table wanted; delete from mmrepl.tombstone_block";
        pg::execute(&client, done).await;
    }
}
on_every_major!(a_key_of_any_kind_is_found_in_its_block, super::kinds);

/// The key's two places: a block takes the place of all that was there before, and what comes to
/// the second place takes the block's.
async fn places(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster
        .sql_everywhere("create table t (id int primary key)")
        .await;
    cluster.init().await;
    let east = cluster.east();
    let fill = "insert into t select n from generate_series(1, 300) n on conflict do nothing";
    let found = "select string_agg(bulk::text, ' ' order by left_at)
        from mmrepl.tombstones_of('t'::regclass, '{7}')";
    for (sql, wanted) in [
        ("delete from t where id = 7", "false"),
        ("delete from t", "true"),
        ("delete from t where id = 7", "true false"),
        ("delete from t where id < 30", "true"),
        ("delete from t where id = 7", "true false"),
        ("delete from t", "true"),
        ("delete from t", "true"),
    ] {
        east.sql(fill).await;
        east.sql(sql).await;
        assert_eq!(east.value(found).await, wanted, "{sql}");
    }
    // What has been there for the whole of a transaction does not hide a block that came later.
    let old = east.client().await;
    pg::execute(
        &old,
        "begin isolation level repeatable read; select count(*) from t",
    )
    .await;
    east.sql(fill).await;
    east.sql("delete from t").await;
    let later = format!("{fill}; delete from t; commit");
    pg::execute(&old, &later).await;
    assert_eq!(east.value(found).await, "true false");
    let blocks = "select count(*) || ' ' || sum(cardinality(ints)) from mmrepl.tombstone_block";
    assert_eq!(east.value(blocks).await, "8 1200");
}
on_every_major!(
    a_block_stands_in_the_second_place_of_its_keys,
    super::places
);

/// Rows of 400 keys, east's deletes in blocks, and what is older or newer than they are.
async fn decided(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text);
        create table u (id uuid primary key, v text);
        create table w (a int, b text, v text, primary key (a, b))";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into t select n, 'a' from generate_series(1, 400) n on conflict do nothing;
        insert into u select md5(n::text)::uuid, 'a' from generate_series(1, 400) n
            on conflict do nothing;
        insert into w select n, 'b' || n, 'a' from generate_series(1, 400) n
            on conflict do nothing";
    let gone = "delete from t; delete from u; delete from w";
    cluster.write_on(east, fill).await;
    // Deleted alone, inserted again, deleted with others; before that, the peer writes.
    cluster.pause_all().await;
    let writes = "update t set v = 'west' where id in (1, 2);
        update u set v = 'west' where id = md5('2')::uuid;
        update w set v = 'west' where a = 3";
    west.sql(writes).await;
    for sql in [
        "delete from t where id = 1",
        "insert into t values (1, 'again')",
        gone,
    ] {
        east.sql(sql).await;
    }
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let rows = "select (select count(*) from t) || ' ' || (select count(*) from u) || ' '
        || (select count(*) from w)";
    assert_eq!(east.value(rows).await, "0 0 0");
    assert_eq!(east.value(LEFT).await, "1 1200");
    assert_eq!(west.value(LEFT).await.split(' ').next_back(), Some("0"));
    // What is newer than a delete comes back whole.
    cluster.write_on(east, fill).await;
    cluster.write_apart(gone, writes).await;
    assert_eq!(east.value(rows).await, "2 1 1");
    let back = "select string_agg(v, ' ') from (select v from t union all select v from u
        union all select v from w) x";
    assert_eq!(west.value(back).await, "west west west west");
    // An insert that the peer made before it knew of the delete, into a table without the row.
    let inserts = "insert into t values (300, 'west'), (301, 'west')";
    cluster.write_on(east, gone).await;
    cluster.write_on(east, fill).await;
    cluster.write_on(west, "delete from t where id > 250").await;
    cluster.pause_all().await;
    west.sql(inserts).await;
    east.sql("insert into t values (300, 'east')").await;
    east.sql(gone).await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let came = "select string_agg(id::text, ' ') from t";
    assert_eq!(east.value(came).await, "301");
    // East's own delete takes the place of what west has in a block.
    cluster.write_on(west, fill).await;
    cluster.write_on(west, gone).await;
    cluster
        .write_on(east, "insert into t values (5, 'east')")
        .await;
    cluster.write_on(east, "delete from t where id = 5").await;
    let single = "select string_agg(key, ' ') from mmrepl.tombstone where key = '{5}'";
    assert_eq!(west.value(single).await, "{5}");
    let conflicts = "select count(*) from mmrepl.conflict where key_values = '{5}'";
    assert_eq!(west.value(conflicts).await, "0");
}
on_every_major!(
    a_delete_in_a_block_wins_and_loses_like_any_other,
    super::decided
);

/// The third node's older writes meet what an applied delete of many left.
#[tokio::test(flavor = "multi_thread")]
async fn applied_deletes_of_many_leave_blocks_where_a_third_node_may_write() {
    let majors = [pool::usual_major(); 3];
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(ClusterOptions::majors(&majors), schema).await;
    cluster.wait_streaming().await;
    let east = cluster.east();
    let fill = "insert into t select n, 'a' from generate_series(1, 5000) n";
    cluster.write_on(east, fill).await;
    cluster.pause_all().await;
    cluster
        .node("north")
        .sql("update t set v = 'north' where id % 50 = 0")
        .await;
    east.sql("delete from t").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let rows = "select count(*) from t";
    let keys = "select count(distinct key) from (select key from mmrepl.tombstone
        union all select key from mmrepl.keys_in_blocks()) k";
    let blocks = "select count(*) > 0 from mmrepl.tombstone_block";
    for node in &cluster.nodes {
        assert_eq!(node.value(rows).await, "0", "{}", node.name);
        assert_eq!(node.value(keys).await, "5000", "{}", node.name);
        assert_eq!(node.value(blocks).await, "t", "{}", node.name);
    }
}

/// A key that is spelled otherwise since: its column has another name, another type.
async fn altered(majors: &[u32]) {
    let cluster = Cluster::running_with(
        ClusterOptions::majors(majors),
        "create table t (id int primary key)",
    )
    .await;
    cluster.wait_streaming().await;
    let east = cluster.east();
    let fill = "insert into t select (n || '')::KIND from generate_series(1, 300) n";
    let found =
        "select count(distinct x.key) from (select n::text from generate_series(1, 300) n) k(n)
        cross join lateral mmrepl.tombstones_of('t'::regclass, format('{%s}', n)) x";
    let gone = "delete from t";
    let mut kind = "int";
    for (change, then) in [
        ("alter table t rename id to \"the key\"", "int"),
        ("alter table t alter \"the key\" type bigint", "bigint"),
        ("alter table t alter \"the key\" type text", "text"),
        (
            "alter table t alter \"the key\" type int using \"the key\"::int",
            "int",
        ),
    ] {
        cluster.write_on(east, &fill.replace("KIND", kind)).await;
        cluster.write_on(east, gone).await;
        assert_eq!(east.value(LEFT).await, "0 300", "before {change}");
        cluster.sql_everywhere(change).await;
        assert_eq!(east.value(found).await, "300", "{change}");
        kind = then;
        // Deletes of the changed key, before and after init knows of the change.
        for from in ["before", "after"] {
            cluster.write_on(east, &fill.replace("KIND", kind)).await;
            cluster.write_on(east, gone).await;
            assert_eq!(east.value(found).await, "300", "{from} init, {change}");
            cluster.mmrepl_ok(&["init"]).await;
        }
        assert_ne!(east.value(LEFT).await, "0 300");
        east.sql("delete from mmrepl.tombstone; delete from mmrepl.tombstone_block")
            .await;
    }
}
on_usual_majors!(a_block_outlives_changes_of_the_key, super::altered);

/// Where many statements deleted keys from all over, another one leaves a tombstone for each key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_lies_among_few_blocks() {
    let majors = ClusterOptions::pair().majors;
    let cluster = Cluster::start(ClusterOptions::majors(&majors)).await;
    let schema = "create table t (id int primary key); create table s (id text primary key);
        create table u (id uuid primary key)";
    cluster.sql_everywhere(schema).await;
    cluster.init().await;
    let east = cluster.east();
    for round in 0..20 {
        let sql = format!(
            "insert into t select n * 100 + {round} from generate_series(1, 300) n; delete from t;
             insert into s select n || ' {round}' from generate_series(1, 300) n; delete from s;
             insert into u select md5(n || ' {round}')::uuid from generate_series(1, 300) n;
             delete from u"
        );
        east.sql(&sql).await;
    }
    let by_table = "select string_agg(relation::regclass || ' ' || n, ' '
            order by relation::regclass::text) from (
        select relation, count(*) n from mmrepl.keys_in_blocks() group by 1) k";
    assert_eq!(east.value(by_table).await, "s 1200 t 1200 u 1200");
    assert_eq!(east.value(LEFT).await, "14400 3600");
    // Keys that follow each other have room.
    let next = "insert into t select n from generate_series(100000, 110000) n; delete from t";
    east.sql(next).await;
    assert_eq!(east.value(LEFT).await, "14400 13601");
}

/// More rows than are sorted at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_and_more() {
    let majors = ClusterOptions::pair().majors;
    let cluster = Cluster::start(ClusterOptions::majors(&majors)).await;
    cluster
        .sql_everywhere("create table t (id bigint primary key)")
        .await;
    cluster.init().await;
    let east = cluster.east();
    east.sql("insert into t select 2000000 - n from generate_series(1, 1001000) n")
        .await;
    east.sql("delete from t").await;
    let keys = "select count(*) || ' ' || count(distinct key) from mmrepl.keys_in_blocks()";
    assert_eq!(east.value(keys).await, "1001000 1001000");
    let found = "select count(x.xmin) from generate_series(998975, 2000025, 25) n
        cross join lateral mmrepl.tombstones_of('t'::regclass, format('{%s}', n)) x";
    assert_eq!(east.value(found).await, "40040");
    let blocks = "select max(cardinality(ints)) || ' ' || count(*) from mmrepl.tombstone_block";
    assert_eq!(east.value(blocks).await, "240 4172");
}

/// Tables whose rows keep their version remember each key by itself, also those from before.
#[tokio::test(flavor = "multi_thread")]
async fn another_rule_has_the_memory_of_the_one_before() {
    let majors = ClusterOptions::pair().majors;
    let mut cluster = Cluster::start(ClusterOptions::majors(&majors)).await;
    let schema = "create table t (id int primary key, v int);
        create table kept (id int primary key, v int)";
    cluster.sql_everywhere(schema).await;
    cluster.init().await;
    let east = cluster.east();
    let work = "insert into t select n, 1 from generate_series(1, 300) n; delete from t;
        insert into t values (7, 1); delete from t;
        insert into kept select n, 1 from generate_series(1, 300) n; delete from kept";
    east.sql(work).await;
    assert_eq!(east.value(LEFT).await, "1 600");
    let rule = "[[conflict.table]]\nname = \"public.t\"\nstrategy = \"version_column\"\n\
        version_column = \"v\"\n";
    cluster.rewrite_config(rule);
    cluster.mmrepl_ok(&["init"]).await;
    let east = cluster.east();
    assert_eq!(east.value(LEFT).await, "301 300");
    east.sql("insert into t select n, 2 from generate_series(1, 300) n; delete from t")
        .await;
    let versions = "select count(version) from mmrepl.tombstone where not bulk";
    assert_eq!(east.value(versions).await, "300");
    assert_eq!(east.value(LEFT).await.split(' ').next_back(), Some("300"));
}
