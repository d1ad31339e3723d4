//! The tables of the document; each is empty where nothing was measured for it.

use crate::drain::WORKERS;
use crate::engine::Engine::{self, Mesh, Mmrepl, Native, Pglogical, Socket};
use crate::results::{Measured, Results, Steady, median};
use crate::summary::{Runs, grouped, head, met, row, steady, times};
use crate::workload::{MANY, WORKLOADS, Workload};

const ENGINES: [Engine; 3] = [Native, Pglogical, Mmrepl];
/// Of the speed of a subscription, where each source transaction is one target transaction.
const THREE_NODES_GOAL: f64 = 0.6;
/// Of the speed without a network, over one with 10 ms for a round trip.
const FAR_GOAL: f64 = 0.75;
/// Of the speed over TCP, less what runs differ by.
const SOCKET_GOAL: f64 = 0.95;
/// Milliseconds at 500 transactions per second.
const P50_GOAL_MS: f64 = 1.0;
const P99_GOAL_MS: f64 = 5.0;
/// Most memory of a daemon.
const MEMORY_GOAL_MIB: f64 = 100.0;

/// A heading where there is something under it.
fn section(heading: &str, (head, rows): (String, String), after: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("{heading}\n\n{head}{rows}{after}\n")
}

fn version(results: &Results, major: u32) -> String {
    let records = results.records.iter().rev();
    let found = records.into_iter().find(|record| record.major == major);
    found.map_or_else(String::new, |record| record.server.clone())
}

/// How fast each backlog was drained.
pub(crate) fn speed(results: &Results, major: u32) -> String {
    let names = [
        "",
        "backlog",
        "size",
        "n",
        "native",
        "pglogical",
        "mmrepl",
        "mmrepl: speed",
        "of native",
        "goal",
        "",
    ];
    let line = |workload: &Workload| {
        let of = |engine| Runs::of(results, major, workload.name, engine);
        let (native, ours) = (of(Native)?, of(Mmrepl)?);
        let ratio = ours.speed_against(&native);
        let peer = of(Pglogical).map_or_else(String::new, |peer| {
            format!("{}, {}", peer.shown(), times(peer.speed_against(&native)))
        });
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let size = ours.rows() as f64;
        Some(row(&[
            workload.name.to_owned(),
            workload.title.to_owned(),
            format!("{} {}", grouped(size), workload.unit),
            ours.count().to_string(),
            native.shown(),
            peer,
            ours.shown(),
            format!("{}/s", grouped(ours.per_second())),
            format!("**{}**", times(ratio)),
            times(workload.goal),
            met(ratio >= workload.goal).to_owned(),
        ]))
    };
    let heading = format!("### PostgreSQL {}", version(results, major));
    let rows = WORKLOADS.iter().chain(&MANY).filter_map(line).collect();
    section(&heading, (head(&names), rows), "")
}

/// What it cost.
pub(crate) fn cost(results: &Results, major: u32) -> String {
    let names = [
        "",
        "native: walsender, worker",
        "pglogical: walsender, worker",
        "mmrepl: walsender, daemon, sessions on the target",
        "daemon's peak MiB",
        "goal",
        "",
    ];
    let worker = |runs: Option<Runs>| {
        runs.map_or_else(String::new, |runs| {
            let (walsender, worker) = (runs.cost(|c| c.walsender), runs.cost(|c| c.apply));
            format!("{walsender:.2}, {worker:.2}")
        })
    };
    let line = |workload: &Workload| {
        let of = |engine| Runs::of(results, major, workload.name, engine);
        let ours = of(Mmrepl)?;
        let peak = ours.cost(|c| c.daemon_peak_mib);
        Some(row(&[
            workload.name.to_owned(),
            worker(of(Native)),
            worker(of(Pglogical)),
            format!(
                "{:.2}, {:.2}, {:.2}",
                ours.cost(|c| c.walsender),
                ours.cost(|c| c.daemon),
                ours.cost(|c| c.apply)
            ),
            format!("{peak:.0}"),
            format!("< {MEMORY_GOAL_MIB:.0}"),
            met(peak < MEMORY_GOAL_MIB).to_owned(),
        ]))
    };
    let heading = format!(
        "### PostgreSQL {}: CPU seconds and memory",
        version(results, major)
    );
    let rows = WORKLOADS.iter().chain(&MANY).filter_map(line).collect();
    section(&heading, (head(&names), rows), "")
}

