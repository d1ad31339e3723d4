//! What the benches share: servers to throw away, and `mmrepl` beside them.
// Each bench uses its part.
#![allow(dead_code, unused_imports)]

mod cluster;
pub(crate) mod pglogical;
mod side;

pub(crate) use cluster::{Cluster, Daemon, binary};
pub(crate) use side::Side;
