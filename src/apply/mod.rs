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
//! Everything between `begin` and `commit` is one transaction on the target, the row in
//! `mmrepl.apply_position` included. So a crash at any point leaves either all of it or nothing,
//! and the position says which.
//!
//! Long runs of inserts are copied (`COPY`), on the chance that none of the rows is there. Where
//! one is, the group is rolled back and applied again without copying.
//!
//! Where the link has several sessions (`workers`), groups that write different rows (`touched`)
//! are written at once and committed in order.
//!
//! In a pair, a large transaction is written while it is still running on the source, on a session
//! of its own (`running`).
//!
//! A guarded statement takes a row only where the row is older than the change and the source knew
//! it; that needs no look before the write. The few rows it does not take are settled in the same
//! transaction, and conflicts recorded. When a group fails as a whole (a unique value that moves
//! between rows, a concurrent delete), it is rolled back and applied again *in order*: every source
//! transaction by itself, every change one by one. There, rows that take a unique value from each
//! other are kept aside (`unique`) and return later (`returner`).

mod ahead;
mod binary;
mod copy;
mod crossing;
mod custom;
mod decide;
mod emptied;
mod error;
mod fetch;
mod floors;
mod give_way;
mod group;
#[cfg(test)]
mod group_tests;
mod guard;
mod in_order;
mod mapping;
mod merging;
mod narrower;
mod origins;
mod overtaken;
mod params;
mod pending;
mod plan;
#[cfg(test)]
mod plan_tests;
mod position;
mod push;
mod record;
mod respelled;
mod returner;
mod rewrites;
mod rows;
mod running;
mod session;
mod set_sql;
mod settle;
mod settle_custom;
mod settle_merging;
mod skip;
mod source_times;
mod sql;
mod sql_ahead;
mod sql_custom;
mod sql_merge;
mod sql_record;
mod sql_unique;
#[cfg(test)]
mod statement_texts_tests;
mod tables;
mod target;
mod touched;
mod transaction;
mod truncate;
mod unique;
mod versions;
mod visible;
mod workers;

pub use ahead::{Ready, Sent};
pub use copy::Copies;
pub use error::ApplyError;
pub use fetch::Fetcher;
use give_way::give_way;
pub use mapping::MapError;
pub use origins::Origins;
pub use returner::{Returned, Returner};
pub use session::apply_session;
pub use skip::{Skip, Skips};
pub use tables::Tables;
pub use touched::Touched;
pub use transaction::{Applier, Committed, Counts};

/// The pure half of applying, for the model in `tests/model` that plays whole clusters with it.
/// Not an interface to rely on.
#[doc(hidden)]
pub mod pure {
    pub use super::custom::{Taken, of_change, take};
    pub use super::decide::{Attempt, Decision, attempt, decide};
    pub use super::group::{
        Entry, GroupBuilder, Put, RowChange, RowOp, Segment, Stamp, WholeRowChange, entries_of,
    };
    pub use super::guard::Guard;
    pub use super::mapping::{KeyValues, TableMap};
    pub use super::merging::{Grave, Kept, Merged, Merging};
    pub use super::sql::UpdateGuard;
    pub use super::target::Target;
    pub use super::versions::Versions;
}
