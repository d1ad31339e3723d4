//! A source, and for each engine a target of its own: all drain the same WAL, in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use mmrepl::local::{ServerBinaries, ServerOptions};

use crate::common::{Cluster, Daemon, Side, pglogical};
use crate::engine::Engine;
use crate::process;
use crate::proxy::{Mode, Proxy};
use crate::results::Cost;

/// How often is asked whether something has happened.
const POLL: Duration = Duration::from_millis(10);
/// How often a source notes where decoding may begin, while that is waited for.
const NOTED: Duration = Duration::from_millis(500);
/// How long may pass until it has.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a cluster of mmrepl has.
struct Daemons {
    cluster: Cluster,
    running: Option<Daemon>,
}

/// One engine and where it writes.
pub(crate) struct Lane {
    pub(crate) engine: Engine,
    pub(crate) target: Side,
    daemons: Option<Daemons>,
    /// In the way between source and target, where they are far apart.
    _proxy: Option<Proxy>,
    /// The third node of a cluster that has one.
    _third: Option<Side>,
}

/// A source and its targets.
pub(crate) struct Rig {
    pub(crate) source: Side,
    pub(crate) lanes: Vec<Lane>,
    dir: tempfile::TempDir,
}

/// What a rig is made of.
pub(crate) struct Plan<'a> {
    pub(crate) binaries: &'a ServerBinaries,
    pub(crate) engines: &'a [Engine],
    /// Run on every server.
    pub(crate) schema: &'a str,
    /// How long a message takes from one node to the other.
    pub(crate) delay: Duration,
    /// Put at the end of mmrepl's configuration.
    pub(crate) rule: &'a str,
}

impl<'a> Plan<'a> {
    /// Nodes that are near, and nothing on them.
    pub(crate) const fn of(binaries: &'a ServerBinaries) -> Self {
        Self {
            binaries,
            engines: &[],
            schema: "",
            delay: Duration::ZERO,
            rule: "",
        }
    }
}

/// The engines that a major can be drained by.
pub(crate) fn engines_of(binaries: &ServerBinaries) -> Vec<Engine> {
    let mut engines = vec![Engine::Native];
    if pglogical::find().is_some_and(|found| found.dir == binaries.dir) {
        engines.push(Engine::Pglogical);
    }
    engines.push(Engine::Mmrepl);
    engines
}

/// Those of a server with room, that keeps what it committed. It vacuums when it is told to: else
/// each drain would share the processor with the vacuum of what was written before it.
fn options(with_pglogical: bool) -> ServerOptions {
    let options = ServerOptions::durable()
        .with("shared_buffers", "1GB")
        .with("max_wal_size", "8GB")
        .with("checkpoint_timeout", "30min")
        .with("autovacuum", "off")
        .with("wal_receiver_status_interval", "1s")
        .with("max_worker_processes", "20");
    if !with_pglogical {
        return options;
    }
    options
        .with("shared_preload_libraries", "pglogical")
        .with("pglogical.conflict_resolution", "last_update_wins")
}

async fn side(plan: &Plan<'_>, dir: &Path, name: &str, with_pglogical: bool) -> Side {
    let options = options(with_pglogical);
    let side = Side::start(plan.binaries, &dir.join(name), &options).await;
    // What is written here in preparation need not wait for the disk.
    side.run("set synchronous_commit = off").await;
    side.run(plan.schema).await;
    side.run("create table done (step int primary key)").await;
    side
}

impl Rig {
    /// Servers with equal tables, and all engines running.
    pub(crate) async fn start(plan: &Plan<'_>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mmrepl-bench-")
            .tempdir()
            .expect("a folder can be made");
        let with_pglogical = plan.engines.contains(&Engine::Pglogical);
        let source = side(plan, dir.path(), "source", with_pglogical).await;
        let mut rig = Self {
            source,
            lanes: Vec::new(),
            dir,
        };
        for engine in plan.engines {
            let lane = rig.lane(plan, *engine).await;
            rig.lanes.push(lane);
        }
        rig
    }

    async fn lane(&self, plan: &Plan<'_>, engine: Engine) -> Lane {
        let dir = self.dir.path().join(engine.name().replace([',', ' '], ""));
        std::fs::create_dir_all(&dir).expect("the folder is ours");
        let target = side(plan, &dir, "target", engine == Engine::Pglogical).await;
        let third = match engine {
            Engine::Mesh => Some(side(plan, &dir, "third", false).await),
            _ => None,
        };
        // A daemon runs beside the source, a subscription's worker beside the target: either
        // goes over the network to the other.
        let far = if engine.is_mmrepl() {
            &target
        } else {
            &self.source
        };
        let proxy = match plan.delay {
            Duration::ZERO => None,
            delay => Some(proxy(far, delay).await),
        };
        let port = proxy.as_ref().map_or(far.port(), Proxy::port);
        let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
        engine.subscribe(&self.source, &target, &dsn).await;
        let daemons = engine.is_mmrepl().then(|| {
            let beside = match engine {
                Engine::Socket => self.source.socket_dsn(),
                _ => self.source.dsn(),
            };
            let mut nodes = vec![("east", beside), ("west", dsn)];
            nodes.extend(third.as_ref().map(|third| ("third", third.dsn())));
            let config = format!("{}{}", engine.config(), plan.rule);
            Daemons::start(Cluster::new(&dir, &nodes, &config), third.is_some())
        });
        Lane {
            engine,
            target,
            daemons,
            _proxy: proxy,
            _third: third,
        }
    }

