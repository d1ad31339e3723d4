//! Old records go: each daemon prunes the history of its own node, a little at a time. What waits
//! for a person stays.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Node;
use crate::ids::ClusterName;
use crate::wire::control;

/// Records that one statement deletes.
const BATCH: u64 = 1_000;
/// The pause between two statements while there is more.
const PAUSE: Duration = Duration::from_millis(100);
/// A tenth of how long records are kept lies between two looks, within these bounds.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

const CONFLICTS: &str = "delete from mmrepl.conflict where id in (
    select id from mmrepl.conflict
    where decided_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)
      and (outcome <> 'pending' or resolved_at is not null)
    order by decided_at limit 1000)";
const LEFT_OUT: &str = "delete from mmrepl.conflict_left_out
    where minute < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)";

/// Prunes what was decided on `node` longer than `keep` ago, until `stop`.
///
/// Failures pass or are shown by the node's links; the next look tries again.
pub async fn run(cluster: ClusterName, node: Node, keep: Duration, stop: CancellationToken) {
    let every = (keep / 10).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    let mut client: Option<Client> = None;
    let pruning = async {
        loop {
            tokio::time::sleep(every).await;
            if client.as_ref().is_none_or(Client::is_closed) {
                client = control(&node.dsn, &format!("mmrepl {cluster} prune"))
                    .await
                    .ok();
            }
            if let Some(client) = &client
                && let Err(error) = prune(client, keep).await
            {
                tracing::debug!(node = %node.name, %error, "cannot prune the history of conflicts");
            }
        }
    };
    tokio::select! {
        () = pruning => {}
        () = stop.cancelled() => {}
    }
}

async fn prune(client: &Client, keep: Duration) -> Result<(), tokio_postgres::Error> {
    let seconds = keep.as_secs_f64();
    while client.execute(CONFLICTS, &[&seconds]).await? == BATCH {
        tokio::time::sleep(PAUSE).await;
    }
    client.execute(LEFT_OUT, &[&seconds]).await.map(drop)
}
