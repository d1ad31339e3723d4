//! pgbench (TPC-B) on both sides at once. Short here; `make soak` sets the full size.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pool, wait_until};

/// Seconds of writing, scale and clients per side.
struct Size {
    seconds: u32,
    scale: u32,
    clients: u32,
}

/// `MMREPL_PGBENCH_SECONDS=60` is the full size: scale 10, four clients each side.
fn size() -> Size {
    let seconds = std::env::var("MMREPL_PGBENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    match seconds {
        Some(seconds) => Size {
            seconds,
            scale: 10,
            clients: 4,
        },
        None => Size {
            seconds: 5,
            scale: 1,
            clients: 2,
        },
    }
}

async fn pgbench(program: &PathBuf, node: &Node, arguments: &[&str]) -> String {
    let port = node.server().port().to_string();
    let output = Command::new(program)
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port])
        .args(arguments)
        .arg(&node.dbname)
        .output()
        .await
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench {arguments:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs pgbench's own transactions for a while; gives how many were committed.
async fn write(program: &PathBuf, node: &Node, size: &Size) -> u64 {
    let (clients, seconds) = (size.clients.to_string(), size.seconds.to_string());
    let report = pgbench(
        program,
        node,
        &["-n", "-c", &clients, "-j", "2", "-T", &seconds],
    )
    .await;
    let line = report
        .lines()
        .find(|line| line.contains("actually processed"))
        .unwrap();
    line.rsplit(": ").next().unwrap().trim().parse().unwrap()
}

/// Each side sends what was written there and nothing more: no loop.
async fn assert_sent(cluster: &Cluster, from: &str, to: &str, written: u64) {
    wait_until(
        &format!("{from} to have sent {written} transactions"),
        LIMIT,
        async || {
            let link = cluster.link_status(from, to).await?;
            ensure(link["totals"]["transactions"] == written, || {
                link.to_string()
            })
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_run_tpc_b() {
    let Some(program) = pool::tool("pgbench") else {
        println!("skipped: no pgbench on this machine (Debian: postgresql-15)");
        return;
    };
    let size = size();
    let mut cluster = Cluster::start(ClusterOptions::pair().own_servers()).await;
    for node in &cluster.nodes {
        pgbench(&program, node, &["-i", "-q", "-s", &size.scale.to_string()]).await;
    }
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let (east, west) = tokio::join!(
        write(&program, cluster.east(), &size),
        write(&program, cluster.west(), &size)
    );
    let start = std::time::Instant::now();
    cluster.wait_equal_within(Duration::from_secs(600)).await;
    println!(
        "{east} + {west} transactions; equal {:?} after the writers ended",
        start.elapsed()
    );
    let history = cluster
        .east()
        .value("select count(*) from pgbench_history")
        .await;
    assert_eq!(history, (east + west).to_string());
    assert_sent(&cluster, "east", "west", east).await;
    assert_sent(&cluster, "west", "east", west).await;
}