    /// Writes what is there before, and waits until all targets have it.
    pub(crate) async fn fill(&self, before: &str) {
        self.source.run(before).await;
        self.step(1).await;
        for lane in &self.lanes {
            wait_for_step(&lane.target, 1).await;
            lane.target.run("vacuum analyze").await;
        }
        self.source.run("vacuum analyze").await;
        self.leave_behind().await;
    }

    /// Waits until nobody will read what was written so far once more. A server begins to decode
    /// at the last point that it noted, at checkpoints at least, and that was confirmed behind:
    /// without this, chance decides who has to decode what is there before as well.
    async fn leave_behind(&self) {
        let mark = "select pg_current_wal_insert_lsn()::text";
        let mark = self.source.value(mark).await;
        let behind = format!(
            "select bool_and(restart_lsn >= '{mark}')::text from pg_replication_slots where active"
        );
        let started = Instant::now();
        while self.source.value(&behind).await != "true" {
            assert!(started.elapsed() < LIMIT, "waited {LIMIT:?} for {behind}");
            self.source.run("checkpoint").await;
            // Something has to arrive for a position to be confirmed.
            self.source.run("update done set step = step").await;
            tokio::time::sleep(NOTED).await;
        }
    }

    /// What is written last, so that it arrives last.
    pub(crate) async fn step(&self, step: u8) {
        let insert = format!("insert into done values ({step})");
        self.source.run(&insert).await;
    }

    /// Waits until nobody reads from the source.
    async fn wait_for_quiet(&self) {
        let active = "select count(*)::text from pg_replication_slots where active";
        wait_for(&self.source, active, |count| count == "0").await;
    }

    /// Stops all engines.
    pub(crate) async fn switch_all_off(&mut self) {
        for lane in &mut self.lanes {
            lane.switch_off().await;
        }
        self.wait_for_quiet().await;
    }

    /// Waits until the source has begun to send.
    pub(crate) async fn wait_for_stream(&self) {
        let active = "select count(*)::text from pg_replication_slots where active";
        wait_for(&self.source, active, |count| count != "0").await;
    }

    /// Leaves nothing to write behind that would be written while something is measured.
    pub(crate) async fn settle(&self) {
        self.source.run("checkpoint").await;
        for lane in &self.lanes {
            lane.target.run("checkpoint").await;
        }
    }
}

async fn proxy(far: &Side, delay: Duration) -> Proxy {
    let proxy = Proxy::start(far.port()).await;
    proxy.set(Mode::Delayed(delay));
    proxy
}

impl Daemons {
    fn start(cluster: Cluster, has_third: bool) -> Self {
        cluster.run(&["init"]);
        let running = Some(cluster.start_daemon("east"));
        if has_third {
            // Only the way to west is measured.
            cluster.run(&["pause", "east->third"]);
        }
        Self { cluster, running }
    }
}

impl Lane {
    pub(crate) async fn switch_on(&mut self) {
        match &mut self.daemons {
            Some(daemons) => daemons.running = Some(daemons.cluster.start_daemon("east")),
            None => self.target.run(&self.engine.switch(true)).await,
        }
    }

    pub(crate) async fn switch_off(&mut self) {
        match &mut self.daemons {
            Some(daemons) => daemons.running = None,
            None => self.target.run(&self.engine.switch(false)).await,
        }
    }

    /// The daemon of another node, for as long as it is kept.
    pub(crate) fn start_daemon(&self, node: &str) -> Option<Daemon> {
        let daemons = self.daemons.as_ref()?;
        Some(daemons.cluster.start_daemon(node))
    }

    /// What the processes that carry the stream have cost since they were started, which was when
    /// this engine was switched on.
    pub(crate) async fn cost(&self, source: &Side) -> Cost {
        let walsenders = "select string_agg(pid::text, ' ') from pg_stat_replication";
        let workers = "select string_agg(pid::text, ' ') from pg_stat_activity
             where backend_type like 'logical replication%worker'
                or backend_type like 'pglogical apply%' or application_name like 'mmrepl %'";
        let running = self.daemons.as_ref().and_then(|d| d.running.as_ref());
        let daemon = running.map(|daemon| daemon.child.id().to_string());
        let daemon = daemon.unwrap_or_default();
        Cost {
            walsender: cpu_of_all(&source.value(walsenders).await),
            apply: cpu_of_all(&self.target.value(workers).await),
            daemon: process::cpu_seconds(&daemon),
            daemon_peak_mib: process::peak_mib(&daemon),
        }
    }

    pub(crate) async fn wait_for_step(&self, step: u8) {
        wait_for_step(&self.target, step).await;
    }

    /// The target must have what the source has, and nothing else.
    pub(crate) async fn assert_equal(&self, source: &Side, tables: &[String]) {
        for table in tables {
            let sum = format!(
                "select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)
                 from {table} t"
            );
            let (there, here) = (source.value(&sum).await, self.target.value(&sum).await);
            assert_eq!(there, here, "{}: {table} differs", self.engine.name());
        }
    }
}

fn cpu_of_all(pids: &str) -> f64 {
    pids.split(' ')
        .map(process::cpu_seconds)
        .fold(0.0, |sum, one| sum + one)
}

async fn wait_for_step(side: &Side, step: u8) {
    let arrived = format!("select count(*)::text from done where step = {step}");
    wait_for(side, &arrived, |count| count == "1").await;
}

/// Waits until the query gives a value that will do.
pub(crate) async fn wait_for(side: &Side, query: &str, will_do: impl Fn(&str) -> bool) {
    let started = Instant::now();
    while !will_do(&side.value(query).await) {
        assert!(started.elapsed() < LIMIT, "waited {LIMIT:?} for {query}");
        tokio::time::sleep(POLL).await;
    }
}
