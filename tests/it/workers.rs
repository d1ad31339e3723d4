//! Several sessions that write one link's changes at once.

use serde_json::Value;

#[cfg(feature = "failpoints")]
use crate::histories::{Place, Scene, What};
#[cfg(feature = "failpoints")]
use crate::history::Strategy;
use crate::on_every_major;
#[cfg(feature = "failpoints")]
use crate::support::Rng;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, pool, wait_until};

const WORKERS: &str = "[apply]\napply_workers = 3\n";

/// Each transaction of a source is one of the target; they are spread over the sessions however
/// little time they take.
#[cfg(feature = "failpoints")]
async fn cluster_of_three(schema: &str) -> Cluster {
    let options = ClusterOptions::majors(&[pool::usual_major(); 3]).config(WORKERS);
    let options = options
        .daemon_env("MMREPL_APPLY", "always_ahead")
        .daemon_env("MMREPL_GROUP_ROWS", "1");
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    cluster
}

/// Condition for `pg_stat_activity` on west: the sessions of the link from east.
fn of_link(cluster: &Cluster) -> String {
    format!(
        "application_name like 'mmrepl {} east->west apply%'",
        cluster.name
    )
}

/// How many of a link's sessions have something to do and how many there are.
fn workers(link: &Value) -> (u64, u64) {
    let number = |name: &str| link["workers"][name].as_u64().unwrap();
    (number("busy"), number("all"))
}

/// Who looks at the target sees a beginning of what the source has committed, while several
/// sessions are writing what comes next.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_is_what_the_source_once_showed() {
    let tables = "create table a (id int primary key, n int);
        create table b (id int primary key, n int);
        create table c (id int primary key, n int);
        insert into a values (1, 0); insert into b values (1, 0); insert into c values (1, 0)";
    let cluster = cluster_of_three(tables).await;
    let writer = cluster.east().client().await;
    let open = format!(
        "select count(*) from pg_stat_activity where backend_xid is not null and {}",
        of_link(&cluster)
    );
    let look = format!("select (select n from a), (select n from b), (select n from c), ({open})");
    let (mut written, mut seen_together) = (0, 0);
    let reader = cluster.west().client().await;
    wait_until("sessions to be seen at work together", LIMIT, async || {
        let (from, to) = (written + 1, written + 400);
        written = to;
        let write = format!(
            "do $$ begin for i in {from}..{to} loop
                update a set n = i; commit; update b set n = i; commit; update c set n = i; commit;
            end loop; end $$"
        );
        pg::execute(&writer, &write).await;
        loop {
            let row = pg::rows(&reader, &look).await.remove(0);
            let numbers = row
                .iter()
                .map(|text| text.as_ref().unwrap().parse().unwrap());
            let numbers: Vec<i32> = numbers.collect();
            let [a, b, c, open] = numbers[..] else {
                panic!("{numbers:?}")
            };
            assert!(a >= b && b >= c && a <= c + 1, "{numbers:?}");
            seen_together += i32::from(open > 1);
            if c == written {
                break;
            }
        }
        ensure(seen_together >= 50, || format!("{seen_together} times"))
    })
    .await;
    cluster.wait_equal().await;
    let link = cluster.link_status("east", "west").await.unwrap();
    assert_eq!(workers(&link), (0, 3), "{link}");
    let back = cluster.link_status("west", "east").await.unwrap();
    assert_eq!(back["totals"]["rows"], 0, "{back}");
    let conflicts = "select count(*) from mmrepl.conflict";
    assert_eq!(cluster.west().value(conflicts).await, "0");
}

