//! `mmrepl demo`

use std::process::ExitCode;

/// Two throw-away primaries and both daemons on this machine, with a menu.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Play the whole tour without questions; fails if the nodes end up different.
    #[arg(long)]
    pub script: bool,
}

/// Exit 0 when all went well, 1 otherwise.
pub async fn run(arguments: &DemoArgs) -> ExitCode {
    match crate::demo::run(arguments.script).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mmrepl demo: {error}");
            ExitCode::FAILURE
        }
    }
}
