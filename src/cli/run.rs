//! `mmrepl run`: the daemon.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::log_pipe;
use super::shared::{ConfigArg, on_threads, refuse};
use crate::config::Config;
use crate::fault::log_panics;
use crate::ids::NodeName;
use crate::supervisor;

/// Where a node's data directory lies when nothing else is said.
const DATA_DIR: &str = "/var/lib/mmrepl";
/// A daemon that was told to stop has ended after this long, and the last log lines are written.
const END_LIMIT: Duration = Duration::from_millis(4_300);

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
    log_panics();
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

/// The first signal asks the daemon to finish the transaction in hand and stop. Signals have a
/// thread of their own, so that they are heard whatever keeps the others.
fn stop_on_signals(stop: &CancellationToken) -> io::Result<()> {
    let (told, heard) = mpsc::channel();
    let stop = stop.clone();
    let listen = move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let listening = runtime.and_then(|runtime| {
            let signals = runtime.block_on(async { Signals::listen() });
            Ok((signals?, runtime))
        });
        match listening {
            Ok((signals, runtime)) => {
                // Whoever asked waits for it.
                let _ = told.send(Ok(()));
                runtime.block_on(signals.obey(&stop));
            }
            Err(error) => drop(told.send(Err(error))),
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)?;
    heard
        .recv()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The signals that mean something to a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the end. A daemon that has not ended by itself after a while is ended: what is
    /// open on the target is rolled back, and comes again after the next start.
    async fn obey(mut self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => tracing::info!(
                    "SIGHUP: the daemon goes on; start it again to have it read the configuration"
                ),
            }
        }
        tracing::info!("stopping");
        stop.cancel();
        tokio::time::sleep(END_LIMIT).await;
        tracing::warn!("something did not stop in time");
        log_pipe::flush();
        std::process::exit(0);
    }
}
