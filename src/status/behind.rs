//! How far a link is behind: from what is known, and never better than that. Pure.
//!
//! The commit time of a change that was received and not applied is exact. Where nothing was
//! received, because nobody reads the stream or the stream is still on its way, all that is known
//! is the last moment at which nothing was left to apply: whatever came after it is younger.

use std::collections::VecDeque;

use super::model::Lag;
use super::rates::seconds;
use crate::commit_time::CommitTime;
use crate::lsn::Lsn;

/// Looks at the source's WAL that are remembered.
const LOOKS_MAX: usize = 64;
/// With nothing left so short a time ago, there is nothing left now: the source is looked at every
/// second, and a stream brings what is new within another. In microseconds.
const LATELY_MICROS: i64 = 5_000_000;
/// A look that is older than this says nothing about now, in microseconds.
const LOOK_LASTS_MICROS: i64 = 15_000_000;

/// What is known beside the stream itself.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The end of the source's WAL, by the time, the newest last.
    looks: VecDeque<(CommitTime, Lsn)>,
    /// The newest time at which everything was applied.
    nothing_left_at: Option<CommitTime>,
    /// The stream is being read.
    is_connected: bool,
    /// The last look before it was: what came by then may be on its way for as long as it takes.
    looked_before: Option<CommitTime>,
    /// What was received and not applied when the stream ended.
    left_over: Option<LeftOver>,
}

#[derive(Clone, Copy, Debug)]
struct LeftOver {
    /// The time of the oldest commit.
    oldest: CommitTime,
    /// Source transactions applied by then.
    transactions: u64,
    /// The last look at the source's WAL by then: it may have been before the commit.
    looked_at: Option<CommitTime>,
}

/// Where the link stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Committed on the target, or confirmed to the source where that is not known.
    pub(super) applied: Lsn,
    /// The end of the source's WAL.
    pub(super) current: Lsn,
    /// Source transactions applied.
    pub(super) transactions: u64,
    /// The oldest commit that was received and is not applied.
    pub(super) oldest: Option<CommitTime>,
}

impl Behind {
    /// The source's WAL ended at `current` then; the link had applied up to `applied`.
    pub(super) fn look(&mut self, now: CommitTime, current: Lsn, applied: Lsn) {
        self.looks.push_back((now, current));
        self.note_applied(applied);
        if self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
    }

    fn note_applied(&mut self, applied: Lsn) {
        let reached = self.newest_reached(applied);
        self.nothing_left_at = self.nothing_left_at.max(reached);
    }

    /// The newest look at which there was nothing beyond `applied`.
    fn newest_reached(&self, applied: Lsn) -> Option<CommitTime> {
        let reached = |(_, current): &&(CommitTime, Lsn)| !applied.is_zero() && *current <= applied;
        self.looks.iter().rev().find(reached).map(|(at, _)| *at)
    }

    /// The stream is read from now on.
    pub(super) fn connected(&mut self) {
        self.is_connected = true;
        self.looked_before = self.looks.back().map(|(at, _)| *at);
    }

    /// It is not any more, and this was left.
    pub(super) fn disconnected(&mut self, standing: Standing) {
        self.is_connected = false;
        self.note_applied(standing.applied);
        if let Some(oldest) = standing.oldest {
            self.left_over = Some(LeftOver {
                oldest,
                transactions: standing.transactions,
                looked_at: self.looks.back().map(|(at, _)| *at),
            });
        }
    }

    /// The lag at `now`.
    pub(super) fn lag(&self, standing: Standing, now: CommitTime) -> Lag {
        let age = |since: CommitTime| Some(seconds(now.micros_since(since)));
        let bytes = if standing.applied.is_zero() {
            0
        } else {
            standing.current.bytes_since(standing.applied)
        };
        let lag = |seconds, exact| Lag {
            bytes,
            seconds,
            exact,
        };
        if let Some(oldest) = standing.oldest.or_else(|| self.left_over(standing)) {
            return lag(age(oldest), true);
        }
        let known = self.looks.back().is_some_and(|(at, _)| {
            now.micros_since(*at) < LOOK_LASTS_MICROS && !standing.applied.is_zero()
        });
        if !known {
            return lag(None, false);
        }
        let nothing_left_at = self
            .newest_reached(standing.applied)
            .max(self.nothing_left_at);
        let lately = nothing_left_at.is_some_and(|at| now.micros_since(at) < LATELY_MICROS);
        let was_reached = self.is_connected && nothing_left_at > self.looked_before;
        if lately && (bytes == 0 || was_reached) {
            return lag(Some(0.0), true);
        }
        lag(nothing_left_at.and_then(age), false)
    }

