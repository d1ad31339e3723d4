//! Mending what differs (`mmrepl verify --repair`).
//!
//! ```text
//! rows that differ ─▶ look at them on every node ─▶ decide ─▶ lock, look again, write, record
//!        ▲                                                            │
//!        └──────── still different across a fence ◀───────────────────┘
//! ```
//!
//! Every key is settled by its table's own rule with the versions that are there, and what is
//! written keeps its version (`apply::Mender`). Whoever writes a row meanwhile wins: the row
//! is then judged again. What nothing decides is left as it is and named.

mod aim;
mod bags;
mod carry;
mod decide;
mod repairer;

pub(super) use repairer::Repairer;
