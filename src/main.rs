//! The `mmrepl` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    mmrepl::cli::main().await
}
