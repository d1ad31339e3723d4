//! A crash between every two steps of "apply, commit, durable, checkpoint, feedback".

use std::time::Instant;

use mmrepl::failpoint::NAMES;

use crate::support::{Cluster, LIMIT, pg};

const SCHEMA: &str = "create table t (id int primary key, v text);
    create table ledger (writer text, number int);";

/// Writes on both sides; the ledger has no key, so a row applied twice would show.
async fn write_round(cluster: &Cluster, round: usize) {
    for node in &cluster.nodes {
        let client = node.client().await;
        for number in 0..30 {
            let (name, id) = (node.name, round * 30 + number);
            let sql = format!(
                "begin; insert into ledger values ('{name}', {id});
                 insert into t values ({number}, '{name} {round}')
                    on conflict (id) do update set v = excluded.v; commit"
            );
            pg::execute(&client, &sql).await;
        }
    }
}

/// Runs east's daemon with a crash point under writes until it crashes; gives the rounds written.
async fn write_until_crash(cluster: &mut Cluster, point: &str, mut round: usize) -> usize {
    cluster.take_daemon("east").terminate();
    cluster.set_daemon_env("MMREPL_FAILPOINT", point);
    cluster.start_daemon("east");
    cluster.clear_daemon_env("MMREPL_FAILPOINT");
    let mut daemon = cluster.take_daemon("east");
    let start = Instant::now();
    while daemon.is_running() {
        assert!(start.elapsed() < LIMIT, "{point} was not reached");
        write_round(cluster, round).await;
        round += 1;
    }
    let status = daemon.wait_end();
    assert!(!status.success(), "{point} ended with {status}");
    // What was written last may be unknown to the daemon that starts now.
    write_round(cluster, round).await;
    round + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_step_loses_and_repeats_nothing() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let mut rounds = 0;
    for name in NAMES {
        for count in [1, 3] {
            let point = format!("{name}:{count}");
            rounds = write_until_crash(&mut cluster, &point, rounds).await;
            assert!(
                cluster.log("east").contains(&format!("failpoint {name}")),
                "{point}"
            );
            cluster.start_daemon("east");
            cluster.wait_equal().await;
            let expected = (rounds * 60).to_string();
            let found = cluster.west().value("select count(*) from ledger").await;
            assert_eq!(found, expected, "{point}");
        }
    }
}
