//! Writing a link's changes to its target: one session, one target transaction at a time.
//!
//! ```text
//! pieces ─▶ group (net change per key) ─▶ rows: guarded statements, many per round trip
//!                                           │ what they did not take
//!                                           ▼
//!                                         settle: lock, look, conflict::resolve, write
//! begin, clock check ── rows … ── no newer delete? ── position row, marker, stamp ── commit
//! ```
//!
//! The rooms stand on floors: what is on one names only what is below (`tests/tidy` sees to it).
//!
//! ```text
//! 8  send     target transactions: what is sent when, on which session, and what became of it
//! 7  settle   rows that a guarded statement did not take: looked at, judged, written, recorded
//! 6  write    statements with their parameters, pushed into batches
//! 5  plan     from changes to what is written by which statements; asks no server
//! 4  target   the target's tables as a link writes them, each text made once
//! 3  sql      the text of every statement                    error   what can go wrong
//! 2  shape    how a table of the source lands on the target, and what guards its rows
//! 1  encode   values and parameters as the server reads them
//! ```
//!
//! Everything between `begin` and `commit` is one transaction on the target, the row in
//! `mmrepl.apply_position` included. So a crash at any point leaves either all of it or nothing,
//! and the position says which.
//!
//! Long runs of inserts are copied (`COPY`), on the chance that none of the rows is there. Where
//! one is, the group is rolled back and applied again without copying.
//!
//! Where the link has several sessions (`send::lanes`), groups that write different rows
//! (`plan::touched`) are written at once and committed in order.
//!
//! In a pair, a large transaction is written while it is still running on the source, on a session
//! of its own (`send::running`).
//!
//! A guarded statement takes a row only where the row is older than the change and the source knew
//! it; that needs no look before the write. The few rows it does not take are settled in the same
//! transaction, and conflicts recorded. When a group fails as a whole (a unique value that moves
//! between rows, a concurrent delete), it is rolled back and applied again *in order*: every source
//! transaction by itself, every change one by one. There, rows that take a unique value from each
//! other are kept aside (`settle::unique`) and return later (`send::returner`).

mod encode;
mod error;
mod plan;
mod send;
mod settle;
mod shape;
mod sql;
mod target;
mod write;

pub use error::ApplyError;
pub use plan::copies::Copies;
pub use plan::touched::Touched;
pub use send::ahead::{Ready, Sent};
pub use send::mend::{BagMend, KeyState, Mend, MendedTable, RowImage, Source};
pub use send::mender::Mender;
pub use send::returner::{Returned, Returner};
pub use send::session::apply_session;
pub use send::skips::{Skip, Skips};
pub use send::transaction::{Applier, Committed, Counts};
pub use settle::fetch::Fetcher;
pub use shape::mapping::MapError;
pub use shape::origins::Origins;
pub use target::tables::{Remark, Tables};

/// The pure half of applying, for the model in `tests/model` that plays whole clusters with it.
/// Not an interface to rely on.
#[doc(hidden)]
pub mod pure {
    pub use super::plan::change::{Entry, RowChange, Stamp, WholeRowChange};
    pub use super::plan::custom::{Taken, of_change, take};
    pub use super::plan::decide::{Attempt, Decision, attempt, decide};
    pub use super::plan::group::{GroupBuilder, Segment, entries_of};
    pub use super::shape::guard::Guard;
    pub use super::shape::mapping::{KeyValues, TableMap};
    pub use super::shape::merging::{Grave, Kept, Merged, Merging};
    pub use super::shape::op::{Put, RowOp};
    pub use super::shape::versions::Versions;
    pub use super::sql::kind::UpdateGuard;
    pub use super::target::statement::Target;
}
