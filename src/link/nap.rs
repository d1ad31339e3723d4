//! How long to leave a source alone between two reads. Pure.
//!
//! A server sends every message by itself, wakes us for it, and pays for both; while nobody waits
//! it gathers what it has to say. So a link that is behind lets it gather: it sleeps between reads
//! that brought little. A transaction tells how long it has waited, from its commit until it was
//! sent, and the nap is half of that at most: what is a moment late is hardly later, and a backlog
//! is read in large pieces. Part of the waiting is no backlog but the source's disk, which has to
//! flush the commit first; that part is what every transaction of a second has waited.
//!
//! Between the two ends there is room for so much, and a server that meets the end of it stands
//! still. So no more than half of it may come during a nap, at the pace of what came last. A Unix
//! socket has a room that is known, and small: each message lies in a buffer of its own. Of a
//! network it is not known, as most of it is the server's; it shows when messages of one nap were
//! sent with a long pause between them, and is forgotten slowly, as such rooms grow.

use std::time::{Duration, Instant};

use crate::wire::Room;

/// A read that brought less than this took all there was.
const SMALL_READ_BYTES: usize = 4 * 1024;
/// Waiting for less than this is no backlog, in microseconds.
const BACKLOG_MICROS: i64 = 1_000;
/// More than this is not the disk's doing, in microseconds.
const FLUSH_MICROS_MAX: i64 = 20_000;
/// The longest nap: most of what comes meanwhile finds the window closed, and gathers.
const NAP_MICROS_MAX: i64 = 16_000;
/// A network has at least this room: a pause with less under way has another cause.
const NETWORK_ROOM_MIN_BYTES: u64 = 64 * 1024;
/// Of a room that was met, one part in so many is added with every nap.
const ROOM_GROWTH: u64 = 32;
/// What the kernel keeps with each message of a Unix socket, beside the message.
const BUFFER_HEAD_BYTES: u64 = 256;
/// The same, in one piece of memory with the message, whose size is a power of two.
const BUFFER_TAIL_BYTES: u64 = 320;

/// What the transactions of a stream have waited, and what came since the last nap.
pub(super) struct Naps {
    /// The one that is being read, in microseconds.
    waited: i64,
    /// The least of this second.
    least: i64,
    /// The least of the second before.
    flush: i64,
    room: Room,
    /// Of a network: what was under way when the server last met its end.
    met: Option<u64>,
    since: Since,
}

/// Since the last nap began, or there was no backlog.
struct Since {
    began: Option<Instant>,
    /// The nap, in microseconds.
    nap: i64,
    /// What came took so much of the room.
    taken: u64,
    /// When the last message was sent, by the source's clock.
    sent: Option<i64>,
    /// The longest pause between two messages, in microseconds.
    pause: i64,
}

impl Naps {
    /// Nothing has come yet.
    pub(super) fn new(room: Room) -> Self {
        Self {
            waited: 0,
            least: FLUSH_MICROS_MAX,
            flush: FLUSH_MICROS_MAX,
            room,
            met: None,
            since: Since {
                began: None,
                nap: 0,
                taken: 0,
                sent: None,
                pause: 0,
            },
        }
    }