/// Three nodes: what is applied together keeps its own times.
pub(crate) fn three_nodes(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "n",
        "native",
        "mmrepl",
        "speed",
        "of native",
        "goal",
        "",
    ];
    let line = |workload: &Workload| {
        let part = format!("mesh/{}", workload.name);
        let of = |engine| Runs::of(results, major, &part, engine);
        let (native, ours) = (of(Native)?, of(Mesh)?);
        let ratio = ours.speed_against(&native);
        Some(row(&[
            version(results, major),
            format!("{} {}", workload.name, workload.title),
            ours.count().to_string(),
            native.shown(),
            ours.shown(),
            format!("{}/s", grouped(ours.per_second())),
            format!("**{}**", times(ratio)),
            times(THREE_NODES_GOAL),
            met(ratio >= THREE_NODES_GOAL).to_owned(),
        ]))
    };
    let rows = WORKLOADS.iter().filter_map(line).collect();
    section("", (head(&names), rows), "")
        .trim_start()
        .to_owned()
}

/// The source over TCP, and through its Unix-domain socket.
pub(crate) fn socket(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "n",
        "native",
        "mmrepl, TCP",
        "mmrepl, Unix socket",
        "socket: of TCP",
        "socket: of native",
        "goal",
        "",
    ];
    let line = |workload: &Workload| {
        let part = format!("socket/{}", workload.name);
        let of = |engine| Runs::of(results, major, &part, engine);
        let (native, tcp, socket) = (of(Native)?, of(Mmrepl)?, of(Socket)?);
        let ratio = socket.speed_against(&tcp);
        Some(row(&[
            version(results, major),
            format!("{} {}", workload.name, workload.title),
            socket.count().to_string(),
            native.shown(),
            tcp.shown(),
            socket.shown(),
            format!("**{}**", times(ratio)),
            times(socket.speed_against(&native)),
            times(SOCKET_GOAL),
            met(ratio >= SOCKET_GOAL).to_owned(),
        ]))
    };
    let rows = WORKLOADS.iter().filter_map(line).collect();
    section("", (head(&names), rows), "")
        .trim_start()
        .to_owned()
}

/// Several sessions on the target.
pub(crate) fn workers(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "n",
        "1 worker",
        "2 workers",
        "4 workers",
        "2: speed of 1",
        "4: speed of 1",
    ];
    let line = |workload: &Workload| {
        let part = format!("workers/{}", workload.name);
        let runs = WORKERS.map(|engine| Runs::of(results, major, &part, engine));
        let [Some(one), Some(two), Some(four)] = runs else {
            return None;
        };
        Some(row(&[
            version(results, major),
            format!("{} {}", workload.name, workload.title),
            one.count().to_string(),
            one.shown(),
            two.shown(),
            four.shown(),
            times(two.speed_against(&one)),
            times(four.speed_against(&one)),
        ]))
    };
    let rows = WORKLOADS.iter().filter_map(line).collect();
    section("", (head(&names), rows), "")
        .trim_start()
        .to_owned()
}

/// The same backlogs, near and far.
pub(crate) fn far(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "",
        "n",
        "near",
        "far",
        "far: speed",
        "of near",
        "goal",
        "",
    ];
    let line = |workload: &Workload, engine: Engine| {
        let part = format!("rtt/{}", workload.name);
        let near = Runs::of(results, major, workload.name, engine)?;
        let far = Runs::of(results, major, &part, engine)?;
        let ratio = far.speed_against(&near);
        let ours = engine == Mmrepl;
        let goal = if ours {
            format!("{:.0} %", FAR_GOAL * 100.0)
        } else {
            String::new()
        };
        Some(row(&[
            version(results, major),
            format!("{} {}", workload.name, workload.title),
            engine.name().to_owned(),
            far.count().to_string(),
            near.shown(),
            far.shown(),
            format!("{}/s", grouped(far.per_second())),
            format!("**{:.0} %**", ratio * 100.0),
            goal,
            if ours {
                met(ratio >= FAR_GOAL).to_owned()
            } else {
                String::new()
            },
        ]))
    };
    let both = |workload: &Workload| {
        let lines = [Native, Mmrepl].map(|engine| line(workload, engine).unwrap_or_default());
        lines.concat()
    };
    let rows: String = WORKLOADS.iter().map(both).collect();
    section("", (head(&names), rows), &network(results, major))
        .trim_start()
        .to_owned()
}

/// That the way between is slow, not narrow.
fn network(results: &Results, major: u32) -> String {
    let told = |part: &str| {
        let record = results.of(major, part).pop()?;
        match &record.measured {
            Measured::Network(n) => Some(format!(
                "`select 1` takes {:.2} ms, and {} MiB/s pass",
                n.query_ms,
                grouped(n.mib_per_second)
            )),
            _ => None,
        }
    };
    let (near, far) = (told("rtt/network/near"), told("rtt/network"));
    near.zip(far).map_or_else(String::new, |(near, far)| {
        format!(
            "\nThrough the proxy that delays, {far}; through the same one without delay, {near}.\n"
        )
    })
}

