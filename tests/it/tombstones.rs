//! What the triggers that init makes remember of deletes.

use super::init::{PLAIN, SHAPES, pair};
use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions};

#[tokio::test(flavor = "multi_thread")]
async fn truncating_one_partition_becomes_deletes() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let east = cluster.east();
    east.sql("insert into p select n, n from generate_series(0, 12) n")
        .await;
    east.sql("truncate p1").await;
    assert_eq!(east.value("select count(*) from p").await, "3");
    let keys =
        "select count(*) || ' ' || min(key) from mmrepl.tombstone where relation = 'p'::regclass";
    assert_eq!(east.value(keys).await, "10 {0,0}");
    east.sql("truncate p2").await;
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone").await,
        "13"
    );
    // The whole table is one tombstone, and its partitions' triggers stay out of it.
    east.sql("insert into p values (1, 1); truncate p").await;
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone where key = ''")
            .await,
        "1"
    );
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone").await,
        "14"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_keys_leave_one_tombstone() {
    let cluster = pair(
        r"
        create extension if not exists citext;
        create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create domain price as numeric;
        create type mood as enum ('sad', 'ok');
        create table k_numeric (k numeric primary key); create table k_price (k price primary key);
        create table k_citext (k citext primary key); create table k_bpchar (k char(5) primary key);
        create table k_float (k float8 primary key);
        create table k_interval (k interval primary key);
        create table k_nocase (k text collate nocase primary key);
        create table k_array (k numeric[] primary key);
        create table k_range (k numrange primary key); create table k_jsonb (k jsonb primary key);
        create table k_time (k timestamptz primary key); create table k_mood (k mood primary key);
        create table k_class (k regclass primary key); create table k_bytea (k bytea primary key)",
    )
    .await;
    cluster.init().await;
    let cases = [
        ("numeric", "1.0", "1.00"),
        ("price", "5", "5.000"),
        ("citext", "Ab", "aB"),
        ("bpchar", "a", "a  "),
        ("float", "-0", "0"),
        ("interval", "1 mon", "30 days"),
        ("nocase", "Ab", "aB"),
        ("array", "{1.0}", "{1.00}"),
        ("range", "[1.0,2]", "[1,2.00]"),
        ("jsonb", "{\"a\": 1.0}", "{\"a\": 1.00}"),
        ("time", "2026-01-01 12:00+00", "2026-01-01 14:00+02"),
        ("mood", "ok", "ok"),
        ("class", "k_mood", "public.k_mood"),
        ("bytea", "\\x00ff", "\\000\\377"),
    ];
    let east = cluster.east().client().await;
    for (table, a, b) in cases {
        // Settings of the session must not change the text.
        let sql = format!(
            "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo'; set bytea_output = 'escape'; set extra_float_digits = -10;
             insert into k_{table} values ('{a}'); delete from k_{table};
             set timezone = 'UTC'; set search_path = public; reset bytea_output;
             insert into k_{table} values ('{b}'); delete from k_{table}"
        );
        crate::support::pg::execute(&east, &sql).await;
        let count =
            format!("select count(*) from mmrepl.tombstone where relation = 'k_{table}'::regclass");
        assert_eq!(
            cluster.east().value(&count).await,
            "1",
            "{table}: {a} and {b}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deletes_leave_one_tombstone_for_each_key() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let east = cluster.east();
    let fill = "insert into t select n, '' from generate_series(1, 60) n";
    let kept =
        "select count(*) || ' ' || count(distinct key) || ' ' || count(*) filter (where bulk)
        from mmrepl.tombstone";
    for isolation in ["read committed", "repeatable read"] {
        // Keys that were deleted before: alone, with others, in this transaction, and not at all.
        let again = format!("{fill} on conflict do nothing");
        east.sql("truncate mmrepl.tombstone").await;
        for sql in [
            fill,
            "delete from t where id = 1",
            "delete from t where id > 30",
        ] {
            east.sql(sql).await;
        }
        east.sql(&again).await;
        let client = east.client().await;
        let sql = format!(
            "begin isolation level {isolation}; delete from t where id < 30; {again};
             delete from t; commit"
        );
        crate::support::pg::execute(&client, &sql).await;
        let wanted = match isolation {
            "read committed" => "60 60 60",
            // There the place beside the one for many is taken, whatever is in that.
            _ => "90 60 30",
        };
        assert_eq!(east.value(kept).await, wanted, "{isolation}");
    }
}

/// A snapshot of the whole transaction does not show tombstones that came later.
#[tokio::test(flavor = "multi_thread")]
async fn many_deletes_under_an_old_snapshot_meet_no_tombstone() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let east = cluster.east();
    let old = east.client().await;
    let begin = "begin isolation level repeatable read; select count(*) from t";
    crate::support::pg::execute(&old, begin).await;
    let fill = "insert into t select n, '' from generate_series(1, 60) n";
    east.sql(fill).await;
    east.sql("delete from t").await;
    let same = format!("{fill}; delete from t; commit");
    crate::support::pg::execute(&old, &same).await;
    let kept = "select count(*) || ' ' || count(distinct key) from mmrepl.tombstone";
    assert_eq!(east.value(kept).await, "120 60");
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_key_leaves_a_tombstone_and_nothing_else_does() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let east = cluster.east();
    let plain = "insert into t values (1, 'a'); update t set v = 'b';
        update t set id = 1; update t set id = 2";
    let quoted = r#"insert into "Ünï ""q"".x" values (1, 'a');
        update "Ünï ""q"".x" set "K é" = 7; delete from "Ünï ""q"".x""#;
    east.sql(plain).await;
    east.sql(quoted).await;
    let keys = "select string_agg(key, ' ' order by relation, key) from mmrepl.tombstone";
    assert_eq!(east.value(keys).await, "{1} {1} {7}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_carries_the_version_of_its_delete() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let origin = format!("mmrepl_{}_west", cluster.name);
    let east = cluster.east().client().await;
    let local = "insert into t values (1, 'a'), (2, 'b')";
    for sql in [
        local,
        "delete from t where id = 1",
        &format!("select pg_replication_origin_session_setup('{origin}')"),
        "set session_replication_role = replica",
        "begin; select pg_replication_origin_xact_setup('0/10', '2020-01-01 00:00:00+00');
         delete from t where id = 2; commit",
    ] {
        crate::support::pg::execute(&east, sql).await;
    }
    let versions = "
        select string_agg(key || ' ' || roident || ' '
                          || extract(year from \"timestamp\" at time zone 'UTC'), ', ' order by key)
        from mmrepl.tombstone t, pg_xact_commit_timestamp_origin(t.xmin) o";
    let west = cluster
        .east()
        .value("select origin_id from mmrepl.node where name = 'west'")
        .await;
    let year = cluster
        .east()
        .value("select extract(year from now() at time zone 'UTC')")
        .await;
    assert_eq!(
        cluster.east().value(versions).await,
        format!("{{1}} 0 {year}, {{2}} {west} 2020")
    );
}

/// Who deletes what somebody else is deleting and inserting again waits, and never fails.
#[tokio::test(flavor = "multi_thread")]
async fn many_deletes_at_once_do_not_get_in_each_others_way() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let fill = "insert into t select n, '' from generate_series(1, 60) n on conflict do nothing";
    let work = format!("begin; delete from t; {fill}; delete from t where id > 20; {fill}; commit");
    let writers = (0..4).map(async |_| {
        let client = cluster.east().client().await;
        for _ in 0..40 {
            // Writers that wait for each other in a circle are the application's own affair.
            let done = client.batch_execute(&work).await;
            let state = done.err().and_then(|error| error.code().cloned());
            let deadlock = tokio_postgres::error::SqlState::T_R_DEADLOCK_DETECTED;
            assert!(state.is_none() || state == Some(deadlock), "{state:?}");
            let _ = client.batch_execute("rollback").await;
        }
    });
    futures_util::future::join_all(writers).await;
    let left = "select count(*) || ' ' || count(distinct key) from mmrepl.tombstone where bulk";
    assert_eq!(cluster.east().value(left).await, "60 60");
}

/// In a pair nothing older than an applied delete can come: it leaves a tombstone only in the place
/// of one that is there, and otherwise where a third node may be about to join.
async fn the_only_peer_leaves_none(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text);
        create table p (id int primary key, v text) partition by range (id);
        create table p1 partition of p for values from (0) to (1000)";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into t select n, '' from generate_series(1, 200) n;
        insert into p select n, '' from generate_series(1, 60) n";
    cluster.write_on(east, fill).await;
    let some = "delete from t where id <= 60; delete from t where id = 61; delete from p";
    cluster.write_on(east, some).await;
    let keys = "select count(*) || ' ' || count(distinct (relation, key)) from mmrepl.tombstone";
    assert_eq!(east.value(keys).await, "121 121");
    assert_eq!(west.value(keys).await, "0 0");
    // East's delete takes the place of west's own.
    let again = "insert into t select n, 'west' from generate_series(51, 100) n
        on conflict (id) do nothing; delete from t where id between 51 and 55";
    cluster.write_on(west, again).await;
    assert_eq!(west.value(keys).await, "5 5");
    cluster
        .write_on(east, "insert into t values (51, 'east')")
        .await;
    let again = "delete from t where id = 51; delete from t where id > 55";
    cluster.write_on(east, again).await;
    let by_east = "select string_agg(key, ' ') from mmrepl.tombstone t
        where (pg_xact_commit_timestamp_origin(t.xmin)).roident
            = (select origin_id from mmrepl.node where name = 'east')";
    assert_eq!(west.value(keys).await, "5 5");
    assert_eq!(west.value(by_east).await, "{51}");
    // What came and went in between was never here.
    let queue = "do $$ begin for n in 500..560 loop
        insert into t values (n, ''); commit; delete from t where id = n; commit;
        end loop; end $$";
    cluster.write_on(east, queue).await;
    assert_eq!(west.value(keys).await, "5 5");
    // Who adds a node waits for deletes that count on there being two.
    let applying = west.client().await;
    let delete = "set mmrepl.only_peer = on; begin; delete from t";
    applying.batch_execute(delete).await.unwrap();
    let held = "select count(*) > 0 from pg_locks where relation = 'mmrepl.node'::regclass
        and mode = 'AccessShareLock'";
    assert_eq!(west.value(held).await, "t");
    applying.batch_execute("rollback").await.unwrap();
    west.sql("insert into mmrepl.node (name, here, system_id) values ('north', false, '1')")
        .await;
    cluster.write_on(east, "insert into t values (1, '')").await;
    cluster.write_on(east, "delete from t where id = 1").await;
    assert_eq!(west.value(keys).await, "6 6");
    west.sql("delete from mmrepl.node where name = 'north'")
        .await;
}
on_every_major!(
    what_the_only_peer_deletes_leaves_no_tombstone,
    super::the_only_peer_leaves_none
);
