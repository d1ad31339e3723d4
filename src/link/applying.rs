//! The applying side of a link: takes pieces from the queue, groups them, retries what passes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::error::LinkError;
use super::progress::Progress;
use super::queue::{Charge, Item, Receiver};
use crate::apply::{Applier, ApplyError, Committed, Copies};
use crate::assemble::Piece;
use crate::backoff::Backoff;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::error::{RetryClass, Retryable};
use crate::ids::LinkName;
use crate::lsn::Lsn;
use crate::status::model::LinkState;
use crate::status::monitor::LinkMonitor;

/// Most rows in one target transaction made of several source transactions.
pub const GROUP_ROWS_MAX: usize = 2_000;
/// A group that takes longer than this holds row locks for too long: the next one is smaller.
const GROUP_TIME: Duration = Duration::from_secs(1);
/// Most wire bytes in one such transaction.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often an idle applier asks how far the target's WAL is flushed, while something is not.
const FLUSH_POLL: Duration = Duration::from_millis(50);
/// WAL without anything for this link that may stay unconfirmed. Confirming costs a small write on
/// the target, which is WAL for the link in the other direction; the bound keeps two idle nodes
/// from waking each other.
const IDLE_WAL_MAX_BYTES: u64 = 1024 * 1024;
/// How long to wait between two looks at the target's clock.
const CLOCK_POLL: Duration = Duration::from_millis(20);
/// In-place retries of a transient error before the link reconnects.
const RETRIES_MAX: u32 = 10;

/// How the link was told to apply.
pub(super) struct ApplyOptions {
    /// The link.
    pub link: LinkName,
    /// Several source transactions may share a target transaction (two nodes only, see design).
    pub merge: bool,
    /// How long to wait for the target's clock.
    pub max_clock_skew: Duration,
    /// Transactions that commit up to here are applied in order: they failed before.
    pub in_order_until: Lsn,
}

/// Why applying ended without an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The link was told to stop or pause.
    Stopped,
    /// The reader has gone; it knows why.
    SourceGone,
}

/// The applier with its queue and its positions.
pub(super) struct Applying {
    applier: Applier,
    options: ApplyOptions,
    queue: Receiver,
    durable: watch::Sender<Lsn>,
    monitor: LinkMonitor,
    progress: Progress,
    /// A large transaction is open on the target.
    in_large: bool,
    /// The source's WAL position when the link started: past it, the backlog is done.
    goal: Lsn,
    retries: Backoff,
    /// Rows that the next group may have; follows how long the last ones took.
    group_rows: usize,
}

impl Applying {
    /// `begun` is the position the target already holds, `goal` the source's end of WAL now.
    pub(super) fn new(
        (applier, options): (Applier, ApplyOptions),
        queue: Receiver,
        durable: watch::Sender<Lsn>,
        monitor: LinkMonitor,
        (begun, goal): (Committed, Lsn),
    ) -> Self {
        monitor.set_applied(begun.source_end);
        let mut progress = Progress::default();
        progress.applied(begun.source_end, begun.target_written);
        let retries = Backoff::transient();
        Self {
            applier,
            options,
            queue,
            durable,
            monitor,
            progress,
            in_large: false,
            goal,
            retries,
            group_rows: GROUP_ROWS_MAX,
        }
    }

    /// The commit of the large transaction or group that failed, for a second try in order.
    pub(super) fn in_order_until(&self) -> Lsn {
        self.options.in_order_until
    }

    /// What was learned about copying, for the next connection.
    pub(super) fn take_copies(&mut self) -> Copies {
        self.applier.take_copies()
    }

