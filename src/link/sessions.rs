//! The connections of a link to its two servers: their names, and taking over from those that an
//! earlier run left behind.

use std::time::Duration;

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use crate::apply::{Origins, apply_session};
use crate::catalog::CatalogError;
use crate::config::Node;
use crate::error::Retryable;
use crate::ids::NodeName;
use crate::wire::{Session, WireError, control, from_tokio_postgres};

/// The role, in its name, of the session that applies what is still running on the source.
pub(super) const RUNNING: &str = "apply running";
/// SQLSTATE `object_in_use`: another connection holds the slot or the origin.
pub(super) const OBJECT_IN_USE: &str = "55006";
/// How often a slot or origin held by our own dead connection is asked for again.
pub(super) const TAKE_OVER_TRIES: u32 = 20;
/// The pause between two such tries.
pub(super) const TAKE_OVER_PAUSE: Duration = Duration::from_millis(250);
/// How long an apply session waits for a lock.
pub(super) const LOCK_TIMEOUT: &str = "30s";
/// The same while a transaction that is still running on the source is open beside it, and for the
/// session of that transaction.
pub(super) const LOCK_TIMEOUT_BESIDE_RUNNING: &str = "2s";

/// What a server does not have where `init` of an older version was run.
pub(super) const OLD_SCHEMA: &str = "schema mmrepl of this version";

/// `mmrepl shop east->west apply`, by which an operator and we ourselves know a connection.
pub(super) fn application_name(context: &LinkContext, role: &str) -> String {
    format!("mmrepl {} {} {role}", context.cluster, context.link)
}

/// A control connection to one of the link's nodes.
pub(super) async fn open_control(context: &LinkContext, node: &Node) -> Result<Client, LinkError> {
    let name = application_name(context, "control");
    let client = control(&node.dsn, &name).await;
    let client = client.map_err(|source| at(&node.name, source))?;
    // Catalog look-ups wait for locks too.
    let limit = format!("set lock_timeout = '{LOCK_TIMEOUT}'");
    let limited = client.batch_execute(&limit).await;
    limited.map_err(|error| at(&node.name, from_tokio_postgres(error)))?;
    Ok(client)
}

pub(super) fn at(node: &NodeName, source: WireError) -> LinkError {
    LinkError::Node {
        node: node.clone(),
        source,
    }
}

pub(super) fn catalog_at(node: &NodeName) -> impl Fn(CatalogError) -> LinkError + '_ {
    move |source| LinkError::Catalog {
        node: node.clone(),
        source,
    }
}

/// A missing schema or table `mmrepl` means that `init` has not been run.
pub(super) fn not_set_up(node: &Node, error: CatalogError) -> LinkError {
    let node = node.name.clone();
    match error.sqlstate() {
        Some("42P01" | "3F000") => LinkError::NotSetUp {
            node,
            what: "schema mmrepl".to_owned(),
        },
        Some("42703") => LinkError::NotSetUp {
            node,
            what: OLD_SCHEMA.to_owned(),
        },
        _ => LinkError::Catalog {
            node,
            source: error,
        },
    }
}

/// Opens the apply session and gives it the link's origin, which only one session can hold: from
/// then on nobody else applies this link.
pub(super) async fn open_session(
    context: &LinkContext,
    control: &Client,
    (role, origins): (&str, &Origins),
) -> Result<Session, LinkError> {
    let node = &context.target;
    let name = application_name(context, role);
    let session = apply_session(&node.dsn, &name, LOCK_TIMEOUT).await;
    let mut session = session.map_err(|source| at(&node.name, source))?;
    if origins.is_pair() {
        // What it deletes leaves no tombstones: `mmrepl.applies_from_only_peer`.
        let only_peer = session.simple("set mmrepl.only_peer = on").await;
        only_peer.map_err(|source| at(&node.name, source))?;
    }
    let origin = origins.session_origin();
    let take = format!("select pg_catalog.pg_replication_origin_session_setup('{origin}')");
    for _ in 0..TAKE_OVER_TRIES {
        match session.simple(&take).await {
            Ok(_) => return Ok(session),
            Err(error) if error.sqlstate() == Some(OBJECT_IN_USE) => {
                end_backends(control, &name, session.backend_pid()).await;
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) if error.sqlstate() == Some("42704") => {
                let what = format!("replication origin {origin}");
                return Err(LinkError::NotSetUp {
                    node: node.name.clone(),
                    what,
                });
            }
            Err(error) => return Err(at(&node.name, error)),
        }
    }
    session
        .simple(&take)
        .await
        .map_err(|source| at(&node.name, source))?;
    Ok(session)
}

/// Ends connections that an earlier run of this link left behind: a killed daemon's connection
/// lives on at the server until it notices. Errors are left to the next try.
pub(super) async fn end_backends(control: &Client, application_name: &str, but_not: i32) {
    let sql = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
               where application_name = $1 and pid <> $2 and pid <> pg_catalog.pg_backend_pid()";
    if let Err(error) = control.query(sql, &[&application_name, &but_not]).await {
        tracing::warn!(%application_name, %error, "cannot end a connection left behind");
    }
}
