//! Puts the changes of one transaction together.

use std::sync::Arc;

use super::assembled::Assembled;
use super::change::Change;
use super::piece::{Piece, PieceLimits, TxEnd, TxHeader};
use crate::conflict::Seen;

/// Fills one piece after another of one transaction.
#[derive(Debug)]
pub(super) struct Builder {
    piece: Piece,
}

impl Builder {
    pub(super) fn new(header: TxHeader) -> Self {
        Self {
            piece: Piece::empty(header, true),
        }
    }

    pub(super) fn header(&self) -> TxHeader {
        self.piece.header
    }

    /// See [`TxHeader::passed_on`]. A part that has left keeps its time.
    pub(super) fn passed_on(&mut self, seen: &Seen) {
        if !self.began() {
            self.piece.header = self.piece.header.passed_on(seen);
        }
    }

    /// Whether a piece of this transaction has left.
    pub(super) fn began(&self) -> bool {
        !self.piece.first
    }

    /// Forgets the changes so far.
    pub(super) fn clear(&mut self) {
        self.piece = Piece::empty(self.piece.header, self.piece.first);
    }

    /// Adds a change. Gives the piece so far when the change does not fit into it any more, so
    /// that the last piece always has a change and a transaction that just fits is one piece.
    pub(super) fn push(
        &mut self,
        change: Change,
        seen: &Arc<Seen>,
        limits: PieceLimits,
    ) -> Option<Piece> {
        let (bytes, memory) = (change.wire_bytes(), change.memory_bytes());
        let held = self.piece.changes.len();
        let fits = held < limits.rows && self.piece.memory_bytes + memory <= limits.bytes;
        let full = (held > 0 && !fits).then(|| {
            let next = Piece::empty(self.piece.header, false);
            std::mem::replace(&mut self.piece, next)
        });
        self.piece.seen.push(self.piece.changes.len(), seen);
        self.piece.changes.push(change);
        self.piece.bytes += bytes;
        self.piece.memory_bytes += memory;
        full
    }

    /// The piece so far, where it has a change; more may follow.
    pub(super) fn flush(&mut self) -> Option<Piece> {
        let next = Piece::empty(self.piece.header, false);
        let has_any = !self.piece.changes.is_empty();
        has_any.then(|| std::mem::replace(&mut self.piece, next))
    }

    /// The last piece, or `Skipped` for a transaction without changes.
    pub(super) fn finish(mut self, end: TxEnd, seen: &Arc<Seen>) -> Assembled {
        if self.piece.changes.is_empty() {
            return Assembled::Skipped { end };
        }
        self.piece.seen.at_end = Arc::clone(seen);
        self.piece.end = Some(end);
        Assembled::Piece(self.piece)
    }
}