    /// Applies until told to stop (the transaction in hand is finished) or until an error.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<Ended, LinkError> {
        let mut poll = interval(FLUSH_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.show_progress();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.finish().await,
                _ = poll.tick(), if self.progress.has_unflushed() => self.poll_flushed().await?,
                item = self.queue.next() => match item {
                    Some(item) => self.handle(item).await?,
                    None => return Ok(Ended::SourceGone),
                },
            }
        }
    }

    async fn handle(&mut self, item: Item) -> Result<(), LinkError> {
        self.show_queue();
        match item {
            Item::NothingUpTo(end, seen) => self.nothing_up_to(end, &seen).await?,
            Item::Piece(waiting) => {
                let (piece, mut charge) = waiting.split();
                if self.in_large || piece.end.is_none() {
                    self.part(piece).await?;
                } else {
                    let pieces = self.fill_group(piece, &mut charge);
                    self.group(pieces).await?;
                }
                self.queue.done(charge);
            }
        }
        self.show_queue();
        Ok(())
    }

    /// Takes what is waiting already; a lone transaction never waits for company.
    fn fill_group(&mut self, first: Piece, charge: &mut Charge) -> Vec<Piece> {
        let (mut rows, mut bytes) = (first.changes.len(), first.bytes);
        let mut pieces = vec![first];
        while self.options.merge && rows < self.group_rows && bytes < GROUP_BYTES_MAX {
            match self.queue.waiting() {
                Some(Item::Piece(waiting)) if is_whole(&waiting.piece) => {
                    let (piece, share) = waiting.split();
                    rows += piece.changes.len();
                    bytes += piece.bytes;
                    pieces.push(piece);
                    charge.add(share);
                }
                Some(other) => {
                    self.queue.put_back(other);
                    break;
                }
                None => break,
            }
        }
        pieces
    }

    /// Applies whole transactions: together, and when that fails one by one in their own order.
    async fn group(&mut self, mut pieces: Vec<Piece>) -> Result<(), LinkError> {
        self.monitor
            .set_oldest_unapplied(pieces.first().map(|piece| piece.header.commit_time));
        let mut in_order = pieces.iter().any(|piece| self.must_go_in_order(piece));
        let started = Instant::now();
        while !pieces.is_empty() {
            let begun = Instant::now();
            let result = if in_order {
                self.applier.apply_in_order(&pieces[0]).await
            } else {
                self.applier.apply_group(&pieces).await
            };
            match result {
                Ok(committed) => {
                    let done = if in_order { 1 } else { pieces.len() };
                    pieces.drain(..done);
                    self.retries.reset();
                    self.note(committed);
                    self.pace(begun.elapsed());
                }
                Err(error) => {
                    in_order |= self.recover(error, in_order, started).await?;
                }
            }
        }
        Ok(())
    }

    /// Large groups are fast while nobody else wants their rows. When local writers do, waiting for
    /// each other's locks takes longer the more rows each side holds.
    fn pace(&mut self, took: Duration) {
        if took > GROUP_TIME {
            self.group_rows = (self.group_rows / 2).max(1);
        } else if took < GROUP_TIME / 4 {
            self.group_rows = (self.group_rows * 2).min(GROUP_ROWS_MAX);
        }
    }

    /// Applies one part of a large transaction, whose earlier parts are gone from memory: an error
    /// ends the link, which then starts again from the target's position.
    async fn part(&mut self, piece: Piece) -> Result<(), LinkError> {
        let mut in_order = self.must_go_in_order(&piece);
        let started = Instant::now();
        self.monitor
            .set_oldest_unapplied(Some(piece.header.commit_time));
        loop {
            match self.applier.apply_part(&piece, in_order).await {
                Ok(committed) => {
                    self.in_large = piece.end.is_none();
                    self.note(committed);
                    return Ok(());
                }
                Err(error) if piece.first && mends_in_place(&error) => {
                    self.recover(error, in_order, started).await?;
                }
                Err(error) => {
                    if second_try_may_help(&error) && !in_order {
                        self.options.in_order_until = piece.header.final_lsn;
                        if piece.first {
                            in_order = self.recover(error, in_order, started).await?;
                            continue;
                        }
                    }
                    return Err(self.failed(error));
                }
            }
        }
    }

    fn must_go_in_order(&self, piece: &Piece) -> bool {
        piece.header.final_lsn <= self.options.in_order_until
    }

    /// Rolls back and decides how to go on: true means "in order", an error means not at all.
    async fn recover(
        &mut self,
        error: ApplyError,
        in_order: bool,
        started: Instant,
    ) -> Result<bool, LinkError> {
        self.applier
            .rollback()
            .await
            .map_err(|source| self.failed(source))?;
        if refuses_values(&error) {
            self.applier.forget_tables();
        }
        match error {
            ApplyError::ClockBehind { micros } => {
                self.wait_for_clock(micros, started).await.map(|()| false)
            }
            // The same rows again, without copying them.
            ApplyError::CopyRefused { .. } => Ok(false),
            ApplyError::PositionMoved => Err(self.failed(error)),
            // In order, everything before the change that fails still gets through.
            error if !in_order && !passes_by_itself(&error) => Ok(true),
            // In order, a duplicate is one that a local writer has made just now.
            error if error.retry_class() == RetryClass::Transient || is_duplicate(&error) => {
                self.monitor.add_retry();
                self.group_rows = (self.group_rows / 2).max(1);
                if self.retries.attempts() >= RETRIES_MAX {
                    return Err(self.failed(error));
                }
                sleep(self.retries.next_delay()).await;
                Ok(false)
            }
            error => Err(self.failed(error)),
        }
    }

    /// The target's clock is `micros` behind the commit time of the next change. A clock that is
    /// too far behind is not waited for: that would take as long, for every change.
    async fn wait_for_clock(&mut self, micros: i64, started: Instant) -> Result<(), LinkError> {
        let link = &self.options.link;
        let allowed = self.options.max_clock_skew;
        let behind = Duration::from_micros(micros.max(1).unsigned_abs());
        if behind > allowed || started.elapsed() > allowed {
            return Err(LinkError::clock_skew(link, behind, allowed));
        }
        let reason = format!(
            "the clock of {} is {} ms behind the commit time of the next change from {}; waiting until it has passed",
            link.to,
            behind.as_millis().max(1),
            link.from
        );
        self.monitor.set_state(LinkState::Waiting, Some(reason));
        sleep(CLOCK_POLL).await;
        Ok(())
    }

    async fn nothing_up_to(&mut self, end: Lsn, seen: &Seen) -> Result<(), LinkError> {
        if end.bytes_since(self.progress.position()) >= IDLE_WAL_MAX_BYTES {
            let committed = self.applier.advance(end, seen).await;
            let committed = committed.map_err(|source| self.failed(source))?;
            self.note(Some(committed));
            return Ok(());
        }
        self.monitor.set_applied(end.max(self.progress.position()));
        self.show_progress();
        Ok(())
    }

    /// Takes note of a commit and of what has become durable by it.
    fn note(&mut self, committed: Option<Committed>) {
        let Some(committed) = committed else { return };
        self.in_large = false;
        self.progress
            .applied(committed.source_end, committed.target_written);
        let counts = self.applier.take_counts();
        self.monitor.add_transactions(counts.transactions);
        self.monitor.add_rows(counts.rows);
        self.monitor.add_conflicts(counts.conflicts);
        self.monitor.set_applied(committed.source_end);
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

    /// Told to stop: what is applied is made durable if that takes no longer than a moment.
    async fn finish(&mut self) -> Result<Ended, LinkError> {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.progress.has_unflushed() && Instant::now() < deadline {
            self.poll_flushed().await?;
            sleep(CLOCK_POLL).await;
        }
        Ok(Ended::Stopped)
    }

    /// What waits; with nothing left, nothing is unapplied.
    fn show_queue(&mut self) {
        let (pieces, bytes) = self.queue.depth();
        self.monitor.set_queue(pieces as u64, bytes as u64);
        if pieces == 0 && !self.in_large {
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
            self.monitor.set_state(LinkState::Streaming, None);
        } else {
            let reason = format!(
                "working through the changes that {} has not seen yet",
                self.options.link.to
            );
            self.monitor.set_state(LinkState::CatchingUp, Some(reason));
        }
    }

    fn failed(&self, source: ApplyError) -> LinkError {
        LinkError::Apply {
            node: self.options.link.to.clone(),
            source,
        }
    }
}

