//! Which of two writes of one row wins.
//!
//! Every write of a row has a version: the time its transaction committed and the node it was
//! made on. For one key the newest version wins on every node; equal times go to the node whose
//! name sorts last. Deletes are writes too: what remains of them is a tombstone with the version
//! of the delete, so that an older update that arrives later does not bring the row back.
//!
//! Three facts make the rule converge:
//!
//! 1. *The order is total.* Two writes of one key on one node cannot commit at the same time
//!    without one waiting for the other's row lock, and between nodes the name decides. So all
//!    nodes agree on the newest version, in whatever order the writes arrive.
//! 2. *One node's writes arrive in the order it made them.* Between two writes of the same node the
//!    stream's order decides and the clock is not asked; a clock that is set back there cannot
//!    undo a later write.
//! 3. *Cause comes before effect.* A change is applied only after the target's own clock has passed
//!    the change's commit time (`mmrepl.require_clock`). A write made on the target after seeing
//!    the change therefore has a later time than the change, whatever the skew between clocks.
//!
//! A version may be unknown: the row is frozen, older than `track_commit_timestamp`, or written
//! by the very transaction that asks. In each case it is older than what arrives.
//!
//! # Versions in the row
//!
//! Four more rules ([`Rule`]) keep a version in a column, the [`Rank`]. It decides first; time and
//! node only decide between equal ranks. What a server forgets (it freezes rows, it loses its
//! commit times) is then only asked for in ties.
//!
//! | rule | rank of a write | tie |
//! |---|---|---|
//! | `version_column` | the application's value, never less than before; NULL is least | later |
//! | `hybrid_clock` | the clock, at least the rank before and one | later |
//! | `first_write_wins` | the rank before and one | earlier |
//! | `node_priority` | the edits of each node, the first node's count most; one more | later |
//!
//! Any total order makes the nodes agree, provided that each write of a key is above every write
//! that its node had seen. Then the greatest write is above all others wherever it is applied, a
//! row never gives way to something it was made from, and what is discarded was below the row for
//! good. The order here is the one of (rank, time, node), with the time reversed in one case. It
//! extends cause and effect:
//!
//! 1. *Updates.* A trigger sees the old row under its lock and sets a rank above it (equal, for a
//!    column that the application keeps; then the clock rule makes the time later). The row is the
//!    greatest write of its key that the node has seen.
//! 2. *Deletes* have a rank made from the row's by the same step. The stream carries the old row
//!    (`REPLICA IDENTITY FULL`), so every node computes the one that the deleting node stored with
//!    its tombstone. The clock of a deleting transaction is in its WAL for that ([`delete_clock`]).
//!    The old key of a row that moves goes with the rank that the row got.
//! 3. *Inserts* know nothing of a row, but maybe of its delete. After the insert, which may have
//!    waited for the deleter's commit, a trigger lifts the row above the tombstone.
//! 4. A truncate has no rows to take ranks from, so in such tables it is turned into deletes.
//!
//! `first_write_wins` reads: of two edits made on the same rank, neither knew the other, and the
//! earlier stays; a greater number of edits was made knowing an edit more. `node_priority` reads:
//! up to the first node whose edits differ, both saw the same; the one with more edits of that
//! node knew an edit that the other did not, or is that edit, and that node comes first.
//!
//! Triggers fire for applications only: what is applied keeps the rank that it came with.
//!
//! # Rows that merge
//!
//! Under `column_merge`, and where changes of columns add up, more than one write of a row
//! survives. There the order of versions only decides whether the row is there; what it holds is
//! the join of all that arrived. See [`Image`] and the essay of its module.
//!
//! # No order at all
//!
//! Under the rule `manual` a version says what its write knew: for each node
//! the last write of that node that the row had taken in (`Rank::knows`). A write gets a time above
//! all of these in its own node's place, so no two writes of a key have the same version, and one
//! version has another's place exactly if its write came after the other's. A write replaces what
//! it knew. Of two that did not know of each other each node keeps the one it has, and remembers
//! the other for a person. Why nothing is lost and all end equal:
//!
//! 1. What a node has only ever moves on to something that knows it. So where a write arrived that
//!    nobody's later write knows, the node either has it or remembers it: it did not know what was
//!    there, and nothing that came since knew it, or the memory would have gone.
//! 2. While a node remembers nothing, it therefore has the only such write. All nodes have it then.
//! 3. A decision is a write that knows both, so there is one such write less. Decisions made at the
//!    same time on two nodes do not know of each other and are a conflict again.
//!
//! Two deletes leave nothing to choose: the tombstone stands for both, and knows what both knew.
//!
//! Under the rule `custom` versions are the same, but a function of the user decides at once, on
//! each node. It sees all writes that did not know of each other, always in one order. See
//! [`Siblings`] and the essay of its module.
//!
//! This module is pure: no clock, no server, no I/O.

mod concurrency;
mod decimal;
mod kind;
mod merge;
mod merge_state;
mod rank;
mod resolve;
mod rule;
mod sample;
mod seal;
mod siblings;
pub mod unique;
mod version;

pub use concurrency::{MARKER_PREFIX, Marker, SEEN_HISTORY_MAX, Seen, SeenHistory, rival};
pub use decimal::{BadDecimal, Decimal};
pub use kind::{Kind, Made};
pub use merge::{BadStamp, Cell, Counter, Image, Stamp};
pub use merge_state::MergeState;
pub use rank::{BadRank, Rank};
pub use resolve::{Incoming, Local, Standing, Verdict, Write, resolve, standing};
pub use rule::{
    COUNT_COLUMN, Custom, KNOWN_COLUMN, Merge, Rule, Rules, STATE_COLUMN, VECTOR_COLUMN,
    delete_clock,
};
pub use sample::{RECORDED_PER_MINUTE, SAMPLED_ONE_IN, Sampler};
pub use seal::Secret;
pub use siblings::{Sibling, Siblings};
pub use version::{Held, Tie, Version};
