//! Two fresh servers, a configuration, and east's daemon.

use std::time::Duration;

use mmrepl::local::{self, ServerOptions};

use crate::common::{Cluster, Daemon, Side};
use crate::process;

/// How often is asked whether everything has arrived.
const POLL: Duration = Duration::from_millis(5);

/// CPU seconds of the processes that carry a stream, and the daemon's peak memory.
pub(crate) struct Cost {
    pub(crate) walsender: f64,
    pub(crate) apply: f64,
    pub(crate) daemon: f64,
    pub(crate) daemon_peak_mib: f64,
}

impl Cost {
    /// What was added since `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            walsender: self.walsender - before.walsender,
            apply: self.apply - before.apply,
            daemon: self.daemon - before.daemon,
            ..self
        }
    }
}

/// East writes, west receives.
pub(crate) struct Pair {
    pub(crate) east: Side,
    pub(crate) west: Side,
    cluster: Cluster,
    daemon: Option<Daemon>,
    _dir: tempfile::TempDir,
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
        let options = ServerOptions::default()
            .with("shared_buffers", "256MB")
            .with("max_wal_size", "4GB")
            .with("autovacuum", "off");
        let east = Side::start(&binaries, &dir.path().join("east"), &options).await;
        let west = Side::start(&binaries, &dir.path().join("west"), &options).await;
        let cluster = Cluster::new(dir.path(), (&east, &west), "");
        Self {
            east,
            west,
            cluster,
            daemon: None,
            _dir: dir,
        }
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

    pub(crate) fn init(&self) {
        self.cluster.run(&["init"]);
    }

    pub(crate) fn start_daemon(&mut self) {
        self.daemon = Some(self.cluster.start_daemon("east"));
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// What the processes that carry the stream have cost since they were started; nothing for
    /// one that is not there.
    pub(crate) async fn cost(&self) -> Cost {
        let walsender = "select max(pid)::text from pg_stat_replication";
        let apply = "select max(pid)::text from pg_stat_activity where backend_type like \
                     'logical replication%worker' or application_name like 'mmrepl % apply'";
        let daemon = self
            .daemon
            .as_ref()
            .map(|daemon| daemon.child.id().to_string());
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
