//! Whatever happens to a cluster, what it says of itself is true: for each trouble the status of
//! the daemons and of the command, the metrics and the readiness are sampled, and nothing may
//! contradict what the test did. `MMREPL_TRUTH_SECONDS` says for how long each is sampled.

use std::time::{Duration, Instant};

use mmrepl::local::ServerOptions;
use mmrepl::local::signal::{Signal, send};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};
use crate::truth_samples::{Done, LinkSample, MetricSample, ReadySample, Samples, contradictions};

/// How often the daemons are asked.
const EVERY: Duration = Duration::from_millis(200);
/// Of so many rounds one asks the command too, which starts a process.
const COMMAND_EVERY: usize = 4;

/// One trouble.
pub struct Trouble {
    pub name: &'static str,
    /// The link that it concerns.
    pub link: (&'static str, &'static str),
    /// One of these must be seen, with these words in the reason …
    pub seen: &'static [&'static str],
    pub words: &'static str,
    /// … and from then on no other than these.
    pub only: &'static [&'static str],
    /// A commit waits on the source.
    pub waits: bool,
    pub never: &'static [&'static str],
}

pub const TROUBLE: Trouble = Trouble {
    name: "",
    link: ("east", "west"),
    seen: &[],
    words: "",
    only: &[],
    waits: true,
    never: &["s3cret"],
};

/// What a link is that somebody must mend.
const FAILS: &[&str] = &["retrying", "blocked", "stopped"];