/// A transaction that is all in one piece.
fn is_whole(piece: &Piece) -> bool {
    piece.first && piece.end.is_some()
}

/// A link that is this far behind says so, in microseconds.
const LAG_SHOWN_MICROS: i64 = 5_000_000;

/// Errors of the first part of a large transaction after which it can be begun again at once.
fn mends_in_place(error: &ApplyError) -> bool {
    matches!(
        error,
        ApplyError::ClockBehind { .. } | ApplyError::CopyRefused { .. }
    )
}

/// Errors that the same statements may not meet again.
fn passes_by_itself(error: &ApplyError) -> bool {
    error.retry_class() == RetryClass::Transient && !matches!(error, ApplyError::Overtaken)
}

/// Errors that a replay in the source's own order may not meet: a unique value that moved between
/// rows, a row that a local transaction deleted meanwhile.
fn second_try_may_help(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Overtaken) || refuses_values(error)
}

/// A constraint of the target does not let a row be there (class 23).
fn refuses_values(error: &ApplyError) -> bool {
    error
        .sqlstate()
        .is_some_and(|state| state.starts_with("23"))
}

/// Another row has the same unique value (23505), or one that an exclusion constraint does not let
/// be there beside it (23P01).
fn is_duplicate(error: &ApplyError) -> bool {
    matches!(error.sqlstate(), Some("23505" | "23P01"))
}
