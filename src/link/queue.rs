//! The bounded queue between reading a link's stream and applying it.
//!
//! What one read of the socket brought travels together: handing over is paid for once, and the
//! applier finds a group waiting instead of its first transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::assemble::{Piece, RunningEnd};
use crate::conflict::Seen;
use crate::lsn::Lsn;

/// Most memory that waiting changes may hold; a single larger piece waits alone.
pub const QUEUE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Most rows that may wait or be on their way: all that the window takes, and as many again. A
/// transaction without rows for this link counts as one.
pub const QUEUE_ROWS_MAX: u32 = 131_072;
/// Pieces are handed over together up to so many rows …
const GATHERED_ROWS_MAX: u32 = QUEUE_ROWS_MAX / 32;
/// … and up to so many bytes.
const GATHERED_BYTES_MAX: u32 = 1024 * 1024;

/// What travels from the reader to the applier, in stream order.
pub(super) enum Item {
    /// Changes that are committed on the source.
    Piece(Waiting),
    /// Changes of the transaction that is still running there.
    Part(Waiting),
    /// The end of that transaction.
    Ended(RunningEnd),
    /// There is nothing for this link up to here, where the source had seen this.
    NothingUpTo(Lsn, Arc<Seen>),
}

/// A piece with what it takes of the queue's budget until [`Receiver::done`].
pub(super) struct Waiting {
    pub piece: Piece,
    charge: Charge,
}

impl Waiting {
    fn new(piece: Piece) -> Self {
        let bytes = u32::try_from(piece.memory_bytes).unwrap_or(QUEUE_BYTES_MAX);
        let rows = u32::try_from(piece.changes.len()).unwrap_or(QUEUE_ROWS_MAX);
        let charge = Charge {
            rows: rows.clamp(1, QUEUE_ROWS_MAX),
            bytes: bytes.min(QUEUE_BYTES_MAX),
        };
        Self { piece, charge }
    }

    /// The two parts.
    pub(super) fn split(self) -> (Piece, Charge) {
        (self.piece, self.charge)
    }
}

/// A share of the queue's budget.
#[derive(Clone, Copy, Default)]
pub(super) struct Charge {
    rows: u32,
    bytes: u32,
}

impl Charge {
    /// The share of both.
    pub(super) fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What may still wait.
struct Budget {
    rows: Semaphore,
    bytes: Semaphore,
}

/// The reader's end.
pub(super) struct Sender {
    batches: mpsc::Sender<Vec<Item>>,
    budget: Arc<Budget>,
    gathered: Vec<Item>,
    charge: Charge,
}

/// A new queue.
pub(super) fn queue() -> (Sender, Receiver) {
    // The budget bounds what the batches hold, so this is never what has to be waited for.
    let (sender, batches) = mpsc::channel(QUEUE_ROWS_MAX as usize);
    let budget = Arc::new(Budget {
        rows: Semaphore::new(QUEUE_ROWS_MAX as usize),
        bytes: Semaphore::new(QUEUE_BYTES_MAX as usize),
    });
    let receiver = Receiver {
        batches,
        budget: Arc::clone(&budget),
        at_hand: VecDeque::new(),
    };
    let sender = Sender {
        batches: sender,
        budget,
        gathered: Vec::new(),
        charge: Charge::default(),
    };
    (sender, receiver)
}

/// The applier is gone; the link ends.
#[derive(Debug)]
pub(super) struct Closed;

impl Sender {
    /// Adds a piece to what is handed over next; gives it back when that is to be done first.
    #[must_use]
    pub(super) fn gather(&mut self, piece: Piece) -> Option<Piece> {
        let waiting = Waiting::new(piece);
        let bytes = self.charge.bytes.saturating_add(waiting.charge.bytes);
        let full = bytes > GATHERED_BYTES_MAX || self.charge.rows >= GATHERED_ROWS_MAX;
        if full && self.charge.rows > 0 {
            return Some(waiting.piece);
        }
        self.charge.add(waiting.charge);
        let running = waiting.piece.header.is_running();
        let item = if running { Item::Part } else { Item::Piece };
        self.gathered.push(item(waiting));
        None
    }

    /// Tells how the transaction that was running has ended.
    pub(super) fn ended(&mut self, end: RunningEnd) {
        self.gathered.push(Item::Ended(end));
    }

    /// Tells how far the stream holds nothing.
    pub(super) fn nothing_up_to(&mut self, end: Lsn, seen: &Arc<Seen>) {
        let item = Item::NothingUpTo(end, Arc::clone(seen));
        match self.gathered.last_mut() {
            Some(last @ Item::NothingUpTo(..)) => *last = item,
            _ => self.gathered.push(item),
        }
    }

    /// The first of the pieces that are to be handed over.
    pub(super) fn first_gathered(&self) -> Option<&Piece> {
        self.gathered.iter().find_map(|item| match item {
            Item::Piece(waiting) => Some(&waiting.piece),
            Item::Part(_) | Item::Ended(_) | Item::NothingUpTo(..) => None,
        })
    }

    /// Whether there is anything to hand over.
    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Hands over what was gathered, waiting for room. Cancel-safe: nothing is sent before this
    /// returns.
    pub(super) async fn hand_over(&mut self) -> Result<(), Closed> {
        let Charge { rows, bytes } = self.charge;
        let rows = self.budget.rows.acquire_many(rows).await;
        let bytes = self.budget.bytes.acquire_many(bytes).await;
        let slot = self.batches.reserve().await.map_err(|_| Closed)?;
        // Given back by `Receiver::done`.
        rows.map_err(|_| Closed)?.forget();
        bytes.map_err(|_| Closed)?.forget();
        slot.send(std::mem::take(&mut self.gathered));
        self.charge = Charge::default();
        Ok(())
    }
}

/// The applier's end.
pub(super) struct Receiver {
    batches: mpsc::Receiver<Vec<Item>>,
    budget: Arc<Budget>,
    at_hand: VecDeque<Item>,
}

impl Receiver {
    /// The next item; nothing when the reader has gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Item> {
        while self.at_hand.is_empty() {
            self.at_hand = self.batches.recv().await?.into();
        }
        self.at_hand.pop_front()
    }

    /// The next item, if one is waiting.
    pub(super) fn waiting(&mut self) -> Option<Item> {
        while self.at_hand.is_empty() {
            self.at_hand = self.batches.try_recv().ok()?.into();
        }
        self.at_hand.pop_front()
    }

    /// Puts an item back that was just taken.
    pub(super) fn put_back(&mut self, item: Item) {
        self.at_hand.push_front(item);
    }

    /// Pieces are applied: others may take their place.
    pub(super) fn done(&self, charge: Charge) {
        self.budget.rows.add_permits(charge.rows as usize);
        self.budget.bytes.add_permits(charge.bytes as usize);
    }

    /// Rows, and their bytes, that wait or are being applied.
    pub(super) fn depth(&self) -> (usize, usize) {
        let taken =
            |max: u32, left: &Semaphore| (max as usize).saturating_sub(left.available_permits());
        let rows = taken(QUEUE_ROWS_MAX, &self.budget.rows);
        (rows, taken(QUEUE_BYTES_MAX, &self.budget.bytes))
    }
}
