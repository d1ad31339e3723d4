//! Bad settings, bad input and broken history: one clear sentence each, nothing lost, and the link
//! goes on by itself once the cause is mended, where that is possible at all.

use std::path::Path;
use std::process::Command;

use mmrepl::local::ServerOptions;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const SCHEMA: &str = "create table t (id int primary key, v text)";
const AWAY: [&str; 3] = ["unreachable", "retrying", "blocked"];

/// The text holds every part, in any letter case.
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            text.to_lowercase().contains(&part.to_lowercase()),
            "`{part}` is not in: {text}"
        );
    }
}

/// A pair with one setting of west's server changed.
async fn pair_with(setting: &str, value: &str) -> Cluster {
    let options = ClusterOptions::pair().own_with(|index| match index {
        0 => ServerOptions::default(),
        _ => ServerOptions::default().with(setting, value),
    });
    let cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster
}

/// Changes one text of the configuration of commands.
fn edit_config(cluster: &Cluster, from: &str, to: &str) {
    let text = std::fs::read_to_string(cluster.config()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(cluster.config(), text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_level_replica_is_refused_with_the_mending_command() {
    let cluster = pair_with("wal_level", "replica").await;
    for command in ["check", "init"] {
        let said = cluster.mmrepl_fails(&[command]).await;
        assert_says(
            &said,
            &["west", "wal_level", "alter system set wal_level", "restart"],
        );
    }
    assert_eq!(
        cluster
            .east()
            .value("select count(*) from pg_publication")
            .await,
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn track_commit_timestamp_off_is_refused_with_the_mending_command() {
    let cluster = pair_with("track_commit_timestamp", "off").await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["west", "track_commit_timestamp", "alter system", "restart"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_free_slot_is_refused() {
    let cluster = pair_with("max_replication_slots", "4").await;
    cluster
        .west()
        .sql(
            "select pg_create_physical_replication_slot('taken');
             select pg_create_physical_replication_slot('taken_too');
             select pg_create_physical_replication_slot('taken_as_well');
             select pg_create_physical_replication_slot('and_taken')",
        )
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["west", "max_replication_slots"]);
    // Once a slot is free, the same command completes.
    cluster
        .west()
        .sql("select pg_drop_replication_slot('taken')")
        .await;
    cluster.init().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_all_problems_at_once() {
    let options = ClusterOptions::pair().own_with(|_| {
        ServerOptions::default()
            .with("wal_level", "replica")
            .with("track_commit_timestamp", "off")
    });
    let cluster = Cluster::start(options).await;
    cluster.east().sql(SCHEMA).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    assert_says(
        &said,
        &["east", "west", "wal_level", "track_commit_timestamp"],
    );
    let output = cluster.mmrepl(&["check", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        report.to_string().contains("track_commit_timestamp"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_named() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let free = mmrepl::local::free_port().unwrap();
    let taken = cluster.west().server().port();
    edit_config(&cluster, &format!("port={taken}"), &format!("port={free}"));
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["west", &free.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_database_is_named() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let taken = cluster.west().server().port();
    let dsn = format!(
        "port={taken} user=postgres dbname={}",
        cluster.west().dbname
    );
    edit_config(
        &cluster,
        &dsn,
        &format!("port={taken} user=postgres dbname=nowhere"),
    );
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["west", "nowhere", "does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_not_shown() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let work = || {
        let options = ServerOptions {
            password: Some("right".to_owned()),
            ..Default::default()
        };
        crate::support::pool::start(crate::support::pool::usual_major(), &options)
    };
    let server = tokio::task::spawn_blocking(work).await.unwrap();
    let old = cluster.west().dsn();
    edit_config(
        &cluster,
        &old,
        &format!("{} password=wr0ngpw", server.dsn("postgres")),
    );
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["west", "password"]);
    assert!(!said.contains("wr0ngpw"), "{said}");
    edit_config(&cluster, "password=wr0ngpw", "password=right");
    cluster.init().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_database_twice_is_refused() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let (east, west) = (cluster.east().dsn(), cluster.west().dsn());
    edit_config(&cluster, &west, &east);
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["east", "west", "same database"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_names_the_line_and_the_nearest_key() {
    let mut cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.rewrite_config("\n[tables]\ninclud = [\"public.*\"]\n");
    for command in ["init", "status", "check"] {
        let said = cluster.mmrepl_fails(&[command]).await;
        assert_says(&said, &["includ", "include", "15"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_named_by_init() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster
        .east()
        .sql("create table only_east (id int primary key)")
        .await;
    let output = cluster.mmrepl(&["init"]).await;
    let said = [output.stdout, output.stderr].concat();
    assert_says(&String::from_utf8_lossy(&said), &["only_east", "west"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_on_the_target_blocks_until_it_is_back() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.allow_error("\"t\"");
    cluster.allow_error("public.t");
    cluster.wait_streaming().await;
    cluster.west().sql("alter table t rename to away").await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    let reason = cluster
        .wait_reason(("east", "west"), &["blocked"], "t")
        .await;
    assert_says(&reason, &["west"]);
    cluster.west().sql("alter table away rename to t").await;
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_starts_while_a_server_is_down() {
    let mut cluster = Cluster::start(ClusterOptions::pair().own_servers()).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster.init().await;
    cluster.server_mut("east").stop();
    cluster.server_mut("west").stop();
    cluster.start_daemons();
    cluster.wait_reason(("east", "west"), &AWAY, "east").await;
    cluster.server_mut("east").start().unwrap();
    cluster.wait_reason(("east", "west"), &AWAY, "west").await;
    cluster.server_mut("west").start().unwrap();
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_before_init_says_so_and_goes_on_after_it() {
    let mut cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster.allow_error("init");
    cluster.start_daemons();
    cluster.wait_reason(("east", "west"), &AWAY, "init").await;
    cluster.init().await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.wait_equal().await;
}

/// Runs the pair, spoils the checkpoint folder of east while its daemon is down, and goes on.
async fn with_spoilt_checkpoints(spoil: impl FnOnce(&Path)) -> Cluster {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t select g, 'before' from generate_series(1, 50) g")
        .await;
    cluster.wait_equal().await;
    cluster.take_daemon("east").kill9();
    spoil(&cluster.data_dir("east"));
    cluster
        .east()
        .sql("insert into t select g, 'after' from generate_series(51, 100) g")
        .await;
    cluster.allow_error("the checkpoint store was damaged");
    cluster.start_daemon("east");
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "100");
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_checkpoint_folder_costs_nothing() {
    with_spoilt_checkpoints(|dir| std::fs::remove_dir_all(dir).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_checkpoint_folder_costs_nothing_and_is_told() {
    let cluster = with_spoilt_checkpoints(|dir| {
        let files = files_below(dir);
        assert!(
            !files.is_empty(),
            "no checkpoint was written to {}",
            dir.display()
        );
        for file in files {
            let length = std::fs::metadata(&file).unwrap().len().min(4096);
            std::fs::write(&file, vec![0xA5; usize::try_from(length).unwrap()]).unwrap();
        }
    })
    .await;
    assert_says(&cluster.log("east"), &["checkpoint"]);
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// A slot that is still being made has no beginning yet, which could be taken for one long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_still_being_made_is_waited_for() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(cluster.east(), "insert into t values (1, 'x')")
        .await;
    cluster.allow_error("slot");
    cluster.take_daemon("east").terminate();
    let slot = format!("mmrepl_{}_west", cluster.name);
    let east = cluster.east();
    east.sql(&format!("select pg_drop_replication_slot('{slot}')"))
        .await;
    // Whoever makes a slot waits for transactions that are open.
    let (open, maker) = (east.client().await, east.client().await);
    open.batch_execute("begin; select pg_current_xact_id()")
        .await
        .unwrap();
    east.sql("insert into t values (2, 'in the gap')").await;
    let make = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let making = tokio::spawn(async move { maker.batch_execute(&make).await });
    let begun = format!(
        "select count(*) from pg_replication_slots
         where slot_name = '{slot}' and confirmed_flush_lsn is null"
    );
    wait_until("the slot to be begun", LIMIT, async || {
        let count = east.value(&begun).await;
        ensure(count == "1", || count.clone())
    })
    .await;
    cluster.start_daemon("east");
    let link = ("east", "west");
    cluster
        .wait_reason(link, &["retrying"], "still being made")
        .await;
    open.batch_execute("commit").await.unwrap();
    making.await.unwrap().unwrap();
    cluster.wait_reason(link, &["stopped"], "begins at").await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_an_older_version_has_set_up_is_named() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.allow_error("this version");
    cluster.take_daemon("east").terminate();
    let remark = "select obj_description('mmrepl'::regnamespace, 'pg_namespace')";
    let remark = cluster.west().value(remark).await;
    let take = "create table kept as select * from mmrepl.migration where file like 'tables/003%';
        delete from mmrepl.migration where file like 'tables/003%';
        comment on schema mmrepl is null";
    cluster.west().sql(take).await;
    cluster.start_daemon("east");
    let reason = "west has no schema mmrepl of this version: run `mmrepl init`";
    let link = ("east", "west");
    cluster.wait_reason(link, &["blocked"], reason).await;
    let give = format!(
        "insert into mmrepl.migration select * from kept; drop table kept;
         comment on schema mmrepl is '{remark}'"
    );
    cluster.west().sql(&give).await;
    cluster.wait_streaming().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_dropped_behind_our_back_stops_the_link() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.wait_equal().await;
    cluster.allow_error("slot");
    cluster.take_daemon("east").terminate();
    let slot = format!("mmrepl_{}_west", cluster.name);
    cluster
        .east()
        .sql(&format!("select pg_drop_replication_slot('{slot}')"))
        .await;
    cluster
        .east()
        .sql("insert into t values (2, 'in the gap')")
        .await;
    cluster.start_daemon("east");
    cluster
        .wait_reason(("east", "west"), &["stopped"], "slot")
        .await;

    // A slot made by hand begins too late: going on would leave a gap, so the link must not.
    cluster
        .east()
        .sql(&format!(
            "select pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        ))
        .await;
    cluster
        .east()
        .sql("insert into t values (3, 'after the gap')")
        .await;
    cluster.take_daemon("east").terminate();
    cluster.start_daemon("east");
    cluster
        .wait_reason(("east", "west"), &["stopped"], "slot")
        .await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "1");
    // The other direction works on.
    cluster
        .west()
        .sql("insert into t values (9, 'from west')")
        .await;
    wait_until("the row of west on east", LIMIT, async || {
        let count = cluster
            .east()
            .value("select count(*) from t where id = 9")
            .await;
        ensure(count == "1", || count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_restored_from_an_old_backup_stops_the_link() {
    let mut cluster = Cluster::running_with(ClusterOptions::pair().durable(), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (1, 'in the backup')")
        .await;
    cluster.wait_equal().await;
    cluster.allow_error("west");
    cluster.stop_daemons();
    let data = cluster.west().server().data_dir();
    let backup = data.with_file_name("backup");
    cluster.server_mut("west").stop();
    copy_folder(&data, &backup);
    cluster.server_mut("west").start().unwrap();
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (2, 'lost by the restore')")
        .await;
    cluster.wait_equal().await;
    cluster.stop_daemons();

    cluster.server_mut("west").stop();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    cluster.server_mut("west").start().unwrap();
    cluster.start_daemons();
    let reason = cluster
        .wait_reason(("east", "west"), &["stopped"], "west")
        .await;
    assert!(
        ["restore", "lost", "backup"]
            .iter()
            .any(|word| reason.contains(word)),
        "it does not say what happened: {reason}"
    );
    cluster
        .east()
        .sql("insert into t values (3, 'must not jump the gap')")
        .await;
    cluster
        .wait_reason(("east", "west"), &["stopped"], "west")
        .await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "1");
}

/// Keeps owners and modes, which a server checks.
fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}
