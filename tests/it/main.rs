//! Integration tests against real servers. One binary, so that tests share servers.
// `pub` here means "for the other modules of this binary"; a failing helper fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod harness;
#[path = "../support/mod.rs"]
mod support;
