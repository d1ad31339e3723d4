//! Everything breaks while both sides write: in the end every acknowledged row is on both nodes,
//! exactly once, and both nodes are equal.
//!
//! `MMREPL_CHAOS_FAULTS` sets how many faults (20; `make soak` 200), `MMREPL_SEED` which ones.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use mmrepl::local::ServerOptions;

use crate::support::proxy::Mode;
#[cfg(feature = "failpoints")]
use crate::support::wait::ensure;
use crate::support::writers::{SCHEMA, Writer};
use crate::support::{Cluster, ClusterOptions, Rng};
#[cfg(feature = "failpoints")]
use crate::support::{LIMIT, wait_until};

/// Its number on every Unix.
const SIGTERM: i32 = 15;
/// After so many faults the cluster must get well while the writers go on, slowly: how many
/// transactions a busy machine can catch up with is not the question here.
const FAULTS_BETWEEN_CALMS: u64 = 7;
/// A backlog of a long soak takes its time.
const SETTLE_LIMIT: Duration = Duration::from_secs(600);

/// What can happen. Every fault is mended after a while, as in life.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    KillDaemon,
    TerminateDaemon,
    FreezeDaemon,
    KillServer,
    RestartServer,
    FreezeServer,
    CutLink,
    HalfOpenLink,
    SeverLink,
}

pub(super) const FAULTS: [Fault; 9] = [
    Fault::KillDaemon,
    Fault::TerminateDaemon,
    Fault::FreezeDaemon,
    Fault::KillServer,
    Fault::RestartServer,
    Fault::FreezeServer,
    Fault::CutLink,
    Fault::HalfOpenLink,
    Fault::SeverLink,
];

