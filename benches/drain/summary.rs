//! Medians of what was measured.

use crate::engine::Engine;
use crate::results::{Cost, Drain, Measured, Record, Results, Steady, median};

/// Several runs of one engine with one backlog.
pub(crate) struct Runs {
    drains: Vec<Drain>,
}

impl Runs {
    /// Those of a part; nothing where there are none.
    pub(crate) fn of(results: &Results, major: u32, part: &str, engine: Engine) -> Option<Self> {
        let drain = |record: &&Record| match &record.measured {
            Measured::Drain(drain) if record.engine == Some(engine) => Some(drain.clone()),
            _ => None,
        };
        let records = results.of(major, part);
        let drains: Vec<Drain> = records.iter().filter_map(drain).collect();
        (!drains.is_empty()).then_some(Self { drains })
    }

    pub(crate) fn count(&self) -> usize {
        self.drains.len()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.drains[0].rows
    }

    fn all_seconds(&self) -> Vec<f64> {
        self.drains.iter().map(|drain| drain.seconds).collect()
    }

    pub(crate) fn seconds(&self) -> f64 {
        median(&self.all_seconds())
    }

    #[allow(clippy::cast_precision_loss)] // far below 2^52
    pub(crate) fn per_second(&self) -> f64 {
        self.rows() as f64 / self.seconds()
    }

    /// How many times as fast as `other`.
    pub(crate) fn speed_against(&self, other: &Self) -> f64 {
        self.per_second() / other.per_second()
    }

    /// `3.24 s (2.87–3.34)`
    pub(crate) fn shown(&self) -> String {
        let all = self.all_seconds();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(0.0, f64::max);
        format!("{:.2} s ({least:.2}–{most:.2})", self.seconds())
    }

    pub(crate) fn cost(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        let values: Vec<f64> = self.drains.iter().map(|drain| of(&drain.cost)).collect();
        median(&values)
    }
}

/// Runs at fixed rates.
pub(crate) fn steady(results: &Results, major: u32, part: &str, engine: Engine) -> Vec<Steady> {
    let steady = |record: &&Record| match &record.measured {
        Measured::Steady(steady) if record.engine == Some(engine) => Some(steady.clone()),
        _ => None,
    };
    results.of(major, part).iter().filter_map(steady).collect()
}

/// `12,345`
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.95×`
pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.2}×")
}

/// Whether a goal is met.
pub(crate) const fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**not met**" }
}

/// A row of a table.
pub(crate) fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The two lines above a table's rows.
pub(crate) fn head(names: &[&str]) -> String {
    format!(
        "| {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    )
}
