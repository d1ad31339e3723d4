//! A backlog, and how long each engine takes for it.

use std::time::{Duration, Instant};

use mmrepl::local::ServerBinaries;

use crate::engine::Engine;
use crate::pgbench;
use crate::results::{Drain, Measured, Results};
use crate::rig::{Lane, Plan, Rig, engines_of};
use crate::settings::Settings;
use crate::side_of;
use crate::workload::{Backlog, MANY, WORKLOADS, Workload};

/// Half of a round trip between nodes that are far apart.
pub(crate) const FAR: Duration = Duration::from_millis(5);
/// Clients of pgbench.
const CLIENTS: u64 = 4;

/// With one, two and four sessions on the target.
pub(crate) const WORKERS: [Engine; 3] = [Engine::Mmrepl, Engine::Workers(2), Engine::Workers(4)];

/// With the source reached over TCP and through its Unix-domain socket.
const BESIDE: [Engine; 3] = [Engine::Native, Engine::Mmrepl, Engine::Socket];

/// One way to drain a workload.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) workload: &'static Workload,
    delay: Duration,
    /// Those that drain the same WAL, and again.
    groups: Vec<Vec<Engine>>,
}

/// All ways, for the engines that are here.
fn parts(engines: &[Engine]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut add = |prefix: &str, workload: &'static Workload, delay, groups| {
        let name = format!("{prefix}{}", workload.name);
        parts.push(Part {
            name,
            workload,
            delay,
            groups,
        });
    };
    for workload in WORKLOADS.iter().chain(&MANY) {
        let together = vec![engines.to_vec()];
        let apart = || engines.iter().map(|engine| vec![*engine]).collect();
        let groups = if workload.apart { apart() } else { together };
        add("", workload, Duration::ZERO, groups);
    }
    for workload in WORKLOADS.iter().filter(|workload| workload.small) {
        // Clusters of two and of three nodes cannot share a source.
        let groups = vec![vec![Engine::Native], vec![Engine::Mesh]];
        add("mesh/", workload, Duration::ZERO, groups);
    }
    for workload in WORKLOADS.iter().filter(|workload| workload.over_network) {
        let groups = vec![vec![Engine::Native, Engine::Mmrepl]];
        add("rtt/", workload, FAR, groups);
    }
    for workload in WORKLOADS.iter().filter(|workload| workload.over_network) {
        let groups = BESIDE.map(|engine| vec![engine]).to_vec();
        add("socket/", workload, Duration::ZERO, groups);
    }
    for workload in WORKLOADS.iter().filter(|workload| !workload.apart) {
        // Nor can two clusters of the same nodes.
        let groups = WORKERS.map(|engine| vec![engine]).to_vec();
        add("workers/", workload, Duration::ZERO, groups);
    }
    parts
}

/// Measures every part that is wanted.
pub(crate) async fn measure(settings: &Settings, binaries: &ServerBinaries, results: &mut Results) {
    for part in parts(&engines_of(binaries)) {
        let had = settings.had(results, binaries.major, &part.name);
        if !settings.wants(&part.name) {
            continue;
        }
        if matches!(part.workload.backlog, Backlog::Pgbench) && !pgbench::is_here() {
            println!(
                "skipped {}: no pgbench here (Debian: postgresql-15)",
                part.name
            );
            continue;
        }
        for run in had..settings.runs {
            part.run((settings, run), binaries, results).await;
        }
    }
}

impl Part {
    /// Each engine once.
    async fn run(
        &self,
        (settings, run): (&Settings, usize),
        binaries: &ServerBinaries,
        results: &mut Results,
    ) {
        let schema = self.workload.schema();
        for engines in &self.groups {
            let plan = Plan {
                binaries,
                engines,
                schema: &schema,
                delay: self.delay,
                ..Plan::of(binaries)
            };
            let mut rig = Rig::start(&plan).await;
            let rows = self.write(&mut rig, settings).await;
            // Each comes first in turn.
            rig.lanes.rotate_left(run % engines.len());
            let server = (binaries.major, &*side_of(&rig.source).await);
            for index in 0..rig.lanes.len() {
                let drain = self.drain(&mut rig, index, rows).await;
                let engine = Some(rig.lanes[index].engine);
                results.add(server, (&self.name, engine), Measured::Drain(drain));
            }
        }
    }

    /// Fills all targets, then writes the backlog while nobody reads; gives its size.
    async fn write(&self, rig: &mut Rig, settings: &Settings) -> u64 {
        let rows = settings.rows.unwrap_or(self.workload.full);
        rig.fill(&self.workload.before(rows, settings.scale)).await;
        rig.switch_all_off().await;
        if let Some(statement) = self.workload.statement(rows) {
            rig.source.run(&statement).await;
        } else {
            let (clients, each) = (CLIENTS.to_string(), rows.div_ceil(CLIENTS).to_string());
            let scale = settings.scale.to_string();
            let arguments = ["-M", "prepared", "-c", &clients, "-t", &each, "-s", &scale];
            pgbench::run(&rig.source, "-c synchronous_commit=off", &arguments).await;
        }
        rig.step(2).await;
        rows
    }

    async fn drain(&self, rig: &mut Rig, index: usize, rows: u64) -> Drain {
        rig.settle().await;
        rig.lanes[index].switch_on().await;
        // Not counted: a subscription may wait 5 s before it is started again, a daemon connects.
        rig.wait_for_stream().await;
        let started = Instant::now();
        let lane: &Lane = &rig.lanes[index];
        lane.wait_for_step(2).await;
        let seconds = started.elapsed().as_secs_f64();
        let cost = lane.cost(&rig.source).await;
        lane.assert_equal(&rig.source, &self.workload.all_tables())
            .await;
        rig.switch_all_off().await;
        Drain {
            rows,
            seconds,
            cost,
        }
    }
}
