//! What was measured, one line of JSON each, kept from run to run.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/results.jsonl");

/// CPU seconds of the processes that carry a stream, and the daemon's peak memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) walsender: f64,
    /// The worker of a subscription, or the daemon's sessions on the target.
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

/// A backlog that was drained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drain {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) cost: Cost,
}

/// Writes at a fixed rate, and how long after its commit each was seen on the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Steady {
    /// Transactions per second: wanted, and reached by the writers.
    pub(crate) rate: u64,
    pub(crate) reached: f64,
    pub(crate) seconds: f64,
    pub(crate) samples: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// The median of the last tenth: large where the target falls behind.
    pub(crate) last_ms: f64,
    pub(crate) cost: Cost,
}

/// The median of the last rows at which the target counts as keeping up.
const LAST_MS_MAX: f64 = 250.0;
/// The share of the wanted rate that the writers must reach.
const REACHED_MIN: f64 = 0.95;

impl Steady {
    /// Whether the writers reached the rate.
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    pub(crate) fn is_reached(&self) -> bool {
        self.reached >= self.rate as f64 * REACHED_MIN
    }

    /// Whether the target kept up with them.
    pub(crate) fn is_bounded(&self) -> bool {
        self.is_reached() && self.last_ms < LAST_MS_MAX
    }
}

/// Conflicts that were settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Conflicts {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) recorded: u64,
    pub(crate) cost: Cost,
}

/// What the network between the nodes does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) query_ms: f64,
    pub(crate) mib_per_second: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Measured {
    Drain(Drain),
    Steady(Steady),
    Conflicts(Conflicts),
    Network(Network),
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at: String,
    /// Which mmrepl it was.
    pub(crate) build: String,
    /// `15.20`
    pub(crate) server: String,
    pub(crate) major: u32,
    /// Such as `w4a` or `rtt/w1`.
    pub(crate) part: String,
    /// Nobody's for what is true of the machine.
    pub(crate) engine: Option<Engine>,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// Everything measured so far.
pub(crate) struct Results {
    pub(crate) records: Vec<Record>,
    build: String,
}

impl Results {
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(FILE).unwrap_or_default();
        let record = |line: &str| serde_json::from_str(line).expect("a line of results.jsonl");
        Self {
            records: text.lines().map(record).collect(),
            build: build(),
        }
    }

    /// Adds what was measured, in memory and in the file.
    pub(crate) fn add(
        &mut self,
        server: (u32, &str),
        (part, engine): (&str, Option<Engine>),
        measured: Measured,
    ) {
        let record = Record {
            at: jiff::Timestamp::now().strftime("%F %T").to_string(),
            build: self.build.clone(),
            major: server.0,
            server: server.1.to_owned(),
            part: part.to_owned(),
            engine,
            measured,
        };
        let line = serde_json::to_string(&record).expect("numbers and names");
        std::fs::create_dir_all(FOLDER).expect("target/bench can be made");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(FILE);
        writeln!(file.expect("results.jsonl can be written"), "{line}").expect("the disk has room");
        println!("{line}");
        self.records.push(record);
    }

    /// What the document shows of a part: the newest build's records of the newest size.
    pub(crate) fn of(&self, major: u32, part: &str) -> Vec<&Record> {
        let all = || {
            let of_part = |record: &&Record| record.major == major && record.part == part;
            self.records.iter().filter(of_part)
        };
        let Some(last) = all().next_back() else {
            return Vec::new();
        };
        all().filter(|record| record.goes_with(last)).collect()
    }

    /// How many runs of a part this build has had.
    pub(crate) fn runs(&self, major: u32, part: &str) -> usize {
        let records = self.of(major, part);
        let ours = |record: &&&Record| {
            record.build == self.build && record.engine.is_some_and(Engine::is_mmrepl)
        };
        records.iter().filter(ours).count()
    }

    pub(crate) fn majors(&self) -> BTreeSet<u32> {
        self.records.iter().map(|record| record.major).collect()
    }
}

impl Record {
    /// Whether both may stand in one median.
    fn goes_with(&self, other: &Self) -> bool {
        let rows = |record: &Self| match &record.measured {
            Measured::Drain(drain) => drain.rows,
            Measured::Conflicts(conflicts) => conflicts.rows,
            Measured::Steady(_) | Measured::Network(_) => 0,
        };
        self.build == other.build && rows(self) == rows(other)
    }
}

/// A name for the program that is measured.
fn build() -> String {
    let program = std::fs::read(crate::common::binary()).expect("mmrepl was built");
    format!("{:08x}", crc32fast::hash(&program))
}

/// The middle one, or what is between the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
