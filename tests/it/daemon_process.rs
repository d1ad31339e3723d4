//! The daemon as a process: signals, a log that nobody reads, faults of its own, and a second
//! daemon for the same node.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mmrepl::local::free_port;
use mmrepl::local::signal::{Signal, send};

use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::wait::ensure;
use crate::support::{Cluster, LIMIT, wait_until};

const SCHEMA: &str = "create table t (id int primary key, v text)";

/// A daemon of east whose standard error the test has in hand.
fn start(cluster: &Cluster, stderr: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmrepl"));
    command.args(["run", "--node", "east", "--config"]);
    command.arg(cluster.config()).arg("--data-dir");
    command
        .arg(cluster.data_dir("east"))
        .env("MMREPL_LOG", "debug");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    command.spawn().unwrap()
}

async fn ends_well(mut child: Child) {
    let told = Instant::now();
    send(Signal::Term, &[child.id()]);
    let status = wait_until("the daemon to end", LIMIT, async || {
        child.try_wait().unwrap().ok_or("it runs")
    })
    .await;
    assert!(status.success(), "{status}");
    // It has 5 s; a busy machine may look late.
    assert!(
        told.elapsed() < Duration::from_secs(20),
        "{:?}",
        told.elapsed()
    );
}

async fn replicates(cluster: &Cluster, id: u32) {
    cluster
        .east()
        .sql(&format!("insert into t values ({id}, 'x')"))
        .await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_or_is_not_read_keeps_nothing() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.take_daemon("east").terminate();
    // Every write fails.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = start(&cluster, full.into());
    replicates(&cluster, 1).await;
    ends_well(child).await;
    // The reader goes away.
    let mut child = start(&cluster, Stdio::piped());
    drop(child.stderr.take());
    replicates(&cluster, 2).await;
    ends_well(child).await;
    // The reader stops reading: the pipe fills with what is logged at every look.
    let mut child = start(&cluster, Stdio::piped());
    let _unread = child.stderr.take();
    for id in 3..200 {
        cluster
            .east()
            .sql(&format!("insert into t values ({id}, 'x')"))
            .await;
    }
    cluster.wait_equal().await;
    ends_well(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_is_no_end() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let pid = cluster.daemon("east").pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(sent.success());
    wait_until("the signal to be heard", LIMIT, async || {
        let log = cluster.log("east");
        ensure(log.contains("SIGHUP"), || log.clone())
    })
    .await;
    assert!(cluster.daemon("east").is_running());
    replicates(&cluster, 1).await;
    assert!(cluster.take_daemon("east").terminate().success());
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_our_own_is_shown_counted_and_tried_again() {
    for place in ["link", "reader", "probe"] {
        let mut cluster = Cluster::running(SCHEMA).await;
        cluster.allow_error("fault in mmrepl");
        cluster.wait_streaming().await;
        cluster.take_daemon("east").terminate();
        cluster.set_daemon_env("MMREPL_FAULT", &format!("{place}:2"));
        cluster.start_daemon("east");
        if place != "probe" {
            let link = wait_until("the fault to be counted", LIMIT, async || {
                let link = cluster.link_status("east", "west").await?;
                let faults = link["totals"]["faults"].as_u64().unwrap_or(0);
                ensure(faults >= 1, || link.to_string())?;
                Ok::<_, String>(link)
            })
            .await;
            let message = link["last_error"]["message"].as_str().unwrap();
            assert!(message.contains("fault in mmrepl at src/"), "{message}");
        }
        replicates(&cluster, 1).await;
        cluster.wait_streaming().await;
        assert!(cluster.log("east").contains("fault in mmrepl"), "{place}");
        let status = cluster.take_daemon("east").terminate();
        assert!(status.success(), "{place}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_of_a_node_names_the_first_and_does_not_fight() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.allow_error("another daemon of east");
    cluster.wait_streaming().await;
    let reconnects = |link: &serde_json::Value| link["totals"]["reconnects"].as_u64().unwrap();
    let before = reconnects(&cluster.link_status("east", "west").await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (port, config) = (free_port().unwrap(), dir.path().join("cluster.toml"));
    let text = std::fs::read_to_string(cluster.config()).unwrap();
    let own = format!("\"127.0.0.1:{}\"", cluster.east().admin_port);
    std::fs::write(
        &config,
        text.replace(&own, &format!("\"127.0.0.1:{port}\"")),
    )
    .unwrap();
    let log = dir.path().join("log");
    let mut second = Daemon::start(&DaemonOptions {
        node: "east".to_owned(),
        config: config.clone(),
        data_dir: dir.path().join("data"),
        log: log.clone(),
        env: Vec::new(),
    });
    let asked = ["status", "--json", "--config", config.to_str().unwrap()];
    let reason = wait_until("the second daemon to say so", LIMIT, async || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        let output = command.args(asked).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let link = &status["links"][0];
        let reason = link["reason"].as_str().unwrap_or("");
        let fits = link["state"] == "blocked" && reason.contains("another daemon of east");
        ensure(fits, || text.clone())?;
        Ok::<_, String>(reason.to_owned())
    })
    .await;
    assert!(
        reason.contains("on 127.0.0.1") || reason.contains("on the machine"),
        "{reason}"
    );
    assert!(
        reason.contains("process") && reason.contains("since 20"),
        "{reason}"
    );
    replicates(&cluster, 1).await;
    let link = cluster.link_status("east", "west").await.unwrap();
    assert_eq!(link["state"], "streaming", "{link}");
    assert_eq!(reconnects(&link), before, "the first was disturbed: {link}");
    // Once the first has gone, the second takes over.
    cluster.take_daemon("east").terminate();
    assert!(second.is_running());
    replicates(&cluster, 2).await;
    assert!(second.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_json_commands_are_json() {
    let cluster = Cluster::running(SCHEMA).await;
    for arguments in [
        &["status", "--json", "--config", "/nonexistent.toml"][..],
        &["check", "--json", "--config", "/nonexistent.toml"],
        &["init", "--json", "--config", "/nonexistent.toml"],
        &["conflicts", "--json", "--config", "/nonexistent.toml"],
        &[
            "pause",
            "east->north",
            "--json",
            "--config",
            cluster.config().to_str().unwrap(),
        ],
        &[
            "drop",
            "--json",
            "--node",
            "north",
            "--config",
            cluster.config().to_str().unwrap(),
        ],
        &["status", "--json", "--bogus"],
        &["pause", "--json"],
    ] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        let output = command.args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(stream);
            let object: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"));
            assert!(object["error"].is_string(), "{arguments:?}: {object}");
        }
    }
}
