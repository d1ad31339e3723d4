//! Where the position row stands.

use crate::assemble::Piece;
use crate::catalog::position::Witness;
use crate::lsn::Lsn;

/// Where the position row stands.
#[derive(Debug, Clone, Copy)]
pub(in crate::apply) struct Positions {
    /// After the last commit that was answered.
    pub(in crate::apply) committed: Lsn,
    /// After the last commit that was sent.
    pub(in crate::apply) sent: Lsn,
    /// The position that stays where it is while transactions before it are made up for.
    pub(in crate::apply) missed_before: Option<Lsn>,
}

impl Positions {
    /// Nothing is on its way.
    pub(in crate::apply) const fn at(position: Lsn) -> Self {
        Self {
            committed: position,
            sent: position,
            missed_before: None,
        }
    }
}

/// The last transaction of these, which shows later that the source still has all of them.
pub(in crate::apply) fn witness(pieces: &[Piece]) -> Witness {
    let last = pieces.last().map(|piece| piece.header);
    last.map_or_else(Witness::default, |header| Witness {
        xid: header.xid,
        time: header.kept_time,
    })
}
