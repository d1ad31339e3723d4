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

use tokio_postgres::Client;

use super::error::LinkError;
use super::queue::{Charge, Waiting};
use super::{LinkContext, connect};
use crate::apply::{Applier, ApplyError, Sent};
use crate::assemble::RunningEnd;
use crate::error::Retryable;

/// SQLSTATE `lock_not_available`: `lock_timeout` has passed.
const LOCK_NOT_AVAILABLE: &str = "55P03";

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
    pub(super) applier: Option<Applier>,
    /// Rows so far of the transaction that is open.
    pub(super) rows: Option<u64>,
    pub(super) parts: VecDeque<(Sent, Charge)>,
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

    pub(super) async fn open(&mut self) -> Result<(), LinkError> {
        if self.applier.is_none() {
            let opened = connect::running_applier(&self.context, &self.control);
            self.applier = Some(Box::pin(opened).await?);
        }
        self.rows = Some(0);
        self.context.monitor.set_running(self.rows);
        Ok(())
    }

    pub(super) fn closed(&mut self) {
        self.rows = None;
        self.context.monitor.set_running(None);
    }

    /// The second session, which is there while a transaction is open.
    pub(super) fn session(&mut self) -> Result<&mut Applier, LinkError> {
        let missing = || LinkError::running("its session is gone".to_owned());
        self.applier.as_mut().ok_or_else(missing)
    }
}

/// The ordinary session waited too long for a lock.
pub(super) fn is_lock_wait(error: &ApplyError) -> bool {
    error.sqlstate() == Some(LOCK_NOT_AVAILABLE)
}
