//! Real PostgreSQL servers on this machine, for `mmrepl demo` and for the tests.
//!
//! Finds server binaries ([`find`]), fetches them when there are none ([`provide`]), and runs
//! servers that listen on loopback only ([`server`]). A server never outlives the process that
//! started it, not even when that process is killed: see [`guard`].

mod error;
pub mod find;
pub mod guard;
pub mod port;
mod provide;
mod ready;
pub mod server;
pub mod signal;
pub mod user;

pub use find::{MAJORS, ServerBinaries, find_all, find_any, find_major};
pub use guard::Guard;
pub use port::free_port;
pub use provide::provide;
pub use server::{LocalServer, ServerOptions};

pub use error::LocalError;
