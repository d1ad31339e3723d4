//! Makes the slots of one node, all beginning at the same point, with a snapshot of that point.

use super::InitError;
use super::publication;
use std::time::Duration;

use super::planned::LinkWork;
use super::session::Session;
use crate::catalog::init_session;
use crate::catalog::position::{KNOWN_NOW, RESET_POSITION, Witness};
use crate::catalog::server::Server;
use crate::catalog::slots::slot_state;
use crate::config::Config;
use crate::error::Retryable;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::lineage::gather::make_witness;
use crate::lsn::Lsn;
use crate::wire::{ReplicationConnection, RowExt};

/// The new slots of one node. The snapshot lives as long as the connection is open and unused.
pub(super) struct MadeSlots {
    pub(super) node: NodeName,
    pub(super) snapshot: String,
    /// Links and where their streams begin.
    pub(super) starts: Vec<(LinkName, Lsn)>,
    pub(super) known: Known,
    _connection: ReplicationConnection,
}

/// What the node says of itself at the point where its slots begin.
pub(super) struct Known {
    clock: String,
    seen: Option<String>,
}

async fn known_now(session: &Session) -> Result<Known, InitError> {
    let row = session.client.query_one(KNOWN_NOW, &[]).await;
    let row = row.map_err(InitError::server(
        session.name(),
        "read what it has applied",
    ))?;
    let unread = || InitError::unread(session.name());
    Ok(Known {
        clock: row.read(0).map_err(unread())?,
        seen: row.read(1).map_err(unread())?,
    })
}

/// Makes the slots for `work`, all links that start at the session's node.
pub(super) async fn make(
    config: &Config,
    session: &Session,
    work: &[&LinkWork],
) -> Result<Option<MadeSlots>, InitError> {
    let Some((first, rest)) = work.split_first() else {
        return Ok(None);
    };
    for link in work.iter().filter(|work| work.slot_left) {
        drop_slot(session, &slot_name(&config.cluster, &link.link.to)).await?;
    }
    let what = format!("make the replication slot of {}", first.link);
    let failed = || InitError::wire(session.name(), what.clone());
    let name = init_session::name(&config.cluster);
    let mut connection = ReplicationConnection::connect(&session.node.dsn, &name)
        .await
        .map_err(failed())?;
    // The exported snapshot is an open transaction of that connection, idle for as long as rows are
    // compared or copied.
    let patience = "set idle_in_transaction_session_timeout = 0";
    connection.simple(patience).await.map_err(failed())?;
    let slot = slot_name(&config.cluster, &first.link.to);
    let created = connection
        .create_slot(&slot, true)
        .await
        .map_err(failed())?;
    remember_publication(session, work).await?;
    let mut starts = vec![(first.link.clone(), start_of(session, &slot).await?)];
    for link in rest {
        let copy = slot_name(&config.cluster, &link.link.to);
        copy_slot(session, &slot, &copy).await?;
        starts.push((link.link.clone(), start_of(session, &copy).await?));
    }
    let snapshot = created.snapshot.unwrap_or_default();
    Ok(Some(MadeSlots {
        node: session.name().clone(),
        snapshot,
        starts,
        known: known_now(session).await?,
        _connection: connection,
    }))
}

/// A slot made now knows the publication that there is.
async fn remember_publication(session: &Session, work: &[&LinkWork]) -> Result<(), InitError> {
    let statements = work.iter().map(|work| &work.link);
    let statements: Vec<String> = statements
        .map(|link| publication::remember_publication(Some(link)))
        .collect();
    let what = "remember the publication";
    session.transaction(what, &statements).await
}

/// A copy begins exactly where the original does, so one snapshot is right for both.
async fn copy_slot(session: &Session, from: &str, to: &str) -> Result<(), InitError> {
    let sql = "select lsn
               from pg_catalog.pg_copy_logical_replication_slot($1::text::name, $2::text::name)";
    let copied = session.client.query_one(sql, &[&from, &to]).await;
    copied.map_err(InitError::server(
        session.name(),
        format!("make replication slot {to}"),
    ))?;
    Ok(())
}

async fn start_of(session: &Session, slot: &str) -> Result<Lsn, InitError> {
    let state = slot_state(&session.client, slot)
        .await
        .map_err(InitError::catalog(session.name()))?;
    let confirmed = state.and_then(|state| state.confirmed_flush);
    Ok(confirmed.unwrap_or(Lsn::ZERO))
}

/// How often a slot is looked at again that is in use, as a daemon whose link has failed takes it
/// for a moment whenever it tries again.
const IN_USE_TRIES: u32 = 30;
const IN_USE_PAUSE: Duration = Duration::from_millis(100);

/// The process that goes on using the slot, if any does.
pub(super) async fn user(session: &Session, slot: &str) -> Result<Option<i32>, InitError> {
    let mut tries_left = IN_USE_TRIES;
    loop {
        tries_left -= 1;
        let state = slot_state(&session.client, slot).await;
        let state = state.map_err(InitError::catalog(session.name()))?;
        let pid = state.and_then(|state| state.active_pid);
        if pid.is_none() || tries_left == 0 {
            return Ok(pid);
        }
        tokio::time::sleep(IN_USE_PAUSE).await;
    }
}

/// Drops a slot if it is there.
pub(super) async fn drop_slot(session: &Session, slot: &str) -> Result<(), InitError> {
    let sql = "select pg_catalog.pg_drop_replication_slot(slot_name)
               from pg_catalog.pg_replication_slots where slot_name = $1";
    let mut tries_left = IN_USE_TRIES;
    loop {
        tries_left -= 1;
        let what = format!("drop replication slot {slot}");
        let dropped = session.client.execute(sql, &[&slot]).await;
        match dropped.map_err(InitError::server(session.name(), what)) {
            Err(InitError::Server { source, .. })
                if tries_left > 0 && source.sqlstate() == Some("55006") => {}
            result => return result.map(drop),
        }
        tokio::time::sleep(IN_USE_PAUSE).await;
    }
}

/// Leaves a transaction on the source that shows later that it still has what lies before.
pub(super) async fn leave_witness(
    source: &Session,
    link: &LinkName,
) -> Result<Option<Witness>, InitError> {
    let made = make_witness(&source.client, link).await;
    made.map_err(InitError::catalog(source.name()))
}

/// Writes where the link's target begins. From then on the link counts as set up.
pub(super) async fn write_position(
    target: &Session,
    source: &Server,
    (link, start): (&LinkName, Lsn),
    (known, witness): (&Known, Option<Witness>),
) -> Result<(), InitError> {
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &link.from.as_str(),
        &start.to_string(),
        &source.system_id.to_string(),
        &source.timeline.0.cast_signed(),
        &known.clock,
        &known.seen,
        &witness.map(|witness| witness.xid.to_string()),
        &witness.map(|witness| witness.time.to_string()),
    ];
    let written = target.client.execute(RESET_POSITION, &values).await;
    let what = format!("write the position of {link}");
    written.map_err(InitError::server(target.name(), what))?;
    Ok(())
}