fn fault_count() -> u64 {
    std::env::var("MMREPL_CHAOS_FAULTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

async fn pause(rng: &mut Rng, longest: Duration) {
    let longest = u64::try_from(longest.as_millis()).unwrap();
    tokio::time::sleep(Duration::from_millis(rng.below(longest))).await;
}

pub(super) async fn happen(
    cluster: &mut Cluster,
    fault: Fault,
    victim: &'static str,
    rng: &mut Rng,
) {
    let other = if victim == "east" { "west" } else { "east" };
    let long = Duration::from_secs(2);
    match fault {
        Fault::KillDaemon => {
            cluster.take_daemon(victim).kill9();
            pause(rng, long).await;
            cluster.start_daemon(victim);
        }
        Fault::TerminateDaemon => {
            let daemon = cluster.take_daemon(victim);
            let status = tokio::task::spawn_blocking(|| daemon.terminate())
                .await
                .unwrap();
            // One that has only just been started may not listen to signals yet.
            let early = status.signal() == Some(SIGTERM);
            assert!(status.success() || early, "{victim} ended with {status}");
            cluster.start_daemon(victim);
        }
        Fault::FreezeDaemon => {
            cluster.daemon(victim).sigstop();
            pause(rng, long).await;
            cluster.daemon(victim).sigcont();
        }
        Fault::KillServer => {
            cluster.server_mut(victim).kill9();
            pause(rng, long).await;
            cluster.server_mut(victim).start().unwrap();
        }
        Fault::RestartServer => cluster.server_mut(victim).restart().unwrap(),
        Fault::FreezeServer => {
            cluster.server_mut(victim).sigstop();
            pause(rng, long).await;
            cluster.server_mut(victim).sigcont();
        }
        Fault::CutLink => break_network(cluster, (victim, other), Mode::Cut, rng).await,
        Fault::HalfOpenLink => break_network(cluster, (victim, other), Mode::Paused, rng).await,
        Fault::SeverLink => {
            cluster.proxy(victim, victim).sever();
            cluster.proxy(victim, other).sever();
        }
    }
}

/// The network between a daemon and a server: its peer's, or by chance its own.
async fn break_network(cluster: &Cluster, ends: (&str, &str), mode: Mode, rng: &mut Rng) {
    let server = if rng.below(3) == 0 { ends.0 } else { ends.1 };
    let proxy = cluster.proxy(ends.0, server);
    proxy.set(mode);
    pause(rng, Duration::from_secs(3)).await;
    if mode == Mode::Paused && rng.below(2) == 0 {
        // What was half-open is found to be gone, and nothing sent meanwhile arrives.
        proxy.cut();
    }
    proxy.resume();
}

/// A key for the ledger, so that transactions can be told apart by their rows; each row that is
/// written to it is noted where nobody else does.
const NOTED: &str = "
    alter table ledger add primary key (writer, number);
    create table noted (writer text, number bigint);
    create function note() returns trigger language plpgsql as $$ begin
        insert into public.noted values (new.writer, new.number); return null; end $$;
    create trigger note after insert on ledger for each row execute function note();
    alter table ledger enable always trigger note;
";

pub(super) async fn make_cluster(options: ClusterOptions, schema: &str) -> Cluster {
    let quick = |_| ServerOptions::durable().with("wal_sender_timeout", "10s");
    let options = options.own_with(quick).proxied();
    let mut cluster = Cluster::running_with(options, schema).await;
    // Recovery is not finished, connections end, servers go away: nothing a person must act on.
    cluster.allow_error("57P0");
    cluster.wait_streaming().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_happens_twice() {
    let cluster = make_cluster(ClusterOptions::pair(), SCHEMA).await;
    break_everything(cluster, Rng::from_env(20_261_120)).await;
}

/// The same where three sessions write what each link brings, in small groups that are sent ahead
/// whatever becomes of them.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_workers() {
    let options = ClusterOptions::pair()
        .config("[apply]\napply_workers = 3\n[tables]\nexclude = [\"public.noted\"]\n")
        .daemon_env("MMREPL_GROUP_ROWS", "10")
        .daemon_env("MMREPL_APPLY", "always_ahead");
    let cluster = make_cluster(options, &format!("{SCHEMA}{NOTED}")).await;
    let cluster = break_everything(cluster, Rng::from_env(20_261_121)).await;
    let twice = "select count(*) - count(distinct (writer, number)) from noted";
    for node in &cluster.nodes {
        assert_eq!(node.value(twice).await, "0");
    }
    for (from, to) in [("east", "west"), ("west", "east")] {
        wait_for_all_sessions(&cluster, from, to).await;
    }
}

/// All three sessions of a link have written, sooner or later, and can still do so. What they get
/// to write comes fast enough for them however slow the source's disk is.
#[cfg(feature = "failpoints")]
async fn wait_for_all_sessions(cluster: &Cluster, from: &str, to: &str) {
    let burst = format!(
        "do $$ begin perform set_config('synchronous_commit', 'off', false);
         for i in 1..300 loop insert into ledger
             select 'last of {from}', count(*), '' from ledger where writer = 'last of {from}';
         commit; end loop; end $$"
    );
    let origins =
        "select count(distinct (pg_xact_commit_timestamp_origin(xmin)).roident) from ledger";
    wait_until("every session to have written", LIMIT, async || {
        cluster.node(from).sql(&burst).await;
        let count = cluster.node(to).value(origins).await;
        ensure(count == "4", || count.clone())
    })
    .await;
}

async fn calm(cluster: &Cluster, writers: &[Writer]) {
    for writer in writers {
        writer.go_slowly(true);
    }
    cluster.wait_streaming().await;
    for writer in writers {
        writer.go_slowly(false);
    }
}

async fn break_everything(mut cluster: Cluster, mut rng: Rng) -> Cluster {
    let writers: Vec<Writer> = [("east", "a"), ("east", "b"), ("west", "c"), ("west", "d")]
        .into_iter()
        .map(|(node, name)| Writer::start(name, cluster.node(node).dsn(), rng.fork()))
        .collect();
    for number in 1..=fault_count() {
        let (fault, victim) = (*rng.pick(&FAULTS), *rng.pick(&["east", "west"]));
        println!("fault {number}: {fault:?} {victim}");
        happen(&mut cluster, fault, victim, &mut rng).await;
        if number % FAULTS_BETWEEN_CALMS == 0 {
            calm(&cluster, &writers).await;
        }
        pause(&mut rng, Duration::from_secs(1)).await;
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.stop().await);
    }
    cluster.wait_equal_within(SETTLE_LIMIT).await;
    let mut total = 0;
    for node in &cluster.nodes {
        let client = node.client().await;
        for writer in &acknowledged {
            writer.assert_all_there(&client).await;
            total += writer.numbers.len();
        }
    }
    println!(
        "{} acknowledged transactions, each on both nodes exactly once",
        total / 2
    );
    assert!(total > 0);
    cluster
}
