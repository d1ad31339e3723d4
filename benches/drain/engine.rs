//! Who applies the backlog.

use std::time::Duration;

use crate::pair::Pair;

/// How often is asked whether everything has arrived.
const POLL: Duration = Duration::from_millis(5);

/// The two sides of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The server's own subscription, as it comes.
    Native,
    /// The daemon of east.
    Mmrepl,
}

impl Engine {
    pub(crate) async fn set_up(self, pair: &mut Pair) {
        match self {
            Self::Native => {
                pair.east
                    .run("create publication bench for all tables")
                    .await;
                // By hand, so that the subscription starts disabled with its slot in place.
                pair.east
                    .run("select pg_create_logical_replication_slot('bench', 'pgoutput')")
                    .await;
                let create = format!(
                    "create subscription bench connection '{}' publication bench
                     with (create_slot = false, slot_name = bench,
                        copy_data = false, enabled = false)",
                    pair.east.dsn()
                );
                pair.west.run(&create).await;
            }
            Self::Mmrepl => pair.init(),
        }
    }

    pub(crate) async fn switch_on(self, pair: &mut Pair) {
        match self {
            Self::Native => pair.west.run("alter subscription bench enable").await,
            Self::Mmrepl => pair.start_daemon(),
        }
    }

    pub(crate) async fn switch_off(self, pair: &mut Pair) {
        match self {
            Self::Native => {
                pair.west.run("alter subscription bench disable").await;
                let active = "select count(*)::text from pg_replication_slots where active";
                while pair.east.value(active).await != "0" {
                    tokio::time::sleep(POLL).await;
                }
            }
            Self::Mmrepl => pair.stop_daemon(),
        }
    }
}
