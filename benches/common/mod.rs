//! What the benches share: servers to throw away, and `mmrepl` beside them.

mod cluster;
mod side;

pub(crate) use cluster::{Cluster, Daemon};
pub(crate) use side::Side;
