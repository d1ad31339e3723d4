//! What the workers of a server wrote into its log.

use std::path::PathBuf;

use crate::common::Side;

/// Set on every server, so that errors can be told apart.
pub(crate) const LINE_PREFIX: &str = "%m sqlstate=%e worker=%b ";

/// The part of a server's log that comes after a moment.
pub(crate) struct LogTail {
    path: PathBuf,
    start: usize,
}

/// An error of a worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerError {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

impl LogTail {
    pub(crate) fn from_now(side: &Side) -> Self {
        let mut tail = Self {
            path: side.server.log_path(),
            start: 0,
        };
        tail.start = tail.text().len();
        tail
    }

    fn text(&self) -> String {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.get(self.start..).unwrap_or_default().to_owned()
    }

    /// Errors of replication workers, the oldest first.
    pub(crate) fn errors(&self) -> Vec<WorkerError> {
        self.text().lines().filter_map(worker_error).collect()
    }

    /// What the postmaster says of a process that crashed.
    pub(crate) fn crash(&self) -> Option<String> {
        let text = self.text();
        let line = text
            .lines()
            .find(|line| line.contains("was terminated by signal"))?;
        Some(line.split("LOG:").last()?.trim().to_owned())
    }
}

/// A line such as `… sqlstate=23505 worker=logical replication apply worker ERROR:  duplicate …`.
fn worker_error(line: &str) -> Option<WorkerError> {
    let (before, message) = line.split_once("ERROR:")?;
    let (_, before) = before.split_once("sqlstate=")?;
    let (sqlstate, worker) = before.split_once(" worker=")?;
    let ours = worker.starts_with("logical replication") || worker.starts_with("pglogical");
    ours.then(|| WorkerError {
        sqlstate: sqlstate.to_owned(),
        message: message.trim().to_owned(),
    })
}
