//! Rules that decide by a version kept in the row.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};
use crate::{on_every_major, on_majors};

/// `t` under a rule, on two nodes.
fn options(majors: &[u32], rule: &str) -> ClusterOptions {
    let table = format!("[[conflict.table]]\nname = \"public.t\"\n{rule}\n");
    ClusterOptions::majors(majors).config(&table)
}

const COLUMN: &str = "strategy = \"version_column\"\nversion_column = \"version\"";
const CLOCK: &str = "strategy = \"hybrid_clock\"";

async fn value(cluster: &Cluster) -> String {
    let sql = "select coalesce(string_agg(v, ' ' order by id), 'none') from t";
    cluster.east().value(sql).await
}

/// Type, and values in ascending order; the first comes before NULL's opposite, no version at all.
const TYPES: [(&str, [&str; 3]); 5] = [
    ("smallint", ["-1", "2", "10"]),
    ("int", ["-1", "2", "10"]),
    (
        "bigint",
        ["-9223372036854775808", "2", "9223372036854775807"],
    ),
    ("numeric", ["-1.5", "10.25", "NaN"]),
    (
        "timestamptz",
        [
            "0044-03-15 12:00+00 BC",
            "2026-01-01 00:00:00.5+00",
            "infinity",
        ],
    ),
];

async fn the_greater_version_wins(majors: &[u32]) {
    for (type_name, [low, middle, high]) in TYPES {
        let schema = format!("create table t (id int primary key, v text, version {type_name})");
        let cluster = Cluster::running_with(options(majors, COLUMN), &schema).await;
        cluster.wait_streaming().await;
        let first =
            format!("insert into t select g, 'first', '{low}' from generate_series(1, 4) g");
        cluster.write_on(cluster.east(), &first).await;
        let set = |v: &str, version: &str, id: u8| {
            format!("update t set v = '{v}', version = '{version}' where id = {id};")
        };
        // West writes later, and loses where its version is lower.
        let east = [set("e", high, 1), set("e", middle, 2), set("e", middle, 3)].concat();
        let west = [set("w", middle, 1), set("w", high, 2), set("w", middle, 3)].concat();
        let nothing = "update t set v = 'w', version = null where id = 4";
        cluster.write_apart(&east, &(west + nothing)).await;
        assert_eq!(value(&cluster).await, "e w w w", "{type_name}");
        // A version does not go back.
        cluster.write_on(cluster.west(), &set("back", low, 1)).await;
        let kept = format!("select version = '{high}' and v = 'back' from t where id = 1");
        assert_eq!(cluster.east().value(&kept).await, "t", "{type_name}");
        let kept = format!("select version = '{low}' from t where id = 4");
        assert_eq!(cluster.east().value(&kept).await, "t", "{type_name}");
    }
}
on_every_major!(
    the_greater_version_wins_on_both_nodes,
    super::the_greater_version_wins
);

const SCHEMA: &str = "create table t (id int primary key, v text, version bigint)";

