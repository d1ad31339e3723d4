//! The `mmrepl` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mmrepl::cli::main()
}