    /// A message came that was sent at that microsecond of the source's clock.
    pub(super) fn came(&mut self, bytes: usize, sent_at: i64) {
        self.since.taken += taken(self.room, u64::try_from(bytes).unwrap_or(u64::MAX / 2));
        if let Some(before) = self.since.sent.replace(sent_at) {
            let pause = sent_at.saturating_sub(before);
            self.since.pause = self.since.pause.max(pause);
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
    pub(super) fn after(&mut self, read_bytes: usize, now: Instant) -> Option<Duration> {
        let backlog = self.waited.saturating_sub(self.flush.min(self.least));
        if backlog < BACKLOG_MICROS {
            self.begin(now, 0);
            return None;
        }
        if read_bytes >= SMALL_READ_BYTES {
            return None;
        }
        self.look_for_the_end();
        let nap = (backlog / 2).min(NAP_MICROS_MAX).min(self.until_half(now));
        self.begin(now, nap);
        Some(Duration::from_micros(nap.unsigned_abs()))
    }

    fn begin(&mut self, now: Instant, nap: i64) {
        self.since = Since {
            began: Some(now),
            nap,
            taken: 0,
            sent: self.since.sent,
            pause: 0,
        };
    }

    /// A server that stood still for half of a nap has met the end of the room.
    fn look_for_the_end(&mut self) {
        let (met, since) = (self.met, &self.since);
        let stood = since.nap >= BACKLOG_MICROS && since.pause >= since.nap / 2;
        self.met = if stood && since.taken >= NETWORK_ROOM_MIN_BYTES {
            Some(met.map_or(since.taken, |met| met.min(since.taken)))
        } else {
            met.map(|met| met.saturating_add(met / ROOM_GROWTH))
        };
    }

    /// In how many microseconds half of the room is taken, at the pace of what came last.
    fn until_half(&self, now: Instant) -> i64 {
        let room = match self.room {
            Room::Socket(bytes) => bytes,
            Room::Network => self.met.unwrap_or(u64::MAX),
        };
        let elapsed = self.since.began.map_or(Duration::ZERO, |began| now - began);
        let micros =
            u128::from(room / 2) * elapsed.as_micros() / u128::from(self.since.taken.max(1));
        i64::try_from(micros).unwrap_or(i64::MAX)
    }
}

/// What a message takes of the room.
fn taken(room: Room, bytes: u64) -> u64 {
    match room {
        Room::Socket(_) => BUFFER_HEAD_BYTES + (bytes + BUFFER_TAIL_BYTES).next_power_of_two(),
        Room::Network => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second in which one small message came.
    fn quiet(naps: &mut Naps) -> Instant {
        let began = Instant::now();
        naps.begin(began, 0);
        naps.came(100, 0);
        began + Duration::from_secs(1)
    }

    fn after(naps: &mut Naps, read_bytes: usize) -> Option<Duration> {
        let now = quiet(naps);
        naps.after(read_bytes, now)
    }

    fn waited(micros: i64) -> Naps {
        let mut naps = Naps::new(Room::Network);
        naps.sent_after(0);
        naps.sent_after(micros);
        naps
    }

    /// What comes within a millisecond, and the nap that follows.
    fn nap_after(naps: &mut Naps, messages: u32, bytes: usize, pause: i64) -> Duration {
        let began = Instant::now();
        naps.begin(began, naps.since.nap);
        for message in 0..messages {
            naps.came(bytes, i64::from(message) * pause);
        }
        let nap = naps.after(100, began + Duration::from_millis(1));
        nap.expect("there is a backlog")
    }

    #[test]
    fn half_of_a_unix_socket_may_be_taken_during_a_nap() {
        // 277 small messages fit.
        let mut naps = Naps::new(Room::Socket(212_992));
        naps.sent_after(60_000_000);
        let nap = |naps: &mut Naps, messages, bytes| nap_after(naps, messages, bytes, 0);
        assert_eq!(nap(&mut naps, 10, 100), Duration::from_micros(13_866));
        assert_eq!(nap(&mut naps, 277, 100), Duration::from_micros(500));
        // Met full, the naps become shorter until it is not.
        assert_eq!(nap(&mut naps, 400, 100), Duration::from_micros(346));
        // A large message takes more.
        assert_eq!(nap(&mut naps, 10, 10_000), Duration::from_micros(640));
    }

    #[test]
    fn the_end_of_a_network_is_seen_by_a_pause_and_forgotten() {
        let mut naps = Naps::new(Room::Network);
        naps.sent_after(60_000_000);
        let whole = Duration::from_micros(NAP_MICROS_MAX.unsigned_abs());
        assert_eq!(nap_after(&mut naps, 1000, 100, 10), whole);
        // Two messages with 8 ms between them, and 100 kB under way: half of it in half the time.
        assert_eq!(
            nap_after(&mut naps, 2, 50_000, 8_000),
            Duration::from_micros(500)
        );
        let longer = nap_after(&mut naps, 1000, 100, 0);
        assert_eq!(longer, Duration::from_micros(515));
        for _ in 0..200 {
            nap_after(&mut naps, 1000, 100, 0);
        }
        assert_eq!(nap_after(&mut naps, 1000, 100, 0), whole);
    }

    #[test]
    fn a_pause_with_little_under_way_has_another_cause() {
        let mut naps = Naps::new(Room::Network);
        naps.sent_after(60_000_000);
        naps.since.nap = NAP_MICROS_MAX;
        let whole = Duration::from_micros(NAP_MICROS_MAX.unsigned_abs());
        assert_eq!(nap_after(&mut naps, 2, 10_000, 9_000), whole);
    }

    #[test]
    fn a_transaction_in_time_is_followed_by_no_nap() {
        assert_eq!(after(&mut waited(900), 100), None);
    }

    #[test]
    fn a_nap_is_half_of_what_was_waited_and_no_longer_than_the_limit() {
        assert_eq!(
            after(&mut waited(3_000), 100),
            Some(Duration::from_micros(1_500))
        );
        assert_eq!(
            after(&mut waited(60_000_000), 100),
            Some(Duration::from_millis(16))
        );
    }

    #[test]
    fn there_is_more_to_read_after_a_large_read() {
        assert_eq!(after(&mut waited(60_000_000), SMALL_READ_BYTES), None);
    }

    #[test]
    fn what_the_disk_takes_is_no_backlog() {
        let mut naps = Naps::new(Room::Network);
        for _ in 0..3 {
            naps.sent_after(8_000);
            naps.sent_after(8_900);
            assert_eq!(after(&mut naps, 100), None);
            naps.second();
        }
        naps.sent_after(11_000);
        assert_eq!(after(&mut naps, 100), Some(Duration::from_micros(1_500)));
    }

    #[test]
    fn a_long_backlog_is_not_taken_for_the_disk() {
        let mut naps = Naps::new(Room::Network);
        for _ in 0..3 {
            naps.sent_after(60_000_000);
            assert_eq!(after(&mut naps, 100), Some(Duration::from_millis(16)));
            naps.second();
        }
    }

    #[test]
    fn the_parts_of_a_running_transaction_are_large() {
        let mut naps = Naps::new(Room::Network);
        naps.running();
        assert_eq!(after(&mut naps, 100), Some(Duration::from_millis(16)));
        naps.running_paused();
        assert_eq!(after(&mut naps, 100), None);
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_backlog() {
        assert_eq!(after(&mut waited(-5_000), 100), None);
        assert_eq!(after(&mut waited(i64::MIN), 100), None);
    }
}
