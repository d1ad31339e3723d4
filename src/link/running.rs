//! The transaction that is applied while it is still running on the source: `apply::running`, on a
//! second session, beside the ordinary ones.
//!
//! Whatever is unusual about it makes the link give it up: the second session rolls back, and for a
//! while transactions are asked for once they are committed. That costs time and nothing else.
//!
//! The second session holds its rows until the source commits. A local writer that waits for one
//! of them may itself hold what the ordinary session needs, a circle that no server can see. So
//! while a running transaction is open, the ordinary session waits for a lock only a moment; then
//! the running one is given up.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::applying::Applying;
use super::error::LinkError;
use super::queue::{Charge, Waiting};
use super::{LinkContext, connect, sessions};
use crate::apply::{Applier, ApplyError, Sent};
use crate::assemble::{Piece, RunningEnd, TxEnd, TxHeader};
use crate::conflict::Seen;
use crate::error::Retryable;

/// SQLSTATE `lock_not_available`: `lock_timeout` has passed.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Most parts on their way to the target …
const PARTS_MAX: usize = 8;

/// What comes next of the running transaction.
pub(super) enum Due {
    /// Changes.
    Part(Waiting),
    /// Its end.
    Ended(RunningEnd),
}

/// The second session, once it was needed, and what is open on it.
pub(super) struct Running {
    context: LinkContext,
    control: Arc<Client>,
    applier: Option<Applier>,
    /// Rows so far of the transaction that is open.
    rows: Option<u64>,
    parts: VecDeque<(Sent, Charge)>,
}

impl Running {
    /// Nothing is open; `control` is a connection to the target.
    pub(super) fn new(context: LinkContext, control: Arc<Client>) -> Self {
        Self {
            context,
            control,
            applier: None,
            rows: None,
            parts: VecDeque::new(),
        }
    }

    /// Whether one is open.
    pub(super) fn is_open(&self) -> bool {
        self.rows.is_some()
    }

    /// Whether parts are on their way.
    pub(super) fn is_waiting(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Waits until an answer begins to arrive. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Result<(), ApplyError> {
        match &mut self.applier {
            Some(applier) => applier.answered(0).await,
            None => std::future::pending().await,
        }
    }

    async fn open(&mut self) -> Result<(), LinkError> {
        if self.applier.is_none() {
            let opened = connect::running_applier(&self.context, &self.control);
            self.applier = Some(Box::pin(opened).await?);
        }
        self.rows = Some(0);
        self.context.monitor.set_running(self.rows);
        Ok(())
    }

    fn closed(&mut self) {
        self.rows = None;
        self.context.monitor.set_running(None);
    }

    /// The second session, which is there while a transaction is open.
    fn session(&mut self) -> Result<&mut Applier, LinkError> {
        let missing = || LinkError::running("its session is gone".to_owned());
        self.applier.as_mut().ok_or_else(missing)
    }
}

/// The connection is gone, or the server goes away: that says nothing about the transaction.
fn is_lost(error: &ApplyError) -> bool {
    let lost = |state: &str| state.starts_with("08") || state.starts_with("57");
    matches!(error, ApplyError::Target { .. }) && error.sqlstate().is_none_or(lost)
}

/// The ordinary session waited too long for a lock.
pub(super) fn is_lock_wait(error: &ApplyError) -> bool {
    error.sqlstate() == Some(LOCK_NOT_AVAILABLE)
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
