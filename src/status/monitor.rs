//! What one link tells about itself while it runs: counters that cost one atomic instruction on the
//! hot path, and a snapshot that turns them into a [`LinkStatus`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::model::{
    Bounds, Lag, LastError, LinkState, LinkStatus, LsnStatus, Notice, SlotStatus, StatusSource,
    Totals, Workers,
};
use super::rates::{RateWindow, seconds};
use crate::commit_time::CommitTime;
use crate::ids::LinkName;
use crate::lsn::Lsn;

/// "No commit waits", which no real commit time is.
const NO_TIME: i64 = i64::MIN;
/// How many notices are remembered.
const NOTICES_MAX: usize = 8;

/// The shared record of one link's doings; clones are the same record.
#[derive(Clone, Debug)]
pub struct LinkMonitor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: LinkName,
    paused: watch::Sender<bool>,
    counters: Counters,
    positions: Positions,
    /// Commit time of the oldest commit not yet applied, or [`NO_TIME`].
    oldest_unapplied: AtomicI64,
    /// The slow part: changes rarely, read by snapshots.
    slow: Mutex<Slow>,
}

#[derive(Debug, Default)]
struct Counters {
    transactions: AtomicU64,
    rows: AtomicU64,
    conflicts: AtomicU64,
    retries: AtomicU64,
    reconnects: AtomicU64,
    queue_rows: AtomicU64,
    queue_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Positions {
    current: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    applied: AtomicU64,
    durable: AtomicU64,
    confirmed: AtomicU64,
}

#[derive(Debug)]
struct Slow {
    state: LinkState,
    since: CommitTime,
    reason: Option<String>,
    slot: Option<SlotStatus>,
    pending: Option<u64>,
    clock_offset_ms: Option<f64>,
    clock_uncertainty_ms: Option<f64>,
    last_error: Option<LastError>,
    /// At most [`NOTICES_MAX`].
    notices: VecDeque<Notice>,
    limits: Bounds,
    running: Option<u64>,
    workers: Option<Workers>,
    samples: RateWindow,
}

impl LinkMonitor {
    /// A link that is `starting` now.
    pub fn new(link: LinkName) -> Self {
        Self::new_at(link, CommitTime::now())
    }

