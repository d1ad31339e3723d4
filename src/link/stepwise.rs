//! Applying with an answer to each step: what a group that is sent ahead cannot do.
//!
//! Rows that need a look are settled, what passes is retried in place, what fails together is
//! applied in its own order.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::applying::Applying;
use super::error::LinkError;
use super::running::is_lock_wait;
use crate::apply::ApplyError;
use crate::assemble::{Piece, TxHeader};
use crate::error::{RetryClass, Retryable};
use crate::lsn::Lsn;
use crate::status::model::LinkState;

/// SQLSTATEs of statements for a table that has changed: no such table, column or operator, another
/// type.
const OTHER_SHAPE: [&str; 4] = ["42P01", "42703", "42883", "42804"];

/// How long to wait between two looks at the target's clock.
const CLOCK_POLL: Duration = Duration::from_millis(20);
/// In-place retries of a transient error before the link reconnects.
const RETRIES_MAX: u32 = 10;
/// The same where the link failed before and nothing was applied since.
const RETRIES_AGAIN: u32 = 1;

impl Applying {
    /// Applies whole transactions: together, and when that fails one by one in their own order.
    pub(super) async fn group(&mut self, mut pieces: Vec<Piece>) -> Result<(), LinkError> {
        self.monitor
            .set_oldest_unapplied(pieces.first().map(|piece| piece.header.commit_time));
        let mut in_order = pieces.iter().any(|piece| self.must_go_in_order(piece));
        let started = Instant::now();
        while !pieces.is_empty() {
            let begun = Instant::now();
            self.in_hand = in_order.then(|| pieces[0].header.final_lsn);
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
                    if !in_order {
                        self.pace(begun.elapsed());
                    }
                }
                Err(error) => {
                    let tried = if in_order { &pieces[..1] } else { &pieces };
                    let newest = newest(tried);
                    in_order |= self.recover(error, in_order, (started, newest)).await?;
                }
            }
        }
        Ok(())
    }

    /// Applies one part of a large transaction, whose earlier parts are gone from memory: an error
    /// ends the link, which then starts again from the target's position.
    pub(super) async fn part(&mut self, piece: Piece) -> Result<(), LinkError> {
        let mut in_order = self.must_go_in_order(&piece);
        let started = Instant::now();
        self.monitor
            .set_oldest_unapplied(Some(piece.header.commit_time));
        loop {
            self.in_hand = in_order.then_some(piece.header.final_lsn);
            match self.applier.apply_part(&piece, in_order).await {
                Ok(committed) => {
                    self.in_large = piece.end.is_none();
                    self.note_open(std::slice::from_ref(&piece), committed.is_some());
                    self.note(committed);
                    return Ok(());
                }
                Err(error) if piece.first && mends_in_place(&error) => {
                    let at = (started, piece.header);
                    self.recover(error, in_order, at).await?;
                }
                Err(error) if piece.first && second_try_may_help(&error) && !in_order => {
                    self.goes_in_order_until(piece.header.final_lsn);
                    let at = (started, piece.header);
                    in_order = self.recover(error, in_order, at).await?;
                }
                Err(error) => return Err(self.large_refused(error, piece.header.final_lsn)),
            }
        }
    }

    fn must_go_in_order(&self, piece: &Piece) -> bool {
        piece.header.final_lsn <= self.lessons.in_order_until
    }

    /// It failed before, when it was sent ahead or step by step.
    pub(super) fn must_go_step_by_step(&self, piece: &Piece) -> bool {
        piece.header.final_lsn <= self.lessons.step_by_step_until || self.must_go_in_order(piece)
    }

    fn goes_in_order_until(&mut self, end: Lsn) {
        self.lessons.in_order_until = end.max(self.lessons.in_order_until);
    }

    /// A part of a large transaction, which commits at `end`, was refused, whose earlier parts are
    /// gone from memory: the link starts again from the target's position, and then goes step by
    /// step or in order.
    pub(super) fn large_refused(&mut self, error: ApplyError, end: Lsn) -> LinkError {
        if second_try_may_help(&error) {
            self.goes_in_order_until(end);
        } else {
            let until = &mut self.lessons.step_by_step_until;
            *until = end.max(*until);
        }
        if matches!(error, ApplyError::CopyRefused { .. }) {
            self.applier.copy_none_until(end);
        }
        self.failed(error)
    }

    /// Rolls back and decides how to go on: true means "in order", an error means not at all. Of
    /// what was tried, `newest` has the latest commit time.
    async fn recover(
        &mut self,
        error: ApplyError,
        in_order: bool,
        (started, newest): (Instant, TxHeader),
    ) -> Result<bool, LinkError> {
        self.applier
            .rollback()
            .await
            .map_err(|source| self.failed(source))?;
        let changed = is_of_another_shape(&error) || matches!(error, ApplyError::TypesChanged(_));
        if refuses_values(&error) || changed {
            self.applier.forget_tables();
        }
        if self.running.is_open() && is_lock_wait(&error) {
            return Err(self.failed(error));
        }
        match error {
            ApplyError::ClockBehind { micros } => {
                let waited = self.wait_for_clock(micros, started, newest).await;
                waited.map(|()| false)
            }
            // The same rows again, without copying them.
            ApplyError::CopyRefused { .. } => Ok(false),
            ApplyError::PositionMoved => Err(self.failed(error)),
            // In order, everything before the change that fails still gets through.
            error if !in_order && !passes_by_itself(&error) => {
                self.window.failed();
                Ok(true)
            }
            // In order, a duplicate is one that a local writer has made just now.
            error if error.retry_class() == RetryClass::Transient || is_duplicate(&error) => {
                self.monitor.add_retry();
                self.window.set_rows_max(self.window.rows_max() / 2);
                let tries = self.retries.attempts();
                let is_known = self.monitor.is_failing() && tries >= RETRIES_AGAIN;
                if tries >= RETRIES_MAX || (self.failed_before && is_known) {
                    return Err(self.failed(error));
                }
                // A deadlock that is over at once is nothing to tell.
                if tries > 0 || is_lock_wait(&error) {
                    self.show_failure(&error);
                }
                sleep(self.retries.next_delay()).await;
                Ok(false)
            }
            error => Err(self.failed(error)),
        }
    }

    /// The target's clock is `micros` behind the commit time of a change that is next. A clock that
    /// is too far behind is not waited for: that would take as long, for every change.
    pub(super) async fn wait_for_clock(
        &mut self,
        micros: i64,
        started: Instant,
        change: TxHeader,
    ) -> Result<(), LinkError> {
        let link = &self.options.link;
        let allowed = self.options.max_clock_skew;
        let behind = Duration::from_micros(micros.max(1).unsigned_abs());
        if behind > allowed || started.elapsed() > allowed {
            return Err(LinkError::clock_skew(link, (behind, allowed), Some(change)));
        }
        let reason = format!(
            "the clock of {} is {} ms behind the commit time of the next change from {}; waiting until it has passed",
            link.to,
            behind.as_millis().max(1),
            link.from
        );
        self.monitor.moves(LinkState::Waiting, Some(reason), false);
        sleep(CLOCK_POLL).await;
        Ok(())
    }
}

/// The header with the latest commit time; there is a piece.
fn newest(pieces: &[Piece]) -> TxHeader {
    let headers = pieces.iter().map(|piece| piece.header);
    headers
        .reduce(|newest, next| {
            if next.commit_time > newest.commit_time {
                next
            } else {
                newest
            }
        })
        .expect("a group is tried while it has a piece")
}

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

/// The table or a column is not there any more, or of another type than the statement was made for.
fn is_of_another_shape(error: &ApplyError) -> bool {
    let state = error.sqlstate();
    state.is_some_and(|state| OTHER_SHAPE.contains(&state))
}

/// A constraint of the target does not let a row be there (class 23). A copy that is refused says
/// nothing about the row: inserted otherwise, it may give way.
fn refuses_values(error: &ApplyError) -> bool {
    let is_copy = matches!(error, ApplyError::CopyRefused { .. });
    let state = error.sqlstate();
    !is_copy && state.is_some_and(|state| state.starts_with("23"))
}

/// Another row has the same unique value (23505), or one that an exclusion constraint does not let
/// be there beside it (23P01).
fn is_duplicate(error: &ApplyError) -> bool {
    matches!(error.sqlstate(), Some("23505" | "23P01"))
}
