//! The one thread that writes checkpoints.
//!
//! Callers leave the newest value per link in a shared map and wait; the thread takes the whole
//! map, writes it, flushes once and answers everybody. So the map holds at most one value per link,
//! however fast the links are, and a flush is shared by all.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::CheckpointError;
use super::lock::DirLock;
use super::record::{self, Checkpoint};
use super::store::{Records, Store};
use crate::ids::LinkName;

/// At most one flush per interval: a flush costs 0.1 to 8 ms, feedback to the source needs no more.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

type Answer = Result<(), CheckpointError>;

/// Starts, feeds and stops the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The newest value per link that waits to be written.
    pending: BTreeMap<LinkName, Pending>,
    /// The newest value per link that was accepted, written or not: nothing may go below it.
    accepted: Records,
    /// What is on disk.
    durable: Records,
    flushes: u64,
    closing: bool,
}

#[derive(Debug, Default)]
struct Pending {
    /// `None` forgets the link.
    checkpoint: Option<Checkpoint>,
    waiters: Vec<oneshot::Sender<Answer>>,
}

impl Writer {
    /// Starts the thread; it keeps `lock` for as long as it has the store.
    pub(super) fn start(
        lock: DirLock,
        store: Store,
        records: Records,
        flush_interval: Duration,
    ) -> Result<Self, CheckpointError> {
        let dir = store.data_dir().to_owned();
        let state = State {
            accepted: records.clone(),
            durable: records,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        let mut thread = WriterThread {
            shared: Arc::clone(&shared),
            data_dir: dir.clone(),
            store: Some(store),
            flush_interval,
        };
        let run = move || {
            thread.run();
            drop(thread);
            drop(lock);
        };
        let builder = std::thread::Builder::new().name("checkpoints".to_owned());
        let handle = builder
            .spawn(run)
            .map_err(|e| CheckpointError::directory(&dir, "starting the checkpoint writer", e))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(handle)),
        })
    }

    /// Accepts a value (or, for `None`, the wish to forget); the receiver hears when it is on disk.
    pub(super) fn submit(
        &self,
        link: &LinkName,
        checkpoint: Option<Checkpoint>,
    ) -> Result<oneshot::Receiver<Answer>, CheckpointError> {
        let mut state = self.shared.lock();
        if state.closing {
            return Err(CheckpointError::Closed);
        }
        match &checkpoint {
            Some(checkpoint) => state.accept(link, checkpoint)?,
            None => drop(state.accepted.remove(link)),
        }
        let (sender, receiver) = oneshot::channel();
        let pending = state.pending.entry(link.clone()).or_default();
        pending.checkpoint = checkpoint;
        pending.waiters.push(sender);
        self.shared.wake.notify_one();
        Ok(receiver)
    }

    /// The last durable checkpoint of `link`.
    pub(super) fn durable(&self, link: &LinkName) -> Result<Option<Checkpoint>, CheckpointError> {
        let state = self.shared.lock();
        if state.closing {
            Err(CheckpointError::Closed)
        } else {
            Ok(state.durable.get(link).cloned())
        }
    }

    /// How many flushes succeeded.
    pub(super) fn flushes(&self) -> u64 {
        self.shared.lock().flushes
    }

    /// Has everything written that was accepted, then ends the thread. Blocks for a flush.
    pub(super) fn stop(&self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        let handle = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(handle) = handle {
            // The thread catches what sled throws; a panic beyond that is in the log already.
            let _ = handle.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn accept(&mut self, link: &LinkName, offered: &Checkpoint) -> Result<(), CheckpointError> {
        record::encode(link, offered).map_err(|source| CheckpointError::Record {
            link: link.clone(),
            source,
        })?;
        if let Some(accepted) = self.accepted.get(link)
            && accepted.same_history(offered)
            && offered.position < accepted.position
        {
            return Err(CheckpointError::Backwards {
                link: link.clone(),
                accepted: accepted.position,
                offered: offered.position,
            });
        }
        self.accepted.insert(link.clone(), offered.clone());
        Ok(())
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the maps half changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work, and for `not_before` unless the store closes. `None`: closed and all done.
    fn next_batch(&self, not_before: Instant) -> Option<BTreeMap<LinkName, Pending>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.pending.is_empty() {
                if state.closing {
                    return None;
                }
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            } else if state.closing || now >= not_before {
                return Some(std::mem::take(&mut state.pending));
            } else {
                let rest = not_before - now;
                let waited = self.wake.wait_timeout(state, rest);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

struct WriterThread {
    shared: Arc<Shared>,
    data_dir: std::path::PathBuf,
    /// `None` after a failure: sled refuses everything after its first error, so it is opened anew.
    store: Option<Store>,
    flush_interval: Duration,
}

impl WriterThread {
    fn run(&mut self) {
        let mut not_before = Instant::now();
        while let Some(batch) = self.shared.next_batch(not_before) {
            let answer = self.write(&batch);
            if answer.is_err() {
                self.store = None;
            }
            not_before = Instant::now() + self.flush_interval;
            self.finish(batch, &answer);
        }
    }

    fn write(&mut self, batch: &BTreeMap<LinkName, Pending>) -> Answer {
        if self.store.is_none() {
            self.store = Some(self.reopen()?);
        }
        let store = self.store.as_ref().expect("it was opened just above");
        store.write(
            batch
                .iter()
                .map(|(link, pending)| (link, pending.checkpoint.as_ref())),
        )
    }

    /// After a full or failing disk. What was durable is written again: the files may be new.
    fn reopen(&self) -> Result<Store, CheckpointError> {
        let (store, _, notice) = Store::open_or_renew(&self.data_dir)?;
        if let Some(notice) = notice {
            tracing::error!("{notice}");
        }
        let durable = self.shared.lock().durable.clone();
        store.write(
            durable
                .iter()
                .map(|(link, checkpoint)| (link, Some(checkpoint))),
        )?;
        Ok(store)
    }

    fn finish(&self, batch: BTreeMap<LinkName, Pending>, answer: &Answer) {
        let mut state = self.shared.lock();
        state.flushes += u64::from(answer.is_ok());
        for (link, pending) in batch {
            if answer.is_ok() {
                match pending.checkpoint {
                    Some(checkpoint) => drop(state.durable.insert(link, checkpoint)),
                    None => drop(state.durable.remove(&link)),
                }
            }
            for waiter in pending.waiters {
                // A caller that went away does not want to know.
                let _ = waiter.send(answer.clone());
            }
        }
    }
}
