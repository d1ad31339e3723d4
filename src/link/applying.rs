//! The applying side of a link: takes pieces from the queue, sends them on in groups (`window`),
//! takes note of the answers, and goes one step at a time (`stepwise`) where a group is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::caution::Lessons;
use super::error::{LinkError, failed_state, last_error};
use super::progress::Progress;
use super::queue::{Charge, Item, Receiver};
use super::running::{Due, Running, is_lock_wait};
use super::window::{Flight, Group, Window};
use crate::apply::{Applier, ApplyError, Committed, Ready, Touched};
use crate::assemble::Piece;
use crate::backoff::Backoff;
use crate::catalog::position::Witness;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::error::{RetryClass, Retryable};
use crate::failpoint::fault_point;
use crate::ids::LinkName;
use crate::lineage::gather::make_witness;
use crate::lsn::Lsn;
use crate::status::model::{LinkState, Workers};
use crate::status::monitor::LinkMonitor;

/// A group that takes longer than this holds row locks for too long: the next one is smaller.
const GROUP_TIME: Duration = Duration::from_secs(1);
/// How often an idle applier asks how far the target's WAL is flushed, while something is not.
const FLUSH_POLL: Duration = Duration::from_millis(50);
/// WAL without anything for this link that may stay unconfirmed. Confirming costs a small write on
/// the target, which is WAL for the link in the other direction; the bound keeps two idle nodes
/// from waking each other.
const IDLE_WAL_MAX_BYTES: u64 = 1024 * 1024;
/// How the link was told to apply.
pub(super) struct ApplyOptions {
    /// The link.
    pub link: LinkName,
    /// A control connection to the source.
    pub source: Arc<Client>,
    /// How long to wait for the target's clock.
    pub max_clock_skew: Duration,
    /// Transactions are asked for once they are committed, but only for a while.
    pub waits_to_ask: bool,
}

/// Why applying ended without an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The link was told to stop or pause.
    Stopped,
    /// The reader has gone; it knows why.
    SourceGone,
    /// Nothing is being done just now, and transactions may be asked for while they are running.
    MayAskForRunning,
}

/// The applier with its queue and its positions.
pub(super) struct Applying {
    pub(super) applier: Applier,
    pub(super) options: ApplyOptions,
    pub(super) monitor: LinkMonitor,
    pub(super) lessons: Lessons,
    pub(super) retries: Backoff,
    pub(super) window: Window,
    /// The last group was sent ahead.
    ahead: bool,
    /// A large transaction is open on the target.
    pub(super) in_large: bool,
    pub(super) running: Running,
    /// What comes next of the running transaction: before it, everything else goes.
    due: Option<Due>,
    queue: Receiver,
    durable: watch::Sender<Lsn>,
    progress: Progress,
    /// The last word on WAL that holds nothing for the link, while something is on its way.
    nothing: Option<(Lsn, Arc<Seen>)>,
    /// When the last group was answered.
    answered_at: Instant,
    /// The source's WAL position when the link started: past it, the backlog is done.
    goal: Lsn,
    /// Rows written of the transaction that is open on the target.
    open_rows: u64,
    /// The link had failed when it connected.
    pub(super) failed_before: bool,
    /// Where the transaction commits that is applied by itself just now.
    pub(super) in_hand: Option<Lsn>,
}

impl Applying {
    /// `begun` is the position the target already holds, `goal` the source's end of WAL now.
    pub(super) fn new(
        (applier, running): (Applier, Running),
        (options, mut lessons): (ApplyOptions, Lessons),
        (queue, durable): (Receiver, watch::Sender<Lsn>),
        monitor: LinkMonitor,
        (begun, goal): (Committed, Lsn),
    ) -> Self {
        monitor.set_applied(begun.source_end);
        let failed_before = monitor.is_failing();
        if let Some(until) = applier.skips_until() {
            lessons.in_order_until = until.max(lessons.in_order_until);
        }
        let mut progress = Progress::default();
        progress.applied(begun.source_end, begun.target_written);
        Self {
            applier: applier.copying(std::mem::take(&mut lessons.copies)),
            window: Window::new(),
            options,
            monitor,
            lessons,
            retries: Backoff::transient(),
            ahead: false,
            in_large: false,
            running,
            due: None,
            queue,
            durable,
            progress,
            nothing: None,
            answered_at: Instant::now(),
            goal,
            open_rows: 0,
            failed_before,
            in_hand: None,
        }
    }

    /// What the next connection may want to know.
    pub(super) fn take_lessons(&mut self) -> Lessons {
        let copies = self.applier.take_copies();
        Lessons {
            copies,
            ..std::mem::take(&mut self.lessons)
        }
    }

