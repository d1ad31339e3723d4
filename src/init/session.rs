//! One control connection to one node.

use tokio_postgres::Client;

use super::InitError;
use crate::catalog::init_session;
use crate::catalog::search_path::{describe, may_be_by_search_path, of_event_triggers};
use crate::config::{Config, Node};
use crate::error::Retryable;
use crate::ids::NodeName;
use crate::wire::WireError;
use crate::wire::{control, from_tokio_postgres};

/// An application that holds a lock is not made to queue behind `init` for longer than this; and
/// triggers do not follow what `init` itself does to a table (`migrations/functions/follow.sql`).
const SETTINGS: &str = "set lock_timeout = '5s'; set mmrepl.following = 'on'";

/// How often a step is tried again while an application holds a lock.
pub(super) const LOCK_TRIES: usize = 6;

/// A connection and the node it leads to.
pub(super) struct Session {
    pub(super) node: Node,
    pub(super) client: Client,
}

impl Session {
    /// Connects.
    pub(super) async fn open(config: &Config, node: &Node) -> Result<Self, WireError> {
        Self::open_as(&init_session::name(&config.cluster), node).await
    }

    /// The same under another name.
    pub(super) async fn open_as(name: &str, node: &Node) -> Result<Self, WireError> {
        let client = control(&node.dsn, name).await?;
        client
            .batch_execute(SETTINGS)
            .await
            .map_err(from_tokio_postgres)?;
        Ok(Self {
            node: node.clone(),
            client,
        })
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Runs statements that manage their own transaction, or none.
    pub(super) async fn batch(&self, what: &str, sql: &str) -> Result<(), InitError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(InitError::server(self.name(), what))
    }

    /// The error, with the event triggers that may be its cause.
    pub(super) async fn blaming_event_triggers(&self, error: InitError) -> InitError {
        if !may_be_by_search_path(error.sqlstate()) {
            return error;
        }
        let found = of_event_triggers(&self.client).await;
        match found.ok().and_then(|found| describe(&found)) {
            Some(triggers) => InitError::EventTrigger {
                source: Box::new(error),
                triggers,
            },
            None => error,
        }
    }

    /// Runs the statements in one transaction; when a lock is not to be had, tries again a few
    /// times.
    pub(super) async fn transaction(&self, what: &str, sql: &[String]) -> Result<(), InitError> {
        let batch = format!("begin;\n{};\ncommit;", sql.join(";\n"));
        let mut tries_left = LOCK_TRIES;
        loop {
            tries_left -= 1;
            let result = self.batch(what, &batch).await;
            let result = match result {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.batch("roll back", "rollback").await?;
                    Err(self.blaming_event_triggers(error).await)
                }
            };
            match result {
                Err(InitError::Locked { .. }) if tries_left > 0 => {}
                result => return result,
            }
        }
    }
}

/// The session of a node; every node of a plan has one.
pub(super) fn of<'a>(sessions: &'a [Session], node: &NodeName) -> &'a Session {
    sessions
        .iter()
        .find(|session| session.name() == node)
        .expect("init goes on only when every node was reached")
}
