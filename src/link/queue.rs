//! The bounded queue between reading a link's stream and applying it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::assemble::Piece;
use crate::conflict::Seen;
use crate::lsn::Lsn;

/// Most memory that waiting changes may hold; a single larger piece waits alone.
pub const QUEUE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Most pieces that may wait.
pub const QUEUE_PIECES_MAX: usize = 4096;

/// What travels from the reader to the applier, in stream order.
pub(super) enum Item {
    /// Changes. The permit gives their bytes back to the budget when they are done.
    Piece(Piece, OwnedSemaphorePermit),
    /// There is nothing for this link up to here, where the source had seen this.
    NothingUpTo(Lsn, Arc<Seen>),
}

/// The reader's end.
pub(super) struct Sender {
    items: mpsc::Sender<Item>,
    bytes: Arc<Semaphore>,
}

/// A new queue.
pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, items) = mpsc::channel(QUEUE_PIECES_MAX);
    let bytes = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
    let receiver = Receiver {
        items,
        bytes: Arc::clone(&bytes),
    };
    (
        Sender {
            items: sender,
            bytes,
        },
        receiver,
    )
}

/// The applier is gone; the link ends.
#[derive(Debug)]
pub(super) struct Closed;

impl Sender {
    /// Waits for room for the piece. Cancel-safe: nothing is sent before this returns.
    pub(super) async fn room(&self, piece: &Piece) -> Result<Room<'_>, Closed> {
        let bytes = u32::try_from(piece.memory_bytes)
            .unwrap_or(QUEUE_BYTES_MAX)
            .min(QUEUE_BYTES_MAX);
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| Closed)?;
        let slot = self.items.reserve().await.map_err(|_| Closed)?;
        Ok(Room { slot, bytes })
    }

    /// Tells how far the stream holds nothing; left out when the queue is full, a later one
    /// follows.
    pub(super) fn nothing_up_to(&self, end: Lsn, seen: &Arc<Seen>) -> Result<(), Closed> {
        match self
            .items
            .try_send(Item::NothingUpTo(end, Arc::clone(seen)))
        {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
            _ => Ok(()),
        }
    }
}

/// The applier's end.
pub(super) struct Receiver {
    items: mpsc::Receiver<Item>,
    bytes: Arc<Semaphore>,
}

impl Receiver {
    /// The next item; nothing when the reader has gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    /// The next item, if one is waiting.
    pub(super) fn waiting(&mut self) -> Option<Item> {
        self.items.try_recv().ok()
    }

    /// Pieces that wait, and the bytes of those and of what is being applied.
    pub(super) fn depth(&self) -> (usize, usize) {
        let bytes = (QUEUE_BYTES_MAX as usize).saturating_sub(self.bytes.available_permits());
        (self.items.len(), bytes)
    }
}

/// Room for one piece.
pub(super) struct Room<'a> {
    slot: mpsc::Permit<'a, Item>,
    bytes: OwnedSemaphorePermit,
}

impl Room<'_> {
    /// Puts the piece there.
    pub(super) fn fill(self, piece: Piece) {
        self.slot.send(Item::Piece(piece, self.bytes));
    }
}
