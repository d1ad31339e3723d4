//! What a cluster says of itself when it cannot even begin: logins, encryption, slots, clocks.
//! `truth` has the way in which that is looked at.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use mmrepl::local::ServerOptions;

use crate::support::clock::Clock;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};
use crate::truth::{SCHEMA, TROUBLE, Trouble, check, mended};

/// East's daemon with another way to west than the commands have.
fn with_other_way(cluster: &Cluster, user: &str) -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config: PathBuf = dir.path().join("cluster.toml");
    let text = fs::read_to_string(cluster.config()).unwrap();
    let west = cluster.west().dsn();
    let other = west.replace("user=postgres", user);
    fs::write(&config, text.replace(&west, &other)).unwrap();
    let daemon = Daemon::start(&DaemonOptions {
        node: "east".to_owned(),
        config,
        data_dir: cluster.data_dir("east"),
        log: dir.path().join("log"),
        env: Vec::new(),
    });
    (daemon, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_logins_and_encryption() {
    let mut cluster = Cluster::running_with(ClusterOptions::pair().own_servers(), SCHEMA).await;
    cluster.wait_streaming().await;
    let west = cluster.west();
    west.sql("create role guest superuser login password 'right'")
        .await;
    let hba = west.server().data_dir().join("pg_hba.conf");
    let lines = "local all guest scram-sha-256\nhost all guest all scram-sha-256\n";
    let old = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("{lines}{old}")).unwrap();
    west.sql("select pg_reload_conf()").await;
    cluster.take_daemon("east").terminate();
    for (id, user, words) in [
        (1, "user=guest password=wr0ng-s3cret", "guest"),
        (2, "user=nobody_of_that_name", "nobody_of_that_name"),
        (3, "user=postgres sslmode=require", "TLS"),
    ] {
        let begun = Instant::now();
        let sql = format!("insert into t values ({id}, 'x')");
        cluster.east().sql(&sql).await;
        let (daemon, dir) = with_other_way(&cluster, user);
        let trouble = Trouble {
            name: words,
            seen: &["blocked"],
            words,
            only: &["blocked"],
            ..TROUBLE
        };
        check(&cluster, &trouble, begun).await;
        assert!(daemon.terminate().success());
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("wr0ng-s3cret"), "{log}");
    }
    cluster.start_daemon("east");
    mended(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_slot_that_is_lost() {
    let own = |_| ServerOptions::default().with("max_slot_wal_keep_size", "1MB");
    let options = ClusterOptions::pair().own_with(own);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("needs somebody");
    cluster.wait_streaming().await;
    cluster.take_daemon("east").terminate();
    let begun = Instant::now();
    let slot = format!("mmrepl_{}_west", cluster.name);
    wait_until("the slot to be lost", LIMIT, async || {
        let client = cluster.east().client().await;
        let write = "insert into t select coalesce(max(id), 0) + 1, 'x' from t";
        for sql in [write, "select pg_switch_wal()", "checkpoint"] {
            pg::execute(&client, sql).await;
        }
        let status = format!(
            "select coalesce(wal_status, 'lost') from pg_replication_slots
             where slot_name = '{slot}'"
        );
        let status = pg::value(&client, &status).await;
        ensure(status == "lost", || status.clone())
    })
    .await;
    cluster.start_daemon("east");
    let lost = Trouble {
        name: "the slot is lost",
        seen: &["stopped"],
        words: "slot",
        only: &["starting", "stopped"],
        ..TROUBLE
    };
    check(&cluster, &lost, begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_clock_that_is_behind() {
    let Some(clock) = Clock::ahead(0) else { return };
    let options = ClusterOptions::pair().own_with(|index| {
        if index == 0 {
            clock.options()
        } else {
            ServerOptions::default()
        }
    });
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("NTP");
    cluster.wait_streaming().await;
    clock.set(3600);
    let begun = Instant::now();
    cluster.east().sql("insert into t values (1, 'x')").await;
    let behind = Trouble {
        name: "west's clock is behind",
        seen: &["stopped"],
        words: "NTP",
        only: &["stopped"],
        // The commit's own time is an hour ahead.
        waits: false,
        ..TROUBLE
    };
    check(&cluster, &behind, begun).await;
}
