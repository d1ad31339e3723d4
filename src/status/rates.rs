//! Rates over the last seconds, from a few samples of the totals. Time comes in as an argument.

use std::collections::VecDeque;

use super::model::{Rates, Totals};
use crate::commit_time::CommitTime;

/// Rates are averages over this long.
const WINDOW_MICROS: i64 = 5_000_000;
/// Samples closer together than this are one.
const SAMPLE_INTERVAL_MICROS: i64 = 500_000;
/// The window holds at most ten samples; a few more for the edges.
const SAMPLES_MAX: usize = 16;

/// The totals at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: CommitTime,
    transactions: u64,
    rows: u64,
}

/// The samples of the last seconds; never more than a handful.
#[derive(Debug)]
pub(super) struct RateWindow(VecDeque<Sample>);

impl RateWindow {
    /// Counting starts at `now`, from nothing.
    pub(super) fn new(now: CommitTime) -> Self {
        Self(VecDeque::from([Sample {
            at: now,
            transactions: 0,
            rows: 0,
        }]))
    }

    /// Notes the totals at `now`.
    pub(super) fn note(&mut self, now: CommitTime, totals: Totals) {
        let last = self.0.back();
        let elapsed = last.map_or(i64::MAX, |sample| now.micros_since(sample.at));
        if elapsed < 0 {
            // The clock was set back: older samples say nothing any more.
            self.0.clear();
        } else if elapsed < SAMPLE_INTERVAL_MICROS {
            return;
        }
        let Totals {
            transactions, rows, ..
        } = totals;
        self.0.push_back(Sample {
            at: now,
            transactions,
            rows,
        });
        while self.0.len() > SAMPLES_MAX || self.second_is_old_enough(now) {
            self.0.pop_front();
        }
    }

    /// The oldest sample can go when the next one covers the whole window too.
    fn second_is_old_enough(&self, now: CommitTime) -> bool {
        let second = self.0.get(1);
        second.is_some_and(|second| now.micros_since(second.at) >= WINDOW_MICROS)
    }

    /// The averages between the oldest and the newest sample.
    pub(super) fn rates(&self, now: CommitTime) -> Rates {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return Rates::default();
        };
        let elapsed = seconds(last.at.micros_since(first.at));
        // A link nobody sampled for long (its daemon was stopped by a signal) has no recent rate.
        let stale = now.micros_since(first.at) > 4 * WINDOW_MICROS;
        if elapsed <= 0.0 || stale {
            return Rates::default();
        }
        Rates {
            transactions_per_second: count(last.transactions - first.transactions) / elapsed,
            rows_per_second: count(last.rows - first.rows) / elapsed,
        }
    }
}

/// Seconds of a difference in microseconds; 0 where clocks make it negative.
#[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
pub(super) fn seconds(micros: i64) -> f64 {
    micros.max(0) as f64 / 1e6
}

#[allow(clippy::cast_precision_loss)] // a rate needs no 53 bits
fn count(difference: u64) -> f64 {
    difference as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> CommitTime {
        CommitTime::from_postgres_micros(seconds * 1_000_000)
    }

    fn totals(transactions: u64, rows: u64) -> Totals {
        Totals {
            transactions,
            rows,
            ..Totals::default()
        }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut window = RateWindow::new(at(0));
        for second in 1..=20_u32 {
            let count = u64::from(second);
            window.note(at(second.into()), totals(count * 100, count * 1000));
        }
        let rates = window.rates(at(20));
        assert!(
            (rates.transactions_per_second - 100.0).abs() < 0.1,
            "{rates:?}"
        );
        assert!((rates.rows_per_second - 1000.0).abs() < 1.0, "{rates:?}");
        for second in 21..=26 {
            window.note(at(second), totals(2000, 20_000));
        }
        assert_eq!(window.rates(at(26)), Rates::default());
    }

    #[test]
    fn a_clock_set_back_or_a_long_sleep_makes_no_nonsense_of_the_rates() {
        let mut window = RateWindow::new(at(0));
        window.note(at(100), totals(0, 1000));
        assert_eq!(
            window.rates(at(100)),
            Rates::default(),
            "an average of 100 s"
        );
        window.note(at(50), totals(0, 1000));
        assert_eq!(window.rates(at(50)), Rates::default());
        window.note(at(51), totals(0, 1010));
        let rates = window.rates(at(51));
        assert!((rates.rows_per_second - 10.0).abs() < 0.1, "{rates:?}");
    }

    #[test]
    fn the_window_stays_small_however_often_it_is_fed() {
        let mut window = RateWindow::new(at(0));
        for step in 0..10_000 {
            window.note(
                CommitTime::from_postgres_micros(step * 10_000),
                Totals::default(),
            );
        }
        assert!(window.0.len() <= SAMPLES_MAX);
    }
}