fn seconds() -> u64 {
    let asked = std::env::var("MMREPL_TRUTH_SECONDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Asks a daemon; nothing where it does not answer.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((code, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(3), ask)
        .await
        .ok()?
}

/// Samples for as long as is asked for.
async fn sampled(cluster: &Cluster) -> Samples {
    let mut samples = Samples::default();
    let started = Instant::now();
    let at = || u64::try_from(started.elapsed().as_millis()).unwrap();
    for round in 0.. {
        if started.elapsed() >= Duration::from_secs(seconds()) {
            break;
        }
        for node in &cluster.nodes {
            let port = node.admin_port;
            if let Some((_, body)) = get(port, "/status").await {
                let status: Value = serde_json::from_str(&body).unwrap();
                samples.links.extend(links(at(), &status));
            }
            if let Some((_, body)) = get(port, "/metrics").await {
                samples.metrics.extend(MetricSample::read(at(), &body));
            }
            if let Some((code, words)) = get(port, "/readyz").await {
                samples.ready.push(ReadySample {
                    at: at(),
                    daemon: node.name.to_owned(),
                    code,
                    words,
                });
            }
        }
        if round % COMMAND_EVERY == 0 {
            let status = cluster.status().await.unwrap();
            samples.links.extend(links(at(), &status));
        }
        tokio::time::sleep(EVERY).await;
    }
    samples
}

fn links(at: u64, status: &Value) -> Vec<LinkSample> {
    let links = status["links"].as_array().unwrap();
    links
        .iter()
        .map(|link| LinkSample::read(at, link))
        .collect()
}

/// Samples while the trouble lasts, after it was seen.
pub async fn check(cluster: &Cluster, trouble: &Trouble, begun: Instant) {
    let Trouble { name, link, .. } = trouble;
    if !trouble.seen.is_empty() {
        wait_until(&format!("{name} to be seen"), LIMIT, async || {
            let found = cluster.link_status(link.0, link.1).await?;
            let state = found["state"].as_str().unwrap_or("none");
            let reason = found["reason"].as_str().unwrap_or("");
            let fits = trouble.seen.contains(&state) && reason.contains(trouble.words);
            ensure(fits, || found.to_string())
        })
        .await;
    }
    let waits = u64::try_from(begun.elapsed().as_millis()).unwrap();
    let samples = sampled(cluster).await;
    assert!(!samples.links.is_empty(), "{name}: nothing was said");
    let done = Done {
        link: format!("{}->{}", link.0, link.1),
        only: trouble.only.to_vec(),
        stuck: trouble.waits,
        waits_ms: trouble.waits.then_some(waits),
        idle: !trouble.waits,
        never: trouble.never.to_vec(),
    };
    let found = contradictions(&samples, &done);
    assert!(found.is_empty(), "{name}: {found:#?}");
}

/// Everything is well again.
pub async fn mended(cluster: &Cluster) {
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    for node in &cluster.nodes {
        wait_until("both to be ready again", LIMIT, async || {
            let answer = get(node.admin_port, "/readyz").await;
            ensure(
                answer.as_ref().is_some_and(|(code, _)| *code == 200),
                || format!("{answer:?}"),
            )
        })
        .await;
    }
}

pub const SCHEMA: &str = "create table t (id int primary key, v text);
    create table n (a int unique, v text)";

/// Writes on east what runs into the trouble, checks, and mends.
async fn write_and_check(cluster: &Cluster, trouble: Trouble, write: &str) {
    let begun = Instant::now();
    cluster.east().sql(write).await;
    check(cluster, &trouble, begun).await;
}

/// A session on west that holds something until it is dropped.
async fn holds(cluster: &Cluster, sql: &str) -> Client {
    let client = cluster.west().client().await;
    pg::execute(&client, sql).await;
    client
}

async fn idle_and_busy(cluster: &Cluster) {
    let quiet = Trouble {
        name: "idle",
        only: &["streaming"],
        waits: false,
        ..TROUBLE
    };
    check(cluster, &quiet, Instant::now()).await;
    let running = cluster.east().client().await;
    let large = "begin; insert into t select g, 'large' from generate_series(1000, 40000) g";
    pg::execute(&running, large).await;
    let open = Trouble {
        name: "a large transaction is open on the source",
        only: &["streaming", "catching_up"],
        waits: false,
        ..TROUBLE
    };
    check(cluster, &open, Instant::now()).await;
    pg::execute(&running, "commit; delete from t where v = 'large'").await;
    let ends = Trouble {
        name: "a large transaction ends",
        only: &["streaming", "catching_up", "waiting"],
        waits: false,
        ..TROUBLE
    };
    check(cluster, &ends, Instant::now()).await;
    mended(cluster).await;
}

async fn pauses(cluster: &Cluster) {
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    let paused = Trouble {
        name: "paused with a backlog",
        seen: &["paused"],
        words: "mmrepl resume",
        only: &["paused"],
        ..TROUBLE
    };
    write_and_check(cluster, paused, "insert into t values (1, 's3cret')").await;
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    mended(cluster).await;
}

async fn locks(cluster: &Cluster) {
    let row = "begin; update t set v = v where id = 1";
    for (name, hold, words) in [
        ("a row lock", row, "on a row of public.t held by process"),
        (
            "a table lock",
            "begin; lock table t in access exclusive mode",
            "on public.t held by process",
        ),
    ] {
        let holder = holds(cluster, hold).await;
        let locked = Trouble {
            name,
            seen: &["waiting"],
            words,
            only: &["waiting", "retrying"],
            ..TROUBLE
        };
        write_and_check(cluster, locked, "update t set v = v || 'x' where id = 1").await;
        let link = cluster.link_status("east", "west").await.unwrap();
        let reason = link["reason"].as_str().unwrap();
        assert!(reason.contains("idle in transaction since"), "{reason}");
        pg::execute(&holder, "rollback").await;
        mended(cluster).await;
    }
}

/// A trigger on west that refuses every row with this SQLSTATE, and tells its value.
fn raise(code: &str) -> String {
    format!(
        "create function refuse() returns trigger language plpgsql as $$ begin
           raise exception 'refused value %', new.v using errcode = '{code}'; end $$;
         create trigger refuse before insert on t for each row execute function refuse();
         alter table t enable always trigger refuse"
    )
}

async fn refusals(cluster: &Cluster) {
    let (full, value, check_made) = (raise("53100"), raise("P0001"), raise("23514"));
    let (free, free_check) = (
        "drop trigger refuse on t; drop function refuse()",
        "alter table t drop constraint shorter",
    );
    let write = |id: u32| format!("insert into t values ({id}, 's3cret')");
    for (id, name, cause, mend, words) in [
        (10, "a full disk", full.as_str(), free, "53100"),
        (
            11,
            "a trigger that tells values",
            &value,
            free,
            "refuse() line",
        ),
        (
            12,
            "a trigger that forges a code",
            &check_made,
            free,
            "23514",
        ),
        (
            13,
            "a check constraint",
            "alter table t add constraint shorter check (length(v) < 4) not valid",
            free_check,
            "shorter",
        ),
        (
            14,
            "a missing column",
            "alter table t rename v to w",
            "alter table t rename w to v",
            "public.t",
        ),
        (
            15,
            "a missing table",
            "alter table t rename to u",
            "alter table u rename to t",
            "public.t",
        ),
        (
            16,
            "a narrower type",
            "alter table t add column tmp int; alter table t rename v to keep;
             alter table t rename tmp to v",
            "alter table t drop column v; alter table t rename keep to v",
            "22P02",
        ),
    ] {
        cluster.west().sql(cause).await;
        let refused = Trouble {
            name,
            seen: FAILS,
            words,
            only: FAILS,
            ..TROUBLE
        };
        write_and_check(cluster, refused, &write(id)).await;
        cluster.west().sql(mend).await;
        mended(cluster).await;
    }
}

/// A duplicate in a table without a key, and one that only west has.
async fn duplicates(cluster: &Cluster) {
    cluster.pause_all().await;
    cluster.west().sql("insert into n values (1, 'west')").await;
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    cluster.wait_state("east", "west", &["streaming"]).await;
    let duplicate = Trouble {
        name: "a duplicate in a table without a key",
        seen: &["blocked"],
        words: "23505",
        only: &["blocked"],
        ..TROUBLE
    };
    write_and_check(cluster, duplicate, "insert into n values (1, 's3cret')").await;
    cluster
        .west()
        .sql("update n set a = 2 where v = 'west'")
        .await;
    cluster.wait_state("east", "west", &["streaming"]).await;
    // It must change on both nodes: west's insert is still to come.
    let east = cluster.east();
    east.sql("update n set a = 3 where v = 's3cret'").await;
    cluster.mmrepl_ok(&["resume", "west->east"]).await;
    mended(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_and_locks() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.allow_error("needs somebody");
    cluster.wait_streaming().await;
    idle_and_busy(&cluster).await;
    pauses(&cluster).await;
    locks(&cluster).await;
    refusals(&cluster).await;
    duplicates(&cluster).await;
}

/// A server, or the way to it, is gone in one way or another.
#[derive(Clone, Copy, Debug)]
enum Outage {
    TargetDown,
    SourceDown,
    BothDown,
    TargetFrozen,
    Cut,
    HalfOpenTarget,
    HalfOpenSource,
    Restarting,
    LoginRefused,
}

impl Outage {
    const ALL: [Self; 9] = [
        Self::TargetDown,
        Self::SourceDown,
        Self::BothDown,
        Self::TargetFrozen,
        Self::Cut,
        Self::HalfOpenTarget,
        Self::HalfOpenSource,
        Self::Restarting,
        Self::LoginRefused,
    ];

    async fn begins(self, cluster: &mut Cluster) {
        match self {
            Self::TargetDown => cluster.server_mut("west").stop(),
            Self::SourceDown => cluster.server_mut("east").stop(),
            Self::BothDown => {
                cluster.server_mut("west").stop();
                cluster.server_mut("east").stop();
            }
            Self::TargetFrozen => cluster.west().server().sigstop(),
            Self::Cut => cluster.proxy("east", "west").cut(),
            Self::HalfOpenTarget => cluster.proxy("east", "west").pause(),
            Self::HalfOpenSource => cluster.proxy("east", "east").pause(),
            Self::Restarting => {
                cluster.server_mut("west").kill9();
                cluster.server_mut("west").start().unwrap();
                cluster.server_mut("west").kill9();
            }
            Self::LoginRefused => {
                let dbname = cluster.west().dbname.clone();
                let admin = pg::connect(&cluster.west().server().dsn("postgres")).await;
                let close = format!("alter database {dbname} with allow_connections false");
                pg::execute(&admin, &close).await;
                let end = format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where datname = '{dbname}'"
                );
                pg::rows(&admin, &end).await;
            }
        }
    }

    async fn ends(self, cluster: &mut Cluster) {
        match self {
            Self::TargetDown | Self::Restarting => cluster.server_mut("west").start().unwrap(),
            Self::SourceDown => cluster.server_mut("east").start().unwrap(),
            Self::BothDown => {
                cluster.server_mut("west").start().unwrap();
                cluster.server_mut("east").start().unwrap();
            }
            Self::TargetFrozen => cluster.west().server().sigcont(),
            Self::Cut | Self::HalfOpenTarget => cluster.proxy("east", "west").resume(),
            Self::HalfOpenSource => cluster.proxy("east", "east").resume(),
            Self::LoginRefused => {
                let admin = pg::connect(&cluster.west().server().dsn("postgres")).await;
                let open = format!(
                    "alter database {} with allow_connections true",
                    cluster.west().dbname
                );
                pg::execute(&admin, &open).await;
            }
        }
    }

    /// Whether east can be written to meanwhile.
    fn has_backlog(self) -> bool {
        !matches!(self, Self::SourceDown | Self::BothDown)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_servers_and_networks() {
    let options = ClusterOptions::pair().own_servers().proxied();
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("needs somebody");
    cluster.wait_streaming().await;
    for (id, outage) in (100..).zip(Outage::ALL) {
        outage.begins(&mut cluster).await;
        let begun = Instant::now();
        if outage.has_backlog() {
            let write = format!("insert into t values ({id}, 's3cret')");
            cluster.east().sql(&write).await;
        }
        let name = format!("{outage:?}");
        let trouble = Trouble {
            name: Box::leak(name.into_boxed_str()),
            seen: &["retrying", "blocked", "unreachable"],
            only: &["retrying", "blocked", "unreachable"],
            waits: outage.has_backlog(),
            ..TROUBLE
        };
        check(&cluster, &trouble, begun).await;
        outage.ends(&mut cluster).await;
        mended(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_daemons_and_slots() {
    let mut cluster = Cluster::running_with(ClusterOptions::pair().own_servers(), SCHEMA).await;
    cluster.allow_error("needs somebody");
    cluster.wait_streaming().await;
    let begun = Instant::now();
    cluster.take_daemon("east").kill9();
    let killed = Trouble {
        name: "the daemon was killed",
        seen: &["stopped"],
        words: "does not answer",
        only: &["stopped"],
        ..TROUBLE
    };
    cluster.east().sql("insert into t values (1, 'x')").await;
    check(&cluster, &killed, begun).await;
    // Its target has never been reached since it started.
    cluster.server_mut("west").stop();
    cluster.start_daemon("east");
    let never = Trouble {
        name: "a target that was never reached",
        seen: &["retrying"],
        words: "west",
        only: &["retrying"],
        ..TROUBLE
    };
    check(&cluster, &never, begun).await;
    cluster.server_mut("west").start().unwrap();
    mended(&cluster).await;

    let pid = cluster.daemon("east").pid();
    send(Signal::Stop, &[pid]);
    let begun = Instant::now();
    cluster.east().sql("insert into t values (2, 'x')").await;
    let frozen = Trouble {
        name: "the daemon is frozen",
        seen: &["unreachable"],
        words: "does not answer",
        only: &["unreachable"],
        ..TROUBLE
    };
    check(&cluster, &frozen, begun).await;
    send(Signal::Cont, &[pid]);
    mended(&cluster).await;

    cluster.take_daemon("east").kill9();
    let slot = format!("mmrepl_{}_west", cluster.name);
    wait_until("the slot to be dropped", LIMIT, async || {
        let drop = format!("select pg_drop_replication_slot('{slot}')");
        let client = cluster.east().client().await;
        let dropped = pg::try_rows(&client, &drop).await;
        dropped.map_err(|error| pg::explain(&error))
    })
    .await;
    cluster.start_daemon("east");
    let dropped = Trouble {
        name: "the slot was dropped",
        seen: FAILS,
        words: "slot",
        // The daemon may not have looked yet.
        only: &["starting", "stopped"],
        ..TROUBLE
    };
    write_and_check(&cluster, dropped, "insert into t values (3, 'x')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_prepared_transaction() {
    let own = |_| ServerOptions::default().with("max_prepared_transactions", "4");
    let options = ClusterOptions::pair().own_with(own);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    mended(&cluster).await;
    let prepare = "begin; update t set v = 'p' where id = 1; prepare transaction 'it''s'";
    drop(holds(&cluster, prepare).await);
    let held = Trouble {
        name: "a prepared transaction",
        seen: &["waiting"],
        words: "the prepared transaction 'it's'",
        only: &["waiting", "retrying"],
        ..TROUBLE
    };
    write_and_check(&cluster, held, "update t set v = 'y' where id = 1").await;
    let reason = cluster.link_status("east", "west").await.unwrap()["reason"].clone();
    let reason = reason.as_str().unwrap();
    let (_, command) = reason.split_once("; `").unwrap();
    cluster.west().sql(command.split('`').next().unwrap()).await;
    mended(&cluster).await;
}
