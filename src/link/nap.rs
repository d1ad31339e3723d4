//! How long to leave a source alone between two reads. Pure.
//!
//! A server sends every message by itself, wakes us for it, and pays for both; while nobody waits
//! it gathers what it has to say. So a link that is behind lets it gather: it sleeps between reads
//! that brought little. A transaction tells how long it has waited, from its commit until it was
//! sent, and the nap is half of that at most: what is a moment late is hardly later, and a backlog
//! is read in large pieces. Part of the waiting is no backlog but the source's disk, which has to
//! flush the commit first; that part is what every transaction of a second has waited.

use std::time::Duration;

/// A read that brought less than this took all there was.
const SMALL_READ_BYTES: usize = 4 * 1024;
/// Waiting for less than this is no backlog, in microseconds.
const BACKLOG_MICROS: i64 = 1_000;
/// More than this is not the disk's doing, in microseconds.
const FLUSH_MICROS_MAX: i64 = 20_000;
/// The longest nap: most of what comes meanwhile finds the window closed, and gathers.
const NAP_MICROS_MAX: i64 = 16_000;

/// What the transactions of a stream have waited.
pub(super) struct Naps {
    /// The one that is being read, in microseconds.
    waited: i64,
    /// The least of this second.
    least: i64,
    /// The least of the second before.
    flush: i64,
}

impl Naps {
    /// Nothing has come yet.
    pub(super) fn new() -> Self {
        Self {
            waited: 0,
            least: FLUSH_MICROS_MAX,
            flush: FLUSH_MICROS_MAX,
        }
    }

    /// A transaction was sent so many microseconds after its commit.
    pub(super) fn sent_after(&mut self, micros: i64) {
        self.waited = micros;
        self.least = self.least.min(micros.max(0));
    }

    /// A part of a transaction comes that is still running on the source: it is large.
    pub(super) fn running(&mut self) {
        self.waited = i64::MAX;
    }

    /// The part has ended, and says nothing about what follows.
    pub(super) fn running_paused(&mut self) {
        self.waited = 0;
    }

    /// A second is over.
    pub(super) fn second(&mut self) {
        self.flush = std::mem::replace(&mut self.least, FLUSH_MICROS_MAX);
    }

    /// The nap before the next read, after one that brought so many bytes.
    pub(super) fn after(&self, read_bytes: usize) -> Option<Duration> {
        let backlog = self.waited.saturating_sub(self.flush.min(self.least));
        if backlog < BACKLOG_MICROS || read_bytes >= SMALL_READ_BYTES {
            return None;
        }
        let nap = (backlog / 2).min(NAP_MICROS_MAX);
        Some(Duration::from_micros(nap.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(micros: i64) -> Naps {
        let mut naps = Naps::new();
        naps.sent_after(0);
        naps.sent_after(micros);
        naps
    }

    #[test]
    fn a_transaction_in_time_is_followed_by_no_nap() {
        assert_eq!(waited(900).after(100), None);
    }

    #[test]
    fn a_nap_is_half_of_what_was_waited_and_no_longer_than_the_limit() {
        assert_eq!(waited(3_000).after(100), Some(Duration::from_micros(1_500)));
        assert_eq!(
            waited(60_000_000).after(100),
            Some(Duration::from_millis(16))
        );
    }

    #[test]
    fn there_is_more_to_read_after_a_large_read() {
        assert_eq!(waited(60_000_000).after(SMALL_READ_BYTES), None);
    }

    #[test]
    fn what_the_disk_takes_is_no_backlog() {
        let mut naps = Naps::new();
        for _ in 0..3 {
            naps.sent_after(8_000);
            naps.sent_after(8_900);
            assert_eq!(naps.after(100), None);
            naps.second();
        }
        naps.sent_after(11_000);
        assert_eq!(naps.after(100), Some(Duration::from_micros(1_500)));
    }

    #[test]
    fn a_long_backlog_is_not_taken_for_the_disk() {
        let mut naps = Naps::new();
        for _ in 0..3 {
            naps.sent_after(60_000_000);
            assert_eq!(naps.after(100), Some(Duration::from_millis(16)));
            naps.second();
        }
    }

    #[test]
    fn the_parts_of_a_running_transaction_are_large() {
        let mut naps = Naps::new();
        naps.running();
        assert_eq!(naps.after(100), Some(Duration::from_millis(16)));
        naps.running_paused();
        assert_eq!(naps.after(100), None);
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_backlog() {
        assert_eq!(waited(-5_000).after(100), None);
        assert_eq!(waited(i64::MIN).after(100), None);
    }
}