    /// What was left when the stream ended is left until something was applied, or there is
    /// nothing.
    fn left_over(&self, standing: Standing) -> Option<CommitTime> {
        let left = self.left_over?;
        let looked = self.looks.back().map(|(at, _)| *at) > left.looked_at;
        let done = standing.transactions > left.transactions
            || (looked && standing.current <= standing.applied);
        (!done).then_some(left.oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: f64) -> CommitTime {
        #[allow(clippy::cast_possible_truncation)]
        CommitTime::from_postgres_micros((second * 1e6) as i64)
    }

    fn standing(applied: u64, current: u64) -> Standing {
        Standing {
            applied: Lsn::new(applied),
            current: Lsn::new(current),
            transactions: 3,
            oldest: None,
        }
    }

    fn told(behind: &Behind, standing: Standing, second: f64) -> (Option<f64>, bool) {
        let lag = behind.lag(standing, at(second));
        (lag.seconds, lag.exact)
    }

    #[test]
    fn before_anything_is_known_nothing_is_said() {
        let mut behind = Behind::default();
        assert_eq!(told(&behind, standing(0, 0), 1.0), (None, false));
        behind.look(at(1.0), Lsn::new(900), Lsn::ZERO);
        assert_eq!(told(&behind, standing(0, 900), 1.0), (None, false));
        assert_eq!(behind.lag(standing(0, 900), at(1.0)).bytes, 0);
        // Confirmed by an earlier daemon, and never seen at the end.
        assert_eq!(told(&behind, standing(400, 900), 2.0), (None, false));
        assert_eq!(behind.lag(standing(400, 900), at(2.0)).bytes, 500);
    }

    #[test]
    fn a_stream_that_brings_nothing_has_no_lag() {
        let mut behind = Behind::default();
        behind.connected();
        for second in 0..100 {
            let end = Lsn::new(1000 + second);
            #[allow(clippy::cast_precision_loss)]
            let now = second as f64;
            behind.look(at(now), end, Lsn::new(1000 + second.saturating_sub(1)));
            let seen = standing(1000 + second.saturating_sub(1), 1000 + second);
            assert_eq!(told(&behind, seen, now), (Some(0.0), true));
        }
    }

    #[test]
    fn a_stream_that_has_just_begun_is_not_believed() {
        let mut behind = Behind::default();
        behind.connected();
        behind.look(at(0.0), Lsn::new(100), Lsn::new(100));
        behind.disconnected(standing(100, 100));
        behind.look(at(1.0), Lsn::new(900), Lsn::new(100));
        behind.connected();
        assert_eq!(told(&behind, standing(100, 900), 2.0), (Some(2.0), false));
        behind.look(at(3.0), Lsn::new(900), Lsn::new(900));
        assert_eq!(told(&behind, standing(900, 950), 3.5), (Some(0.0), true));
    }

    #[test]
    fn a_stream_that_stands_still_is_not_believed() {
        let mut behind = Behind::default();
        behind.connected();
        behind.look(at(0.0), Lsn::new(100), Lsn::new(100));
        for second in 1..20 {
            behind.look(at(f64::from(second)), Lsn::new(200), Lsn::new(100));
        }
        assert_eq!(told(&behind, standing(100, 200), 4.0), (Some(0.0), true));
        assert_eq!(told(&behind, standing(100, 200), 20.0), (Some(20.0), false));
    }

    #[test]
    fn what_was_left_over_ages_until_something_was_applied() {
        let mut behind = Behind::default();
        behind.connected();
        behind.look(at(0.0), Lsn::new(100), Lsn::new(100));
        let oldest = Some(at(5.0));
        let left = Standing {
            oldest,
            ..standing(100, 200)
        };
        assert_eq!(told(&behind, left, 7.0), (Some(2.0), true));
        behind.disconnected(left);
        behind.connected();
        assert_eq!(told(&behind, standing(100, 200), 65.0), (Some(60.0), true));
        let further = Standing {
            transactions: 4,
            ..standing(200, 200)
        };
        behind.look(at(66.0), Lsn::new(200), Lsn::new(200));
        assert_eq!(told(&behind, further, 66.0), (Some(0.0), true));
    }

    #[test]
    fn without_a_stream_the_age_counts_from_the_last_moment_with_nothing_left() {
        let mut behind = Behind::default();
        behind.connected();
        behind.look(at(10.0), Lsn::new(100), Lsn::new(90));
        // Applied after the look.
        behind.disconnected(standing(100, 100));
        assert_eq!(told(&behind, standing(100, 100), 10.5), (Some(0.0), true));
        for second in 11..200 {
            behind.look(at(f64::from(second)), Lsn::new(500), Lsn::new(100));
        }
        assert_eq!(
            told(&behind, standing(100, 500), 200.0),
            (Some(190.0), false)
        );
        // The source cannot be asked any more.
        assert_eq!(told(&behind, standing(100, 500), 300.0), (None, false));
    }
}
