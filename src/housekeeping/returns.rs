//! Lets rows that are kept aside on the node's own server return (`apply::Returner`).

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::apply::{ApplyError, Origins, Returner, apply_session};
use crate::catalog::CatalogError;
use crate::catalog::slots::origins;
use crate::config::{Config, Node};
use crate::error::Retryable;
use crate::failpoint::returns_are_held;
use crate::ids::{NodeName, return_origin_name};
use crate::status::node::NodeMonitor;
use crate::wire::{WireError, control};

/// Between two looks at what is kept aside.
const PERIOD: Duration = Duration::from_secs(1);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// SQLSTATEs of a server on which `init` of this version was not run.
const NOT_SET_UP: [&str; 2] = ["3F000", "42P01"];

/// How long a return waits for local writers: meanwhile no link could write the table.
const LOCK_TIMEOUT: &str = "2s";

/// Why nothing can return for now.
#[derive(Debug, thiserror::Error)]
enum ReturnError {
    /// The server cannot be reached.
    #[error(transparent)]
    Reach(#[from] WireError),
    /// Its catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A return failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl ReturnError {
    fn is_not_set_up(&self) -> bool {
        let state = match self {
            Self::Reach(source) => source.sqlstate(),
            Self::Catalog(source) => source.sqlstate(),
            Self::Apply(source) => source.sqlstate(),
        };
        state.is_some_and(|state| NOT_SET_UP.contains(&state))
    }
}

/// Lets rows return on the server of `own` until `stop`.
pub async fn run(config: Config, own: Node, monitor: NodeMonitor, stop: CancellationToken) {
    let (mut returner, mut told) = (None, String::new());
    let returning = async {
        loop {
            if returns_are_held() {
                sleep(PERIOD / 10).await;
                continue;
            }
            match pass(&config, &own, &monitor, &mut returner).await {
                Ok(0) => {
                    told.clear();
                    sleep(PERIOD).await;
                }
                // What went may let others return.
                Ok(_) => {}
                Err(error) => {
                    returner = None;
                    let reason = error.to_string();
                    // A server that is away is normal life: logged when it changes.
                    if !error.is_not_set_up() && reason != told {
                        let node = &own.name;
                        tracing::warn!(%node, %error, "rows kept aside cannot return now");
                        told = reason;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(returning).await;
}

/// One look; says how many rows are not kept aside any more.
async fn pass(
    config: &Config,
    own: &Node,
    monitor: &NodeMonitor,
    returner: &mut Option<Returner>,
) -> Result<u64, ReturnError> {
    if returner.is_none() {
        *returner = Some(connect(config, own).await?);
    }
    let returner = returner.as_mut().expect("connected just above");
    let look = returner.pass().await?;
    monitor.set_shadows(look.kept, look.gone);
    Ok(look.gone)
}

async fn connect(config: &Config, own: &Node) -> Result<Returner, ReturnError> {
    let name = format!("mmrepl {} {} returns", config.cluster, own.name);
    let client = control(&own.dsn, &name).await?;
    // A killed daemon's session holds its origin until the server notices.
    let end = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
               where application_name = $1 and pid <> pg_catalog.pg_backend_pid()";
    client
        .query(end, &[&name])
        .await
        .map_err(CatalogError::query("end connections left behind"))?;
    let session = apply_session(&own.dsn, &name, LOCK_TIMEOUT).await?;
    let ids = origins(&client).await?;
    let names: Vec<NodeName> = config.nodes.iter().map(|node| node.name.clone()).collect();
    let ends = (own.name.clone(), own.name.clone());
    let origins = Origins::of_server(&config.cluster, &names, ends, &ids);
    let has_origin = |node: &NodeName| ids.contains_key(&return_origin_name(&config.cluster, node));
    let nodes = names.into_iter().filter(has_origin).collect();
    Ok(Returner::new(
        session,
        client,
        (origins, nodes),
        config.rules(),
    ))
}
