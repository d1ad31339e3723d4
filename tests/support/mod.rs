//! What the integration tests stand on: real servers, real daemons, faults, and comparison.
//!
//! A test makes a [`Cluster`], which gives it two (or more) databases on servers that are shared by
//! all tests of this process, or on servers of its own when it kills or configures them. Nothing
//! sleeps and hopes: everything waits for a condition with a generous limit ([`wait`]).

pub mod clock;
pub mod cluster;
pub mod compare;
pub mod daemon;
pub mod failures;
pub mod links;
pub mod options;
pub mod pg;
pub mod pool;
pub mod proxy;
pub mod rng;
pub mod status;
pub mod wait;
pub mod writers;

pub use cluster::{Cluster, Node};
pub use options::ClusterOptions;
pub use rng::Rng;
pub use wait::{LIMIT, wait_until};

/// Makes one test per major, and one for a pair of the oldest with the newest. The body is an
/// `async fn(&[u32])` that gets one major per node.
#[macro_export]
macro_rules! on_every_major {
    ($name:ident, $body:path) => {
        mod $name {
            $crate::on_majors!(pg14, $body, 14, 14);
            $crate::on_majors!(pg15, $body, 15, 15);
            $crate::on_majors!(pg16, $body, 16, 16);
            $crate::on_majors!(pg17, $body, 17, 17);
            $crate::on_majors!(pg18, $body, 18, 18);
            $crate::on_majors!(pg19, $body, 19, 19);
            $crate::on_majors!(pg14_with_pg19, $body, 14, 19);
        }
    };
}

/// Makes one test on each of the two majors that stand for the others where behaviour does not hang
/// on the version: 15 has no `origin` option in its stream, 17 has. The body is as for
/// [`on_every_major`].
#[macro_export]
macro_rules! on_usual_majors {
    ($name:ident, $body:path) => {
        mod $name {
            $crate::on_majors!(pg15, $body, 15, 15);
            $crate::on_majors!(pg17, $body, 17, 17);
        }
    };
}

/// One test on the given majors; skipped, and saying so, where this machine lacks one of them.
#[macro_export]
macro_rules! on_majors {
    ($name:ident, $body:path, $($major:expr),+) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let majors = [$($major),+];
            if $crate::support::pool::have(&majors) {
                $body(&majors).await;
            }
        }
    };
}