/// A backlog is written by all sessions; what they wrote counts as the source's, and stays there.
#[cfg(feature = "failpoints")]
async fn a_backlog_is_shared(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text, n int not null default 0);
        insert into t select g, 'old' from generate_series(1, 20000) g";
    // Small groups: the first one is refused, as nobody knows yet that the table has tombstones.
    let options = ClusterOptions::majors(majors)
        .config(WORKERS)
        .daemon_env("MMREPL_GROUP_ROWS", "500");
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    let backlog = "do $$ begin for i in 0..199 loop
            update t set n = i where id between i * 100 + 1 and i * 100 + 90;
            delete from t where id between i * 100 + 91 and i * 100 + 100;
            insert into t select 20000 + i * 100 + g, 'new' from generate_series(1, 100) g;
            commit;
        end loop; end $$";
    cluster.east().sql(backlog).await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    let writers = "select count(distinct (pg_xact_commit_timestamp_origin(xmin)).roident) from t";
    assert_eq!(cluster.west().value(writers).await, "3");
    // All of it is east's to both of them.
    cluster
        .west()
        .sql("update t set v = 'west' where id % 2 = 0")
        .await;
    cluster
        .east()
        .sql("update t set v = 'east' where id % 2 = 1")
        .await;
    cluster.wait_equal().await;
    for node in &cluster.nodes {
        assert_eq!(
            node.value("select count(*) from mmrepl.conflict").await,
            "0"
        );
    }
    let back = cluster.link_status("west", "east").await.unwrap();
    assert_eq!(back["totals"]["rows"], 19_000, "{back}");
    assert!(!cluster.mmrepl_ok(&["check"]).await.contains("origins"));
}
#[cfg(feature = "failpoints")]
on_every_major!(a_backlog_is_shared_by_workers, super::a_backlog_is_shared);

/// West's writer holds a row that east's first transaction changes, and waits for one that its
/// second has written, which waits for the first: the writer is let through.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_local_writer_between_the_workers_is_let_through() {
    let schema = "create table t (id int primary key, v text);
        insert into t select g, 'old' from generate_series(1, 9) g";
    let cluster = cluster_of_three(schema).await;
    let sessions = of_link(&cluster);
    let waits_for_its_turn = format!(
        "select count(*) from pg_stat_activity where {sessions} and query like '%await_turn%'"
    );
    let met = "select count(*) from pg_stat_activity w
        join pg_stat_activity b on b.pid = any (pg_blocking_pids(w.pid))
        where w.query like '%of the local writer%' and b.query like '%await_turn%'
            and w.datname = current_database()";
    let watcher = cluster.west().client().await;
    let mut circles = 0;
    wait_until("a circle", LIMIT, async || {
        let local = cluster.west().client().await;
        pg::execute(&local, "begin; update t set v = 'west' where id = 1").await;
        let change = "begin; update t set v = 'east' where id = 1; commit;
            begin; update t set v = 'east' where id = 2; commit";
        cluster.east().sql(change).await;
        let mut tries = 0;
        while pg::value(&watcher, &waits_for_its_turn).await == "0" && tries < 1000 {
            tries += 1;
        }
        let waiting = "update t set v = 'of the local writer' where id = 2; commit";
        let local_writer = tokio::spawn(async move { pg::execute(&local, waiting).await });
        while !local_writer.is_finished() {
            circles += i32::from(pg::value(&watcher, met).await != "0");
        }
        local_writer.await.unwrap();
        cluster.wait_equal().await;
        ensure(circles > 0, || "not met".to_owned())
    })
    .await;
    assert_eq!(
        cluster.link_status("east", "west").await.unwrap()["totals"]["reconnects"],
        1
    );
}

/// Nothing of the other sessions is used, nor their origins.
#[tokio::test(flavor = "multi_thread")]
async fn one_is_the_default() {
    let cluster = Cluster::running("create table t (id int primary key)").await;
    cluster.wait_streaming().await;
    let sessions = format!(
        "select count(*) from pg_stat_activity where {}",
        of_link(&cluster)
    );
    assert_eq!(cluster.west().value(&sessions).await, "1");
    let origins = format!(
        "select count(*) from pg_replication_origin where roname like 'mmrepl\\_{}\\_%-2'",
        cluster.name
    );
    assert_eq!(cluster.west().value(&origins).await, "0");
    assert!(cluster.link_status("east", "west").await.unwrap()["workers"].is_null());
}

/// More are asked for than `init` has made origins for; after it has, they come.
#[tokio::test(flavor = "multi_thread")]
async fn init_makes_room_for_more() {
    let mut cluster = Cluster::running("create table t (id int primary key, n int)").await;
    cluster.wait_streaming().await;
    cluster.rewrite_config("[apply]\napply_workers = 3\n");
    let sessions = format!(
        "select count(*) from pg_stat_activity where {}",
        of_link(&cluster)
    );
    for (wanted, says) in [("1", true), ("3", false)] {
        cluster.stop_daemons();
        cluster.start_daemons();
        cluster.wait_streaming().await;
        assert_eq!(cluster.west().value(&sessions).await, wanted);
        let link = cluster.link_status("east", "west").await.unwrap();
        assert_eq!(
            link["notices"].to_string().contains("mmrepl init"),
            says,
            "{link}"
        );
        cluster.init().await;
    }
    cluster.stop_daemons();
    cluster
        .mmrepl_ok(&["drop", "--node", "west", "--yes"])
        .await;
    let origins = format!(
        "select count(*) from pg_replication_origin where roname like 'mmrepl\\_{}\\_%'",
        cluster.name
    );
    assert_eq!(cluster.west().value(&origins).await, "0");
}

