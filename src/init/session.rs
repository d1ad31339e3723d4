//! One control connection to one node, with pinned settings.

use tokio_postgres::Client;

use super::InitError;
use crate::config::{Config, Node};
use crate::ids::NodeName;
use crate::wire::WireError;
use crate::wire::{control, from_tokio_postgres};

/// Settings that text must not depend on, and waits that must end: an application that holds a lock
/// is not made to queue behind `init` for longer than this.
const PINNED: &str = "
set search_path = '';
set client_encoding = 'UTF8';
set datestyle = 'ISO, YMD';
set intervalstyle = 'postgres';
set timezone = 'UTC';
set extra_float_digits = 1;
set bytea_output = 'hex';
set lc_monetary = 'C';
set xmloption = 'content';
set standard_conforming_strings = on;
set row_security = off;
set statement_timeout = 0;
set idle_in_transaction_session_timeout = 0;
set lock_timeout = '5s';";

/// How often a step is tried again while an application holds a lock.
const LOCK_TRIES: usize = 6;

/// A connection and the node it leads to.
pub(super) struct Session {
    pub(super) node: Node,
    pub(super) client: Client,
}

impl Session {
    /// Connects and pins the settings.
    pub(super) async fn open(config: &Config, node: &Node) -> Result<Self, WireError> {
        let name = format!("mmrepl {} init", config.cluster);
        let client = control(&node.dsn, &name).await?;
        client
            .batch_execute(PINNED)
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

    /// Runs the statements in one transaction; when a lock is not to be had, tries again a few
    /// times.
    pub(super) async fn transaction(&self, what: &str, sql: &[String]) -> Result<(), InitError> {
        let batch = format!("begin;\n{};\ncommit;", sql.join(";\n"));
        let mut tries_left = LOCK_TRIES;
        loop {
            tries_left -= 1;
            let result = self.batch(what, &batch).await;
            if result.is_err() {
                self.batch("roll back", "rollback").await?;
            }
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
