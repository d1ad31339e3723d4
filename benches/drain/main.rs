//! `make bench`: the same backlog drained by the server's own subscription and by mmrepl.
//!
//! For every workload and repetition each engine gets a fresh pair of real servers, a backlog is
//! written while the engine is off, the engine is switched on, and the time until the target has
//! everything is taken. The tables must be equal afterwards. Ratios are of runs side by side.
//!
//! `MMREPL_BENCH_ROWS` (200000), `MMREPL_BENCH_RUNS` (3), `MMREPL_BENCH_MAJOR` (any found) and
//! `MMREPL_BENCH_ONLY` (a workload's name) change what is run.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod pair;
mod workload;

use engine::Engine;
use pair::Pair;
use workload::{WORKLOADS, Workload};

/// One measured drain.
struct Run {
    seconds: f64,
    daemon_cpu_seconds: f64,
    peak_mib: f64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let (rows, runs) = (
        setting("MMREPL_BENCH_ROWS", 200_000),
        setting("MMREPL_BENCH_RUNS", 3),
    );
    let only = std::env::var("MMREPL_BENCH_ONLY").unwrap_or_default();
    println!("{rows} rows, median of {runs} runs, servers on this machine, fsync off");
    println!(
        "| workload | PostgreSQL | native s | mmrepl s | ratio | mmrepl rows/s | daemon CPU s | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for workload in WORKLOADS
        .iter()
        .filter(|workload| workload.name.starts_with(&only))
    {
        compare(workload, rows, runs).await;
    }
}

async fn compare(workload: &Workload, rows: u64, runs: u64) {
    let mut native = Vec::new();
    let mut ours = Vec::new();
    let mut version = String::new();
    for _ in 0..runs {
        for (engine, results) in [(Engine::Native, &mut native), (Engine::Mmrepl, &mut ours)] {
            let mut pair = Pair::start().await;
            version = pair.version().await;
            results.push(drain(&mut pair, engine, workload, rows).await);
        }
    }
    let (theirs, mine) = (
        median(&native, |run| run.seconds),
        median(&ours, |run| run.seconds),
    );
    #[allow(clippy::cast_precision_loss)] // row counts are far below 2^52
    let rate = rows as f64 / mine;
    println!(
        "| {} | {version} | {theirs:.2} | {mine:.2} | {:.2}× | {rate:.0} | {:.2} | {:.0} |",
        workload.name,
        theirs / mine,
        median(&ours, |run| run.daemon_cpu_seconds),
        median(&ours, |run| run.peak_mib),
    );
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn drain(pair: &mut Pair, engine: Engine, workload: &Workload, rows: u64) -> Run {
    pair.everywhere(workload.schema).await;
    pair.everywhere("create table done (step int primary key)")
        .await;
    engine.set_up(pair).await;
    engine.switch_on(pair).await;
    pair.east.run(&workload.before(rows)).await;
    pair.east.run("insert into done values (1)").await;
    pair.wait_for_step(1).await;
    engine.switch_off(pair).await;
    pair.east.run(&workload.backlog(rows)).await;
    pair.east.run("insert into done values (2)").await;
    let started = std::time::Instant::now();
    engine.switch_on(pair).await;
    pair.wait_for_step(2).await;
    let seconds = started.elapsed().as_secs_f64();
    let (daemon_cpu_seconds, peak_mib) = pair.daemon_cost();
    pair.assert_equal(workload.table).await;
    Run {
        seconds,
        daemon_cpu_seconds,
        peak_mib,
    }
}
