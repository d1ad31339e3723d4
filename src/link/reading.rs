//! A thread of its own for reading a source's stream.
//!
//! A server sends every message by itself. A thread that waits in `epoll` is woken for each of
//! them, whoever wants it, and the wake-up costs the server more than the message. A thread that
//! sleeps is left alone: so reading a backlog takes naps, and a nap needs a thread of its own.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The thread with its runtime. Dropping it ends what runs there.
pub(super) struct ReadingThread {
    handle: Handle,
    _end_by_drop: oneshot::Sender<()>,
}

impl ReadingThread {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end_by_drop, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("mmrepl-read".to_owned())
            .spawn(move || {
                // An error is the other end being dropped, which is the sign to end.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            handle,
            _end_by_drop: end_by_drop,
        })
    }

    /// Runs a future there. What it connects stays bound to that thread.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }
}
