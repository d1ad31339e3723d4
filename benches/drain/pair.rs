//! Two fresh servers, a configuration, and east's daemon.

use std::time::Duration;

use mmrepl::local::{self, ServerOptions};

use crate::common::{Cluster, Daemon, Side};

/// How often is asked whether everything has arrived.
const POLL: Duration = Duration::from_millis(5);

/// East writes, west receives.
pub(crate) struct Pair {
    pub(crate) east: Side,
    pub(crate) west: Side,
    cluster: Cluster,
    daemon: Option<Daemon>,
    cost: (f64, f64),
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
            cost: (0.0, 0.0),
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

    /// CPU seconds and peak memory of the daemon, read when it is stopped.
    pub(crate) fn stop_daemon(&mut self) {
        self.note_cost();
        self.daemon = None;
    }

    fn note_cost(&mut self) {
        let Some(pid) = self.daemon.as_ref().map(|daemon| daemon.child.id()) else {
            return;
        };
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (stat, status) = (
            read("stat").unwrap_or_default(),
            read("status").unwrap_or_default(),
        );
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let ticks =
            |index: usize| -> f64 { fields.get(index).map_or(0.0, |t| t.parse().unwrap_or(0.0)) };
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: f64 = peak
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        // utime and stime are fields 14 and 15 of proc(5), in ticks of 10 ms.
        self.cost = ((ticks(11) + ticks(12)) / 100.0, kib / 1024.0);
    }

    pub(crate) fn daemon_cost(&mut self) -> (f64, f64) {
        self.note_cost();
        self.cost
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
