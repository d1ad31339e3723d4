//! Writes at a fixed rate: how long after its commit a row is seen on the target, and the highest
//! rate at which that time does not grow.
//!
//! A replica trigger on the target notifies with the row's number. The notification reaches a
//! waiting client when the apply transaction has committed, which is when the row can be seen:
//! nothing is polled. The commit's time on the source is the server's own. One machine, one clock.

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use mmrepl::local::ServerBinaries;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::common::Side;
use crate::engine::Engine;
use crate::pgbench;
use crate::results::{Measured, Results, Steady, median};
use crate::rig::{Plan, Rig, engines_of};
use crate::settings::Settings;
use crate::side_of;

/// Transactions per second at which latency is told.
const RATE: u64 = 500;
/// Rates that are tried, one after the other, until one is too high.
const RATES: [u64; 8] = [1000, 2000, 4000, 6000, 8000, 12_000, 16_000, 24_000];
/// Writers. They commit to the disk as usual: what is not flushed there is not sent either.
const CLIENTS: &str = "16";
/// Rows that are followed per second, at most about.
const FOLLOWED: u64 = 500;

const SCHEMA: &str = "create sequence beat_id;
    create table beat (id bigint primary key, note text not null)";
const SCRIPT: &str = "insert into beat values (nextval('beat_id'), 'x');\n";
const TRIGGER: &str = "
    create function beat() returns trigger language plpgsql as $$
        begin perform pg_notify('beat', new.id::text); return null; end $$;
    create or replace trigger beat after insert on beat for each row
        when (new.id % {every} = 0) execute function beat();
    alter table beat enable replica trigger beat";

/// Number of a row, and microseconds since 1970.
type Moments = Vec<(u64, u64)>;

/// One rate.
struct Load {
    rate: u64,
    seconds: u64,
    /// One in so many rows is followed.
    every: u64,
}

/// Measures what is wanted.
pub(crate) async fn measure(settings: &Settings, binaries: &ServerBinaries, results: &mut Results) {
    if !pgbench::is_here() {
        println!("skipped steady, rate: no pgbench here (Debian: postgresql-15)");
        return;
    }
    let engines = engines_of(binaries);
    if settings.wants("steady") {
        for _ in settings.had(results, binaries.major, "steady")..settings.runs {
            for engine in &engines {
                climb(("steady", *engine, &[RATE]), settings, binaries, results).await;
            }
        }
    }
    if settings.wants("rate") && settings.had(results, binaries.major, "rate") == 0 {
        let rates = match &settings.rates[..] {
            [] => &RATES,
            chosen => chosen,
        };
        for engine in engines {
            climb(("rate", engine, rates), settings, binaries, results).await;
        }
    }
}

async fn climb(
    (part, engine, rates): (&str, Engine, &[u64]),
    settings: &Settings,
    binaries: &ServerBinaries,
    results: &mut Results,
) {
    for rate in rates {
        let load = Load {
            rate: *rate,
            seconds: settings.seconds,
            every: (rate / FOLLOWED).max(1),
        };
        let plan = Plan {
            engines: &[engine],
            schema: SCHEMA,
            ..Plan::of(binaries)
        };
        let rig = Rig::start(&plan).await;
        let steady = load.run(&rig).await;
        let server = (binaries.major, &*side_of(&rig.source).await);
        let bounded = steady.is_bounded();
        results.add(server, (part, Some(engine)), Measured::Steady(steady));
        if !bounded {
            return;
        }
    }
}

impl Load {
    /// Writes at this rate, and looks when the rows arrive.
    async fn run(&self, rig: &Rig) -> Steady {
        let lane = &rig.lanes[0];
        lane.target
            .run(&TRIGGER.replace("{every}", &self.every.to_string()))
            .await;
        rig.fill("").await;
        let (_client, seen) = listen(&lane.target).await;
        rig.settle().await;
        let before = lane.cost(&rig.source).await;
        let started = Instant::now();
        let reached = self.write(&rig.source).await;
        rig.step(2).await;
        lane.wait_for_step(2).await;
        let seconds = started.elapsed().as_secs_f64();
        let cost = lane.cost(&rig.source).await.since(&before);
        let committed = self.committed(&rig.source).await;
        wait_for_all(&seen, committed.len()).await;
        lane.assert_equal(&rig.source, &["beat".to_owned()]).await;
        let seen = seen.lock().expect("nobody panics with it").clone();
        let ms = latencies(&committed, &seen);
        Steady {
            rate: self.rate,
            reached,
            seconds,
            samples: ms.len(),
            p50_ms: percentile(&ms, 0.5),
            p99_ms: percentile(&ms, 0.99),
            max_ms: percentile(&ms, 1.0),
            last_ms: median(&ms[ms.len() - ms.len().div_ceil(10)..]),
            cost,
        }
    }

    /// Runs pgbench to its end; gives the rate that it had.
    async fn write(&self, source: &Side) -> f64 {
        let script = tempfile::NamedTempFile::new().expect("a file can be made");
        std::fs::write(&script, SCRIPT).expect("the file is ours");
        let file = script.path().display().to_string();
        let (rate, seconds) = (self.rate.to_string(), self.seconds.to_string());
        let load = [
            "-R", &rate, "-T", &seconds, "-c", CLIENTS, "-M", "prepared", "-f", &file,
        ];
        pgbench::tps(&pgbench::run(source, "", &load).await)
    }

    /// When the followed rows were committed; the first tenth is left out.
    async fn committed(&self, source: &Side) -> Moments {
        let sql = format!(
            "select id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
             from beat where id % {} = 0 order by id",
            self.every
        );
        let rows = source
            .client
            .query(&sql, &[])
            .await
            .expect("the query runs");
        let number = |row: &tokio_postgres::Row, index| row.get::<_, i64>(index).unsigned_abs();
        let moments = rows.iter().map(|row| (number(row, 0), number(row, 1)));
        moments.collect()
    }
}

/// Waits for what is notified about: each row's number, and when.
async fn listen(target: &Side) -> (Client, Arc<Mutex<Moments>>) {
    let connected = tokio_postgres::connect(&target.dsn(), NoTls).await;
    let (client, mut connection) = connected.expect("the target answers");
    let seen = Arc::new(Mutex::new(Moments::new()));
    let notified = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            if let AsyncMessage::Notification(beat) = message {
                let id = beat.payload().parse().expect("the trigger sends a number");
                let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
                notified
                    .lock()
                    .expect("nobody panics with it")
                    .push((id, micros));
            }
        }
    });
    client
        .batch_execute("listen beat")
        .await
        .expect("it listens");
    (client, seen)
}

/// Notifications may come a moment after the row that was written last can be seen.
async fn wait_for_all(seen: &Mutex<Moments>, count: usize) {
    let limit = Instant::now() + std::time::Duration::from_secs(60);
    while seen.lock().expect("nobody panics with it").len() < count {
        assert!(Instant::now() < limit, "some rows were not notified about");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Milliseconds between commit and being seen, in the order of writing, without the first tenth.
fn latencies(committed: &Moments, seen: &Moments) -> Vec<f64> {
    let seen: std::collections::HashMap<u64, u64> = seen.iter().copied().collect();
    let late = |(id, commit): &(u64, u64)| {
        let micros = i64::try_from(*seen.get(id)?).ok()? - i64::try_from(*commit).ok()?;
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        Some(micros as f64 / 1000.0)
    };
    committed
        .iter()
        .skip(committed.len() / 10)
        .filter_map(late)
        .collect()
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // an index
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * share) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or(f64::NAN)
}
