//! The wire module against a real server, and against servers that misbehave.

#![allow(
    clippy::disallowed_methods,
    reason = "an answer that is not as expected fails a test"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod batches;
mod certs;
mod impostors;
mod logins;
mod server;
mod streams;
