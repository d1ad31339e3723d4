//! Whole clusters in memory, run by the product's own decisions: do all nodes end equal?
//!
//! `history` says what happens, `node` and `applying` stand for the servers, `cluster` plays. What
//! decides is the real code: `apply::group` (net changes), `apply::decide` and `conflict`.
// A failing helper fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod applying;
mod aside;
mod by_function;
mod by_hand;
mod cluster;
mod exhaustive;
mod history;
mod merging;
mod named;
mod node;
mod random;
#[path = "../support/rng.rs"]
#[allow(dead_code)]
mod rng;
mod table;
mod versions;
