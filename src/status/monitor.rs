//! What one link tells about itself while it runs: counters that cost one atomic instruction on the
//! hot path, and a snapshot that turns them into a [`LinkStatus`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::behind::{Behind, Standing};
use super::health::{Health, Reached};
use super::model::{
    Bounds, LastError, LinkState, LinkStatus, LsnStatus, Notice, SlotStatus, StatusSource, Totals,
    Workers,
};
use super::rates::RateWindow;
use crate::commit_time::CommitTime;
use crate::ids::LinkName;
use crate::lsn::Lsn;
use crate::text;

/// "No commit waits", which no real commit time is.
const NO_TIME: i64 = i64::MIN;
/// Why a link that is starting does not stream.
const STARTING: &str = "the daemon connects to both servers and checks them";
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
    faults: AtomicU64,
    /// Rows written of the transaction that is open on the target.
    open_rows: AtomicU64,
    queue_rows: AtomicU64,
    queue_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Positions {
    current: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    applied: AtomicU64,
    /// Up to where nothing waits for a link that stands still.
    nothing_up_to: AtomicU64,
    durable: AtomicU64,
    confirmed: AtomicU64,
}

#[derive(Debug)]
struct Slow {
    health: Health,
    behind: Behind,
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
            health: Health::new(STARTING, now),
            behind: Behind::default(),
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
            reason: slow.health.reason(),
            slot: slow.slot.clone(),
            pending_conflicts: slow.pending,
            lsn: self.lsn(),
            lag: slow.behind.lag(self.standing(), now),
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
                slow.health.state(),
                StatusSource::Daemon,
                slow.health.since(),
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
        self.slow().health.state()
    }

    /// Changes the state, as a person or the daemon decided. `since` stays while the state stays,
    /// whatever happens to the reason.
    pub fn set_state(&self, state: LinkState, reason: Option<String>) {
        self.slow().health.set(state, reason, CommitTime::now());
    }

    /// The link connects, after a pause.
    pub fn starts(&self) {
        self.set_state(LinkState::Starting, Some(STARTING.to_owned()));
    }

    /// The link moves, as far as it can tell; `is_done` when nothing is left of what there was to
    /// apply when it connected. After a failure it is believed once it has come further.
    pub fn moves(&self, state: LinkState, reason: Option<String>, is_done: bool) {
        let come = (self.reached(), is_done);
        let mut slow = self.slow();
        slow.health.moves((state, reason), come, CommitTime::now());
    }

    /// The link cannot go on.
    pub fn fails(&self, state: LinkState, mut error: LastError) {
        let (reached, now) = (self.reached(), error.at);
        error.message = text::sentence(&error.message);
        error.relation = error.relation.map(|name| text::name(&name));
        let mut slow = self.slow();
        let reason = error.message.clone();
        slow.health.fails((state, reason), reached, now);
        slow.last_error = Some(error);
    }

    /// Whether it has failed, and nothing was applied since.
    pub fn is_failing(&self) -> bool {
        self.slow().health.is_failing()
    }

    /// The lock that the link waits for: since when, and who holds it.
    pub fn set_lock_wait(&self, wait: Option<(CommitTime, String)>) {
        self.slow().health.waits(wait);
    }

    /// The link stands still, and the source has committed something for it then.
    pub fn waits_beyond(&self, time: CommitTime) {
        let standing = Standing {
            oldest: Some(time),
            ..self.standing()
        };
        self.slow().behind.disconnected(standing);
    }

    /// The link stands still, and the source has nothing for it up to here.
    pub fn nothing_up_to(&self, end: Lsn) {
        self.nothing_up_to_at(end, CommitTime::now());
    }

    fn nothing_up_to_at(&self, end: Lsn, now: CommitTime) {
        store(&self.inner.positions.nothing_up_to, end);
        let applied = self.standing().applied;
        self.slow().behind.look(now, end, applied);
    }

    /// The stream is read from now on.
    pub fn connected(&self) {
        store(&self.inner.positions.nothing_up_to, Lsn::ZERO);
        self.slow().behind.connected();
    }

    /// It is not read any more.
    pub fn disconnected(&self) {
        let standing = self.standing();
        self.slow().behind.disconnected(standing);
        self.set_oldest_unapplied(None);
        self.set_open_rows(0);
    }

    fn reached(&self) -> Reached {
        let counters = &self.inner.counters;
        Reached {
            transactions: counters.transactions.load(Ordering::Relaxed),
            rows: counters.open_rows.load(Ordering::Relaxed),
        }
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

    /// Counts one fault in mmrepl itself.
    pub fn add_fault(&self) {
        self.inner.counters.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows that are written of the transaction that is open on the target.
    pub fn set_open_rows(&self, rows: u64) {
        self.inner.counters.open_rows.store(rows, Ordering::Relaxed);
    }

    /// The end of the source's WAL, as just read.
    pub fn set_current(&self, lsn: Lsn) {
        self.set_current_at(lsn, CommitTime::now());
    }

    fn set_current_at(&self, lsn: Lsn, now: CommitTime) {
        let applied = self.standing().applied;
        self.slow().behind.look(now, lsn, applied);
        store(&self.inner.positions.current, lsn);
    }

    /// What the source has sent.
    pub fn set_sent(&self, lsn: Lsn) {
        store(&self.inner.positions.sent, lsn);
    }

    /// What the daemon has received.
    pub fn set_received(&self, lsn: Lsn) {
        store(&self.inner.positions.received, lsn);
    }

    /// What is committed on the target.
    pub fn set_applied(&self, lsn: Lsn) {
        store(&self.inner.positions.applied, lsn);
    }

    /// What the target has flushed.
    pub fn set_durable(&self, lsn: Lsn) {
        store(&self.inner.positions.durable, lsn);
    }

    /// What the source was told it may forget.
    pub fn set_confirmed(&self, lsn: Lsn) {
        store(&self.inner.positions.confirmed, lsn);
    }

    /// How many conflicts on the target wait for a person, as last counted.
    pub fn set_pending(&self, count: Option<u64>) {
        self.slow().pending = count;
    }

    /// What the slot says that the source may forget; nothing new once the link itself knows.
    pub fn slot_confirmed(&self, lsn: Lsn) {
        let confirmed = &self.inner.positions.confirmed;
        confirmed.fetch_max(lsn.as_u64(), Ordering::Relaxed);
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
    pub fn notice(&self, mut message: String) {
        message = text::sentence(&message);
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
            faults: counters.faults.load(Ordering::Relaxed),
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

    /// Before the position on the target is known, what was confirmed is a lower bound.
    fn standing(&self) -> Standing {
        let lsn = self.lsn();
        let applied = if lsn.applied.is_zero() {
            lsn.confirmed
        } else {
            lsn.applied
        };
        let nothing_up_to = &self.inner.positions.nothing_up_to;
        Standing {
            applied: applied.max(Lsn::new(nothing_up_to.load(Ordering::Relaxed))),
            current: lsn.current,
            transactions: self.reached().transactions,
            oldest: self.oldest_unapplied(),
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

fn store(position: &AtomicU64, lsn: Lsn) {
    position.store(lsn.as_u64(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
