//! What is run, from the environment.

use crate::results::Results;

/// Chosen by `MMREPL_BENCH_…`; see the crate.
pub(crate) struct Settings {
    pub(crate) rows: Option<u64>,
    pub(crate) runs: usize,
    pub(crate) seconds: u64,
    pub(crate) scale: u64,
    pub(crate) rates: Vec<u64>,
    pub(crate) majors: Vec<u32>,
    resume: bool,
    only: Vec<String>,
}

fn text(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn number(name: &str) -> Option<u64> {
    let text = text(name);
    (!text.is_empty()).then(|| text.parse().expect("a bench's setting is a number"))
}

fn list(name: &str) -> Vec<String> {
    let text = text(name);
    let words = text.split(',').map(|word| word.trim().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

impl Settings {
    pub(crate) fn read() -> Self {
        let majors = list("MMREPL_BENCH_MAJOR");
        let major = |text: &String| text.parse().expect("MMREPL_BENCH_MAJOR lists numbers");
        let rate = |text: &String| text.parse().expect("MMREPL_BENCH_RATES lists numbers");
        Self {
            rows: number("MMREPL_BENCH_ROWS"),
            runs: usize::try_from(number("MMREPL_BENCH_RUNS").unwrap_or(3)).unwrap_or(usize::MAX),
            seconds: number("MMREPL_BENCH_SECONDS").unwrap_or(20),
            scale: number("MMREPL_BENCH_SCALE").unwrap_or(10),
            rates: list("MMREPL_BENCH_RATES").iter().map(rate).collect(),
            majors: majors.iter().map(major).collect(),
            resume: number("MMREPL_BENCH_RESUME") == Some(1),
            only: list("MMREPL_BENCH_ONLY"),
        }
    }

    /// How many runs of a part need not be made again.
    pub(crate) fn had(&self, results: &Results, major: u32, part: &str) -> usize {
        if self.resume {
            results.runs(major, part)
        } else {
            0
        }
    }

    /// Whether a part, such as `w4a` or `rtt/w1`, is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| part.starts_with(only))
    }
}
