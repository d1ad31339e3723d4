//! How far two servers' clocks are apart, and whether one of them was set back. Pure.
//!
//! A server is asked for its time; the answer was true at some moment of the round trip. So the
//! offset between two servers is known to within half of both round trips, and the sample with the
//! least round trips of the last few is the best. This machine's own clock plays no part: the
//! moments are taken from its monotonic clock, which nobody sets.

use std::collections::VecDeque;
use std::time::Duration;

use crate::commit_time::CommitTime;

/// Samples among which the best is chosen.
pub(super) const SAMPLES_MAX: usize = 8;
/// How fast clocks may drift against each other: NTP slews by at most 500 parts per million.
const DRIFT_PER_MILLION: i64 = 500;
/// A clock that goes back by less than this was not set, for all we can tell.
const STEP_MIN_MICROS: i64 = 50_000;

/// One answer of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The server's time.
    pub clock: CommitTime,
    /// The middle of the round trip, by the monotonic clock.
    pub at: Duration,
    /// Half of the round trip.
    pub doubt: Duration,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn drift(over: Duration) -> i64 {
    micros(over) / 1_000_000 * DRIFT_PER_MILLION + DRIFT_PER_MILLION
}

impl Reading {
    /// How far the clock is ahead of the monotonic one; only differences of this mean something.
    fn ahead(&self) -> i64 {
        self.clock.as_postgres_micros() - micros(self.at)
    }

    /// How far this clock is ahead of `other`, and to within how much that is known.
    pub(super) fn ahead_of(&self, other: &Self) -> Offset {
        let apart = self.at.abs_diff(other.at);
        Offset {
            micros: self.ahead() - other.ahead(),
            doubt_micros: micros(self.doubt) + micros(other.doubt) + drift(apart),
            at: self.at,
        }
    }
}

/// How far one clock is ahead of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    /// Microseconds.
    pub micros: i64,
    /// Known to within this, microseconds.
    pub doubt_micros: i64,
    /// When, by the monotonic clock.
    at: Duration,
}

impl Offset {
    /// Whether both can be true, the clocks drifting meanwhile.
    fn agrees(&self, later: &Self) -> bool {
        let apart = (self.micros - later.micros).abs();
        apart <= self.doubt_micros + later.doubt_micros + drift(later.at.saturating_sub(self.at))
    }

    /// The offset and the doubt in milliseconds.
    #[allow(clippy::cast_precision_loss)] // an offset of 2^52 µs is 140 years
    pub(super) fn as_millis(&self) -> (f64, f64) {
        (self.micros as f64 / 1e3, self.doubt_micros as f64 / 1e3)
    }
}

/// The last samples of an offset.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    samples: VecDeque<Offset>,
}

impl Offsets {
    /// Takes a sample and gives the best of the last ones. Samples that the new one contradicts
    /// are from before a clock was set, and are forgotten.
    pub(super) fn note(&mut self, sample: Offset) -> Offset {
        self.samples.retain(|earlier| earlier.agrees(&sample));
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let best = self.samples.iter().min_by_key(|sample| sample.doubt_micros);
        *best.unwrap_or(&sample)
    }
}

/// The last reading of one server's clock.
#[derive(Debug, Default)]
pub(super) struct Watched {
    last: Option<Reading>,
}

impl Watched {
    /// Takes a reading; gives by how many milliseconds the clock was set back since the last one.
    pub(super) fn note(&mut self, reading: Reading) -> Option<i64> {
        let last = self.last.replace(reading)?;
        let back = last.ahead() - reading.ahead();
        let doubt = micros(last.doubt) + micros(reading.doubt);
        let doubt = doubt + drift(reading.at.saturating_sub(last.at));
        (back > doubt + STEP_MIN_MICROS).then_some(back / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(clock_ms: i64, at_ms: u64, doubt_ms: u64) -> Reading {
        Reading {
            clock: CommitTime::from_postgres_micros(clock_ms * 1000),
            at: Duration::from_millis(at_ms),
            doubt: Duration::from_millis(doubt_ms),
        }
    }

    #[test]
    fn the_offset_is_the_difference_of_the_clocks_at_one_moment() {
        let offset = reading(5_010, 10, 1).ahead_of(&reading(2_000, 0, 2));
        assert_eq!(offset.micros, 3_000_000);
        assert_eq!(offset.doubt_micros, 3_000 + 500);
        assert_eq!(offset.as_millis(), (3_000.0, 3.5));
    }

    #[test]
    fn the_sample_with_the_least_doubt_of_the_last_few_counts() {
        let mut offsets = Offsets::default();
        let sample = |ahead, at: i64, doubt| reading(ahead + at, at.unsigned_abs(), doubt);
        let server = |at: i64| reading(at, at.unsigned_abs(), 0);
        let mut note = |ahead, at, doubt| {
            let best = offsets.note(sample(ahead, at, doubt).ahead_of(&server(at)));
            best.micros / 1000
        };
        assert_eq!(note(40, 0, 50), 40);
        assert_eq!(note(3, 10_000, 1), 3);
        assert_eq!(note(-30, 20_000, 40), 3);
        for round in 0..i64::try_from(SAMPLES_MAX).unwrap() {
            note(9, 30_000 + round * 10_000, 30);
        }
        assert_eq!(note(9, 200_000, 30), 9, "the best has grown too old");
    }

    #[test]
    fn a_clock_that_is_set_makes_the_samples_before_worthless() {
        let mut offsets = Offsets::default();
        let server = reading(0, 0, 0);
        offsets.note(reading(0, 0, 1).ahead_of(&server));
        let best = offsets.note(reading(13_000, 10_000, 20).ahead_of(&reading(10_000, 10_000, 0)));
        assert_eq!(best.micros, 3_000_000);
    }

    #[test]
    fn going_back_is_noticed_and_slewing_is_not() {
        let mut clock = Watched::default();
        assert_eq!(clock.note(reading(100_000, 0, 1)), None);
        assert_eq!(clock.note(reading(109_996, 10_000, 1)), None, "slewed");
        assert_eq!(clock.note(reading(200_000, 20_000, 1)), None, "forward");
        assert_eq!(clock.note(reading(207_000, 30_000, 1)), Some(3_000));
        assert_eq!(clock.note(reading(217_000, 40_000, 1)), None);
        assert_eq!(clock.note(reading(226_900, 50_000, 400)), None, "in doubt");
    }
}
