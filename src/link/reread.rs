//! A part of the source's WAL that is read once more.

use crate::commit_time::CommitTime;
use crate::lsn::Lsn;
use crate::wire::{ReplicationStream, StandbyStatus, WireError};

/// What lies between the two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// From where on it is read.
    pub(super) read_from: Lsn,
    /// From where on it is written.
    pub(super) from: Lsn,
    pub(super) to: Lsn,
}

/// Tells the server that somebody reads; `confirmed` is what it knew before.
pub(super) async fn report(
    stream: &mut ReplicationStream,
    confirmed: Lsn,
) -> Result<(), WireError> {
    let status = StandbyStatus {
        written: confirmed,
        flushed: confirmed,
        applied: confirmed,
        now: CommitTime::now(),
        reply: false,
    };
    stream.send_status(&status).await
}
