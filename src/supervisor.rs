//! The daemon: every link that starts at one node, its checkpoint store and its HTTP server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, PauseControl, PeerDaemons};
use crate::catalog::link_control::set_paused;
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::config::{Config, ConfigError, Node};
use crate::fault;
use crate::history::prune;
use crate::housekeeping;
use crate::ids::{LinkName, NodeName};
use crate::link::{self, Foreign, Home, LinkContext, QUEUE_BYTES_MAX, QUEUE_ROWS_MAX, WINDOW_ROWS};
use crate::status::monitor::LinkMonitor;
use crate::status::node::NodeMonitor;
use crate::wire::control;

/// How long links may take to finish the transaction in hand when the daemon is told to stop.
const STOP_LIMIT: Duration = Duration::from_millis(3_500);

/// Why the daemon could not start. Once it runs, nothing but a signal ends it.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The node is not in the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint store cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The HTTP server cannot start.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
}

/// Runs the daemon of `node` until `stop`.
pub async fn run(
    config: Config,
    node: NodeName,
    data_dir: &Path,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let home = Home::of(config.node(&node)?);
    let config = config.beside(&node);
    let own = config.node(&node)?.clone();
    let checkpoints = open_checkpoints(data_dir).await?;
    let contexts = contexts(&config, &own, (&checkpoints, &home))?;
    let monitors: Vec<LinkMonitor> = contexts.iter().map(|link| link.monitor.clone()).collect();
    let about_node = NodeMonitor::new(node.clone());
    let state = admin_state(&config, &own, monitors.clone(), about_node.clone());
    let server = admin::bind(own.admin, own.admin_token_file.as_deref(), state).await?;
    let links = TaskTracker::new();
    for context in contexts {
        links.spawn(link::run(context, stop.clone()));
    }
    keep_house(&links, &config, (&own, &about_node), &stop);
    links.close();
    let serving = tokio::spawn(server.serve(stop.clone()));
    tracing::info!(%node, links = monitors.len(), admin = %own.admin, "mmrepl runs");
    stop.cancelled().await;
    if tokio::time::timeout(STOP_LIMIT, links.wait())
        .await
        .is_err()
    {
        tracing::warn!("a link did not stop in time; its open transaction is rolled back");
    }
    serving.abort();
    checkpoints.close().await;
    Ok(())
}

/// What the daemon does for its own node beside the links; a fault in it is not its end.
fn keep_house(
    tasks: &TaskTracker,
    config: &Config,
    (own, about_node): (&Node, &NodeMonitor),
    stop: &CancellationToken,
) {
    let all = (
        config.clone(),
        own.clone(),
        about_node.clone(),
        stop.clone(),
    );
    let (config, own, _, stop) = all.clone();
    tasks.spawn(fault::forever(move || {
        let keep = config.conflict.history;
        prune::run(config.cluster.clone(), own.clone(), keep, stop.clone())
    }));
    let (config, own, about, stop) = all.clone();
    tasks.spawn(fault::forever(move || {
        housekeeping::returns::run(config.clone(), own.clone(), about.clone(), stop.clone())
    }));
    let (config, own, about, stop) = all.clone();
    tasks.spawn(fault::forever(move || {
        housekeeping::inspection::run(config.clone(), own.clone(), about.clone(), stop.clone())
    }));
    let (config, own, about, stop) = all;
    tasks.spawn(fault::forever(move || {
        housekeeping::run(config.clone(), own.clone(), about.clone(), stop.clone())
    }));
}

async fn open_checkpoints(data_dir: &Path) -> Result<Checkpoints, DaemonError> {
    let dir = data_dir.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || Checkpoints::open(&dir)).await;
    let (checkpoints, notice) = opened.expect("opening the store does not panic")?;
    if let Some(notice) = notice {
        tracing::error!(%notice, "checkpoint store");
    }
    Ok(checkpoints)
}

fn contexts(
    config: &Config,
    own: &Node,
    (checkpoints, home): (&Checkpoints, &Home),
) -> Result<Vec<LinkContext>, ConfigError> {
    let nodes: Vec<NodeName> = config.nodes.iter().map(|node| node.name.clone()).collect();
    let context = |link: LinkName| {
        Ok(LinkContext {
            cluster: config.cluster.clone(),
            source: own.clone(),
            target: config.node(&link.to)?.clone(),
            nodes: nodes.clone(),
            max_clock_skew: config.conflict.max_clock_skew,
            rules: config.rules(),
            streaming: config.streaming,
            apply_workers: config.apply_workers,
            recorded_per_minute: config.conflict.history_per_minute,
            checkpoints: checkpoints.clone(),
            monitor: monitor(link.clone()),
            foreign: Foreign::default(),
            home: home.clone(),
            link,
        })
    };
    config
        .links_from(&own.name)
        .into_iter()
        .map(context)
        .collect()
}

fn monitor(link: LinkName) -> LinkMonitor {
    let monitor = LinkMonitor::new(link);
    monitor.set_limits(
        QUEUE_ROWS_MAX.into(),
        QUEUE_BYTES_MAX.into(),
        WINDOW_ROWS as u64,
    );
    monitor
}

fn admin_state(
    config: &Config,
    own: &Node,
    links: Vec<LinkMonitor>,
    about_node: NodeMonitor,
) -> AdminState {
    let peers = config.peers_of(&own.name).into_iter().cloned().collect();
    let incoming = PeerDaemons::new(config.cluster.clone(), own.name.clone(), peers);
    let control = Pausing {
        source: own.clone(),
        links: links.clone(),
    };
    AdminState {
        cluster: config.cluster.clone(),
        node: own.name.clone(),
        links,
        about_node,
        control: Arc::new(control),
        incoming: Arc::new(incoming),
    }
}

/// Pauses links by a row on the source server, which outlives the daemon.
struct Pausing {
    source: Node,
    links: Vec<LinkMonitor>,
}

impl PauseControl for Pausing {
    fn set_paused<'a>(
        &'a self,
        link: &'a LinkName,
        paused: bool,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let client = control(&self.source.dsn, "mmrepl control").await;
            let client = client.map_err(|error| format!("{}: {error}", self.source.name))?;
            set_paused(&client, link, paused)
                .await
                .map_err(|error| error.to_string())?;
            for monitor in self.links.iter().filter(|monitor| monitor.link() == link) {
                if paused {
                    monitor.pause();
                } else {
                    monitor.resume();
                }
            }
            Ok(())
        })
    }
}
