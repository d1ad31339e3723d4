//! The daemons of both nodes, and what they say of their links.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{Cluster, Daemon, Side};
use crate::server_log::WorkerError;

const LINKS: [&str; 2] = ["east->west", "west->east"];

/// Both daemons, running.
pub(crate) struct MmreplLinks {
    cluster: Cluster,
    /// By link and time, so that each is counted once.
    errors: BTreeMap<(String, String), WorkerError>,
    _daemons: [Daemon; 2],
}

impl MmreplLinks {
    /// `rule` is put into the configuration.
    pub(crate) fn start(dir: &Path, (east, west): (&Side, &Side), rule: &str) -> Self {
        let nodes = [("east", east.dsn()), ("west", west.dsn())];
        let cluster = Cluster::new(dir, &nodes, rule);
        cluster.run(&["init"]);
        Self {
            _daemons: ["east", "west"].map(|node| cluster.start_daemon(node)),
            cluster,
            errors: BTreeMap::new(),
        }
    }

    pub(crate) fn switch(&self, on: bool) {
        for link in LINKS {
            let word = if on { "resume" } else { "pause" };
            self.cluster.run(&[word, link]);
        }
    }

    /// Errors of the links so far, in order of time for each link.
    pub(crate) fn errors(&mut self) -> Vec<WorkerError> {
        let status = self.cluster.command(&["status", "--json"]).output();
        for link in links(&status.expect("mmrepl runs")) {
            let error = &link["last_error"];
            if let Some(at) = error["at"].as_str() {
                let key = (link["from"].to_string(), at.to_owned());
                self.errors.insert(key, worker_error(error));
            }
        }
        self.errors.values().cloned().collect()
    }
}

fn links(status: &Output) -> Vec<Value> {
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["links"].as_array().cloned().unwrap_or_default()
}

fn worker_error(error: &Value) -> WorkerError {
    let text = |field: &str| error[field].as_str().map(str::to_owned);
    WorkerError {
        sqlstate: text("sqlstate").unwrap_or_else(|| "no SQLSTATE".to_owned()),
        message: text("message").unwrap_or_default(),
    }
}