    fn new_at(link: LinkName, now: CommitTime) -> Self {
        let slow = Slow {
            state: LinkState::Starting,
            since: now,
            reason: Some("the daemon connects to both servers and checks them".to_owned()),
            slot: None,
            pending: None,
            clock_offset_ms: None,
            clock_uncertainty_ms: None,
            last_error: None,
            notices: VecDeque::new(),
            limits: Bounds::default(),
            running: None,
            workers: None,
            samples: RateWindow::new(now),
        };
        let inner = Inner {
            link,
            paused: watch::Sender::new(false),
            counters: Counters::default(),
            positions: Positions::default(),
            oldest_unapplied: AtomicI64::new(NO_TIME),
            slow: Mutex::new(slow),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The link's name.
    pub fn link(&self) -> &LinkName {
        &self.inner.link
    }

    /// Everything known about the link at `now`.
    pub fn snapshot(&self, now: CommitTime) -> LinkStatus {
        let totals = self.totals();
        let mut slow = self.slow();
        slow.samples.note(now, totals);
        LinkStatus {
            reason: slow.reason.clone(),
            slot: slow.slot.clone(),
            pending_conflicts: slow.pending,
            lsn: self.lsn(),
            lag: self.lag(now),
            totals,
            rates: slow.samples.rates(now),
            clock_offset_ms: slow.clock_offset_ms,
            clock_uncertainty_ms: slow.clock_uncertainty_ms,
            last_error: slow.last_error.clone(),
            notices: slow.notices.iter().cloned().collect(),
            running_rows: slow.running,
            workers: slow.workers,
            bounds: Some(self.bounds(slow.limits)),
            ..LinkStatus::new(
                &self.inner.link,
                slow.state,
                StatusSource::Daemon,
                slow.since,
            )
        }
    }

    /// Notes the totals at `now` for the rates; called every second, so that a rate is one of the
    /// last seconds however rarely somebody asks.
    pub fn sample(&self, now: CommitTime) {
        let totals = self.totals();
        self.slow().samples.note(now, totals);
    }

    /// What the link is doing now.
    pub fn state(&self) -> LinkState {
        self.slow().state
    }

    /// Changes the state. `since` stays while the state stays, whatever happens to the reason.
    pub fn set_state(&self, state: LinkState, reason: Option<String>) {
        self.set_state_at(state, reason, CommitTime::now());
    }

    fn set_state_at(&self, state: LinkState, reason: Option<String>, now: CommitTime) {
        let mut slow = self.slow();
        if slow.state != state {
            slow.state = state;
            slow.since = now;
        }
        slow.reason = reason;
    }

    /// Notes an error; it stays visible after it has passed.
    pub fn error(&self, error: LastError) {
        self.slow().last_error = Some(error);
    }

    /// Counts applied source transactions.
    pub fn add_transactions(&self, count: u64) {
        self.inner
            .counters
            .transactions
            .fetch_add(count, Ordering::Relaxed);
    }

    /// Counts applied row changes.
    pub fn add_rows(&self, count: u64) {
        self.inner.counters.rows.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts conflicts.
    pub fn add_conflicts(&self, count: u64) {
        self.inner
            .counters
            .conflicts
            .fetch_add(count, Ordering::Relaxed);
    }

    /// Counts one transaction tried again.
    pub fn add_retry(&self) {
        self.inner.counters.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one connection made anew.
    pub fn add_reconnect(&self) {
        self.inner
            .counters
            .reconnects
            .fetch_add(1, Ordering::Relaxed);
    }

    /// The end of the source's WAL.
    pub fn set_current(&self, lsn: Lsn) {
        self.inner
            .positions
            .current
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// What the source has sent.
    pub fn set_sent(&self, lsn: Lsn) {
        self.inner
            .positions
            .sent
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// What the daemon has received.
    pub fn set_received(&self, lsn: Lsn) {
        self.inner
            .positions
            .received
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// What is committed on the target.
    pub fn set_applied(&self, lsn: Lsn) {
        self.inner
            .positions
            .applied
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// What the target has flushed.
    pub fn set_durable(&self, lsn: Lsn) {
        self.inner
            .positions
            .durable
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// What the source was told it may forget.
    pub fn set_confirmed(&self, lsn: Lsn) {
        self.inner
            .positions
            .confirmed
            .store(lsn.as_u64(), Ordering::Relaxed);
    }

    /// How many conflicts on the target wait for a person, as last counted.
    pub fn set_pending(&self, count: Option<u64>) {
        self.slow().pending = count;
    }

    /// The slot, as last read from the source; `None` when it is gone.
    pub fn set_slot(&self, slot: Option<SlotStatus>) {
        self.slow().slot = slot;
    }

    /// The commit time of the oldest commit received and not applied; `None` when there is none.
    pub fn set_oldest_unapplied(&self, time: Option<CommitTime>) {
        let micros = time.map_or(NO_TIME, CommitTime::as_postgres_micros);
        self.inner.oldest_unapplied.store(micros, Ordering::Relaxed);
    }

    /// A commit was received: it is the oldest to be applied unless another one waits already.
    pub fn waits_to_apply(&self, time: CommitTime) {
        let time = time.as_postgres_micros();
        let oldest = &self.inner.oldest_unapplied;
        // Losing the race means that another one waits already.
        let _ = oldest.compare_exchange(NO_TIME, time, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The commit time of the oldest commit received and not applied.
    pub fn oldest_unapplied(&self) -> Option<CommitTime> {
        let micros = self.inner.oldest_unapplied.load(Ordering::Relaxed);
        (micros != NO_TIME).then(|| CommitTime::from_postgres_micros(micros))
    }

    /// What is committed on the target, as last set.
    pub fn applied(&self) -> Lsn {
        Lsn::new(self.inner.positions.applied.load(Ordering::Relaxed))
    }

    /// How far the target's clock is ahead of the source's, and to within how much that is known,
    /// milliseconds.
    pub fn set_clock_offset_ms(&self, offset: f64, uncertainty: f64) {
        let mut slow = self.slow();
        slow.clock_offset_ms = Some(offset);
        slow.clock_uncertainty_ms = Some(uncertainty);
    }

    /// Notes something that happened and is no error; the oldest such note makes room.
    pub fn notice(&self, message: String) {
        let mut slow = self.slow();
        if slow.notices.len() >= NOTICES_MAX {
            slow.notices.pop_front();
        }
        let at = CommitTime::now();
        slow.notices.push_back(Notice { at, message });
    }

    /// How many rows are written of the transaction that is still running on the source, if one is.
    pub fn set_running(&self, rows: Option<u64>) {
        self.slow().running = rows;
    }

    /// How many of the sessions that write to the target have something to do, where there may be
    /// several.
    pub fn set_workers(&self, workers: Option<Workers>) {
        self.slow().workers = workers;
    }

    /// What waits between receiving and applying.
    pub fn set_queue(&self, rows: u64, bytes: u64) {
        self.inner
            .counters
            .queue_rows
            .store(rows, Ordering::Relaxed);
        self.inner
            .counters
            .queue_bytes
            .store(bytes, Ordering::Relaxed);
    }

    /// The limits of the queue, and how many rows may be on their way to the target at once.
    pub fn set_limits(&self, queue_rows_max: u64, queue_bytes_max: u64, window_rows: u64) {
        self.slow().limits = Bounds {
            queue_rows_max,
            queue_bytes_max,
            window_rows,
            ..Bounds::default()
        };
    }

    /// Asks the link to stand still.
    pub fn pause(&self) {
        self.inner.paused.send_replace(true);
    }

    /// Asks the link to go on.
    pub fn resume(&self) {
        self.inner.paused.send_replace(false);
    }

    /// Whether the link is asked to stand still; the receiver hears of every change.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.inner.paused.subscribe()
    }

    /// A panic elsewhere leaves plain values here, so a poisoned lock is still good.
    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.inner
            .slow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> Totals {
        let counters = &self.inner.counters;
        Totals {
            transactions: counters.transactions.load(Ordering::Relaxed),
            rows: counters.rows.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            reconnects: counters.reconnects.load(Ordering::Relaxed),
        }
    }

    fn lsn(&self) -> LsnStatus {
        let load = |position: &AtomicU64| Lsn::new(position.load(Ordering::Relaxed));
        let positions = &self.inner.positions;
        let received = load(&positions.received);
        LsnStatus {
            current: load(&positions.current),
            // What arrived was sent, whatever the last look at the source said.
            sent: load(&positions.sent).max(received),
            received,
            applied: load(&positions.applied),
            durable: load(&positions.durable),
            confirmed: load(&positions.confirmed),
        }
    }

    fn lag(&self, now: CommitTime) -> Lag {
        let lsn = self.lsn();
        // Before the first position is known there is nothing to compare with.
        let known = !lsn.applied.is_zero();
        let bytes = if known {
            lsn.current.bytes_since(lsn.applied)
        } else {
            0
        };
        let oldest = self.oldest_unapplied();
        let seconds = oldest.map_or(0.0, |oldest| seconds(now.micros_since(oldest)));
        Lag {
            bytes,
            seconds: Some(seconds),
            exact: true,
        }
    }

    fn bounds(&self, limits: Bounds) -> Bounds {
        let counters = &self.inner.counters;
        Bounds {
            queue_rows: counters.queue_rows.load(Ordering::Relaxed),
            queue_bytes: counters.queue_bytes.load(Ordering::Relaxed),
            ..limits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> CommitTime {
        #[allow(clippy::cast_possible_truncation)]
        CommitTime::from_postgres_micros((seconds * 1e6) as i64)
    }

    fn monitor() -> LinkMonitor {
        LinkMonitor::new_at("east->west".parse().unwrap(), at(0.0))
    }

    #[test]
    fn since_stays_while_the_state_stays() {
        let monitor = monitor();
        assert_eq!(monitor.snapshot(at(1.0)).state, LinkState::Starting);
        monitor.set_state_at(LinkState::Retrying, Some("first".into()), at(2.0));
        monitor.set_state_at(LinkState::Retrying, Some("second".into()), at(3.0));
        let status = monitor.snapshot(at(4.0));
        assert_eq!(
            (status.since, status.reason.as_deref()),
            (at(2.0), Some("second"))
        );
        monitor.set_state_at(LinkState::Streaming, None, at(5.0));
        let status = monitor.snapshot(at(6.0));
        assert_eq!((status.since, status.reason), (at(5.0), None));
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unapplied_commit_and_idle_is_none() {
        let monitor = monitor();
        assert_eq!(monitor.snapshot(at(1.0)).lag, Lag::default());
        monitor.set_current(Lsn::new(900));
        assert_eq!(
            monitor.snapshot(at(1.0)).lag.bytes,
            0,
            "nothing to compare with yet"
        );
        monitor.set_applied(Lsn::new(400));
        monitor.waits_to_apply(at(2.0));
        monitor.waits_to_apply(at(3.0));
        let lag = Lag {
            bytes: 500,
            seconds: Some(1.5),
            exact: true,
        };
        assert_eq!(monitor.snapshot(at(3.5)).lag, lag);
        // A commit time ahead of our clock is no negative lag.
        assert_eq!(monitor.snapshot(at(1.0)).lag.seconds, Some(0.0));
        monitor.set_oldest_unapplied(None);
        monitor.set_applied(Lsn::new(1000));
        assert_eq!(monitor.snapshot(at(4.0)).lag, Lag::default());
    }

    #[test]
    fn counters_queue_and_limits_are_in_the_snapshot() {
        let monitor = monitor();
        monitor.add_transactions(1);
        monitor.add_conflicts(2);
        monitor.add_retry();
        monitor.add_reconnect();
        monitor.set_limits(1000, 64, 500);
        monitor.set_queue(7, 8);
        monitor.set_clock_offset_ms(-0.5, 0.1);
        let status = monitor.clone().snapshot(at(1.0));
        let totals = Totals {
            transactions: 1,
            rows: 0,
            conflicts: 2,
            retries: 1,
            reconnects: 1,
        };
        assert_eq!(status.totals, totals);
        let bounds = status.bounds.unwrap();
        assert_eq!(
            (bounds.queue_rows, bounds.queue_rows_max, bounds.window_rows),
            (7, 1000, 500)
        );
        assert_eq!(status.clock_offset_ms, Some(-0.5));
    }

    #[test]
    fn what_was_received_was_sent() {
        let monitor = monitor();
        monitor.set_received(Lsn::new(7));
        assert_eq!(monitor.snapshot(at(1.0)).lsn.sent, Lsn::new(7));
        monitor.set_sent(Lsn::new(9));
        assert_eq!(monitor.snapshot(at(1.0)).lsn.sent, Lsn::new(9));
    }

    #[tokio::test]
    async fn a_pause_reaches_who_waits_for_it() {
        let monitor = monitor();
        let mut paused = monitor.paused();
        assert!(!*paused.borrow());
        monitor.clone().pause();
        paused.changed().await.unwrap();
        assert!(*paused.borrow_and_update());
        monitor.resume();
        paused.changed().await.unwrap();
        assert!(!*paused.borrow());
    }
}