/// Latency at a rate that leaves time.
pub(crate) fn latency(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "n",
        "transactions/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU: walsender, daemon, target",
        "goal (p50, p99)",
        "",
    ];
    let line = |engine: Engine| {
        let runs = steady(results, major, "steady", engine);
        let middle = |of: fn(&Steady) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
        let (p50, p99) = (middle(|run| run.p50_ms), middle(|run| run.p99_ms));
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let ours = engine == Mmrepl;
        let daemon = percent(middle(|run| run.cost.daemon / run.seconds));
        let shares = [
            percent(middle(|run| run.cost.walsender / run.seconds)),
            if ours { daemon } else { "–".to_owned() },
            percent(middle(|run| run.cost.apply / run.seconds)),
        ];
        let is_met = p50 < P50_GOAL_MS && p99 < P99_GOAL_MS;
        let goal = format!("< {P50_GOAL_MS:.0}, < {P99_GOAL_MS:.0}");
        (!runs.is_empty()).then(|| {
            row(&[
                version(results, major),
                engine.name().to_owned(),
                runs.len().to_string(),
                grouped(middle(|run| run.reached)),
                format!("{p50:.2}"),
                format!("{p99:.2}"),
                format!(
                    "{:.1}",
                    runs.iter().map(|run| run.max_ms).fold(0.0, f64::max)
                ),
                shares.join(", "),
                if ours { goal } else { String::new() },
                if ours {
                    met(is_met).to_owned()
                } else {
                    String::new()
                },
            ])
        })
    };
    let rows = ENGINES.into_iter().filter_map(line).collect();
    section("", (head(&names), rows), "")
        .trim_start()
        .to_owned()
}

/// The highest rate at which rows are seen no later in the end than in the beginning.
pub(crate) fn highest_rate(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "",
        "highest rate kept up with",
        "p50 ms",
        "p99 ms",
        "next step",
    ];
    let line = |engine: Engine| {
        let all = steady(results, major, "rate", engine);
        let steps = latest_climb(&all);
        let kept = steps.iter().rfind(|step| step.is_bounded());
        let figure = |of: fn(&Steady) -> f64| {
            kept.map_or_else(String::new, |step| format!("{:.2}", of(step)))
        };
        let rate = kept.map_or_else(
            || "none".to_owned(),
            |step| format!("{}/s", grouped(step.reached)),
        );
        let next = steps.iter().find(|step| !step.is_bounded());
        let next = next.map_or_else(|| "none was tried".to_owned(), why_not);
        let line = row(&[
            version(results, major),
            engine.name().to_owned(),
            rate,
            figure(|step| step.p50_ms),
            figure(|step| step.p99_ms),
            next,
        ]);
        (!steps.is_empty()).then_some(line)
    };
    let rows = ENGINES.into_iter().filter_map(line).collect();
    section("", (head(&names), rows), "")
        .trim_start()
        .to_owned()
}

/// From the last step that is lower than the one before it.
fn latest_climb(steps: &[Steady]) -> &[Steady] {
    let start = (1..steps.len())
        .rev()
        .find(|at| steps[*at].rate <= steps[at - 1].rate);
    &steps[start.unwrap_or(0)..]
}

fn why_not(step: &Steady) -> String {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let rate = grouped(step.rate as f64);
    if step.is_reached() {
        format!("{rate}/s: in the end {} ms late", grouped(step.last_ms))
    } else {
        format!("{rate}/s: the writers reach {}/s", grouped(step.reached))
    }
}

/// Rows that both nodes changed.
pub(crate) fn conflicts(results: &Results, major: u32) -> String {
    let names = [
        "PostgreSQL",
        "n",
        "rows changed on both",
        "recorded",
        "seconds",
        "conflicts/s",
    ];
    let runs: Vec<(f64, u64, u64)> = results
        .of(major, "conflicts")
        .iter()
        .filter_map(|record| match &record.measured {
            Measured::Conflicts(c) => Some((c.seconds, c.rows, c.recorded)),
            _ => None,
        })
        .collect();
    let Some((_, rows, recorded)) = runs.last() else {
        return String::new();
    };
    let all: Vec<f64> = runs.iter().map(|run| run.0).collect();
    let seconds = median(&all);
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let (rows, recorded) = (*rows as f64, *recorded as f64);
    let line = row(&[
        version(results, major),
        runs.len().to_string(),
        grouped(rows),
        grouped(recorded),
        format!("{seconds:.2}"),
        format!("**{}**", grouped(recorded / seconds)),
    ]);
    head(&names) + &line
}
