//! What every command has: the file that describes the cluster, threads, and the way to refuse.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use super::output;
use crate::config::{Config, ConfigError};

/// The exit code of a command that could not do what it was asked.
pub const FAILED: u8 = 2;

/// How long blocking work may go on once a command is done.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(200);

/// The file that describes the cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArg {
    /// The cluster's configuration [default: /etc/mmrepl/cluster.toml]
    #[arg(long, global = true, env = crate::config::PATH_VARIABLE, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArg {
    /// Reads and checks the file.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let env = |name: &str| std::env::var(name).ok();
        crate::config::load(&crate::config::search_path(self.config.as_deref(), &env))
    }
}

/// Runs a command on so many threads.
pub(super) fn on_threads(threads: usize, command: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // A name look-up that hangs does not keep the process.
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
            code
        }
        Err(error) => refuse(&error),
    }
}

/// Says why nothing was done.
pub(super) fn refuse(error: &dyn Display) -> ExitCode {
    output::error(error);
    ExitCode::from(FAILED)
}
