//! How the applying of a link goes through a transaction that is still running on the source.

use tokio::time::Instant;

use super::applying::Applying;
use super::error::LinkError;
use super::queue::Waiting;
use super::running::Due;
use super::sessions;
use crate::apply::ApplyError;
use crate::assemble::{Piece, RunningEnd, TxEnd, TxHeader};
use crate::conflict::Seen;
use crate::error::Retryable;

/// Most parts on their way to the target …
const PARTS_MAX: usize = 8;

/// The connection is gone, or the server goes away: that says nothing about the transaction.
fn is_lost(error: &ApplyError) -> bool {
    let lost = |state: &str| state.starts_with("08") || state.starts_with("57");
    matches!(error, ApplyError::Target { .. }) && error.sqlstate().is_none_or(lost)
}

impl Applying {
    /// Takes the next step of the running transaction, after everything that came before it.
    pub(super) async fn step_running(&mut self, due: Due) -> Result<(), LinkError> {
        self.settle().await?;
        match due {
            Due::Part(part) => self.part_running(part).await,
            Due::Ended(_) if !self.running.is_open() => Ok(()),
            Due::Ended(RunningEnd::Abort) => self.abort_running().await,
            Due::Ended(RunningEnd::Commit { header, end, seen }) => {
                self.commit_running(header, end, &seen).await
            }
        }
    }

    async fn part_running(&mut self, part: Waiting) -> Result<(), LinkError> {
        let (piece, charge) = part.split();
        if !self.running.is_open() {
            self.running.open().await?;
            self.limit_lock_waits(sessions::LOCK_TIMEOUT_BESIDE_RUNNING)
                .await?;
        }
        while self.running.parts.len() >= PARTS_MAX {
            self.land_running().await?;
        }
        let session = self.running.session()?;
        let sent = session.send_running(&piece).await;
        let sent = sent.map_err(|error| self.running_failed(error))?;
        self.running.parts.push_back((sent, charge));
        self.show_running(&piece);
        Ok(())
    }

    fn show_running(&mut self, piece: &Piece) {
        let rows = piece.changes.iter().filter(|change| change.is_data());
        let rows = self.running.rows.unwrap_or(0) + rows.count() as u64;
        self.running.rows = Some(rows);
        self.monitor.set_running(Some(rows));
    }

    /// Waits for the answer to the oldest part that was sent.
    pub(super) async fn land_running(&mut self) -> Result<(), LinkError> {
        let Some((sent, charge)) = self.running.parts.pop_front() else {
            return Ok(());
        };
        let session = self.running.session()?;
        let done = session.collect(sent).await;
        done.map_err(|error| self.running_failed(error))?;
        self.done(charge);
        Ok(())
    }

    async fn commit_running(
        &mut self,
        header: TxHeader,
        end: TxEnd,
        seen: &Seen,
    ) -> Result<(), LinkError> {
        while self.running.is_waiting() {
            self.land_running().await?;
        }
        self.wait_until_past(header).await?;
        let position = self.applier.position();
        let session = self.running.session()?;
        let committed = session.commit_running(header, end, (position, seen)).await;
        let committed = committed.map_err(|error| self.running_failed(error))?;
        self.applier.moved_by(self.running.session()?);
        self.running.closed();
        self.lessons.patience.committed();
        self.note(Some(committed));
        self.limit_lock_waits(sessions::LOCK_TIMEOUT).await
    }

    /// An apply transaction is visible only once the target's clock has passed the commit time.
    async fn wait_until_past(&mut self, header: TxHeader) -> Result<(), LinkError> {
        let started = Instant::now();
        loop {
            let session = self.running.session()?;
            let behind = session.clock_behind(header.commit_time).await;
            let behind = behind.map_err(|error| self.running_failed(error))?;
            if behind < 0 {
                return Ok(());
            }
            self.wait_for_clock(behind, started, header).await?;
        }
    }

    async fn abort_running(&mut self) -> Result<(), LinkError> {
        while let Some((_, charge)) = self.running.parts.pop_front() {
            self.done(charge);
        }
        let session = self.running.session()?;
        let rolled_back = session.abort_running().await;
        rolled_back.map_err(|error| self.running_failed(error))?;
        self.running.closed();
        self.limit_lock_waits(sessions::LOCK_TIMEOUT).await
    }

    /// What an error of the second session means for the link.
    pub(super) fn running_failed(&self, source: ApplyError) -> LinkError {
        if !is_lost(&source) {
            return LinkError::running(source.to_string());
        }
        LinkError::Apply {
            node: self.options.link.to.clone(),
            source: Box::new(source),
        }
    }

    /// How long the ordinary session waits for a lock; nothing is on its way there.
    async fn limit_lock_waits(&mut self, limit: &str) -> Result<(), LinkError> {
        let limited = self.applier.limit_lock_waits(limit).await;
        limited.map_err(|source| self.failed(source))
    }
}
