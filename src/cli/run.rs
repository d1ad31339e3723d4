//! `mmrepl run`: the daemon.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigArg, on_threads, refuse};
use crate::config::Config;
use crate::ids::NodeName;
use crate::supervisor;

/// Where a node's data directory lies when nothing else is said.
const DATA_DIR: &str = "/var/lib/mmrepl";

/// The command line of `mmrepl run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The node beside which this daemon runs
    #[arg(long, env = "MMREPL_NODE", value_name = "NAME")]
    pub node: NodeName,
    /// Where the daemon keeps its checkpoints [default: /var/lib/mmrepl/NAME]
    #[arg(long, env = "MMREPL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Runs every link that starts at the node until SIGTERM or SIGINT. Exit code 0, or 2 when the
/// daemon could not start; a server that is down does not keep it from starting.
pub fn run(args: RunArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let threads = threads_for(config.links_from(&args.node).len());
    on_threads(threads, daemon(args, config))
}

/// One thread for each link to apply on, beside the one it reads on: more would only wake each
/// other with nothing to do, which at a steady trickle costs a fifth of the daemon's time.
fn threads_for(links: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    links.clamp(1, cores)
}

async fn daemon(args: RunArgs, config: Config) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        return refuse(&error);
    }
    let data_dir = args
        .data_dir
        .unwrap_or_else(|| PathBuf::from(DATA_DIR).join(args.node.as_str()));
    match supervisor::run(config, args.node, &data_dir, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// The first signal asks the daemon to finish the transaction in hand and stop.
fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
