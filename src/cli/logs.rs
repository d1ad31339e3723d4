//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::log_format::LogFormat;
use super::log_pipe::LogPipe;

/// The environment variable that filters log lines, in the syntax of `tracing-subscriber`.
const FILTER_VARIABLE: &str = "MMREPL_LOG";

/// What is logged when nobody says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Always in force. `tokio_postgres` logs statements with their parameters, which are row values,
/// at `debug`; what sled has to say of a damaged store is said by `checkpoint`, in context.
const CAPS: [&str; 2] = ["tokio_postgres=warn", "sled=off"];

/// Starts logging; once per process.
pub(super) fn start(format: LogFormat) -> Result<(), String> {
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let text = if text.is_empty() {
        DEFAULT_FILTER
    } else {
        &text
    };
    let mut filter = EnvFilter::try_new(text)
        .map_err(|error| format!("${FILTER_VARIABLE} is not a log filter: {error}"))?;
    for cap in CAPS {
        filter = filter.add_directive(cap.parse().expect("a constant directive parses"));
    }
    let colour = std::io::stderr().is_terminal();
    let pipe = LogPipe::start(format, colour);
    let pipe = pipe.map_err(|error| format!("cannot start the thread that logs: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Else a line that cannot be written is told on standard error, which panics.
        .log_internal_errors(false)
        .with_writer(pipe);
    let started = match format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("cannot start logging: {error}"))
}
