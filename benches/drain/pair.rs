//! Two fresh servers, a configuration, and east's daemon.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mmrepl::local::{self, LocalServer, ServerBinaries, ServerOptions};
use tokio_postgres::{Client, NoTls};

use crate::process;

/// How often is asked whether everything has arrived.
const POLL: Duration = Duration::from_millis(5);

/// A server and a connection to its database.
pub(crate) struct Side {
    server: LocalServer,
    client: Client,
}

impl Side {
    async fn start(binaries: &ServerBinaries, dir: &std::path::Path) -> Self {
        let options = ServerOptions::default()
            .with("shared_buffers", "256MB")
            .with("max_wal_size", "4GB")
            .with("autovacuum", "off");
        let server = LocalServer::start_new(binaries, dir, &options).expect("a server starts");
        let (client, connection) = tokio_postgres::connect(&server.dsn("postgres"), NoTls)
            .await
            .expect("it answers");
        tokio::spawn(connection);
        Self { server, client }
    }

    pub(crate) fn dsn(&self) -> String {
        self.server.dsn("postgres")
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .expect("the statement runs");
    }

    pub(crate) async fn value(&self, sql: &str) -> String {
        let row = self
            .client
            .query_one(sql, &[])
            .await
            .expect("the query runs");
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

/// CPU seconds of the processes that carry a stream, and the daemon's peak memory.
pub(crate) struct Cost {
    pub(crate) walsender: f64,
    pub(crate) apply: f64,
    pub(crate) daemon: f64,
    pub(crate) daemon_peak_mib: f64,
}

/// East writes, west receives.
pub(crate) struct Pair {
    pub(crate) east: Side,
    pub(crate) west: Side,
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let major = std::env::var("MMREPL_BENCH_MAJOR")
            .ok()
            .and_then(|text| text.parse().ok());
        let found = major.map_or_else(local::find_any, local::find_major);
        let binaries = found.expect("server binaries: run `make servers`");
        let dir = tempfile::Builder::new()
            .prefix("mmrepl-bench-")
            .tempdir()
            .expect("a folder");
        let east = Side::start(&binaries, &dir.path().join("east")).await;
        let west = Side::start(&binaries, &dir.path().join("west")).await;
        let pair = Self {
            east,
            west,
            dir,
            daemon: None,
        };
        pair.write_config();
        pair
    }

    pub(crate) async fn version(&self) -> String {
        self.east
            .value("select current_setting('server_version')")
            .await
    }

    pub(crate) async fn everywhere(&self, sql: &str) {
        self.east.run(sql).await;
        self.west.run(sql).await;
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    fn write_config(&self) {
        let node = |name: &str, side: &Side| {
            let port = local::free_port().expect("a free port");
            format!(
                "[[node]]\nname = \"{name}\"\ndsn = \"{}\"\nadmin = \"127.0.0.1:{port}\"\n",
                side.dsn()
            )
        };
        let nodes = node("east", &self.east) + &node("west", &self.west);
        std::fs::write(
            self.config(),
            format!("[cluster]\nname = \"bench\"\n{nodes}"),
        )
        .expect("the folder is writable");
    }

    fn command(&self) -> Command {
        // Another build may be given, to compare the two.
        let given = std::env::var("MMREPL_BENCH_BINARY");
        let binary = given.unwrap_or_else(|_| env!("CARGO_BIN_EXE_mmrepl").to_owned());
        let mut command = Command::new(binary);
        command
            .env("MMREPL_CONFIG", self.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn init(&self) {
        let status = self.command().arg("init").status().expect("mmrepl runs");
        assert!(status.success(), "mmrepl init: {status}");
    }

    pub(crate) fn start_daemon(&mut self) {
        let data = self.dir.path().join("data");
        let child = self
            .command()
            .args(["run", "--node", "east", "--data-dir"])
            .arg(data)
            .spawn();
        self.daemon = Some(child.expect("mmrepl runs"));
    }

    pub(crate) fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("the daemon is ours");
            daemon.wait().expect("the daemon is ours");
        }
    }

    /// What the drain has cost so far; nothing for processes that are not there (any more).
    pub(crate) async fn cost(&self) -> Cost {
        let walsender = "select max(pid)::text from pg_stat_replication";
        let apply = "select max(pid)::text from pg_stat_activity where backend_type = \
                     'logical replication worker' or backend_type like 'logical%apply worker' \
                     or application_name like 'mmrepl % apply'";
        let daemon = self.daemon.as_ref().map(|child| child.id().to_string());
        Cost {
            walsender: process::cpu_seconds(&self.east.value(walsender).await),
            apply: process::cpu_seconds(&self.west.value(apply).await),
            daemon: daemon.as_deref().map_or(0.0, process::cpu_seconds),
            daemon_peak_mib: daemon.as_deref().map_or(0.0, process::peak_mib),
        }
    }

    /// Waits until east has begun to send.
    pub(crate) async fn wait_for_stream(&self) {
        let active = "select count(*)::text from pg_replication_slots where active";
        while self.east.value(active).await == "0" {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until west has the row that east wrote last.
    pub(crate) async fn wait_for_step(&self, step: u8) {
        let arrived = format!("select count(*)::text from done where step = {step}");
        while self.west.value(&arrived).await != "1" {
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn assert_equal(&self, table: &str) {
        let sql = format!("select md5(string_agg(t::text, ',' order by t.id)) from {table} t");
        assert_eq!(
            self.east.value(&sql).await,
            self.west.value(&sql).await,
            "{table} differs"
        );
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop_daemon();
    }
}
