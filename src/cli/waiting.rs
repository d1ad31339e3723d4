//! What a command says while a server keeps it waiting: for whom, and how to end that.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::output;
use crate::catalog::lock_waits::longest_wait;
use crate::config::{Config, Node};
use crate::lock_wait::{LockWait, sentence};
use crate::wire::control;

/// How often servers are asked. Most commands have ended before the first time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A shorter wait is not worth a word.
const SHOWN_AFTER: Duration = Duration::from_millis(400);
/// How often the same is said again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// A server without an answer is for the command itself to notice.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Runs a command and tells, on standard error, whom its sessions wait for, which have `purpose` in
/// their names.
pub(super) async fn watched<T>(
    config: &Config,
    purpose: &str,
    command: impl Future<Output = T>,
) -> T {
    tokio::select! {
        result = command => result,
        never = watch(config, purpose) => match never {},
    }
}

async fn watch(config: &Config, purpose: &str) -> std::convert::Infallible {
    let nodes = config.nodes.iter();
    join_all(nodes.map(|node| watch_node(config, purpose, node))).await;
    // A cluster has nodes, and none of them is ever done with.
    std::future::pending().await
}

async fn watch_node(config: &Config, purpose: &str, node: &Node) -> std::convert::Infallible {
    let ours = format!("mmrepl {} {purpose}", config.cluster);
    let mut client: Option<Client> = None;
    let mut seen: Option<Seen> = None;
    loop {
        sleep(LOOK_EVERY).await;
        if client.as_ref().is_none_or(Client::is_closed) {
            let name = format!("mmrepl {} waits", config.cluster);
            client = control(&node.dsn, &name).await.ok();
        }
        let Some(client) = &client else { continue };
        let found = timeout(ANSWER_LIMIT, longest_wait(client, &ours)).await;
        let Ok(Ok(Some(wait))) = found else { continue };
        let before = seen.take();
        let now = before.filter(|before| before.wait.is_like(&wait));
        let now = seen.insert(now.unwrap_or_else(|| Seen::first(wait)));
        if now.is_worth_a_word() {
            output::waiting(&sentence(&node.name, &now.wait));
            now.told = Some(Instant::now());
        }
    }
}

/// Each attempt at a lock is a wait of its own, and whom it waits for stays who it is.
struct Seen {
    wait: LockWait,
    first: Instant,
    told: Option<Instant>,
}

impl Seen {
    fn first(wait: LockWait) -> Self {
        Self {
            wait,
            first: Instant::now(),
            told: None,
        }
    }

    fn is_worth_a_word(&self) -> bool {
        match self.told {
            Some(told) => told.elapsed() >= REPEAT_AFTER,
            None => self.first.elapsed() >= SHOWN_AFTER,
        }
    }
}