/// A server with room for two origins in use: the third worker stays away, the link goes on.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_write_where_the_server_has_no_room() {
    let setting = if pool::usual_major() >= 18 {
        "max_active_replication_origins"
    } else {
        "max_replication_slots"
    };
    let options = ClusterOptions::pair().config(WORKERS).own_servers();
    let mut cluster = Cluster::start(options).await;
    cluster
        .sql_everywhere("create table t (id int primary key)")
        .await;
    cluster.init().await;
    let less = format!("alter system set {setting} = 2");
    cluster.west().sql(&less).await;
    cluster.server_mut("west").restart().unwrap();
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let link = cluster.link_status("east", "west").await.unwrap();
    let notices = link["notices"].to_string();
    assert!(notices.contains("2 of 3 workers write to west"), "{link}");
    cluster
        .east()
        .sql("insert into t select generate_series(1, 100)")
        .await;
    cluster.wait_equal().await;
}

/// Random histories; three sessions write what every link brings, in groups of a few rows.
#[cfg(feature = "failpoints")]
async fn play(nodes: usize, (place, count): (Place, usize), seed: u64) {
    let what = What {
        place,
        count,
        strategy: Strategy::LastWriteWins,
        merging: None,
        unique: false,
    };
    let options = ClusterOptions::majors(&vec![pool::usual_major(); nodes])
        .config(WORKERS)
        .daemon_env("MMREPL_GROUP_ROWS", "4")
        .daemon_env("MMREPL_APPLY", "always_ahead");
    let mut scene = Scene::on(options, what, Rng::from_env(seed)).await;
    scene.play().await;
    if nodes == 2 && place == Place::SharedTable {
        let origins =
            "select count(distinct (pg_xact_commit_timestamp_origin(xmin)).roident) from h";
        for node in &scene.cluster.nodes {
            assert_eq!(node.value(origins).await, "4");
        }
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal() {
    play(2, (Place::SharedTable, 240), 26).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_many_tables() {
    play(2, (Place::OwnTable, 60), 27).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal() {
    play(3, (Place::SharedTable, 100), 28).await;
}

/// What is applied while it is still running holds its rows beside the workers; meanwhile one of
/// them writes what is small, and all do again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_runs_beside_them() {
    let schema = "
        do $$ begin
            execute format('alter database %I set logical_decoding_work_mem to ''64kB''',
                current_database());
        end $$;
        create table t (id int primary key, v text, n int not null default 0);
        insert into t select g, 'old' from generate_series(1, 9000) g";
    let cluster = Cluster::running_with(ClusterOptions::pair().config(WORKERS), schema).await;
    cluster.wait_streaming().await;
    let large = cluster.east().client().await;
    let insert =
        "begin; insert into t select g, repeat('x', 100) from generate_series(10001, 15000) g";
    pg::execute(&large, insert).await;
    wait_until("a running transaction to be applied", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let there = link["running_rows"].as_u64().unwrap_or(0);
        ensure(there >= 4000, || link.to_string())
    })
    .await;
    let updates = "do $$ begin for i in 0..89 loop
            update t set n = n + 1 where id between i * 100 + 1 and i * 100 + 100; commit;
        end loop; end $$";
    cluster.east().sql(updates).await;
    wait_until("small ones to pass it", LIMIT, async || {
        let sum = cluster.west().value("select sum(n) from t").await;
        ensure(sum == "9000", || sum)
    })
    .await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "9000");
    pg::execute(&large, "commit").await;
    cluster.east().sql(updates).await;
    cluster.wait_equal().await;
    let sums = cluster.west().rows("select count(*), sum(n) from t").await;
    assert_eq!(sums, [["14000", "18000"].map(|text| Some(text.to_owned()))]);
}
