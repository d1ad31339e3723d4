//! A crash between every two steps of "apply, commit, durable, checkpoint, feedback".

use mmrepl::failpoint::NAMES;

use crate::support::{Cluster, pg};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_step_loses_and_repeats_nothing() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let mut rounds = 0;
    for name in NAMES {
        for count in [1, 4] {
            cluster.take_daemon("east").terminate();
            cluster.set_daemon_env("MMREPL_FAILPOINT", &format!("{name}:{count}"));
            cluster.start_daemon("east");
            let daemon = cluster.take_daemon("east");
            // The writers may find the daemon alive or dead; both are fine.
            write_round(&cluster, rounds).await;
            write_round(&cluster, rounds + 1).await;
            let status = tokio::task::spawn_blocking(move || daemon.wait_end())
                .await
                .unwrap();
            assert!(!status.success(), "{name}:{count} ended with {status}");
            rounds += 2;
            cluster.clear_daemon_env("MMREPL_FAILPOINT");
            cluster.start_daemon("east");
            cluster.wait_equal().await;
            let expected = (rounds * 60).to_string();
            assert_eq!(
                cluster.west().value("select count(*) from ledger").await,
                expected,
                "{name}"
            );
        }
    }
}
