//! One case with one system, on two servers of its own.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cases::{Case, Node};
use crate::common::Side;
use crate::mmrepl_links::MmreplLinks;
use crate::outcome::Outcome;
use crate::server_log::{LogTail, WorkerError};
use crate::system::System;

/// How often is asked whether something has happened.
const POLL: Duration = Duration::from_millis(50);
/// Between two writes, so that there is no doubt which commit is the later one.
const APART: Duration = Duration::from_millis(30);
/// So many equal errors mean that another try will not help …
const ERRORS_MAX: usize = 3;
/// … and so does one after which nothing arrived for so long: pglogical may take minutes to retry.
const ERROR_LIMIT: Duration = Duration::from_secs(60);
/// How long may pass without a marker or an error.
const LIMIT: Duration = Duration::from_secs(120);

/// Written last on each side: once it has arrived, so has everything before it.
const MARKER: &str = "create table marker (node text, step int, primary key (node, step))";

struct Pair {
    links: Option<MmreplLinks>,
    east: Side,
    west: Side,
    logs: [LogTail; 2],
    system: System,
    _dir: TempDir,
}

/// Plays the case; gives the versions of what it was played on, too.
pub(crate) async fn play(case: &'static Case, system: System) -> (String, Outcome) {
    let mut pair = Pair::start(case, system).await;
    let version = pair.system.version(&pair.east).await;
    (version, pair.play(case).await)
}

impl Pair {
    /// Both nodes with the case's tables, replicating.
    async fn start(case: &Case, system: System) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mmrepl-compare-")
            .tempdir()
            .expect("a folder");
        let options = system.server_options();
        let east = Side::start(&system.binaries, &dir.path().join("east"), &options).await;
        let west = Side::start(&system.binaries, &dir.path().join("west"), &options).await;
        for side in [&east, &west] {
            side.run(case.schema).await;
            side.run(MARKER).await;
        }
        let links = system.set_up(dir.path(), (&east, &west), case.rule).await;
        let logs = [LogTail::from_now(&east), LogTail::from_now(&west)];
        Self {
            links,
            east,
            west,
            logs,
            system,
            _dir: dir,
        }
    }

    async fn play(&mut self, case: &Case) -> Outcome {
        self.east.run(case.before).await;
        self.write_marker(0).await;
        let early = self.wait_for_marker(0).await;
        assert!(early.is_none(), "before the conflict: {early:?}");
        self.switch(false).await;
        self.logs = [LogTail::from_now(&self.east), LogTail::from_now(&self.west)];
        for (node, sql) in case.writes {
            self.side(*node).run(sql).await;
            tokio::time::sleep(APART).await;
        }
        self.write_marker(1).await;
        self.switch(true).await;
        if let Some(stopped) = self.wait_for_marker(1).await {
            return stopped;
        }
        // Whatever was written while applying goes over before this one.
        self.write_marker(2).await;
        if let Some(stopped) = self.wait_for_marker(2).await {
            return stopped;
        }
        self.compare(case).await
    }

    fn side(&self, node: Node) -> &Side {
        match node {
            Node::East => &self.east,
            Node::West => &self.west,
        }
    }

    /// Stops both directions, and waits until that has happened, or starts them.
    async fn switch(&self, on: bool) {
        match &self.links {
            Some(links) => links.switch(on),
            None => {
                for side in [&self.east, &self.west] {
                    side.run(&self.system.switch(on)).await;
                }
            }
        }
        let active = "select count(*)::text from pg_replication_slots where active";
        for side in [&self.east, &self.west] {
            if !on {
                wait_for(side, active, "0").await;
            }
        }
    }

    async fn write_marker(&self, step: u8) {
        for (side, name) in [(&self.east, "east"), (&self.west, "west")] {
            // A server that crashed has no session for us; the wait that follows says so.
            let insert = format!("insert into marker values ('{name}', {step})");
            let _ = side.client.batch_execute(&insert).await;
        }
    }

    /// Waits until both sides have both markers; says why they never will.
    async fn wait_for_marker(&mut self, step: u8) -> Option<Outcome> {
        let started = Instant::now();
        loop {
            if self.has_markers(step).await {
                return None;
            }
            let stopped = self.trouble(started.elapsed());
            if stopped.is_some() {
                return stopped;
            }
            if started.elapsed() > LIMIT {
                let sentence = format!("nothing arrived within {LIMIT:?}, and no error was told");
                return Some(Outcome::Stopped("no progress".to_owned(), sentence));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn has_markers(&self, step: u8) -> bool {
        let count = format!("select count(*) from marker where step = {step}");
        for side in [&self.east, &self.west] {
            let row = side.client.query_one(&count, &[]).await;
            if !row.is_ok_and(|row| row.get::<_, i64>(0) == 2) {
                return false;
            }
        }
        true
    }

    /// A server that crashed, or an error that does not pass.
    fn trouble(&mut self, waited: Duration) -> Option<Outcome> {
        if let Some(crash) = self.logs.iter().find_map(LogTail::crash) {
            return Some(Outcome::Stopped("the server crashed".to_owned(), crash));
        }
        let errors = match &mut self.links {
            Some(links) => links.errors(),
            None => self.logs.iter().flat_map(LogTail::errors).collect(),
        };
        let last = errors.last()?;
        let same = |error: &&WorkerError| error.sqlstate == last.sqlstate;
        let again = errors.iter().filter(same).count() >= ERRORS_MAX;
        (again || waited > ERROR_LIMIT)
            .then(|| Outcome::Stopped(last.sqlstate.clone(), last.message.clone()))
    }

    async fn compare(&self, case: &Case) -> Outcome {
        let rows = [rows(&self.east, case).await, rows(&self.west, case).await];
        let broken = match case.broken {
            Some((query, _)) => self.east.value(query).await != "0",
            None => false,
        };
        Outcome::of(case, rows, broken)
    }
}

/// Waits until the query gives this value.
pub(crate) async fn wait_for(side: &Side, query: &str, value: &str) {
    let started = Instant::now();
    while side.value(query).await != value {
        assert!(started.elapsed() < LIMIT, "no {value} from {query}");
        tokio::time::sleep(POLL).await;
    }
}

/// The rows of each of the case's tables.
async fn rows(side: &Side, case: &Case) -> Vec<String> {
    let mut all = Vec::new();
    for table in case.tables {
        let query =
            format!(
            "select coalesce(string_agg(r::text, ' ' order by r::text collate \"C\"), 'no rows')
             from (select {} as r from {table} t) rows",
            if *table == case.tables[0] { case.shown } else { "t" }
        );
        all.push(side.value(&query).await);
    }
    all
}