    /// Applies until told to stop (what is on its way is finished) or until an error.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<Ended, LinkError> {
        let mut poll = interval(FLUSH_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.show_progress();
        self.show_workers();
        while !stop.is_cancelled() {
            fault_point("link");
            self.fill();
            self.show_queue();
            if let Some(due) = self.due.take() {
                self.step_running(due).await?;
                continue;
            }
            if let Some(group) = self.window.next() {
                self.go(group).await?;
                continue;
            }
            if self.window.is_idle()
                && let Some((end, seen)) = self.nothing.take()
            {
                self.nothing_up_to(end, &seen).await?;
                continue;
            }
            let waiting = self.window.is_waiting();
            let running = self.running.is_waiting();
            let idle = self.window.is_idle() && !self.in_large;
            let unflushed = !waiting && self.progress.has_unflushed();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = poll.tick(), if unflushed => self.poll_flushed().await?,
                answered = self.applier.answered(self.window.oldest_worker()), if waiting => {
                    answered.map_err(|source| self.failed(source))?;
                    self.land().await?;
                }
                answered = self.running.answered(), if running => {
                    answered.map_err(|source| self.running_failed(source))?;
                    self.land_running().await?;
                }
                () = self.lessons.patience.over(), if idle && self.options.waits_to_ask => {
                    return Ok(Ended::MayAskForRunning);
                }
                item = self.queue.next(), if !self.window.is_full() => match item {
                    Some(item) => self.take(item),
                    None => return Ok(Ended::SourceGone),
                },
            }
        }
        self.finish().await
    }

    /// Takes what is waiting already, as far as it fits.
    fn fill(&mut self) {
        while !self.window.is_full() && self.due.is_none() {
            match self.queue.waiting() {
                Some(item) => self.take(item),
                None => break,
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::NothingUpTo(end, seen) => self.nothing = Some((end, seen)),
            Item::Part(part) => self.due = Some(Due::Part(part)),
            Item::Ended(end) => self.due = Some(Due::Ended(end)),
            Item::Piece(piece) => {
                // Its end will say more.
                self.nothing = None;
                if let Some(piece) = self.window.add(piece) {
                    self.queue.put_back(Item::Piece(piece));
                }
            }
        }
    }

    /// Everything that came so far is done when this returns.
    pub(super) async fn settle(&mut self) -> Result<(), LinkError> {
        if let Some(group) = self.window.rest() {
            self.go(group).await?;
        }
        while self.window.is_waiting() {
            self.land().await?;
        }
        Ok(())
    }

    /// Gives back a share of the queue.
    pub(super) fn done(&self, charge: Charge) {
        self.queue.done(charge);
    }

    /// Sends a group on, as a whole or each transaction by itself.
    async fn go(&mut self, group: Group) -> Result<(), LinkError> {
        // An error shows again, and is dealt with, once something is written.
        let apart = self.applier.goes_apart(&group.pieces).await;
        if !apart.unwrap_or(true) {
            return self.go_together(group).await;
        }
        for alone in group.apart() {
            self.go_together(alone).await?;
        }
        Ok(())
    }

    /// Sends a group ahead, or applies it step by step once nothing else is on its way.
    async fn go_together(&mut self, group: Group) -> Result<(), LinkError> {
        if self.window.is_idle() {
            self.show_oldest(Some(&group));
        }
        let mut group = Some(group);
        if let Some(going) = group.take_if(|group| self.may_be_sent(group)) {
            group = self.send(going).await?;
        }
        let Some(group) = group else { return Ok(()) };
        while self.window.is_waiting() {
            self.land().await?;
        }
        Box::pin(self.step_by_step(group)).await
    }

    /// Sends a group ahead, or gives it back. What is wrong with it then shows again, and is dealt
    /// with, step by step.
    async fn send(&mut self, group: Group) -> Result<Option<Group>, LinkError> {
        let Ok(ready) = self.applier.ready(&group.pieces).await else {
            return Ok(Some(group));
        };
        let touched = self.touched(&group, &ready);
        let Some(worker) = self.worker_for(&touched).await? else {
            return Ok(Some(group));
        };
        let beside = matches!(touched, Touched::Rows(_));
        let sent = self.applier.send((&group.pieces, ready), (worker, beside));
        let sent = match sent.await {
            Ok(Some(sent)) => sent,
            // The first session is used in any case, and so is asked again.
            Err(error) if worker > 0 && error.retry_class() == RetryClass::Transient => {
                return Err(self.failed(error));
            }
            Ok(None) | Err(_) => return Ok(Some(group)),
        };
        self.in_large = group.pieces.last().is_some_and(|last| last.end.is_none());
        self.window.sent(Flight {
            group,
            sent,
            worker,
            touched,
            since: Instant::now(),
        });
        self.show_workers();
        Ok(None)
    }

    /// What a group writes. Where it goes alone in any case, nobody looks at its rows.
    fn touched(&self, group: &Group, ready: &Ready) -> Touched {
        if self.applier.workers() == 1 || group.is_part() || self.running.is_open() {
            return Touched::Everything;
        }
        ready.touched()
    }

    /// The session for a group that writes `touched`, after waiting for others where it meets them;
    /// `None` where one of those was refused.
    async fn worker_for(&mut self, touched: &Touched) -> Result<Option<usize>, LinkError> {
        let workers = self.applier.workers();
        if workers == 1 {
            return Ok(Some(0));
        }
        let mut chosen = self.window.worker_for(touched, workers);
        self.window.met(chosen.met);
        while chosen.worker.is_none() {
            self.land().await?;
            if !self.ahead {
                return Ok(None);
            }
            chosen = self.window.worker_for(touched, workers);
        }
        Ok(chosen.worker)
    }

    fn show_workers(&self) {
        let workers = self.applier.workers();
        if workers > 1 {
            let busy = self.window.busy_workers();
            self.monitor
                .set_workers(Some(Workers { busy, all: workers }));
        }
    }

    fn may_be_sent(&mut self, group: &Group) -> bool {
        let failed_before = group
            .pieces
            .iter()
            .any(|piece| self.must_go_step_by_step(piece));
        // The parts of a transaction all go the same way.
        let begins = group.pieces.first().is_some_and(|piece| piece.first);
        if begins {
            self.ahead = !failed_before && self.lessons.caution.may_send();
        }
        self.ahead
    }

    /// Waits for the answer to the oldest group that was sent.
    async fn land(&mut self) -> Result<(), LinkError> {
        let Some(flight) = self.window.land() else {
            return Ok(());
        };
        self.show_workers();
        match self.applier.collect(flight.sent).await {
            Ok(committed) => {
                let begun = flight.since.max(self.answered_at);
                self.answered_at = Instant::now();
                self.lessons.caution.taken();
                self.queue.done(flight.group.charge);
                self.note_open(&flight.group.pieces, committed.is_some());
                self.note(committed);
                self.window.took(begun.elapsed());
                self.pace(begun.elapsed());
                let next = self.window.oldest();
                self.monitor.set_oldest_unapplied(next);
                Ok(())
            }
            // Boxed: large futures, and rarely needed.
            Err(error) => Box::pin(self.again(error, flight.group)).await,
        }
    }

    /// A group that was sent ahead was refused, and everything behind it is void: all of it once
    /// more, step by step.
    async fn again(&mut self, error: ApplyError, refused: Group) -> Result<(), LinkError> {
        match error {
            ApplyError::ClockBehind { .. } => self.lessons.caution.too_early(),
            // Somebody holds a row for longer than a group beside others waits for it.
            _ if self.applier.workers() > 1 && is_lock_wait(&error) => {
                self.lessons.caution.too_early();
            }
            _ => self.lessons.caution.refused(),
        }
        self.ahead = false;
        if is_lock_wait(&error) && self.applier.workers() == 1 && !self.running.is_open() {
            self.show_failure(&error);
        }
        let gave_up = self.applier.rollback().await;
        gave_up.map_err(|source| self.failed(source))?;
        self.in_large = false;
        if self.running.is_open() && is_lock_wait(&error) {
            return Err(self.failed(error));
        }
        if let Some(piece) = refused.pieces.first().filter(|piece| !piece.first) {
            return Err(self.large_refused(error, piece.header.final_lsn));
        }
        let mut group = Some(refused);
        while let Some(next) = group {
            self.show_oldest(Some(&next));
            self.step_by_step(next).await?;
            group = self.window.land().map(|flight| flight.group);
        }
        self.show_workers();
        Ok(())
    }

    /// Applies a group with an answer to each step.
    async fn step_by_step(&mut self, group: Group) -> Result<(), LinkError> {
        let charge = group.charge;
        if group.is_part() {
            for piece in group.pieces {
                self.part(piece).await?;
            }
        } else {
            self.group(group.pieces).await?;
        }
        self.answered_at = Instant::now();
        self.queue.done(charge);
        Ok(())
    }

    /// Large groups are fast while nobody else wants their rows. When local writers do, waiting for
    /// each other's locks takes longer the more rows each side holds.
    pub(super) fn pace(&mut self, took: Duration) {
        let rows = self.window.rows_max();
        if took > GROUP_TIME {
            self.window.set_rows_max(rows / 2);
        } else if took < GROUP_TIME / 4 {
            self.window.set_rows_max(rows * 2);
        }
    }

    async fn nothing_up_to(&mut self, end: Lsn, seen: &Seen) -> Result<(), LinkError> {
        if end.bytes_since(self.progress.position()) >= IDLE_WAL_MAX_BYTES {
            let witness = self.witness().await;
            let committed = self.applier.advance(end, seen, witness).await;
            let committed = committed.map_err(|source| self.failed(source))?;
            self.note(Some(committed));
            return Ok(());
        }
        self.monitor.set_applied(end.max(self.progress.position()));
        self.show_progress();
        Ok(())
    }

    /// Pieces were written; without a commit they belong to a transaction that goes on.
    pub(super) fn note_open(&mut self, pieces: &[Piece], committed: bool) {
        let rows: usize = pieces.iter().map(|piece| piece.changes.len()).sum();
        self.open_rows = if committed {
            0
        } else {
            self.open_rows + rows as u64
        };
        self.monitor.set_open_rows(self.open_rows);
    }

    /// A transaction of the source's own that comes after everything up to now. Without one the
    /// earlier one stands for less.
    async fn witness(&self) -> Option<Witness> {
        let made = make_witness(&self.options.source, &self.options.link).await;
        made.ok().flatten()
    }

    /// Takes note of a commit and of what has become durable by it.
    pub(super) fn note(&mut self, committed: Option<Committed>) {
        let Some(committed) = committed else { return };
        self.in_large = false;
        self.progress
            .applied(committed.source_end, committed.target_written);
        let counts = self.applier.take_counts();
        self.monitor.add_transactions(counts.transactions);
        self.monitor.add_rows(counts.rows);
        self.monitor.add_conflicts(counts.conflicts);
        self.monitor.set_applied(committed.source_end);
        for remark in self.applier.take_remarks() {
            let about = (self.options.link.clone(), self.monitor.clone());
            let target = self.applier.catalog();
            self.lessons.remarks.tell(remark, target, about);
        }
        self.note_flushed(committed.target_flushed);
        self.show_progress();
    }

    async fn poll_flushed(&mut self) -> Result<(), LinkError> {
        let flushed = self
            .applier
            .flushed()
            .await
            .map_err(|source| self.failed(source))?;
        self.note_flushed(flushed);
        Ok(())
    }

    fn note_flushed(&mut self, target_flushed: Lsn) {
        if let Some(durable) = self.progress.flushed(target_flushed) {
            self.monitor.set_durable(durable);
            self.durable.send_replace(durable);
        }
    }

    /// Told to stop: what is on its way is waited for, and made durable if that takes no longer
    /// than a moment.
    async fn finish(&mut self) -> Result<Ended, LinkError> {
        while let Some(flight) = self.window.land() {
            match self.applier.collect(flight.sent).await {
                Ok(committed) => self.note(committed),
                // It is sent again after the next start.
                Err(_) => return Ok(Ended::Stopped),
            }
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.progress.has_unflushed() && Instant::now() < deadline {
            self.poll_flushed().await?;
            sleep(FLUSH_POLL).await;
        }
        Ok(Ended::Stopped)
    }

    fn show_oldest(&self, group: Option<&Group>) {
        let first = group.and_then(|group| group.pieces.first());
        let oldest = first.map(|piece| piece.header.commit_time);
        self.monitor.set_oldest_unapplied(oldest);
    }

    /// What waits; with nothing left, nothing is unapplied.
    fn show_queue(&mut self) {
        let (rows, bytes) = self.queue.depth();
        self.monitor.set_queue(rows as u64, bytes as u64);
        if rows == 0 && !self.in_large {
            self.monitor.set_oldest_unapplied(None);
            self.show_progress();
        }
    }

    /// `catching_up` until the backlog found at the start is done, and when the lag grows again.
    fn show_progress(&mut self) {
        let reached = self.monitor.applied() >= self.goal;
        let oldest = self.monitor.oldest_unapplied();
        let age = oldest.map_or(0, |time| CommitTime::now().micros_since(time));
        if reached && age < LAG_SHOWN_MICROS {
            self.monitor.moves(LinkState::Streaming, None, true);
        } else {
            let reason = format!(
                "working through the changes that {} has not seen yet",
                self.options.link.to
            );
            self.monitor
                .moves(LinkState::CatchingUp, Some(reason), false);
        }
    }

    /// The link tries again by itself, and says what it has met.
    pub(super) fn show_failure(&self, error: &ApplyError) {
        let message = format!("{}: {error}", self.options.link.to);
        let shown = last_error(error, message, error.table());
        self.monitor.fails(failed_state(error), shown);
    }

    pub(super) fn failed(&self, source: ApplyError) -> LinkError {
        if self.running.is_open() && is_lock_wait(&source) {
            return LinkError::running(source.to_string());
        }
        LinkError::applying(&self.options.link, self.in_hand, source)
    }
}

/// A link that is this far behind says so, in microseconds.
const LAG_SHOWN_MICROS: i64 = 5_000_000;
