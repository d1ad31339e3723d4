//! Integration tests against real servers. One binary, so that tests share servers.
// `pub` here means "for the other modules of this binary"; a failing helper fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod harness;
mod origin_progress;
mod replication;
mod shapes;
mod status_truth;
#[path = "../support/mod.rs"]
mod support;
mod types;