/// Deletes have the version of the row they delete, and rows come back above them.
async fn deletes_have_versions(majors: &[u32]) {
    let cluster = Cluster::running_with(options(majors, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 'first', 5 from generate_series(1, 4) g";
    cluster.write_on(cluster.east(), fill).await;
    // The delete is later, its version is lower than the update's.
    let east = "update t set v = 'e', version = 6 where id in (1, 2)";
    cluster
        .write_apart(east, "delete from t where id in (1, 3)")
        .await;
    assert_eq!(value(&cluster).await, "e e first");
    // Equal versions: the later one wins, here a delete.
    cluster
        .write_apart(
            "update t set v = 'e' where id = 4",
            "delete from t where id = 4",
        )
        .await;
    assert_eq!(value(&cluster).await, "e e");
    // Inserted again with a lower version, and without one.
    let again = "insert into t values (3, 'again', 1), (4, 'again', null)";
    cluster.write_on(cluster.west(), again).await;
    assert_eq!(value(&cluster).await, "e e again again");
    let lifted = "select string_agg(version::text, ' ' order by id) from t where id > 2";
    assert_eq!(cluster.east().value(lifted).await, "5 5");
    // A key that is taken again, a truncate that lost against a later version.
    cluster
        .write_on(cluster.east(), "delete from t where id = 3")
        .await;
    cluster
        .write_on(cluster.west(), "update t set id = 3 where id = 1")
        .await;
    let west = "update t set v = 'w', version = 9 where id = 2";
    cluster.write_apart("truncate t", west).await;
    assert_eq!(value(&cluster).await, "w");
}
on_every_major!(
    deletes_take_the_version_of_their_row,
    super::deletes_have_versions
);

/// The clock decides, and a write that knows another one is above it.
async fn the_clock_decides(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(options(majors, CLOCK), schema).await;
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 'first' from generate_series(1, 4) g";
    cluster.write_on(cluster.east(), fill).await;
    let west = "update t set v = 'w' where id = 1; delete from t where id = 2;
        update t set v = 'w' where id = 3";
    cluster
        .write_apart("update t set v = 'e' where id < 4", west)
        .await;
    assert_eq!(value(&cluster).await, "w w first");
    // A version ahead of every clock: what comes after it is still above it.
    let ahead = "alter table t disable trigger user;
        update t set mmrepl_version = mmrepl_version + 1000000000000 where id = 4;
        alter table t enable trigger user";
    cluster.write_on(cluster.east(), ahead).await;
    cluster
        .write_on(cluster.west(), "update t set v = 'w' where id = 4")
        .await;
    assert_eq!(value(&cluster).await, "w w w");
    cluster
        .write_on(cluster.west(), "delete from t where id = 4")
        .await;
    cluster
        .write_on(cluster.east(), "insert into t values (4, 'again')")
        .await;
    assert_eq!(value(&cluster).await, "w w again");
    // Both in one transaction, and a truncate.
    cluster
        .write_on(
            cluster.east(),
            "begin; delete from t; insert into t values (1, 'e'); commit",
        )
        .await;
    assert_eq!(value(&cluster).await, "e");
    cluster.write_on(cluster.west(), "truncate t").await;
    assert_eq!(value(&cluster).await, "none");
}
on_every_major!(the_clock_in_the_row_decides, super::the_clock_decides);

/// Partitions: deletes, moves between them, inserts into what was deleted.
async fn partitions_keep_versions(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text) partition by range (id);
        create table t1 partition of t for values from (0) to (10);
        create table t2 partition of t for values from (10) to (20)";
    let cluster = Cluster::running_with(options(majors, CLOCK), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    cluster
        .write_on(east, "insert into t values (1, 'a'), (2, 'b'), (11, 'c')")
        .await;
    cluster
        .write_on(
            west,
            "update t set id = 12 where id = 1; delete from t where id = 11",
        )
        .await;
    cluster
        .write_on(
            east,
            "update t set id = 1 where id = 12; insert into t values (11, 'd')",
        )
        .await;
    assert_eq!(value(&cluster).await, "a b d");
    let later = "truncate t1; update t set v = 'w' where id = 11";
    cluster.write_apart("update t set v = 'e'", later).await;
    assert_eq!(value(&cluster).await, "w");
    cluster
        .write_on(east, "insert into t values (1, 'again')")
        .await;
    assert_eq!(value(&cluster).await, "again w");
}
on_every_major!(
    partitions_keep_versions_too,
    super::partitions_keep_versions
);

/// A snapshot that is older than the delete must not bring the row back below it.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_does_not_insert_below_a_delete() {
    let pair = ClusterOptions::pair().majors;
    let cluster = Cluster::running_with(options(&pair, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(cluster.east(), "insert into t values (1, 'first', 5)")
        .await;
    let client = cluster.east().client().await;
    let begin = "begin isolation level repeatable read; select count(*) from t";
    client.batch_execute(begin).await.unwrap();
    cluster.write_on(cluster.west(), "delete from t").await;
    let refused = client
        .batch_execute("insert into t values (1, 'old', 1)")
        .await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "40001");
    client.batch_execute("rollback").await.unwrap();
    let again = "begin isolation level serializable; insert into t values (1, 'again', 1); commit";
    cluster.write_on(cluster.east(), again).await;
    assert_eq!(
        cluster.west().value("select v || version from t").await,
        "again5"
    );
    let left = "select count(*) from mmrepl.tombstone where left_at = '-infinity'";
    assert_eq!(cluster.east().value(left).await, "0");
}

/// Edits of one version of a row: the first stays. An edit that knows another is the newer one.
async fn the_first_edit_stays(majors: &[u32]) {
    let rule = "strategy = \"first_write_wins\"";
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(options(majors, rule), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into t select g, 'first' from generate_series(1, 4) g";
    cluster.write_on(east, fill).await;
    let twice = "update t set v = 'w'; delete from t where id = 2;
        update t set v = 'w again' where id = 3";
    cluster.write_apart("update t set v = 'e'", twice).await;
    // Two edits were made knowing one more.
    assert_eq!(value(&cluster).await, "e w again e");
    cluster.write_on(west, "update t set v = 'later'").await;
    cluster
        .write_on(east, "insert into t values (2, 'back')")
        .await;
    assert_eq!(value(&cluster).await, "later back later later");
    // A delete of the same version is no better than an edit.
    cluster
        .write_apart("update t set v = 'e' where id = 1", "delete from t")
        .await;
    assert_eq!(value(&cluster).await, "e");
    let rules = "select string_agg(distinct rule, ' ') from mmrepl.conflict";
    assert_eq!(west.value(rules).await, "first_write_wins");
}
on_every_major!(
    the_first_edit_of_a_version_stays,
    super::the_first_edit_stays
);

/// Of concurrent edits the one of the more important node wins, whatever the clocks say.
async fn priority_wins(majors: &[u32]) {
    let rule = "strategy = \"node_priority\"\nnode_priority = [\"west\", \"east\"]";
    let schema = "create table t (id int primary key, v text)";
    let cluster = Cluster::running_with(options(majors, rule), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into t select g, 'first' from generate_series(1, 3) g";
    cluster.write_on(west, fill).await;
    cluster.pause_all().await;
    west.sql("update t set v = 'w' where id = 1; delete from t where id = 2")
        .await;
    east.sql("update t set v = 'e'; update t set v = 'e again'")
        .await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(value(&cluster).await, "w e again");
    cluster
        .write_on(east, "update t set v = 'e knows' where id = 1")
        .await;
    cluster
        .write_on(east, "insert into t values (2, 'back')")
        .await;
    assert_eq!(value(&cluster).await, "e knows back e again");
    let edits = "select string_agg(mmrepl_versions::text, ' ' order by id) from t";
    assert_eq!(west.value(edits).await, "{2,1} {2,1} {1,2}");
    let shown = "select string_agg(incoming_version || ' ' || local_version, ', ' order by id)
        from mmrepl.conflict where key_values = '{1}'";
    assert_eq!(west.value(shown).await, "{1,1} {2,0}, {1,2} {2,0}");
    let id = west
        .value("select 'west-' || max(id) from mmrepl.conflict where key_values = '{1}'")
        .await;
    let said = cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    assert!(
        said.contains("by node_priority") && said.contains("version {2,0}"),
        "{said}"
    );
}
on_every_major!(the_node_with_priority_wins, super::priority_wins);

/// Frozen rows and a server that has forgotten every commit time: versions in rows remain.
async fn forgotten_times(rule: &str) {
    let pair = ClusterOptions::pair().majors;
    let mut cluster = Cluster::running_with(options(&pair, rule).own_servers(), SCHEMA).await;
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 'first', 1 from generate_series(1, 3) g";
    cluster.write_on(cluster.east(), fill).await;
    cluster.pause_all().await;
    let east = "update t set v = 'e', version = 2; delete from t where id = 3";
    cluster.east().sql(east).await;
    let west = "update t set v = 'w', version = 3";
    cluster.west().sql(west).await;
    cluster.stop_daemons();
    for name in ["east", "west"] {
        for setting in ["off", "on"] {
            let sql = format!("alter system set track_commit_timestamp = {setting}");
            cluster.node(name).sql(&sql).await;
            cluster.server_mut(name).restart().unwrap();
        }
        let node = cluster.node(name);
        node.sql("vacuum freeze t").await;
        let known = "select count(pg_xact_commit_timestamp(xmin)) from t";
        assert_eq!(node.value(known).await, "0");
    }
    cluster.start_daemons();
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(value(&cluster).await, "w w w");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_column_outlives_commit_times() {
    forgotten_times(COLUMN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_in_the_row_outlives_commit_times() {
    forgotten_times(CLOCK).await;
}

/// Daemons with different rules do not write to each other, and go on once they have the same.
#[tokio::test(flavor = "multi_thread")]
async fn different_rules_stop_the_links_until_they_agree() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.allow_error("give both the same file");
    assert!(cluster.take_daemon("west").terminate().success());
    cluster.rewrite_config(&format!(
        "[[conflict.table]]\nname = \"public.t\"\n{COLUMN}\n"
    ));
    cluster.start_daemon("west");
    let said = "public.t is last_write_wins on east and version_column(version) here";
    cluster
        .wait_reason(("west", "east"), &["stopped"], said)
        .await;
    let said = "public.t is version_column(version) on west and last_write_wins here";
    cluster
        .wait_reason(("east", "west"), &["stopped"], said)
        .await;
    cluster.init().await;
    assert!(cluster.take_daemon("east").terminate().success());
    cluster.start_daemon("east");
    cluster.wait_streaming().await;
    cluster
        .write_apart(
            "insert into t values (1, 'e', 2)",
            "insert into t values (1, 'w', 1)",
        )
        .await;
    assert_eq!(value(&cluster).await, "e");
}

/// A tombstone with a counted version is kept: the same key may come back on a node that would
/// have swept it sooner.
#[tokio::test(flavor = "multi_thread")]
async fn tombstones_with_counted_versions_are_kept() {
    let pair = ClusterOptions::pair().majors;
    let own = options(&pair, COLUMN);
    let more = own.more_config.clone();
    let short = ClusterOptions {
        more_config: format!("[conflict]\ntombstones = \"1s\"\n{more}"),
        ..own
    };
    let schema = format!("{SCHEMA}; create table u (id int primary key)");
    let cluster = Cluster::running_with(short, &schema).await;
    cluster.wait_streaming().await;
    let gone = "insert into t values (1, 'x', 5); insert into u values (1); delete from t;
        delete from u";
    cluster.write_on(cluster.east(), gone).await;
    let left = "select string_agg(relation::regclass::text, ' ') from mmrepl.tombstone";
    for node in [cluster.east(), cluster.west()] {
        wait_until("the other tombstone to be swept", LIMIT, async || {
            let left = node.value(left).await;
            ensure(left == "t", || left.clone())
        })
        .await;
    }
}

/// An insert that waits for a delete of its key comes back above it.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_waited_for_a_delete_is_above_it() {
    let pair = ClusterOptions::pair().majors;
    for (rule, wanted) in [(COLUMN, "7"), ("strategy = \"first_write_wins\"", "3")] {
        let cluster = Cluster::running_with(options(&pair, rule), SCHEMA).await;
        cluster.wait_streaming().await;
        let east = cluster.east();
        cluster
            .write_on(east, "insert into t values (1, 'first', 7)")
            .await;
        let (deleter, inserter) = (east.client().await, east.client().await);
        let begin = "begin; delete from t where id = 1";
        deleter.batch_execute(begin).await.unwrap();
        let insert = tokio::spawn(async move {
            let sql = "insert into t values (1, 'again', 1)";
            inserter.batch_execute(sql).await
        });
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
            and datname = current_database() and query like 'insert into t%'";
        wait_until("the insert to wait", LIMIT, async || {
            ensure(east.value(waiting).await == "1", || {
                "it does not".to_owned()
            })
        })
        .await;
        deleter.batch_execute("commit").await.unwrap();
        insert.await.unwrap().unwrap();
        cluster.wait_equal().await;
        assert_eq!(value(&cluster).await, "again");
        let version = "select coalesce(to_jsonb(t) ->> 'mmrepl_version', version::text) from t";
        assert_eq!(cluster.west().value(version).await, wanted);
    }
}

/// A delete that is applied while an insert of its key is under way waits for it: the insert has
/// not seen the delete and its version is lower.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_for_an_insert_that_has_not_seen_it() {
    let pair = ClusterOptions::pair().majors;
    let rule = "strategy = \"first_write_wins\"";
    let cluster = Cluster::running_with(options(&pair, rule), SCHEMA).await;
    cluster.wait_streaming().await;
    let inserter = cluster.east().client().await;
    let insert = "begin; insert into t values (1, 'e', 1)";
    inserter.batch_execute(insert).await.unwrap();
    let gone = "begin; insert into t values (1, 'w', 1); delete from t; commit";
    cluster.west().sql(gone).await;
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    wait_until("the delete to wait", LIMIT, async || {
        let count = cluster.east().value(waiting).await;
        ensure(count == "1", || count.clone())
    })
    .await;
    inserter.batch_execute("commit").await.unwrap();
    cluster.wait_equal().await;
    assert_eq!(value(&cluster).await, "none");
}

/// What a rule needs and does not find is said before anything is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_its_rule_is_refused() {
    for (schema, said) in [
        (
            "create table t (id int primary key)",
            "has no column version",
        ),
        (
            "create table t (id int primary key, version text)",
            "is text and not",
        ),
        ("create table t (id int, version int)", "has no key"),
        (
            "create table t (version int primary key)",
            "is part of the key",
        ),
    ] {
        let pair = ClusterOptions::pair().majors;
        let cluster = Cluster::start(options(&pair, COLUMN)).await;
        cluster.sql_everywhere(schema).await;
        let output = cluster.mmrepl_fails(&["init"]).await;
        assert!(output.contains(said), "{output}");
    }
}

/// Another rule and `init` again: what it needs is there; `drop` takes everything away.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_change_its_rule() {
    let pair = ClusterOptions::pair().majors;
    let mut cluster = Cluster::running_with(options(&pair, COLUMN), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(
            cluster.east(),
            "insert into t values (1, 'first', 5), (2, 'gone', 7)",
        )
        .await;
    cluster
        .write_on(cluster.west(), "delete from t where id = 2")
        .await;
    cluster.stop_daemons();
    cluster.rewrite_config("[conflict]\nstrategy = \"hybrid_clock\"\n");
    cluster.init().await;
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing"));
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
        .write_apart(
            "update t set v = 'e', version = 100",
            "update t set v = 'w', version = 99",
        )
        .await;
    assert_eq!(value(&cluster).await, "w");
    cluster
        .write_on(cluster.east(), "insert into t values (2, 'again', 1)")
        .await;
    assert_eq!(value(&cluster).await, "w again");
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    let ours = "select (select count(*) from pg_attribute where attname like 'mmrepl%'
            and not attisdropped)
        + (select count(*) from pg_trigger where tgname like 'mmrepl%')";
    assert_eq!(cluster.east().value(ours).await, "0");
    let identity = "select relreplident::text from pg_class where relname = 't'";
    assert_eq!(cluster.west().value(identity).await, "d");
}

/// Whole old rows hold generated columns too, which 18 wants published.
async fn generated_columns_do_not_stop_updates(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text,
        twice text generated always as (v || v) stored)";
    for rule in [CLOCK, "strategy = \"manual\""] {
        let cluster = Cluster::running_with(options(majors, rule), schema).await;
        cluster.wait_streaming().await;
        let write = "insert into t values (1, 'a'), (2, 'b'), (3, 'c')";
        cluster.write_on(cluster.east(), write).await;
        let write = "update t set v = 'west' where id < 3; delete from t where id = 3";
        cluster.write_on(cluster.west(), write).await;
        let all = "select string_agg(twice, ' ' order by id) from t";
        assert_eq!(cluster.east().value(all).await, "westwest westwest");
    }
}
on_every_major!(
    generated_columns_are_no_obstacle,
    super::generated_columns_do_not_stop_updates
);

async fn an_unstored_column_is_refused(majors: &[u32]) {
    let cluster = Cluster::start(options(majors, CLOCK)).await;
    let schema =
        "create table t (id int primary key, v text, twice text generated always as (v || v))";
    cluster.sql_everywhere(schema).await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert!(said.contains("twice is generated and not stored"), "{said}");
    cluster
        .east()
        .sql("insert into t values (1, 'a'); update t set v = 'b'")
        .await;
}
mod an_unstored_generated_column {
    super::on_majors!(pg18, super::an_unstored_column_is_refused, 18, 18);
}
