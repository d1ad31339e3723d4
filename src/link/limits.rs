//! How much of a transaction is passed on at once.

use crate::assemble::PieceLimits;

/// A large transaction is passed on in pieces of at most this many rows …
const PIECE_ROWS_MAX: usize = 8_000;
/// … and this many wire bytes (a single row may be larger).
const PIECE_BYTES_MAX: usize = 1024 * 1024;

pub(super) const fn piece_limits() -> PieceLimits {
    PieceLimits {
        rows: PIECE_ROWS_MAX,
        bytes: PIECE_BYTES_MAX,
    }
}
