//! How long to wait before trying again.
//!
//! Exponential with full jitter: each wait is a random part of a bound that doubles up to a cap.
//! Links that failed together (one server went away) then do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// First bound after a transient error: a restarted connection is not noticed by anyone.
pub const TRANSIENT_FIRST: Duration = Duration::from_millis(100);
/// Longest wait after a transient error: a server that is back serves its link within 5 s, and a
/// dead one costs a connection attempt every 2.5 s on average.
pub const TRANSIENT_CAP: Duration = Duration::from_secs(5);
/// First bound of a blocked link: a person must act first, so there is no hurry.
pub const BLOCKED_FIRST: Duration = Duration::from_secs(1);
/// Longest wait of a blocked link: whoever mended the cause sees it go on within 10 s, and until
/// then the failing transaction loads the target little.
pub const BLOCKED_CAP: Duration = Duration::from_secs(10);

/// The waits between attempts. [`next`](Self::next) is pure: randomness comes in as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    bound: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits bounded by `first`, then twice that, and so on up to `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            bound: first,
            attempts: 0,
        }
    }

    /// For errors that pass by themselves.
    pub const fn transient() -> Self {
        Self::new(TRANSIENT_FIRST, TRANSIENT_CAP)
    }

    /// For a blocked link, whose cause somebody must mend.
    pub const fn blocked() -> Self {
        Self::new(BLOCKED_FIRST, BLOCKED_CAP)
    }

    /// The next wait: the part `random` (0 to 1, see [`random_part`]) of the bound, which doubles.
    pub fn next(&mut self, random: f64) -> Duration {
        let part = if random.is_nan() {
            1.0
        } else {
            random.clamp(0.0, 1.0)
        };
        let bound = self.bound.min(self.cap);
        self.bound = bound.saturating_mul(2).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(part)
    }

    /// The next wait, with randomness of its own.
    pub fn next_delay(&mut self) -> Duration {
        self.next(random_part())
    }

    /// How many waits were given since the beginning or the last reset.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over; to be called after a success that has lasted.
    pub fn reset(&mut self) {
        self.bound = self.first;
        self.attempts = 0;
    }
}

/// A random number from 0 up to 1, good enough to spread waits: the standard library seeds its
/// hash maps with it.
pub fn random_part() -> f64 {
    let random = RandomState::new().hash_one(());
    let high = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

/// Waits for `duration`; true when it has passed, false as soon as `token` is cancelled.
///
/// # Cancel safety
/// Dropping it only ends the wait.
pub async fn sleep_or_cancel(duration: Duration, token: &CancellationToken) -> bool {
    token
        .run_until_cancelled(tokio::time::sleep(duration))
        .await
        .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap_and_start_over() {
        let mut backoff = Backoff::transient();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.attempts(), 8);
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert_eq!(backoff.next(1.0), TRANSIENT_FIRST);
        assert!(backoff.next_delay() <= 2 * TRANSIENT_FIRST);
    }

    #[test]
    fn the_wait_is_a_random_part_of_the_bound() {
        let next = |random| Backoff::blocked().next(random).as_millis();
        assert_eq!([next(0.0), next(0.25), next(1.0)], [0, 250, 1000]);
        assert_eq!([next(-1.0), next(2.0), next(f64::NAN)], [0, 1000, 1000]);
    }

    #[test]
    fn a_cap_below_the_first_bound_and_endless_failure_are_harmless() {
        let mut backoff = Backoff::new(BLOCKED_CAP, TRANSIENT_FIRST);
        assert!((0..1000).all(|_| backoff.next(1.0) == TRANSIENT_FIRST));
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(
            (backoff.next(0.0), backoff.next(0.0)),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn random_parts_differ_and_stay_in_range() {
        let parts: Vec<_> = (0..100).map(|_| random_part()).collect();
        assert!(parts.iter().all(|part| (0.0..1.0).contains(part)));
        assert!(parts.windows(2).any(|pair| pair[0] < pair[1]));
    }

    #[tokio::test]
    async fn cancelling_ends_the_wait() {
        let token = CancellationToken::new();
        assert!(sleep_or_cancel(Duration::ZERO, &token).await);
        token.cancel();
        assert!(!sleep_or_cancel(Duration::from_secs(3600), &token).await);
    }
}
