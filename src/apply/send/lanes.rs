//! Several sessions that write one link's groups at once.
//!
//! ```text
//! first session   begin … rows of 1 … commit   begin … rows of 3 … waits … commit
//! second session  begin … rows of 2 … waits … commit
//! ```
//!
//! Groups that do not meet (`touched`) are sent to different sessions, each as a whole, its commit
//! included. Before it moves the position a transaction waits until the one before it has committed
//! (`mmrepl.await_turn`): commits happen in the source's order, and who reads the target sees what
//! the source once showed. The server does the waiting, so the next groups can be on their way.
//!
//! Should that go wrong, nothing is lost by it: a transaction moves the position only from where
//! the one before it leaves it.
//!
//! A transaction that waits for its turn holds its rows. A local writer that waits for one of them
//! may hold what an earlier transaction needs. The server finds such a circle, but would end it at
//! the cost of either; so a transaction beside others waits for a lock only a moment and is then
//! applied again, alone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::apply::error::ApplyError;
use crate::apply::send::transaction::Applier;
use crate::apply::send::workers::{Turn, Worker, reset};
use crate::catalog::CatalogError;
use crate::wire::{Session, WireError};

/// Upper half of the first key of the advisory locks ("mm"); the lower half is the number of the
/// link's origin on the target, the second key counts transactions.
const LOCK_CLASS: u32 = 0x6d6d_0000;
/// Longest wait for a lock beside other transactions of the link: shorter than the server's
/// default `deadlock_timeout`.
const LOCK_TIMEOUT: &str = "500ms";
/// How often transactions that are void are cancelled until they have ended.
const CANCEL_EVERY: Duration = Duration::from_millis(100);

/// Takes a turn; ends with the transaction.
const TAKE_TURN: &str = "select pg_catalog.set_config('lock_timeout', $1, true), \
                         pg_catalog.pg_advisory_xact_lock($2::int4, $3::int4)";
/// Waits for the one before.
const AWAIT_TURN: &str = "select mmrepl.await_turn($1, $2, $3, $4)";

impl Applier {
    /// Adds sessions that write beside the first, each with the name of the origin it holds.
    #[must_use]
    pub fn with_workers(mut self, sessions: Vec<(Session, String)>) -> Self {
        let worker = |(session, origin)| Worker { session, origin };
        self.workers.further = sessions.into_iter().map(worker).collect();
        self
    }

    /// How many sessions write at once.
    pub fn workers(&self) -> usize {
        1 + self.workers.further.len()
    }

    /// Puts the session of a worker in the first one's place, or back.
    pub(in crate::apply) fn change_to(&mut self, worker: usize) {
        let change = |applier: &mut Self, with: usize| {
            if let Some(place) = with.checked_sub(1)
                && let Some(worker) = applier.workers.further.get_mut(place)
            {
                std::mem::swap(&mut applier.session, &mut worker.session);
            }
        };
        change(self, self.workers.on);
        change(self, worker);
        self.workers.on = worker;
    }

    /// The next group gets a turn if it goes `beside` others, none if it goes alone.
    pub(in crate::apply) fn prepare_turn(&mut self, worker: usize, beside: bool) {
        let last = self.workers.last.take();
        if !beside || self.workers.further.is_empty() {
            return;
        }
        let link = LOCK_CLASS | self.origins.id_of(&self.source);
        let link = link.cast_signed().to_string();
        let turn = self.workers.next_turn();
        let limit = LOCK_TIMEOUT.to_owned();
        let take = (TAKE_TURN, vec![limit, link.clone(), turn.to_string()]);
        let before = last.filter(|(on, _)| *on != worker && self.is_behind());
        let wait = before.map(|(_, turn)| {
            let previous = self.position.sent.to_string();
            let parameters = vec![self.source.to_string(), previous, link, turn.to_string()];
            (AWAIT_TURN, parameters)
        });
        self.workers.last = Some((worker, turn));
        self.workers.turn = Some(Turn { take, wait });
    }

    /// Commits were sent that are not answered.
    fn is_behind(&self) -> bool {
        self.position.sent != self.position.committed
    }

    /// The session of a worker, and those of the others.
    fn session_of(&mut self, worker: usize) -> (&mut Session, Vec<&mut Session>) {
        let further = self.workers.further.iter_mut();
        let further = further.map(|worker| &mut worker.session);
        let mut others: Vec<_> = std::iter::once(&mut self.session).chain(further).collect();
        let own = others.remove(worker);
        (own, others)
    }

    /// Does `work` on the session of a worker, while the others go on sending.
    pub(in crate::apply) async fn on_session<T>(
        &mut self,
        worker: usize,
        work: impl AsyncFnOnce(&mut Session) -> T,
    ) -> T {
        if self.workers.further.is_empty() {
            return work(&mut self.session).await;
        }
        let (own, mut others) = self.session_of(worker);
        let mut work = pin!(work(own));
        poll_fn(|cx| {
            for other in &mut others {
                other.keep_sending(cx);
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Reads over what was sent and not collected, all of which is void. What runs or waits is
    /// cancelled: it may wait for what will never come.
    pub(in crate::apply) async fn discard_all(&mut self) -> Result<(), ApplyError> {
        self.change_to(0);
        self.workers.turn = None;
        self.workers.last = None;
        let failed = |source: WireError| ApplyError::target(source, None);
        if self.workers.further.is_empty() {
            return self.session.discard().await.map_err(failed);
        }
        let control = std::sync::Arc::clone(&self.catalog);
        let (first, others) = self.session_of(0);
        let sessions = std::iter::once(first).chain(others);
        let busy: Vec<&mut Session> = sessions.filter(|session| session.is_waiting()).collect();
        let processes: Vec<i32> = busy.iter().map(|session| session.backend_pid()).collect();
        let discards = busy.into_iter().map(Session::discard);
        let mut discards = pin!(futures_util::future::try_join_all(discards));
        if processes.is_empty() {
            return Ok(());
        }
        loop {
            let cancel =
                "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.unnest($1::int4[]) pid";
            let cancelled = control.execute(cancel, &[&processes]).await;
            cancelled.map_err(|error| ApplyError::Catalog {
                table: "pg_stat_activity".to_owned(),
                source: Box::new(CatalogError::query("cancel void transactions")(error)),
            })?;
            if let Ok(discarded) = timeout(CANCEL_EVERY, &mut discards).await {
                return discarded.map(drop).map_err(failed);
            }
        }
    }

    /// Ends what is open on the sessions beside the first.
    pub(in crate::apply) async fn reset_workers(&mut self) -> Result<(), ApplyError> {
        for worker in &mut self.workers.further {
            let reset = reset(&worker.origin);
            let done = worker.session.simple(&reset).await;
            done.map_err(|source| ApplyError::target(source, None))?;
        }
        Ok(())
    }
}
